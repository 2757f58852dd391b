"""The configuration is checked wherever it is made: by its constructors, from nested values, and from settings by name."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.config import Config, InitialiseConfig, PreprocessConfig, RuntimeConfig, TrainConfig
from spikecrsae.errors import UsageError
from spikecrsae.simulate import SimulationConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PreprocessConfig(highpass_hz=-5), "preprocess.highpass_hz = -5.0 must be at least 0.1"),
        (lambda: PreprocessConfig(highpass_hz=10**400), "preprocess.highpass_hz = inf must be a finite number"),
        (lambda: PreprocessConfig(common_reference="mode"), "must be one of none, median, mean"),
        (lambda: InitialiseConfig(units=0), "initialise.units = 0 must be at least 1"),
        (lambda: TrainConfig(epochs=2.5), "train.epochs = 2.5 must be of type int"),
        (lambda: RuntimeConfig(seed=True), "runtime.seed = True must be of type int"),
        (lambda: PreprocessConfig(exclude_s="1-2,x"), "'x' in exclude_s is not an interval"),
        (lambda: PreprocessConfig(exclude_s="2-1"), "'2-1' in exclude_s: the start must come before the stop"),
        (lambda: Config(preprocess={"highpass_hz": 3}), "preprocess = {'highpass_hz': 3} must be a PreprocessConfig"),
        (lambda: Config(train=PreprocessConfig()), "must be a TrainConfig"),
        (lambda: SimulationConfig(drift=2), "drift = 2.0 must be at most 1"),
    ],
)
def test_a_bad_value_is_refused_on_construction(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_values_from_a_file_are_named_with_their_origin():
    with pytest.raises(UsageError, match=r"^mine\.toml: preprocess\.highpass_hz = -5\.0 must be"):
        Config().with_values({"preprocess": {"highpass_hz": -5}}, origin="mine.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"preprocess": {"highpas_hz": 300.0}},
            r"preprocess.highpas_hz does not exist; did you mean highpass_hz or lowpass_hz\?$",
        ),
        (
            {"preprocess": {"zzqq": 1}},
            r"preprocess.zzqq does not exist; spikecrsae sort --dump-config lists all settings\.$",
        ),
        ({"trian": {}}, r"table trian does not exist; did you mean train\?$"),
        ({"seed": {}}, "table seed does not exist; there are infer, initialise, preprocess, runtime, train"),
        ({"train": 5}, r"train = 5 must be a table, such as \[train\]"),
    ],
)
def test_an_unknown_name_in_a_file_is_answered_with_a_near_one(values, message):
    with pytest.raises(UsageError, match=message):
        Config().with_values(values)


def test_settings_go_by_their_last_names_and_take_numpy_numbers():
    config = Config().with_settings(highpass_hz=np.int64(300), seed=np.int32(2), units="auto")
    assert (config.preprocess.highpass_hz, config.runtime.seed, config.initialise.units) == (300.0, 2, None)
    assert type(config.preprocess.highpass_hz) is float and type(config.runtime.seed) is int
    with pytest.raises(UsageError, match="did you mean detection_threshold"):
        Config().with_settings(detection_treshold=5.0)
    with pytest.raises(UsageError, match=r"^zzqq does not exist; print\(Config\(\)\.to_toml\(\)\) lists all settings\.$"):
        Config().with_settings(zzqq=1)
    with pytest.raises(UsageError, match="highpass_hz = -1"):
        Config().with_settings(highpass_hz=-1.0)


def test_no_name_of_a_setting_stands_in_two_stages():
    assert len(Config.stages()) == sum(len(table) for table in Config().to_dict().values())
