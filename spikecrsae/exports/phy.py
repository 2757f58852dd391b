"""A folder for Phy: what phylib's TemplateModel, and SpikeInterface's read_phy and read_kilosort, open."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.data.waveforms import (
    Signal,
    centred,
    channel_groups,
    channel_positions,
    features,
    peak_channels,
    used_channels,
)
from spikecrsae.readers.phy_names import GROUP_OF_LABEL, ORIGINAL
from spikecrsae.results.sorting_h5 import sorting_to_hdf5
from spikecrsae.results.tables import cell
from spikecrsae.units import s_to_samples

logger = logging.getLogger(__name__)

RECORDING = "recording.dat"
#: phylib takes the axis away from an array with one row, and fails without a spike: so many of each there must be.
_LEAST = 2
#: Endings by which phylib knows a flat binary file.
_FLAT = (".dat", ".bin", ".raw", ".mda")
#: Columns of units.csv that Phy counts by itself, and those that its table shows besides group and KSLabel unless all are asked for.
_OWN_OF_PHY = ("n_spikes", "firing_rate", "peak_channel")
_SHOWN = ("snr", "isi_violations", "false_alarm", "miss")


def phy_files(
    sorting: SortingData, provenance: str, folder: Path, signal: Signal | None, all_columns: bool = False
) -> dict[str, Iterable[bytes]]:
    """The files of a Phy folder that will be at `folder`, name -> pieces of content; provenance is run.json as text. all_columns:
    Phy's table has every column of the unit table, else group, KSLabel and four more.

    Without the recording (`signal` None) there are no pc_features, and no traces or waveforms in Phy. Fewer than two spikes
    are filled up with placeholders, which phylib needs: amplitude 0, of an all-zero template, in a cluster of their own in
    the group noise.
    """
    missing = max(0, _LEAST - len(sorting.spikes))
    used = used_channels(sorting)
    templates = _templates(sorting, used, max(_LEAST, sorting.n_units + bool(missing)))
    placeholder = int(sorting.unit_ids.max(initial=-1)) + 1
    spike_templates = sorting.unit_rows
    arrays = {
        "spike_times": _after(missing, 0, sorting.spikes["sample"]),
        "spike_templates": _after(missing, sorting.n_units, spike_templates).astype(np.int32),
        "spike_clusters": _after(missing, placeholder, sorting.spikes["unit"]).astype(np.int32),
        "amplitudes": _after(missing, 0, sorting.spikes["amplitude"]).astype(np.float64),
        "templates": templates,
        "similar_templates": _similarity(templates),
        "channel_positions": channel_positions(sorting)[used],
        "channel_shanks": channel_groups(sorting)[used].astype(np.int32),
        "whitening_mat": np.eye(len(used)),
        "whitening_mat_inv": np.eye(len(used)),
    }
    if not np.isnan(sorting.spikes["probability"]).all():
        arrays["spike_probability"] = _after(missing, 0, sorting.spikes["probability"])
    if missing:
        logger.warning(
            "Phy cannot open fewer than %d spikes: %d of cluster %d are placeholders", _LEAST, missing, placeholder
        )
    columns, pieces = _flat_file(sorting, signal, used, folder)
    arrays["channel_map"] = columns.pop("channel_map")
    if signal is not None:
        local = _local_channels(sorting, used, len(templates))
        near = np.take_along_axis(features(sorting, signal), local[spike_templates][:, None], axis=2)
        arrays["pc_features"] = np.concatenate([np.zeros((missing, *near.shape[1:]), np.float32), near])
        arrays["pc_feature_ind"] = local.astype(np.uint32)
    facts = {**columns, "offset": 0, "sample_rate": float(sorting.sampling_frequency), "hp_filtered": False}
    return {
        "params.py": ["".join(f"{name} = {value!r}\n" for name, value in facts.items()).encode()],
        **{f"{name}.npy": [_npy(array)] for name, array in arrays.items()},
        **_cluster_tables(sorting, used, [placeholder] * bool(missing), all_columns),
        ORIGINAL: [sorting_to_hdf5(sorting, provenance)],
        **({RECORDING: pieces} if pieces is not None else {}),
    }


def _after(n: int, value: int, values: np.ndarray) -> np.ndarray:
    """`values` with n times `value` before them."""
    return np.concatenate([np.full(n, value, values.dtype), values])


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _templates(sorting: SortingData, used: np.ndarray, n: int) -> np.ndarray:
    """(n, n_times, n_used) float32: templates with the spike in the middle and a deflection of 1 there on the peak channel, which Phy
    multiplies with the spikes' amplitudes; all-zero ones fill up to n."""
    wide = centred(sorting.templates, sorting.peak_index)[:, used].transpose(0, 2, 1)
    peak = sorting.peaks.size[:, None, None]
    full = np.zeros((n, max(wide.shape[1], 2), len(used)), np.float32)
    full[: len(wide), : wide.shape[1]] = np.divide(wide, peak, out=np.zeros_like(wide), where=peak > 0)
    return full


