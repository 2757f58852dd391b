"""The paper's real recording as its comparison published it: signal, truth, and the published curves, from a folder of the user's.

The folder is one of two:

- a copy of the repository ds2p/srcdl (Song, Flores, Ba, "Convolutional dictionary learning with grid refinement", IEEE TSP
  2020), with 5,087 pieces of channel 0 of hc-1 d533101 and the curves of CBP, COMP, COMP-INTERP and ADCG. The pieces are put
  at their places, and the gaps are filled with Gaussian noise of the level that the repository names.
- the same made into two files: hc1_d533101_ch0_paper.h5 and hc1_d533101_ch0_published_curves.csv.

hc-1 (crcns.org) has terms of its own, so this project ships nothing of it.
"""

from __future__ import annotations

import csv
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from spikecrsae.errors import InputError
from spikecrsae.readers import open_recording, read_truth

RECORDING, CURVES = "hc1_d533101_ch0_paper.h5", "hc1_d533101_ch0_published_curves.csv"
#: In the repository: pieces and truth, which all its experiments share, and the curves, a pickle.
PIECES, TRUTH = (f"experiments/spikesorting_no_interp/data/{name}.mat" for name in ("data", "truth"))
COMPARISON = "experiments/spikesorting_comparison_result"
#: Hz; the length of the recording; the noise in the gaps; stored numbers per unit of the repository's signal.
RATE, N_SAMPLES, GAP_NOISE, COUNTS = 10_000.0, 1_492_000, 0.985, 500
#: Bytes that the pickle of the curves has at most: it holds some 2,000 numbers.
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Published:
    """traces (n_samples, 1) int16, whitened, in 1/500 of the published unit, in which the noise is about 1; truth (n,) int64;
    curves: misses and false alarms (n_points, 2) int64 of each method, in counts."""

    traces: np.ndarray
    truth: np.ndarray
    curves: dict[str, np.ndarray]


def read_published(folder: Path) -> Published:
    """Read either form of the folder. Raises InputError where it is neither, or a file in it is not what it must be."""
    if (folder / RECORDING).is_file() and (folder / CURVES).is_file():
        recording = open_recording(folder / RECORDING)
        (truth,) = read_truth(folder / RECORDING, RATE).values()
        traces = recording.read_raw(0, recording.n_samples)
        return _checked(Published(traces, np.asarray(truth), _curves_of_table(folder / CURVES)), folder)
    missing = [name for name in (PIECES, TRUTH, COMPARISON) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds neither {RECORDING} with {CURVES}, nor a copy of ds2p/srcdl: {', '.join(missing)} not found; "
            "clone that repository, and name its folder."
        )
    variables = _variables(folder / PIECES, "signal", "idx")
    try:
        places = [_numbers(place).astype(np.int64) - 1 for place in variables["idx"].ravel()]
        pieces = [_numbers(piece).astype(np.float64) for piece in variables["signal"].ravel()]
        truth = _numbers(_variables(folder / TRUTH, "true_ts")["true_ts"]).astype(np.int64) - 1
    except TypeError as error:
        raise InputError(f"{folder} holds {error} where numbers must be; this is not the published data.") from error
    return _checked(Published(rebuilt(places, pieces), np.sort(truth), _curves_of_pickle(folder / COMPARISON)), folder)


