"""What a model.pt holds: every name with its kind, and the sizes that must agree. A file from elsewhere is held against it
before a number of it is used: compiled loops do not look whether an index lies within an array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.config import Config, InitialiseConfig, PreprocessConfig
from spikecrsae.errors import InputError, UsageError
from spikecrsae.preprocess.filters import settling_samples
from spikecrsae.system.array_layout import LARGEST, check_array
from spikecrsae.units import ms_to_samples

_PREPROCESS, _INITIALISE = ({f.name: f.metadata for f in fields(stage)} for stage in (PreprocessConfig, InitialiseConfig))
#: Of one group of channels. Arrays are given by their kind and sizes (layout.check_array): n channels of the recording, c used
#: ones, k templates, w samples of a template, t taps, s sections. Numbers are given by their least and largest value, texts by
#: those that there are.
_LAYOUT: dict[str, Any] = {
    "n_channels": (1, 10**6),
    "amplitude_unit": str,
    "sampling_frequency": (1.0, 1e6),
    "usable": "b:n",
    "preprocessor": {
        "sos": "f:s6",
        "margin": (1, 10**9),
        "common_reference": list(_PREPROCESS["common_reference"]["choices"]),
        "noise_level": "f:c",
        "whitening_matrix": "f:cc",
        "whitening_filter": "f:ct",
        "quiet_fraction": (0.0, 1.0),
        "settling": (0, 10**9),
    },
    "slab": {"templates": "f:kcw", "spread": "f:k", "penalty": "f:k", "refractory": (0, 10**4), "n_shifts": (1, 64)},
    "dictionary": {"atoms": "f:kcw", "scale": "f:k"},
    "reported": "b:k",
    "lambda": (0.0, LARGEST),
    "sigma": (0.0, LARGEST),
    "config": dict,
}
_NAMES = {"c": "channels", "w": "samples of a template", "t": "taps of the whitening filter", "s": "sections of the filter"}


def check_model(saved: Mapping[str, Any], path: Path | str) -> None:
    """Raise InputError, naming the entry, where the model of one group of channels lacks one, or holds one of another kind or
    shape, or numbers that no sorting gives: not finite, not positive, a filter that never settles or has too many taps."""
    try:
        sizes: dict[str, int] = {}
        _check({name: value for name, value in saved.items() if name != "format_version"}, _LAYOUT, "", sizes)
        if sizes["n"] != saved["n_channels"] or sizes["c"] != np.count_nonzero(saved["usable"]):
            raise ValueError("usable does not fit the channels")
        if nothing := next((name for letter, name in _NAMES.items() if not sizes[letter]), ""):
            raise ValueError(f"it has no {nothing}")
        _check_filters(saved["preprocessor"], saved["sampling_frequency"])
        _check_units(saved)
        Config().with_values(saved["config"], origin="config")
    except (ValueError, TypeError, OverflowError, UsageError) as error:
        raise InputError(f"the model {path} is damaged: {error}; give the model.pt of a result folder.") from error


def _check_filters(saved: Mapping[str, Any], sampling_frequency: float) -> None:
    if np.any(saved["sos"][:, 3] != 1):
        raise ValueError("preprocessor.sos is not normalised")
    # the poles that another computer finds may differ in the last bit
    settled = settling_samples(saved["sos"].astype(np.float64)) + 1
    for name, most in ("margin", settled), ("settling", saved["margin"]):
        if saved[name] > most:
            raise ValueError(f"preprocessor.{name} is {saved[name]} samples, the filter settles in {most}")
    n_taps, most = (
        saved["whitening_filter"].shape[1],
        ms_to_samples(_PREPROCESS["whitening_ms"]["high"], sampling_frequency) + 1,
    )
    if n_taps > most:
        raise ValueError(f"preprocessor.whitening_filter has {n_taps} taps, {most} are the most")
    _check_positive(saved["noise_level"], "preprocessor.noise_level")


def _check_units(saved: Mapping[str, Any]) -> None:
    slab, dictionary = saved["slab"], saved["dictionary"]
    most = ms_to_samples(_INITIALISE["refractory_ms"]["high"], saved["sampling_frequency"])
    if slab["refractory"] > most:
        raise ValueError(f"slab.refractory is {slab['refractory']} samples, {most} are the most")
    for name in ("spread", "penalty"):
        _check_positive(slab[name], f"slab.{name}")
    _check_positive(dictionary["scale"], "dictionary.scale")
    if not np.allclose(np.linalg.norm(dictionary["atoms"].astype(np.float64), axis=(1, 2)), 1.0, atol=1e-4):
        raise ValueError("dictionary.atoms are not of unit norm")
    _check_positive(saved["sigma"], "sigma")
    # nothing is learned where there are no units
    if len(slab["templates"]):
        _check_positive(saved["lambda"], "lambda")


def _check_positive(values: Any, where: str) -> None:
    if np.any(np.asarray(values) <= 0):
        raise ValueError(f"{where} must be above 0")


def check_groups(saved: Mapping[str, Any], path: Path | str) -> None:
    """The same for the model of several groups of channels, their channels and each one's own model."""
    try:
        n_channels, groups = saved.get("n_channels"), saved["groups"]
        _check({"n_channels": n_channels, "groups": groups}, {"n_channels": _LAYOUT["n_channels"], "groups": dict}, "", {})
        if not groups:
            raise ValueError("groups is empty")
        for name, group in groups.items():
            if not isinstance(name, str) or not isinstance(group, dict):
                raise ValueError(f"group {name} is no group")
            _check(group, {"channels": "iu:g", "model": dict}, f"group {name}: ", {})
            channels = group["channels"]
            if np.any((channels < 0) | (channels >= n_channels)) or len(np.unique(channels)) != len(channels):
                raise ValueError(f"group {name} has channels that are none of {n_channels}, or one twice")
            if group["model"].get("n_channels") != len(channels):
                raise ValueError(f"group {name} has {len(channels)} channels, its model another number")
    except ValueError as error:
        raise InputError(f"the model {path} is damaged: {error}; give the model.pt of a result folder.") from error
    for name, group in groups.items():
        check_model(group["model"], f"{path}, group {name},")


def _check(saved: Mapping[str, Any], layout: Mapping[str, Any], place: str, sizes: dict[str, int]) -> None:
    if saved.keys() != layout.keys():
        wrong = ", ".join(f"{place}{name}" for name in sorted(saved.keys() ^ layout.keys(), key=str))
        raise ValueError(f"it lacks, or has beside what belongs there, {wrong}")
    for name, wanted in layout.items():
        value, where = saved[name], f"{place}{name}"
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                raise ValueError(f"{where} is no group of entries")
            _check(value, wanted, f"{where}.", sizes)
        elif isinstance(wanted, str):
            check_array(value, *wanted.split(":"), where, sizes)
        elif isinstance(wanted, list):
            if not isinstance(value, str) or value not in wanted:
                raise ValueError(f"{where} is {value!r:.40}, none of {', '.join(wanted)}")
        elif isinstance(wanted, type):
            if not isinstance(value, wanted):
                raise ValueError(f"{where} is no {'text' if wanted is str else 'group of entries'}")
        else:
            _check_number(value, *wanted, where)


def _check_number(value: Any, least: float, most: float, where: str) -> None:
    kinds = (int,) if isinstance(least, int) else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(
            f"{where} is {value!r:.40}, no {'whole ' if isinstance(least, int) else ''}number of {least} to {most}"
        )