def _similarity(templates: np.ndarray) -> np.ndarray:
    """Cosine (n, n) of the angle between templates; 0 for an all-zero one."""
    flat = templates.reshape(len(templates), -1).astype(np.float64)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0)
    return (unit @ unit.T).astype(np.float32)


def _local_channels(sorting: SortingData, used: np.ndarray, n: int) -> np.ndarray:
    """Channels (n, n_local) whose features are kept for each template, as positions among the used ones: those of the unit's
    group first, then the nearest; as many as the largest group has."""
    groups, positions = channel_groups(sorting)[used], channel_positions(sorting)[used]
    n_local = int(np.bincount(groups).max())
    local = np.tile(np.arange(n_local), (n, 1))
    for unit, channel in enumerate(np.searchsorted(used, peak_channels(sorting))):
        distance = np.linalg.norm(positions - positions[channel], axis=1)
        local[unit] = np.sort(np.lexsort((distance, groups != groups[channel]))[:n_local])
    return local


def _flat_file(
    sorting: SortingData, signal: Signal | None, used: np.ndarray, folder: Path
) -> tuple[dict[str, Any], Iterator[bytes] | None]:
    """What params.py says about the traces with channel_map, and the pieces of recording.dat where it has to be written."""
    if signal is None:
        columns = {"dat_path": [], "n_channels_dat": sorting.n_channels, "dtype": "int16"}
        return {**columns, "channel_map": used.astype(np.int32)}, None
    recording = signal.recording
    source = Path(os.path.abspath(recording.source))
    stored, size = recording.read_raw(0, 1).shape[1], np.dtype(recording.dtype).itemsize
    # several files may be one recording, of which Phy would see the first only
    whole = source.is_file() and source.stat().st_size == recording.n_samples * stored * size
    if recording.format == "raw binary" and source.suffix.lower() in _FLAT and whole:
        columns = {"dat_path": os.path.relpath(source, folder), "n_channels_dat": stored, "dtype": recording.dtype}
        return {**columns, "channel_map": np.asarray(recording.channels, np.int32)[used]}, None
    kind = np.dtype(np.float32) if np.dtype(recording.dtype).kind == "f" else np.dtype(recording.dtype).newbyteorder("<")
    columns = {"dat_path": RECORDING, "n_channels_dat": recording.n_channels, "dtype": kind.name}
    return {**columns, "channel_map": used.astype(np.int32)}, _stored(recording, kind)


def _stored(recording: Recording, kind: np.dtype) -> Iterator[bytes]:
    """The stored numbers of the channels in use, interleaved."""
    size = s_to_samples(10.0, recording.sampling_frequency)
    for start in range(0, recording.n_samples, size):
        yield recording.raw(start, start + size).astype(kind).tobytes()


def _cluster_tables(
    sorting: SortingData, used: np.ndarray, placeholders: list[int], all_columns: bool
) -> dict[str, list[bytes]]:
    """One file for each column that Phy does not count by itself, and all of them with Phy's own in cluster_info.tsv."""
    shown = [name for name in sorting.units if name not in _OWN_OF_PHY and (all_columns or name in _SHOWN)]
    groups = [GROUP_OF_LABEL.get(label, "unsorted") for label in sorting.units.get("label", [""] * sorting.n_units)]
    columns = {"group": groups, "KSLabel": ["good" if group == "good" else "mua" for group in groups]}
    # Phy says group for good, mua or noise
    columns |= {"channel_group" if name == "group" else name: [cell(v) for v in sorting.units[name]] for name in shown}
    columns = {re.sub(r"[^\w.-]", "_", name): texts for name, texts in columns.items()}
    blank = [["noise" if name == "group" else "" for name in columns]] * len(placeholders)
    clusters = [*sorting.unit_ids.tolist(), *placeholders]
    rows = [*zip(*columns.values(), strict=True), *blank]
    tables = {
        f"cluster_{name}.tsv": _tsv([("cluster_id", name), *zip(clusters, (row[k] for row in rows), strict=True)])
        for k, name in enumerate(columns)
    }
    own = [*_counted_by_phy(sorting, used), *[[""] * 6] * len(placeholders)]
    info = [(cluster, *counts, *row) for cluster, counts, row in zip(clusters, own, rows, strict=True)]
    return tables | {
        "cluster_info.tsv": _tsv([("cluster_id", "amp", "ch", "depth", "fr", "n_spikes", "sh", *columns), *info])
    }


def _counted_by_phy(sorting: SortingData, used: np.ndarray) -> list[tuple[str, ...]]:
    """Of every unit: amplitude, channel among the used ones, its depth in um, rate in Hz, number of spikes, and group of channels."""
    channel = peak_channels(sorting)
    n_spikes = np.bincount(sorting.unit_rows, minlength=sorting.n_units)
    columns = (
        sorting.peaks.size, np.searchsorted(used, channel), channel_positions(sorting)[channel, 1], n_spikes / sorting.duration_s,
        n_spikes, channel_groups(sorting)[channel],
    )  # fmt: skip
    return [tuple(map(cell, row)) for row in zip(*columns, strict=True)]


def _tsv(rows: Iterable[Iterable[Any]]) -> list[bytes]:
    return ["".join("\t".join(map(str, row)) + "\n" for row in rows).encode()]
