"""Combine the outcomes of parts of the channels, such as the channel groups of a recording, into one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from spikecrsae.data.intervals import common
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.pipeline.outcome import Outcome, busiest_stretch
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor


class Part(Protocol):
    """A name, the positions of its channels in the recording, and the number of its first unit where its units were
    known."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> tuple[int, ...]: ...
    @property
    def first_unit(self) -> int | None: ...


P = TypeVar("P", bound=Part)


def joint_checksum(checksums: Iterable[str]) -> str:
    """The checksum of a recording from those of its groups."""
    return hashlib.blake2b("".join(checksums).encode(), digest_size=16).hexdigest()


def combined(recording: Recording, groups: Sequence[P], group_results: Sequence[Outcome | Exception]) -> Outcome:
    """The outcomes of groups of a recording as one; a group that could not be sorted is a warning and has no units.

    Units are numbered group by group, in each the largest first; known units keep their numbers. Their column `group` counts
    the groups from 0. In the model, sigma is an array (n_groups,), NaN for a group that could not be sorted; a history has NaN after a group's last round. Left
    out (`excluded`) is what is left out in every group.
    """
    outcomes = sorted_ones(groups, group_results)
    sorting = joint_sorting(recording, groups, outcomes)
    told = [
        f"group {g.name}: {text}" for g, result in zip(groups, group_results, strict=True) for text in warnings_of(result)
    ]
    return joint_outcome(recording, sorting, outcomes, "groups", told)


def sorted_ones(parts: Sequence[P], results: Sequence[Outcome | Exception]) -> dict[P, Outcome]:
    """The outcomes of the parts that could be sorted."""
    return {part: result for part, result in zip(parts, results, strict=True) if isinstance(result, Outcome)}


def warnings_of(result: Outcome | Exception) -> tuple[str, ...]:
    """What is to be said of a part."""
    return result.warnings if isinstance(result, Outcome) else (f"not sorted: {result}",)


def joint_outcome(
    recording: Recording, sorting: SortingData, outcomes: Mapping[P, Outcome], kind: str, warnings: Iterable[str]
) -> Outcome:
    """The outcome of all parts. kind: of the parts, in the model."""
    checkpoint = {
        "n_channels": recording.n_channels,
        kind: {
            part.name: {"channels": np.array(part.channels, np.int64), "model": outcome.checkpoint}
            for part, outcome in outcomes.items()
        },
    }
    first = next(iter(outcomes.values()))
    stages = {stage: 0.0 for outcome in outcomes.values() for stage in outcome.stage_seconds}
    return Outcome(
        sorting=_with_example(sorting, recording, checkpoint),
        checkpoint=checkpoint,
        stage_seconds={s: round(sum(o.stage_seconds.get(s, 0.0) for o in outcomes.values()), 3) for s in stages},
        device=first.device,
        warnings=tuple(warnings),
        input_checksum=joint_checksum(outcome.input_checksum for outcome in outcomes.values()),
        config=first.config,
    )


def joint_sorting(recording: Recording, groups: Sequence[P], outcomes: Mapping[P, Outcome]) -> SortingData:
    """The sortings of the groups as one; a channel of several groups is as the last of them tells."""
    sortings = {group: outcome.sorting for group, outcome in outcomes.items()}
    parts = list(sortings.values())
    # known units have their numbers
    counts = [part.n_units if group.first_unit is None else 0 for group, part in sortings.items()]
    offsets = np.cumsum([0, *counts])[:-1]
    spikes = [part.spikes.copy() for part in parts]
    for table, offset in zip(spikes, offsets, strict=True):
        table["unit"] += offset
    joined = np.concatenate(spikes)
    columns = {name: np.concatenate([part.units[name] for part in parts]) for name in parts[0].units}
    if "complex_of" in columns:
        columns["complex_of"] = columns["complex_of"] + np.repeat(offsets, [part.n_units for part in parts])
    number = {group: index for index, group in enumerate(groups)}
    columns["peak_channel"] = np.concatenate(
        [np.array(g.channels, np.int64)[s.units["peak_channel"]] for g, s in sortings.items()]
    )
    curation, ids = _joint_curation(number, sortings)
    if "curation_id" in columns:
        columns["curation_id"] = ids
    of_group = np.concatenate([np.full(part.n_units, number[group], np.int64) for group, part in sortings.items()])
    label = {"label": columns.pop("label")}
    arrays: dict[str, Any] = {
        name: np.concatenate([_on_channels(getattr(s, name), group, recording.n_channels) for group, s in sortings.items()])
        for name in ("templates", "templates_whitened", "templates_std")
    }
    return replace(
        parts[0],
        spikes=joined[np.lexsort((joined["unit"], joined["sample"]))],
        unit_ids=np.concatenate([part.unit_ids + offset for part, offset in zip(parts, offsets, strict=True)]).astype(
            np.int32
        ),
        n_channels=recording.n_channels,
        units=label | {"group": of_group} | columns,
        **arrays,
        peak_index=np.concatenate([part.peak_index for part in parts]),
        channels=_channel_table(recording, groups, sortings),
        model=joint_model(groups, sortings),
        curation=curation,
        excluded=functools.reduce(common, (part.excluded for part in parts)),
        artefacts=_joint_artefacts(sortings),
        noise_over_time=_joint_noise(number, sortings),
    )


