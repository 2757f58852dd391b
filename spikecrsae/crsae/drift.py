"""Templates that follow the changes of a recording: slow ones (movement of the electrode, swelling, a cell that fades) and steps (an
electrode that slips, another session)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from spikecrsae.crsae.complex_spikes import ComplexSpikes
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import as_if_clear
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.windows import windows_at

#: Templates are sums of Legendre polynomials of time up to this degree; a unit needs SPIKES_PER_TERM spikes for each.
DEGREE, SPIKES_PER_TERM = 4, 20
#: A unit's template steps where it has so many spikes at least on each side.
SPIKES_BESIDE_STEP = 10
#: A change counts where its singular value is above the largest one that noise alone gives, by this margin.
NOISE_MARGIN = 1.1
#: Chance that what a steady unit varies by besides noise, its gain and jitter, passes for a change.
STEADY_LEVEL = 1e-3


@dataclass(frozen=True)
class Drifting:
    """A model whose templates are functions of time.

    changes (DEGREE + n_steps, n_units, n_channels, n_times): the template of a unit at time t of the recording is that of `model` plus
    the sum of changes[k - 1] P_k(x), with Legendre polynomials P_k and x from -1 at the first sample to 1 at the last, plus
    changes[DEGREE + j] from the sample steps[j] (n_steps,) on, less its mean over time. complexes: neurons whose
    complex spikes are a unit of their own.
    """

    model: CRsAE
    changes: np.ndarray
    n_samples: int
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    complexes: tuple[ComplexSpikes, ...] = ()

    @property
    def reach(self) -> int:
        """Samples over which one spike bears on the next."""
        return self.model.reach + max((told.n_tail for told in self.complexes), default=0)

    def at(self, sample: int) -> CRsAE:
        """The model at a sample of the recording."""
        if not self.changes.any():
            return self.model
        terms = _terms(np.array([sample]), self.n_samples, len(self.changes) + 1 - len(self.steps), self.steps)[0, 1:]
        return replace(self.model, templates=self.model.templates + np.tensordot(terms, self.changes, axes=1))

    def step_sizes(self) -> np.ndarray:
        """How far each template moves at each step, relative to its mean norm (n_steps, n_units)."""
        moved = (self.changes[len(self.changes) - len(self.steps) :] ** 2).sum(axis=(2, 3))
        return np.sqrt(moved / np.maximum(self.model.energy, 1e-9))

    def extent(self) -> np.ndarray:
        """How far each template moves from the first sample to the last, relative to its mean norm (n_units,)."""
        moved = self.at(self.n_samples - 1).templates - self.at(0).templates
        return np.sqrt((moved**2).sum(axis=(1, 2)) / np.maximum(self.model.energy, 1e-9))


def _terms(samples: np.ndarray, n_samples: int, n_terms: int, steps: np.ndarray) -> np.ndarray:
    """Legendre polynomials of time, and for each of the steps 1 from there on, less its mean over the recording:
    (n, n_terms + n_steps)."""
    slow = np.polynomial.legendre.legvander(2.0 * samples / max(n_samples - 1, 1) - 1, n_terms - 1)
    return np.column_stack([slow, (samples[:, None] >= steps) - (1 - steps / n_samples)])


def _stepping(samples: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The steps (bool, n_steps) between which, and beside which, a unit has enough spikes; samples (n_spikes,) of them."""
    chosen, before = np.zeros(len(steps), bool), 0
    for k, n in enumerate(np.searchsorted(np.sort(samples), steps)):
        if min(n - before, len(samples) - n) >= SPIKES_BESIDE_STEP:
            chosen[k], before = True, n
    return chosen


def fit_drift(
    signal: np.ndarray,
    model: CRsAE,
    spikes: Spikes,
    samples: np.ndarray,
    n_samples: int,
    steps: Sequence[int] | np.ndarray = (),
    n_positions: np.ndarray | None = None,
) -> Drifting:
    """How the templates change over the recording, from the spikes of whitened signal (n_channels, n_samples of it).

    samples (n_spikes,): where each spike stands in the recording of n_samples; steps: where templates may step; n_positions: see
    CRsAE.maximise. A unit's waveforms, every other spike taken
    away, are regressed on polynomials that are orthonormal over its spikes: without drift, the coefficients beyond the
    first are noise of variance 1. Of their singular values only those above what such noise reaches (square roots of the two
    sides' lengths added up) are kept; most recordings keep none.
    """
    n_times = model.templates.shape[2]
    steps = np.asarray(steps, np.int64)
    changes = np.zeros((DEGREE + len(steps), *model.templates.shape))
    if not len(spikes):
        return Drifting(model, changes, n_samples, steps)
    rest = model.residual(signal, spikes).T
    shifted, rows = model.shifted, model.copy_of(spikes)
    templates, mean_energy = model.templates.astype(np.float64).copy(), model.energy.copy()
    drifts, amplitude = np.zeros(len(spikes), bool), np.ones(len(spikes))
    for unit in range(model.n_units):
        mine = np.flatnonzero(spikes.unit == unit)
        stepping = _stepping(samples[mine], steps)
        n_slow = max(min(DEGREE + 1, len(mine) // SPIKES_PER_TERM), 1)
        n_terms = n_slow + int(stepping.sum())
        if n_terms < 2:
            continue
        windows = windows_at(rest, spikes.sample[mine], n_times)
        windows = windows + shifted[rows[mine]].transpose(0, 2, 1) * spikes.amplitude[mine, None, None]
        # where the noise is louder, signal divided by it holds a smaller template
        basis = _terms(samples[mine], n_samples, n_slow, steps[stepping]) * spikes.expected[mine, None]
        orthonormal, triangle = np.linalg.qr(basis)
        coefficients = orthonormal.T @ windows.reshape(len(mine), -1)
        left, size, right = np.linalg.svd(coefficients[1:], full_matrices=False)
        bound = NOISE_MARGIN * (np.sqrt(coefficients.shape[1]) + np.sqrt(n_terms - 1))
        # gain and jitter make some directions vary more than noise does
        left_over = windows.reshape(len(mine), -1) @ right.T - orthonormal @ (coefficients @ right.T)
        more = np.maximum(left_over.var(axis=0) - 1, 0)
        kept = size**2 > bound**2 + more * special.chdtri(n_terms - 1, STEADY_LEVEL)
        if not kept.any():
            continue
        coefficients[1:] = (left[:, kept] * size[kept]) @ right[kept]
        fitted = np.linalg.solve(triangle, coefficients).reshape(n_terms, n_times, -1).transpose(0, 2, 1)
        fitted *= model.support[unit, :, None]
        templates[unit], changes[: n_slow - 1, unit] = fitted[0], fitted[1:n_slow]
        changes[DEGREE + np.flatnonzero(stepping), unit] = fitted[n_slow:]
        expected = basis @ np.linalg.solve(triangle, coefficients)
        energy = (expected**2).sum(axis=1)
        amplitude[mine] = (windows.reshape(len(mine), -1) * expected).sum(axis=1) / energy
        mean_energy[unit], drifts[mine] = (energy / spikes.expected[mine] ** 2).mean(), True
    # changes of the template are no spread of the amplitude
    here: int | np.ndarray = signal.shape[1] - n_times + 1 if n_positions is None else n_positions
    units = spikes.unit[drifts]
    amplitude = as_if_clear(units, amplitude[drifts], spikes.clear[drifts])
    prior = model.prior.maximise(units, amplitude, mean_energy, here)
    return Drifting(replace(model, templates=templates, prior=prior), changes, n_samples, steps)
