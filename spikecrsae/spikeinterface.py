"""The sorter as SpikeInterface sees it: after `import spikecrsae.spikeinterface`, run_sorter("spikecrsae", recording) works.

SpikeInterface has no plug-in mechanism; a class is added to its list of sorters.
"""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.sorters import BaseSorter
from spikeinterface.sorters.sorterlist import sorter_dict, sorter_full_list

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording, joined
from spikecrsae.readers.geometry import flatten_positions
from spikecrsae.results.folder import read_sorting
from spikecrsae.run.job import Job, run_job

_CONFIG_FIELDS = {f.name: f for stage in fields(Config) for f in fields(getattr(Config(), stage.name))}


class SpikeCRsAESorter(BaseSorter):
    """Parameters are the settings of `spikecrsae sort --dump-config` by their last names, None for what is found by the program; by_group: channels
    with different values of the property `group` are sorted on their own; jobs: so many of these groups at the same time."""

    sorter_name = "spikecrsae"
    requires_locations = False
    handle_multi_segment = True
    gpu_capability = "nvidia-optional"
    sorter_description = (
        "Convolutional sparse coding with a constrained recurrent sparse auto-encoder, for wires and tetrodes."
    )
    installation_mesg = "pip install spikecrsae[spikeinterface]"

    _default_params = {name: f.default for name, f in _CONFIG_FIELDS.items()} | {"by_group": True, "jobs": 1}
    _params_description = {name: f.metadata["help"] for name, f in _CONFIG_FIELDS.items()} | {
        "by_group": "sort channels with different values of the property group on their own",
        "jobs": "groups, or neighbourhoods of a probe, sorted at the same time, in processes; a script needs `if __name__ == '__main__'` for more than 1",
    }

    @classmethod
    def is_installed(cls) -> bool:
        return True

    @classmethod
    def get_sorter_version(cls) -> str:
        return version("spikecrsae")

    @classmethod
    def _check_params(cls, recording: BaseRecording, output_folder: Path, params: dict[str, Any]) -> dict[str, Any]:
        _config(params)
        return params

    @classmethod
    def _check_apply_filter_in_params(cls, params: dict[str, Any]) -> bool:
        return True

    @classmethod
    def _setup_recording(cls, recording: BaseRecording, sorter_output_folder: Path, params: dict, verbose: bool) -> None:
        """Nothing to set up: traces are read where they are, as they are stored."""

    @classmethod
    def _run_from_folder(cls, sorter_output_folder: Path, params: dict[str, Any], verbose: bool) -> None:
        opener = functools.partial(_reopened, sorter_output_folder.parent, params["by_group"])
        options = {"jobs": params["jobs"], "overwrite": True, "keep_learned": False}
        run_job(Job((), sorter_output_folder, _config(params), opener=opener, **options))

    @classmethod
    def _get_result_from_folder(cls, sorter_output_folder: Path) -> NumpySorting:
        found = read_sorting(sorter_output_folder)
        firsts = found.files.get("first_sample", np.zeros(1, np.int64))
        segment = np.searchsorted(firsts, found.spikes["sample"], "right") - 1
        parts = [found.spikes[segment == number] for number in range(len(firsts))]
        sorting = NumpySorting.from_samples_and_labels(
            [part["sample"] - first for part, first in zip(parts, firsts, strict=True)],
            [part["unit"] for part in parts],
            found.sampling_frequency,
            unit_ids=found.unit_ids,
        )
        for name, values in found.units.items():
            sorting.set_property(name, values)
        return sorting


def _config(params: dict[str, Any]) -> Config:
    """The configuration with these parameters; UsageError for one that breaks a rule."""
    return Config().with_settings(**{name: value for name, value in params.items() if name in _CONFIG_FIELDS})


def _reopened(folder: Path, by_group: bool) -> Recording:
    """The recording that SpikeInterface has noted in the folder of a run."""
    recording = recording_from_spikeinterface(SpikeCRsAESorter.load_recording_from_folder(folder))
    return recording if by_group else replace(recording, channel_groups=None)


def _traces(recording: BaseRecording, segment: int, start: int, stop: int) -> np.ndarray:
    return recording.get_traces(segment_index=segment, start_frame=start, end_frame=stop)


def recording_from_spikeinterface(recording: BaseRecording) -> Recording:
    """A recording of SpikeInterface as one of ours, read lazily as it is stored: gains and offsets (else ADC), positions,
    groups of channels where the property `group` has several values, segments one after the other as parts."""
    n = recording.get_num_channels()
    gain, offset = recording.get_channel_gains(), recording.get_channel_offsets()
    scaled = gain is not None and offset is not None
    positions, note = flatten_positions(recording.get_channel_locations() if recording.has_probe() else None)
    names = recording.get_property("group")
    grouped = names is not None and len(set(names.tolist())) > 1
    shared: dict[str, Any] = {
        "sampling_frequency": float(recording.get_sampling_frequency()),
        "channels": tuple(range(n)),
        "channel_ids": tuple(str(name) for name in recording.get_channel_ids()),
        "gain": np.asarray(gain, np.float64) if scaled else np.ones(n),
        "offset": np.asarray(offset, np.float64) if scaled else np.zeros(n),
        "amplitude_unit": "uV" if scaled else "ADC",
        "source": Path(recording.name or type(recording).__name__),
        "format": f"SpikeInterface {type(recording).__name__}",
        "dtype": str(recording.get_dtype()),
        "channel_positions": positions,
        "channel_groups": tuple(str(name) for name in names) if grouped else None,
        "notes": (note,) if note else (),
    }
    segments = [
        Recording(
            read_raw=functools.partial(_traces, recording, k),
            n_samples=int(recording.get_num_samples(k)),
            start_time_s=float(recording.get_start_time(k)),
            **shared,
        )
        for k in range(recording.get_num_segments())
    ]
    return segments[0] if len(segments) == 1 else joined(segments, [f"segment {k}" for k in range(len(segments))])


if SpikeCRsAESorter.sorter_name not in sorter_dict:
    sorter_full_list.append(SpikeCRsAESorter)
    sorter_dict[SpikeCRsAESorter.sorter_name] = SpikeCRsAESorter
