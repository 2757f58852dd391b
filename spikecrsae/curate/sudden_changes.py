"""Times at which the waveforms of most units change at once, though every neuron stayed one unit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.linalg import eigh

from spikecrsae.curate.steps import LEAST_SPIKES, LOOKED_AT, Sorted, changes_at
from spikecrsae.detect.bimodality import nuisance_directions
from spikecrsae.detect.clustering import shapes_in_time

#: Waveforms are compared along so many directions: their template, and those of their largest variance.
N_DIRECTIONS = 4
#: So many spikes of a unit at most are looked at, evenly over time.
MOST_SPIKES = 2000
#: Times that are tried, at most, between two steps.
MOST_TIMES = 300
#: A step explains so many times more than a linear change over the same spikes: of a true step a line explains three quarters.
BEYOND_LINE = 1.1
#: Chance that waveforms which do not change show a step at one of the times.
SUDDEN_LEVEL = 1e-6


def sudden_changes(found: Sorted, known: np.ndarray) -> np.ndarray:
    """The known steps (n_steps,), samples of the recording, and those at which most units change their waveforms as well.

    Between two steps, the time is sought at which the units' spikes before and after differ most, chi-square summed over the units.
    It is a step where that is beyond chance, where a linear change explains clearly less, and where at least half of the units
    change by themselves.
    """
    courses = [course for unit in np.flatnonzero(found.neurons).tolist() if (course := _Course.of(found, unit)) is not None]
    steps, ends = sorted(known.tolist()), [0, *sorted(known.tolist()), found.n_samples]
    stretches = list(itertools.pairwise(ends))
    while stretches:
        first, last = stretches.pop()
        step = _step_between(courses, first, last)
        if step is None:
            continue
        told = [changed for course in courses if (changed := changes_at(found, course.unit, step)) is not None]
        if sum(told) and 2 * sum(told) >= len(told):
            steps.append(step)
            stretches += [(first, step), (step, last)]
    return np.sort(np.array(steps, np.int64))


@dataclass(frozen=True)
class _Course:
    """A unit's waveforms in order of time: samples in the recording (n,), and sums of their features (n + 1, N_DIRECTIONS), each of
    variance 1, from the first one on; moments: the same times the spike's number."""

    unit: int
    samples: np.ndarray
    sums: np.ndarray
    moments: np.ndarray

    @classmethod
    def of(cls, found: Sorted, unit: int) -> _Course | None:
        """None where a unit has too few spikes."""
        mine = found.clear_spikes(unit)
        if len(mine) < 2 * LEAST_SPIKES:
            return None
        mine = mine[:: -(-len(mine) // MOST_SPIKES)]
        coefficients, shapes = shapes_in_time(found.windows(mine))
        windows = coefficients.reshape(len(mine), -1).astype(np.float64)
        nuisance = nuisance_directions(found.model.templates[unit], shapes)
        shape = windows - windows @ nuisance.T @ nuisance
        shape -= shape.mean(axis=0)
        width = shape.shape[1]
        components = eigh(shape.T @ shape, subset_by_index=[width - N_DIRECTIONS + 1, width - 1], check_finite=False)[1]
        features = np.column_stack([windows @ nuisance[0], windows @ components])
        # successive spikes tell what one neuron varies by, steps or not
        features = (features - features.mean(axis=0)) / np.maximum(np.diff(features, axis=0).std(axis=0) / np.sqrt(2), 1e-9)
        number = np.arange(len(mine))[:, None]
        sums, moments = (
            np.vstack([np.zeros(features.shape[1]), np.cumsum(x, axis=0)]) for x in (features, features * number)
        )
        return cls(unit, found.samples[mine], sums, moments)

    def explained(self, step: int, first: int, last: int) -> tuple[float, float]:
        """What a step, and what a linear change explain of the LOOKED_AT spikes on each side of a sample, between first and last;
        both 0 where one side has too few."""
        low, middle, high = np.searchsorted(self.samples, [first, step, last]).tolist()
        low, high = max(low, middle - LOOKED_AT), min(high, middle + LOOKED_AT)
        before, after = middle - low, high - middle
        if min(before, after) < LEAST_SPIKES:
            return 0.0, 0.0
        n = before + after
        means = (self.sums[middle] - self.sums[low]) / before, (self.sums[high] - self.sums[middle]) / after
        sudden = before * after / n * float(((means[1] - means[0]) ** 2).sum())
        centre = 0.5 * (low + high - 1)
        slope = (self.moments[high] - self.moments[low]) - centre * (self.sums[high] - self.sums[low])
        return sudden, float((slope**2).sum()) / (n * (n * n - 1) / 12)


def _step_between(courses: list[_Course], first: int, last: int) -> int | None:
    """The sample between first and last at which the units change most; None where they do not change at once."""
    times = np.unique(np.concatenate([c.samples for c in courses])) if courses else np.zeros(0, np.int64)
    times = times[(times > first) & (times < last)]
    if len(times) < 2 * LEAST_SPIKES:
        return None
    for _ in range(2):
        # all over the stretch, then about the best
        tried = times[np.unique(np.linspace(0, len(times) - 1, MOST_TIMES).astype(int))]
        each = np.array([[course.explained(int(time), first, last) for course in courses] for time in tried])
        best = int(each[:, :, 0].sum(axis=1).argmax())
        around = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
        times = times[(times >= around[0]) & (times <= around[1])]
    sudden, line = each[best].sum(axis=0)
    dimension = N_DIRECTIONS * int((each[best, :, 0] > 0).sum())
    beyond_chance = dimension > 0 and special.chdtrc(dimension, sudden) * MOST_TIMES < SUDDEN_LEVEL
    return int(tried[best]) if beyond_chance and sudden > BEYOND_LINE * line else None
