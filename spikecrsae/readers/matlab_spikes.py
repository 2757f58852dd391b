"""Times of known spikes in MATLAB files, with the names of wave_clus, UltraMegaSort and Quiroga's simulations."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.matlab import Variables, listing, loaded_variables, stored_rate, stored_variables
from spikecrsae.readers.spike_times import NEURONS, SampleClock, Trains, by_unit, key, unit_of_name, unit_of_values
from spikecrsae.system.safe_hdf5 import open_hdf5, whole

#: wave_clus: a row per spike with its cluster, 0 where it has none, and its time in ms.
_CLUSTER_CLASS = "cluster_class"
#: Vectors beside the times that say which neuron a spike belongs to.
_CLASSES = (
    *NEURONS, "class", "classes", "spike_class", "spike_classes", "clusters", "spike_clusters", "assigns", "units", "spike_units",
)  # fmt: skip


def from_matlab(clock: SampleClock, column: str | None = None, unit: str | None = None) -> Trains:
    """The spikes in a MATLAB file of any version.

    Reads `cluster_class`; else a vector of times such as `spike_times` or `spikes.spiketimes`, with the neurons in a vector
    beside it such as `spike_class`, or a cell with a vector of times for each neuron. `column` names the variable. The unit is
    `unit`, or what the name says; else times with decimals are seconds and whole numbers samples, at the file's rate where it has
    one. Raises InputError where there are no such variables, UsageError where `column` is none.
    """
    if h5py.is_hdf5(clock.path):
        with open_hdf5(clock.path) as file:
            return _trains(clock, stored_variables(file), column, unit)
    return _trains(clock, loaded_variables(clock.path)[0], column, unit)


def _trains(clock: SampleClock, variables: Variables, column: str | None, unit: str | None) -> Trains:
    name = _chosen(clock, variables, column)
    place, _, last = name.rpartition("/")
    rate, _ = stored_rate(variables, place)
    value = variables[name]
    if key(last) == _CLUSTER_CLASS:
        table = _array(value).reshape(-1, 2)
        table = table[table[:, 0] != 0]
        return by_unit(table[:, 0].astype(np.int64), clock.from_unit(table[:, 1], unit or "ms"))
    parts = [_array(part).reshape(-1) for part in (value if isinstance(value, list) else [value])]
    if any(part.dtype.kind not in "iuf" for part in parts):
        raise InputError(
            f"{clock.path}: {name} holds no numbers; name another with --truth-column, of {listing(variables)}."
        )
    times = np.concatenate([np.zeros(0), *parts])
    told = (
        unit
        or unit_of_name(last)
        or unit_of_values(clock.path, f"does not say in what {name} counts", times, known=rate is not None)
    )
    samples = clock.from_unit(times, told, rate)
    if len(parts) > 1:
        ends = np.cumsum([len(part) for part in parts])
        return {str(k + 1): train for k, train in enumerate(np.split(samples, ends[:-1]))}
    neurons = _neurons(variables, place, len(times))
    return {last: samples} if neurons is None else by_unit(neurons, samples)


def _chosen(clock: SampleClock, variables: Variables, column: str | None) -> str:
    """The path of the variable that holds the times."""
    if column is not None:
        wanted = column.replace(".", "/").strip("/").lower()
        found = [name for name in variables if wanted in (name.lower(), name.rpartition("/")[2].lower())]
        if not found:
            raise UsageError(f"--truth-column {column}: {clock.path} has no such variable; it has {listing(variables)}.")
        return found[0]
    for name in variables:
        if key(name.rpartition("/")[2]) == _CLUSTER_CLASS:
            return name
    units = {name: unit_of_name(name.rpartition("/")[2]) for name in variables if _is_of_spikes(variables, name)}
    for unit in ("samples", "s", "ms", ""):
        for name, said in units.items():
            if said == unit:
                return name
    raise InputError(
        f"{clock.path} holds no known spikes, such as spike_times or cluster_class; name the variable with --truth-column, of "
        f"{listing(variables)}."
    )


def _is_of_spikes(variables: Variables, name: str) -> bool:
    """Whether a name says that these are spikes, or the neurons stand beside them: `time` alone may be that of samples."""
    if isinstance(value := variables[name], str):
        return False
    place = name.rpartition("/")[0]
    return "spike" in name.lower() or "spt" in name.lower() or _neurons(variables, place, int(np.size(value))) is not None


def _neurons(variables: Variables, place: str, n_spikes: int) -> np.ndarray | None:
    """The neuron of each spike, from a vector of that length; of a cell, the first, as in Quiroga's simulations."""
    for path, value in variables.items():
        folder, _, name = path.rpartition("/")
        first = value[0] if isinstance(value, list) and value else value
        if folder != place or key(name) not in _CLASSES or isinstance(first, str | list) or np.size(first) != n_spikes:
            continue
        neurons = _array(first).reshape(-1)
        if neurons.dtype.kind in "iuf":
            return neurons.astype(np.int64) if np.array_equal(neurons, np.round(neurons)) else neurons
    return None


def _array(value: Any) -> np.ndarray:
    return np.atleast_1d(whole(value).T if isinstance(value, h5py.Dataset) else value)