def _joint_curation(number: Mapping[P, int], sortings: Mapping[P, SortingData]) -> tuple[tuple[dict, ...], np.ndarray]:
    """The decisions of all groups, with the group's number, and the units' names in them, curation_id (n_units,): those of a
    group follow on those of the groups before, so that a name stands for one unit."""
    rows, ids, taken = [], [], 0
    for group, sorting in sortings.items():
        own = np.asarray(sorting.units.get("curation_id", np.zeros(0)), np.int64)
        named = [*own, *(unit for row in sorting.curation for unit in row["units"])]
        rows += [
            row | {"units": [unit + taken for unit in row["units"]], "group": number[group]} for row in sorting.curation
        ]
        ids.append(own + taken)
        taken += 1 + max(map(int, named), default=-1)
    return tuple(rows), np.concatenate(ids)


def _joint_noise(number: Mapping[P, int], sortings: Mapping[P, SortingData]) -> dict[str, np.ndarray]:
    """The noise over time of all groups, each under its number."""
    known = {group: sorting.noise_over_time for group, sorting in sortings.items() if sorting.noise_over_time}
    if not known:
        return {}
    numbered = [table | {"group": np.full(len(table["group"]), number[group], np.int64)} for group, table in known.items()]
    return {name: np.concatenate([table[name] for table in numbered]) for name in numbered[0]}


def _joint_artefacts(sortings: Mapping[P, SortingData]) -> np.ndarray:
    """The artefacts of all groups, in order of time; shapes of pulses are numbered group by group."""
    tables, taken = [], 0
    for group, sorting in sortings.items():
        table = sorting.artefacts.copy()
        table["group"] += np.where(table["group"] >= 0, taken, 0)
        table["channel"] = np.where(table["channel"] >= 0, np.array(group.channels)[table["channel"]], -1)
        taken = max(taken, int(table["group"].max(initial=-1)) + 1)
        tables.append(table)
    joined = np.concatenate(tables)
    return joined[np.argsort(joined["start"], kind="stable")]


def _on_channels(values: np.ndarray, group: Part, n_channels: int) -> np.ndarray:
    """values (n_units, n_group_channels, n_times) with zeros on all other channels."""
    full = np.zeros((len(values), n_channels, values.shape[2]), values.dtype)
    full[:, list(group.channels)] = values
    return full


def _channel_table(recording: Recording, groups: Sequence[P], sortings: Mapping[P, SortingData]) -> dict[str, np.ndarray]:
    """Columns for all channels; one in no group, or in a group that was not sorted, is masked."""
    n = recording.n_channels
    table = {
        "ids": np.array(recording.channel_ids, dtype=object),
        "groups": np.full(n, -1, np.int64),
        "group_names": np.full(n, "", dtype=object),
        "noise_level": np.full(n, np.nan),
        "masked": np.ones(n, bool),
    }
    if recording.channel_positions is not None:
        table["positions"] = recording.channel_positions
    for number, group in enumerate(groups):
        here = list(group.channels)
        table["groups"][here], table["group_names"][here] = number, group.name
        if group in sortings:
            for name in ("noise_level", "masked"):
                table[name][here] = sortings[group].channels[name]
    return table


def joint_model(groups: Sequence[P], sortings: Mapping[P, SortingData]) -> dict[str, np.ndarray]:
    """The values of all units one after the other; of what is one value for a group, one for each of the groups."""
    parts = list(sortings.values())
    model: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for part in parts for name in part.model):
        if any(name in part.model_of_units for part in parts):
            model[name] = _along_units(name, parts)
        else:
            values = [sortings[group].model.get(name, np.nan) if group in sortings else np.nan for group in groups]
            model[name] = np.array(values, np.float64)
    return model


def _along_units(name: str, parts: Sequence[SortingData]) -> np.ndarray:
    """The values of the units of all parts, (n_units,) or (n_rounds, n_units); NaN where a part has none or fewer rounds."""
    found = [part.model.get(name, np.full(part.n_units, np.nan)) for part in parts]
    if not name.endswith("_history"):
        return np.concatenate(found)
    rows = [np.atleast_2d(values) for values in found]
    n_rounds = max(map(len, rows))
    padded = [np.pad(row, ((0, n_rounds - len(row)), (0, 0)), constant_values=np.nan) for row in rows]
    return np.concatenate(padded, axis=1)


def _with_example(sorting: SortingData, recording: Recording, checkpoint: Mapping[str, Any]) -> SortingData:
    """The sorting with the stretch in which most units of all parts fire, each channel through the filter of its part."""
    first, end = recording.time_range or (0, recording.n_samples)
    start, stop = busiest_stretch(sorting)
    start = max(first, min(start, end - (stop - start)))
    stop = min(stop, end)
    traces = _highpassed(recording.in_range(), checkpoint, start - first, stop - first)
    return replace(sorting, example=traces, example_start=start)


def _highpassed(recording: Recording, checkpoint: Mapping[str, Any], start: int, stop: int) -> np.ndarray:
    """High-passed traces (stop - start, n_channels) as the model of a group or of several parts sees them, float32."""
    traces = np.zeros((stop - start, recording.n_channels), np.float32)
    for part in (checkpoint.get("groups") or checkpoint.get("neighbourhoods") or {}).values():
        channels = part["channels"].tolist()
        traces[:, channels] = _highpassed(recording.select(channels), part["model"], start, stop)
    if "usable" in checkpoint:
        used = np.flatnonzero(checkpoint["usable"]).tolist()
        view = PreprocessedRecording(recording.select(used), Preprocessor(**checkpoint["preprocessor"]))
        traces[:, used] = view.highpassed(start, stop)
    return traces
