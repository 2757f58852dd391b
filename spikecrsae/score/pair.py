"""Two sortings of one recording, read for a comparison."""

from __future__ import annotations

from pathlib import Path

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import phy_rate, read_truth
from spikecrsae.results.folder import read_sorting
from spikecrsae.score.matching import Trains


def read_pair(a: Path, b: Path, sampling_frequency: float | None = None) -> tuple[Trains, Trains, float]:
    """The spike trains of two sortings (name -> samples), and the sampling frequency at which the samples count.

    a, b: results of ours, or anything that read_truth takes. The first that is ours gives the rate; where neither is,
    sampling_frequency or the params.py of a Phy folder. Raises UsageError where that is needed and not given, InputError where a path cannot be read.
    """
    ours = [_ours(path) for path in (a, b)]
    known = [sorting.sampling_frequency for sorting in ours if sorting is not None]
    rate = known[0] if known else sampling_frequency or phy_rate(a) or phy_rate(b)
    if rate is None:
        raise UsageError(f"neither {a} nor {b} tells its sampling frequency; give --sampling-frequency.")
    if sampling_frequency is not None and abs(sampling_frequency - rate) > 1e-6 * rate:
        raise UsageError(
            f"--sampling-frequency {sampling_frequency:g} is not that of the result, {rate:g} Hz; leave it out."
        )
    first, second = (_trains(path, sorting, rate) for path, sorting in zip((a, b), ours, strict=True))
    return first, second, rate


def _ours(path: Path) -> SortingData | None:
    """The sorting in a result folder or a sorting.h5; None where the path is something else."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give the result folder of a sorting, or a file of spike times.")
    return read_sorting(path) if (path / "sorting.h5").is_file() or path.name == "sorting.h5" else None


def _trains(path: Path, sorting: SortingData | None, rate: float) -> Trains:
    # also a result without any unit has a place in a comparison; read_truth refuses it
    return sorting.trains() if sorting and sorting.sampling_frequency == rate else read_truth(path, rate)
