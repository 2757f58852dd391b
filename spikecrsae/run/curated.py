"""A sorting that was curated by hand in Phy: merges, splits and labels, read back from the folder that was written for it."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.config import Config
from spikecrsae.data.sorting import SortingData
from spikecrsae.data.waveforms import peak_channels
from spikecrsae.decode.quality import Evidence, unit_columns
from spikecrsae.errors import InputError
from spikecrsae.readers.phy_names import GROUP_OF_LABEL, ORIGINAL, check_clusters, is_phy_folder, phy_folder
from spikecrsae.results.folder import SORTING, read_result, run_of
from spikecrsae.results.sorting_h5 import sorting_from_hdf5
from spikecrsae.system.safe_hdf5 import load_npy
from spikecrsae.system.text import read_text
from spikecrsae.units import ms_to_samples

log = logging.getLogger(__name__)

#: What Phy calls noise is noise to us, unless it was an artefact before.
_LABEL_OF_GROUP = {group: label for label, group in GROUP_OF_LABEL.items() if label != "artefact"}
_MOST_TABLE_MB = 16
#: What stands for no group at all.
_NO_GROUP = ("", "None", "nan")


def is_sorting(path: str | Path) -> bool:
    """Whether there is what open_sorting takes."""
    path = Path(path)
    return is_phy_folder(path) or (path / SORTING).is_file() or path.name == SORTING


def open_sorting(path: str | Path) -> tuple[SortingData, dict]:
    """The sorting at `path` and what its run.json holds: a result folder, its sorting.h5, or a Phy folder of ours or its
    params.py, as it is curated now. Raises InputError where there is none, or it is damaged."""
    if is_phy_folder(path):
        return read_curated(path)
    return read_result(path)


def read_curated(folder: str | Path) -> tuple[SortingData, dict]:
    """The sorting of a Phy folder as it stands after curation, and the run.json of the sorting before.

    The units are Phy's clusters, under their numbers, with the label that their group says: good is single, mua multi. Their
    spikes keep sample and amplitude. A cluster's template is the mean of the original templates, each weighted by the
    cluster's spikes that it found, and brought to the place of the one with most spikes. A cluster that is still one original
    unit keeps its columns; of another those that need waveforms are not known.

    Raises InputError where the folder is damaged.
    """
    folder = phy_folder(folder)
    original, provenance = sorting_from_hdf5(folder / ORIGINAL)
    run = run_of(provenance)
    clusters = _clusters(folder, original)
    ids, rows = np.unique(clusters, return_inverse=True)
    origin = _Origin.of(original, rows, len(ids))
    spikes = original.spikes.copy()
    spikes["unit"] = clusters
    merged = replace(
        original,
        spikes=spikes,
        unit_ids=ids.astype(np.int32),
        units={},
        peak_index=original.peak_index[origin.best],
        curation=(*original.curation, *_decisions(original, ids, origin)),
        model=original.model | {name: origin.kept(original.model[name]) for name in original.model_of_units},
        **_templates(original, origin),
    )
    columns = _columns(original, merged, origin, run)
    return replace(merged, units={"label": _labels(folder, original, ids, origin), **columns}), run


@dataclass(frozen=True)
class _Origin:
    """Where the clusters' spikes come from: how many from each original unit, counts (n_clusters, n_units); the unit that most
    come from, best (n_clusters,); whether they are just those of one unit, same (n_clusters,)."""

    counts: np.ndarray
    best: np.ndarray
    same: np.ndarray

    @classmethod
    def of(cls, original: SortingData, rows: np.ndarray, n_clusters: int) -> _Origin:
        """rows (n_spikes,): the cluster of each original spike."""
        counts = np.zeros((n_clusters, original.n_units), np.int64)
        np.add.at(counts, (rows, original.unit_rows), 1)
        best = counts.argmax(axis=1) if n_clusters else np.zeros(0, np.int64)
        whole = counts.max(axis=1, initial=0) == counts.sum(axis=0)[best]
        return cls(counts, best, whole & (np.count_nonzero(counts, axis=1) == 1))

    def kept(self, values: np.ndarray) -> np.ndarray:
        """Values (..., n_units) of the original units for the clusters that are the same; of the others nothing is known."""
        values = np.asarray(values)[..., self.best]
        if self.same.all():
            return values
        return np.where(self.same, values, "") if values.dtype.kind in "UO" else np.where(self.same, values * 1.0, np.nan)


def _clusters(folder: Path, original: SortingData) -> np.ndarray:
    """Cluster of every original spike, (n_spikes,) int32; placeholders are left out."""
    arrays = []
    for name in ("spike_times", "spike_templates", "spike_clusters"):
        arrays.append(load_npy(folder / f"{name}.npy").reshape(-1))
        if arrays[-1].dtype.kind not in "iu":
            raise InputError(
                f"{folder}: {name}.npy holds {arrays[-1].dtype}; samples and clusters must be whole numbers from 0."
            )
    times, templates, clusters = arrays
    if not len(times) == len(templates) == len(clusters):
        raise InputError(f"{folder}: {len(times)} spike times and {len(clusters)} clusters; every spike needs one.")
    real = templates < original.n_units
    check_clusters(clusters[real], folder / "spike_clusters.npy")
    if not np.array_equal(times[real], original.spikes["sample"]):
        raise InputError(
            f"{folder}: spike_times.npy is not that of {ORIGINAL} any more; its spikes must not be moved or removed. Put "
            "back the file, and call a cluster noise instead of removing its spikes."
        )
    return clusters[real].astype(np.int32)


def _labels(folder: Path, original: SortingData, ids: np.ndarray, origin: _Origin) -> np.ndarray:
    """Label of every cluster, by its group; without one, that of the unit that most of its spikes come from."""
    groups = _groups(folder)
    for unit, group in sorted(groups.items()):
        if unit in ids and group not in (*_LABEL_OF_GROUP, *_NO_GROUP):
            log.warning(
                "%s calls cluster %d %r, which is none of %s; it keeps its label from before. Write one of these there.",
                folder / "cluster_group.tsv", unit, group, ", ".join(_LABEL_OF_GROUP),
            )  # fmt: skip
    before = original.units.get("label", np.full(original.n_units, "single"))[origin.best]
    labels = [
        old if groups.get(unit, "") == GROUP_OF_LABEL.get(str(old)) else _LABEL_OF_GROUP.get(groups.get(unit, ""), old)
        for unit, old in zip(ids.tolist(), before, strict=True)
    ]
    return np.array(labels, dtype=str)


def _groups(folder: Path) -> dict[int, str]:
    """Group of every cluster that has one."""
    path = folder / "cluster_group.tsv"
    if not path.is_file():
        return {}
    try:
        rows = csv.DictReader(read_text(path, _MOST_TABLE_MB).splitlines(), delimiter="\t")
        return {int(row["cluster_id"]): (row["group"] or "").strip() for row in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); its columns must be cluster_id and group.") from error


def _templates(original: SortingData, origin: _Origin) -> dict[str, Any]:
    """Templates of the clusters, of each kind, and the spread that the spikes of all their units have together."""
    templates, counts = original.templates, origin.counts
    # a sorting that was not made by this program may have one kind of templates only
    spreads, whitened = (
        kind if len(kind) == len(templates) else np.zeros_like(templates)
        for kind in (original.templates_std, original.templates_whitened)
    )
    mean, squares, white = (np.zeros((len(counts), *kind.shape[1:])) for kind in (templates, spreads, whitened))
    for cluster, unit in np.argwhere(counts):
        weight = counts[cluster, unit] / counts[cluster].sum()
        lag = int(original.peak_index[origin.best[cluster]] - original.peak_index[unit])
        template, spread = _later(templates[unit], lag), _later(spreads[unit], lag)
        mean[cluster] += weight * template
        squares[cluster] += weight * (spread**2 + template**2)
        white[cluster] += weight * _later(whitened[unit], lag)
    return {
        "templates": mean.astype(np.float32),
        "templates_std": np.sqrt(np.maximum(squares - mean**2, 0)).astype(np.float32),
        "templates_whitened": white.astype(np.float32),
    }


def _later(template: np.ndarray, lag: int) -> np.ndarray:
    """A template (n_channels, n_times) moved by `lag` samples, float64, with zeros where it had none."""
    n_times, moved = template.shape[1], np.zeros(template.shape)
    if abs(lag) < n_times:
        moved[:, max(lag, 0) : n_times + min(lag, 0)] = template[:, max(-lag, 0) : n_times - max(lag, 0)]
    return moved


def _columns(original: SortingData, merged: SortingData, origin: _Origin, run: dict) -> dict[str, np.ndarray]:
    """The unit table of the clusters without labels: kept where the unit is the same, else computed from spikes and
    templates."""
    config = Config().with_values(run.get("config", {}), origin=ORIGINAL)
    evidence = _evidence(original, merged, ms_to_samples(config.initialise.refractory_ms, merged.sampling_frequency))
    fresh = unit_columns(evidence)
    # the decoder's dead time hides the short intervals within each of several units, not those between them
    open_to_all = unit_columns(replace(evidence, dead_time=0))
    several = np.count_nonzero(origin.counts, axis=1) > 1
    fresh = {name: np.where(several, open_to_all[name], values) for name, values in fresh.items()}
    fresh["peak_channel"] = peak_channels(merged)
    if "group" in original.units:
        fresh["group"] = original.units["group"][origin.best]
    return {
        name: np.where(origin.same, values[origin.best], fresh[name]) if name in fresh else origin.kept(values)
        for name, values in original.units.items()
        if name != "label"
    }


def _evidence(original: SortingData, merged: SortingData, dead_time: int) -> Evidence:
    """What is known of the clusters without their waveforms."""
    trains = [merged.spikes[merged.spikes["unit"] == unit] for unit in merged.unit_ids]
    nothing = np.zeros((0, merged.templates.shape[2], merged.n_channels), np.float32)
    return Evidence(
        samples=[train["sample"] for train in trains],
        amplitudes=[train["amplitude"].astype(np.float64) for train in trains],
        waveforms=[nothing] * len(trains),
        waveform_samples=[np.zeros(0, np.int64)] * len(trains),
        templates=merged.templates,
        templates_std=merged.templates_std,
        noise_level=np.asarray(original.channels.get("noise_level", np.full(merged.n_channels, np.nan)), float),
        whitened_norm=np.linalg.norm(merged.templates_whitened, axis=(1, 2)),
        timeline=merged.timeline,
        n_samples=merged.n_samples,
        dead_time=dead_time,
        excluded=merged.excluded,
    )


def _decisions(original: SortingData, ids: np.ndarray, origin: _Origin) -> list[dict]:
    """A row of the curation for each cluster that is no longer one original unit."""
    names = original.units.get("curation_id", original.unit_ids)
    return [
        {"decision": "phy", "units": names[np.flatnonzero(count)].tolist(), "statistic": None, "level": None,
         "reason": "curated by hand", "cluster": int(cluster), "n_spikes": count[count > 0].tolist()}
        for cluster, count, same in zip(ids, origin.counts, origin.same, strict=True)
        if not same
    ]  # fmt: skip