def _numbers(values: Any) -> np.ndarray:
    """Real numbers (n,). Raises TypeError for anything else."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"values of type {values.dtype}")
    return values.ravel()


def _checked(found: Published, folder: Path) -> Published:
    """The same. Raises InputError for true spikes outside of the recording, or curves that are no counts, or none of either."""
    outside = not len(found.truth) or found.truth.min() < 0 or found.truth.max() >= len(found.traces)
    if outside or not found.curves or any(points.min() < 0 for points in found.curves.values()):
        raise InputError(
            f"{folder} holds {'no true spikes, or some outside of the recording' if outside else 'no curves, or negative counts'}; "
            "this is not the published data."
        )
    return found


def rebuilt(places: list[np.ndarray], pieces: list[np.ndarray]) -> np.ndarray:
    """Traces (n_samples, 1) int16 of pieces of signal at their samples, counted from 0, and noise between them.

    Raises InputError where a piece does not fit its place.
    """
    if len(places) != len(pieces) or any(map(lambda at, piece: len(at) != len(piece), places, pieces)):
        raise InputError("the pieces and their samples differ in number; this is not the published file.")
    at, values = np.concatenate([np.zeros(0, np.int64), *places]), np.concatenate([np.zeros(0), *pieces])
    most = np.iinfo(np.int16).max / COUNTS
    if not len(at) or at.min() < 0 or at.max() >= N_SAMPLES or not (np.abs(values) <= most).all():
        raise InputError(
            f"there is no piece, or one lies outside of samples 1 to {N_SAMPLES} or holds a value beyond {most:g}; this is not "
            "the published file."
        )
    signal = np.full(N_SAMPLES, np.nan)
    signal[at] = values
    gaps = np.isnan(signal)
    signal[gaps] = GAP_NOISE * np.random.default_rng(0).standard_normal(np.count_nonzero(gaps))
    return np.round(COUNTS * signal).astype(np.int16)[:, None]


def _variables(path: Path, *names: str) -> dict[str, Any]:
    """Variables of a MATLAB file; one without them is refused."""
    try:
        found = scipy.io.loadmat(path, variable_names=names)
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(f"{path} cannot be read as a MATLAB file ({error}).") from error
    if lacking := [name for name in names if name not in found]:
        raise InputError(f"{path} has no variable {', '.join(lacking)}; this is not the published file.")
    return found


def _curves_of_table(path: Path) -> dict[str, np.ndarray]:
    curves: dict[str, list] = {}
    try:
        for row in csv.DictReader(path.read_text().splitlines()):
            curves.setdefault(row["method"], []).append((int(row["misses"]), int(row["false_alarms"])))
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no table of method, misses, false_alarms ({error!r}).") from error
    return {method: np.array(points) for method, points in curves.items()}


def _curves_of_pickle(path: Path) -> dict[str, np.ndarray]:
    """The curve of each method for the unit that it sorts best, out of those of all its units."""
    document = read_arrays(path)
    try:
        curves = {}
        for key, method in document["keys"].items():
            misses, false_alarms = (np.atleast_2d(document[name][key].values).astype(np.int64) for name in ("tm", "fa"))
            best = (misses + false_alarms).min(axis=1).argmin()
            curves[str(method)] = np.column_stack([misses[best], false_alarms[best]])
        return curves
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not hold the published curves ({error!r}).") from error


def read_arrays(path: Path) -> Any:
    """Read a pickle of containers, text, numbers and numpy arrays of numbers, without running anything that it names.

    An array is an object with its `values`. Raises InputError for a pickle that asks for anything else.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES} bytes, which the published curves are not.")
    with path.open("rb") as file:
        try:
            return _ArraysOnly(file).load()
        except Exception as error:  # a damaged pickle fails in many ways
            raise InputError(f"{path} is not a pickle of arrays only ({error}); it was not read.") from error


class _Code:
    """Stands for numpy.dtype in a pickle: a kind of number, no other type."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in ("u1", "u2", "i4", "i8", "f8"):
            raise pickle.UnpicklingError(f"numbers of kind {name!r}")
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _Array:
    """Stands for numpy.ndarray in a pickle: values, from bytes."""

    values: np.ndarray

    def __init__(self, *_: object) -> None:
        """Takes what numpy's _reconstruct takes, and needs none of it."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, code, in_columns, data = state
        if not isinstance(code, _Code):
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.values = np.frombuffer(data, code.order + code.name).reshape(shape, order="F" if in_columns else "C")


class _ArraysOnly(pickle.Unpickler):
    """Knows three names, none of which is numpy's own: its dtype would take flags that make bytes into pointers."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Code}
        if module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") or name not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[name]
