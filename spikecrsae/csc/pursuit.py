"""The spikes of a stretch by pursuit: greedy selection layer by layer, then local search in crowded places.

In each layer every spike is taken whose gain (csc.shrinkage.SpikeShrinkage) is the largest within reach, and subtracted from
the correlation through the Gram function of the templates: H^T (y - H x), with the weights of encoder and decoder tied.
Positions are refined below one sample: the correlation with a template shifted by d is the correlation d later, which a
windowed sinc interpolates; only what is subtracted needs shifted copies of the template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from spikecrsae.csc.coordinate import encode_correlation
from spikecrsae.csc.local_search import FOUND_DTYPE, Residual, compare, improve, resume, search
from spikecrsae.csc.shrinkage import SpikeShrinkage, shrinkage_at
from spikecrsae.csc.subsample import interpolator
from spikecrsae.data.loudness import expected_at
from spikecrsae.data.spikes import Spikes

#: Units are rivals if their templates' cosine similarity at the best lag exceeds this value.
_RIVAL_SIMILARITY = 0.6
#: Templates of less similarity share no channel: what is there is rounding.
_MET = 1e-6
#: The convex problem of an L1 is solved until no optimality condition is violated by more, in units of the noise.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Effort:
    """n_sweeps: of local search after the pursuit, at most. with_rivals: say which other unit fits a spike best."""

    n_sweeps: int = 4
    with_rivals: bool = True


#: Of the last encoding of a recording.
FULL = Effort()


class L1(NamedTuple):
    """The prior of the convex encoder, whose support is where the pursuit may place spikes.

    bias (n_units,): lambda sigma^2 for templates of unit norm, in units of the noise. one_sided: codes are not negative. gram
    (n_units, n_units, 2 n_times - 1): csc.operator.gram of the templates, in units of the noise; a prior does not know it.
    """

    bias: np.ndarray
    one_sided: bool
    gram: np.ndarray = np.zeros((0, 0, 1))


class Beside(NamedTuple):
    """To each unit the units, itself included, with which it has to do: units (n_units, n_units), the first counts[unit] of a row,
    ascending; pairs (n_units, n_units) bool."""

    units: np.ndarray
    counts: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, pairs: np.ndarray) -> Beside:
        """pairs (n_units, n_units) bool; every unit has to do with itself."""
        pairs = pairs | np.eye(len(pairs), dtype=bool)
        return cls(np.argsort(~pairs, axis=1, kind="stable"), pairs.sum(axis=1), pairs)


class Tables(NamedTuple):
    """What the search reads besides the correlation, the same for all stretches that it goes through.

    overlaps (n_units, n_units * n_shifts, 2 n_times - 1): csc.operator.gram of the templates with their shifted copies.
    kernel (n_shifts, 2 reach + 1): reads a correlation between its samples. prior (n_levels, 3, n_units): the
    rows of a SpikeShrinkage at each level of noise (see data.loudness).
    rivals: units whose templates resemble each other. met: units whose templates overlap at all; alike: those that may
    take each other's place, see `of`. refractory: a unit fires once within so many
    samples each way. shifts (n_shifts,): of the copies, in samples.
    """

    overlaps: np.ndarray
    kernel: np.ndarray
    prior: np.ndarray
    rivals: Beside
    met: Beside
    alike: Beside
    refractory: int
    shifts: np.ndarray

    @classmethod
    def of(
        cls,
        overlaps: np.ndarray,
        shrinkage: Callable[[np.ndarray], SpikeShrinkage],
        refractory: int,
        shifts: np.ndarray,
        dtype: DTypeLike = np.float32,
        n_levels: int = 1,
        alike: float = 0.0,
    ) -> Tables:
        """overlaps, refractory and shifts as kept; shrinkage: of templates with these energies. dtype: that of the
        correlation. n_levels: of the noise. alike: the similarity that units have which may take each other's place."""
        n_units, n_shifts = len(overlaps), len(shifts)
        middle = overlaps.reshape(n_units, n_units, n_shifts, -1)
        own = np.arange(n_units)
        energy = middle[own, own, n_shifts // 2, (overlaps.shape[2] - 1) // 2].astype(np.float64)
        similarity = np.abs(middle).max(axis=(2, 3)) / np.maximum(np.sqrt(np.outer(energy, energy)), 1e-12)
        return cls(
            np.ascontiguousarray(overlaps, dtype=dtype),
            np.ascontiguousarray(interpolator(shifts), dtype=dtype),
            np.stack([np.stack(shrinkage_at(shrinkage, energy, float(expected_at(k)))) for k in range(n_levels)]),
            Beside.of(similarity > _RIVAL_SIMILARITY),
            Beside.of(similarity > _MET),
            Beside.of(similarity >= alike),
            refractory,
            shifts,
        )


def pursue(
    correlation: np.ndarray,
    tables: Tables,
    effort: Effort = FULL,
    doubtful: Callable[[Spikes], np.ndarray] | None = None,
    l1: L1 | None = None,
    level: np.ndarray | None = None,
    near: np.ndarray | None = None,
) -> Spikes:
    """The spikes of one stretch.

    correlation (n_units, n_positions): of the whitened signal with the templates at full scale; it is changed into that of
    the residual. doubtful: see `refine`. l1: the pursuit places spikes only where this convex encoder finds any.
    level (n_positions,) uint8: of the noise, 0 unless given. near: rows (FOUND_DTYPE), sorted by position, of spikes that
    nearly the same templates have found here: each is looked for again where it was, the greedy search finds those that are
    missing, and what has changed or is doubtful is searched locally. It is not used where an l1 says where spikes may be.
    """
    level = np.zeros(correlation.shape[1], np.uint8) if level is None else level
    if near is not None and l1 is None:
        residual = Residual(correlation, np.zeros(correlation.shape, np.uint8), level)
        found, open_ = resume(residual, tables, near)
        new = search(residual, tables)
        return refine(residual, tables, np.r_[found, new], effort, doubtful, np.r_[open_, np.ones(len(new), bool)])
    if l1 is None:
        silent = np.zeros(correlation.shape, np.uint8)
    else:
        codes = encode_correlation(correlation, l1.gram, l1.bias, l1.one_sided, TOLERANCE)
        silent = outside_support(codes)
    residual = Residual(correlation, silent.copy(), level)
    found = search(residual, tables)
    # the local search is free to leave the support
    np.subtract(residual.blocked, silent, out=residual.blocked)
    return refine(residual, tables, found, effort, doubtful)


def rows_of(spikes: Spikes, n_shifts: int) -> np.ndarray:
    """The rows (FOUND_DTYPE) of spikes; n_shifts: shifted copies of a template."""
    rows = np.zeros(len(spikes), FOUND_DTYPE)
    step = np.rint(spikes.shift * n_shifts + (n_shifts - 1) / 2)
    rows["unit"], rows["position"], rows["step"] = spikes.unit, spikes.sample, step
    rows["amplitude"], rows["gain"] = spikes.amplitude, spikes.gain
    return rows


def between(rows: np.ndarray, low: int, high: int) -> np.ndarray:
    """Those rows (FOUND_DTYPE), sorted by position, that are in [low, high), positions counted from low."""
    here = rows[slice(*np.searchsorted(rows["position"], [low, high]))].copy()
    here["position"] -= low
    return here


def outside_support(codes: np.ndarray) -> np.ndarray:
    """1 (uint8) where neither a code (n_units, n_positions) nor its neighbour on either side is above 0, 0 elsewhere."""
    above = codes > 0
    near = above.copy()
    near[:, 1:] |= above[:, :-1]
    near[:, :-1] |= above[:, 1:]
    return (~near).astype(np.uint8)


def refine(
    residual: Residual,
    tables: Tables,
    found: np.ndarray,
    effort: Effort,
    doubtful: Callable[[Spikes], np.ndarray] | None = None,
    open_: np.ndarray | None = None,
) -> Spikes:
    """Local search, the refinement of crowded places, from the rows (FOUND_DTYPE) that an encoder has found.

    Up to n_sweeps times, spikes are taken out together with those close to them and what raises the log posterior most is put
    in their place: two spikes for one (a collision that looked like a third unit), one for two, or others. Spikes that stand
    alone are left so unless they are `doubtful` (mask of Spikes). Where it is known which rows are `open_` (bool, n), crowded
    ones are left too unless they are among these, or doubtful.
    """
    shifts, anew = tables.shifts, open_ is None
    open_ = np.ones(len(found), bool) if open_ is None else open_
    for sweep in range(effort.n_sweeps):
        order = np.argsort(found["position"], kind="stable")
        found, open_ = found[order], open_[order]
        if sweep == 0 and doubtful is not None:
            none = np.full(len(found), -1), np.zeros(len(found))
            doubt = doubtful(_spikes(found, shifts, residual.level, found["gain"], *none))
            open_ = doubt if anew else open_ | doubt
        found, open_ = improve(residual, tables, found, open_, anew and sweep == 0)
        if not open_.any():
            break
    found = found[np.lexsort((found["unit"], found["position"]))]
    return _spikes(found, shifts, residual.level, *compare(residual, tables, found, effort.with_rivals))


def _spikes(
    found: np.ndarray, shifts: np.ndarray, level: np.ndarray, gain: np.ndarray, rival: np.ndarray, rival_gain: np.ndarray
) -> Spikes:
    """Spikes of the rows (FOUND_DTYPE) that the search has found."""
    unit, sample, amplitude = (found[name].copy() for name in ("unit", "position", "amplitude"))
    expected = expected_at(level[found["position"]])
    return Spikes(unit, sample, amplitude, shifts[found["step"]], gain, rival, rival_gain, expected)
