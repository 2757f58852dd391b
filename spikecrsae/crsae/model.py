"""CRsAE: the constrained recurrent sparse auto-encoder, which turns a signal into spikes and spikes into a signal.

The encoder is unrolled: each layer correlates what is left of the signal with the templates, shrinks, and subtracts. The
decoder is the same templates once more (Eq. 26). The prior decides the shrinkage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from spikecrsae.crsae.priors import PRIORS, Prior, as_if_clear
from spikecrsae.crsae.support import TETRODE, least_similarity, supported
from spikecrsae.csc.backends import Backend
from spikecrsae.csc.least_squares import fit_templates
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.csc.operator import gram
from spikecrsae.csc.pursuit import FULL, L1, Effort, Tables, rows_of
from spikecrsae.csc.shrinkage import SpikeShrinkage, shrinkage_at
from spikecrsae.csc.subsample import SINC_REACH, shift_in_time
from spikecrsae.data.loudness import expected_at
from spikecrsae.data.spikes import Spikes
from spikecrsae.errors import InputError, UsageError

#: A correlation counts as active above this share of what a spike needs: between samples it is larger, and templates
#: change.
_ACTIVE_SHARE, _STRONG = 1 / 1.2, 3


@dataclass(frozen=True)
class CRsAE:
    """Templates at full scale with the prior of their spikes.

    templates (n_units, n_channels, n_times); prior: of the same units; sigma: standard deviation of the noise.
    refractory: samples before and after a spike in which its unit does not fire again. A spike has one of `n_shifts`
    positions within a sample (Fourier interpolation), so that jitter of a strong spike leaves no residual. support
    (n_units, n_channels) bool: the channels on which a template is not zero, all unless given. local_search: where
    spikes overlap, try other explanations after the encoder.

    Do not change templates in place: results computed from them are cached. Raises InputError for templates of another
    shape or a prior of other units, UsageError for a sigma that is not positive.
    """

    templates: np.ndarray
    prior: Prior
    sigma: float = 1.0
    refractory: int = 0
    n_shifts: int = 8
    support: np.ndarray = None  # type: ignore[assignment]
    local_search: bool = True
    backend: Backend = NUMBA

    def __post_init__(self) -> None:
        if self.templates.ndim != 3:
            raise InputError(f"templates {self.templates.shape} must be (n_units, n_channels, n_times).")
        if any(len(values) != self.n_units for values in self.prior.parameters().values()):
            raise InputError(
                f"the prior has another number of units than the {self.n_units} templates; give one value for each template."
            )
        if not self.sigma > 0:
            raise UsageError(f"sigma = {self.sigma} must be a positive noise level.")
        if self.support is None:
            object.__setattr__(self, "support", np.ones(self.templates.shape[:2], bool))

    @classmethod
    def of_dict(cls, values: Mapping[str, Any], backend: Backend = NUMBA) -> CRsAE:
        """Return the model that `to_dict` described."""
        kind, parameters = values["prior"]["name"], values["prior"]["parameters"]
        return cls(**{**values, "prior": PRIORS[kind].of_parameters(parameters), "backend": backend})

    def to_dict(self) -> dict[str, Any]:
        """Return what defines the model, without the backend, as nested dicts of arrays, numbers and text."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("prior", "backend")}
        return kept | {"prior": {"name": self.prior.name, "parameters": self.prior.parameters()}}

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.templates)

    @property
    def n_times(self) -> int:
        """Samples of a template."""
        return int(self.templates.shape[2])

    @cached_property
    def energy(self) -> np.ndarray:
        """||h||^2 / sigma^2 per unit."""
        energy: np.ndarray = (self.templates.astype(np.float64) ** 2).sum(axis=(1, 2)) / self.sigma**2
        return energy

    @cached_property
    def shrinkage(self) -> SpikeShrinkage:
        """The prior's shrinkage for these templates."""
        return self.prior.shrinkage(self.energy)

    def _shrinkage_at(self, expected: float) -> SpikeShrinkage:
        """The shrinkage where a spike of its template's size has this amplitude."""
        return shrinkage_at(self.prior.shrinkage, self.energy, expected)

    @property
    def reach(self) -> int:
        """Samples over which one spike affects the next: the template length or the refractory period, whichever is
        longer, and the margin of the interpolation."""
        return max(self.n_times, self.refractory + 1) + 2 * SINC_REACH

    def shifts(self) -> np.ndarray:
        """Sub-sample shifts of the copies, in samples, (n_shifts,)."""
        return (np.arange(self.n_shifts) - (self.n_shifts - 1) / 2) / self.n_shifts

    @cached_property
    def shifted(self) -> np.ndarray:
        """All copies (n_units * n_shifts, n_channels, n_times), float32; the copies of a unit follow one another."""
        copies = np.stack([shift_in_time(self.templates, by) for by in self.shifts()], axis=1)
        return np.ascontiguousarray(copies.reshape(-1, *self.templates.shape[1:]), dtype=np.float32)

    @cached_property
    def overlaps(self) -> np.ndarray:
        """Correlations of the templates with their copies (csc.operator.gram), (n_units, n_units * n_shifts, 2 n_times -
        1), float32, in units of the noise."""
        return (gram(self.templates, self.shifted) / self.sigma**2).astype(np.float32)

    @cached_property
    def _l1(self) -> L1 | None:
        """The prior's convex problem, with these templates."""
        l1 = self.prior.l1
        return None if l1 is None else l1._replace(gram=gram(self.templates) / self.sigma**2)

    def copy_of(self, spikes: Spikes) -> np.ndarray:
        """Return for each spike the row (int64) of `shifted` that it scales."""
        step = np.rint(spikes.shift * self.n_shifts + (self.n_shifts - 1) / 2).astype(np.int64)
        return spikes.unit * self.n_shifts + step

    def at(self, sample: int) -> CRsAE:
        """Return the model at a sample of the recording: here the same everywhere; drift.Drifting has one that changes."""
        return self

    def select(self, units: Sequence[int] | np.ndarray) -> CRsAE:
        """Return the model with only these units (indices or mask)."""
        part = replace(self, templates=self.templates[units], prior=self.prior.select(units), support=self.support[units])
        # what is known of the templates is known of some of them
        if "shifted" in vars(self):
            copies = self.shifted.reshape(self.n_units, self.n_shifts, *self.shifted.shape[1:])[units]
            vars(part)["shifted"] = copies.reshape(-1, *self.shifted.shape[1:])
        if "overlaps" in vars(self):
            vars(part)["overlaps"] = _of_units(self.overlaps, units)
        return part

    def extended(self, templates: np.ndarray) -> CRsAE:
        """Return the model with further templates (n_more, n_channels, n_times) at its end; their prior is that of new
        units."""
        return replace(
            self,
            templates=np.concatenate([self.templates, templates]),
            prior=self.prior.joined(self.prior.first(len(templates))),
            support=np.concatenate([self.support, np.ones(templates.shape[:2], bool)]),
        )

    def seen(self, signal: np.ndarray) -> Any:
        """Prepare a signal (n_channels, n_samples) for repeated encoding."""
        return self.backend.seen(signal, self.n_times, keep=True)

    def view(self, signal: np.ndarray) -> View:
        """Return a signal (n_channels, n_samples) with its correlations with the templates."""
        correlation = self.backend.correlation(self.backend.seen(signal, self.n_times), self._scaled)
        return View(signal, correlation, self.overlaps)

    @property
    def _scaled(self) -> np.ndarray:
        """Templates whose correlation with a signal is in units of the noise."""
        return self.templates if self.sigma == 1 else self.templates / self.sigma**2

    def encode(
        self,
        signal: np.ndarray | View | Any,
        effort: Effort = FULL,
        level: np.ndarray | None = None,
        near: Spikes | None = None,
    ) -> Spikes:
        """Return the codes of a signal (n_channels, n_samples) as spikes; a spike's sample is where its template begins.

        A signal that is encoded several times can be given as `seen` or `view` prepares it. level (n_samples,) uint8:
        level of the noise by which the signal is divided, see data.loudness; 0 unless given. near: spikes that a model of the
        same units and nearly the same templates has found in the signal: the local search goes on from these, unless the
        prior's convex encoder says where spikes may be. With a `view`, near is ignored.
        """
        if not self.n_units or (isinstance(signal, np.ndarray) and signal.shape[1] < self.n_times):
            return Spikes.none()
        at, n_levels = self._levels_of_positions(level)
        enough, gap = _ACTIVE_SHARE * self.needed(at), 3 * self.n_times + self.refractory
        effort = effort if self.local_search else replace(effort, n_sweeps=0)
        how = enough, gap, effort, self._doubtful, self._l1
        if isinstance(signal, View):
            tables = self._tables(signal.overlaps, np.result_type(signal.signal.dtype, np.float32), n_levels)
            return self.backend.pursue_correlation(signal.signal, signal.correlation, tables, *how, at)
        seen = self.backend.seen(signal, self.n_times) if isinstance(signal, np.ndarray) else signal
        rows = rows_of(near, self.n_shifts) if near is not None and self.local_search else None
        return self.backend.pursue(seen, self._scaled, self._tables(self.overlaps, seen.dtype, n_levels), *how, at, rows)

    def _tables(self, overlaps: np.ndarray, dtype: np.dtype, n_levels: int) -> Tables:
        """What the search reads besides a correlation of this type."""
        alike = least_similarity(self.templates.shape[1])
        return Tables.of(overlaps, self.prior.shrinkage, self.refractory, self.shifts(), dtype, n_levels, alike)

    def _levels_of_positions(self, level: np.ndarray | None) -> tuple[np.ndarray | None, int]:
        """The level of each position, that in the middle of a template there, None where all are 0; and the number of levels up
        to the highest."""
        if level is None or not level.any():
            return None, 1
        first = self.n_times // 2
        at = np.ascontiguousarray(level[first : first + len(level) - self.n_times + 1])
        return at, int(at.max(initial=0)) + 1

    def needed(self, level: np.ndarray | None = None) -> np.ndarray:
        """Correlation above which a spike of each unit raises the log posterior, (n_units,). level (uint8): of the noise, 0 unless
        given. For several levels the smallest correlation is returned."""
        if level is None:
            return self.shrinkage.needed()
        each = [self._shrinkage_at(float(expected_at(one))).needed() for one in np.unique(level)]
        return np.asarray(np.min(each, axis=0))

    def log_prior(self, spikes: Spikes) -> np.ndarray:
        """Return the log prior odds (n,) of each spike against none."""
        return self._by_expected(spikes, lambda shrinkage, *values: shrinkage.prior(*values))

    def unshrunk(self, spikes: Spikes) -> np.ndarray:
        """Return the spikes' amplitudes (n,) by least squares, relative to the expected ones."""
        found = self._by_expected(spikes, lambda shrinkage, *values: shrinkage.unshrunk(*values))
        return np.asarray(found / spikes.expected)

    def as_units(self, spikes: Spikes, which: np.ndarray, unit: np.ndarray) -> Spikes:
        """Return the spikes, with those of `which` (indices) assigned to the units `unit`, whose templates begin at the
        same sample. These units are then no rivals of those spikes."""
        products = np.einsum("uct,vct->uv", self.templates, self.templates)
        then = spikes.unit[which]
        least_squares = self.unshrunk(spikes)[which] * spikes.expected[which] * products[then, then] / products[then, unit]
        units, amplitude, rival, rival_gain = (
            getattr(spikes, n).copy() for n in ("unit", "amplitude", "rival", "rival_gain")
        )
        units[which], amplitude[which] = unit, least_squares
        renamed = replace(spikes, unit=units, amplitude=amplitude)
        amplitude[which] = self._by_expected(renamed, lambda shrinkage, *values: shrinkage.shrunk(*values))[which]
        own = which[np.isin(spikes.rival[which], unit)]
        rival[own], rival_gain[own] = -1, 0.0
        return replace(renamed, amplitude=amplitude, rival=rival, rival_gain=rival_gain)

    def _by_expected(self, spikes: Spikes, of: Callable[..., np.ndarray]) -> np.ndarray:
        """What `of` makes of the shrinkage at each spike's expected amplitude, unit, amplitude, and the energies; (n,)."""
        found = np.zeros(len(spikes))
        for expected in np.unique(spikes.expected):
            here = spikes.expected == expected
            shrinkage = self._shrinkage_at(float(expected))
            found[here] = of(shrinkage, spikes.unit[here], spikes.amplitude[here], self.energy)
        return found

    def decode(self, spikes: Spikes, n_samples: int) -> np.ndarray:
        """Return H x, the signal (n_channels, n_samples) that the spikes make, float32."""
        return -self.residual(np.zeros((self.templates.shape[1], n_samples), np.float32), spikes)

    def residual(self, signal: np.ndarray, spikes: Spikes, out: np.ndarray | None = None) -> np.ndarray:
        """Subtract the spikes from a signal (n_channels, n_samples), float32; into `out` if given, which may be the
        signal."""
        return self.backend.subtract(signal, self.shifted, self.copy_of(spikes), spikes.sample, spikes.amplitude, out)

    def maximise(self, signal: np.ndarray, spikes: Spikes, n_positions: int | np.ndarray | None = None) -> CRsAE:
        """Do the M-step for the spikes of a signal (n_channels, n_samples). Units without a spike stay as they are.

        Templates: joint least squares with the spikes' amplitudes, in which the old templates count a little (see
        fit_templates), rescaled so that the mean relative amplitude is 1, and zero outside their support. A unit of
        one spike keeps its template. Prior: its own M-step. n_positions: number of positions over which each unit's
        rate is computed, one number or (n_units,); those of the signal unless given.
        """
        if not len(spikes) or not self.n_units:
            return self
        here = signal.shape[1] - self.n_times + 1
        counts = np.bincount(spikes.unit, minlength=self.n_units)
        means = np.bincount(spikes.unit, spikes.relative, self.n_units) / np.maximum(counts, 1)
        statistics = self.backend.code_statistics(
            signal, spikes.unit, spikes.sample, spikes.amplitude, self.n_units, self.n_times
        )
        fitted = fit_templates(*statistics, before=self.templates)
        several = counts >= 2
        templates = self.templates.astype(np.float64)
        templates[several] = fitted[several] * means[several, None, None]
        support = self.support
        if support.shape[1] > TETRODE:
            support = np.where(several[:, None], supported(templates / self.sigma, counts), support)
        templates *= support[:, :, None]
        amplitude = as_if_clear(spikes.unit, self.unshrunk(spikes) / means[spikes.unit], spikes.clear)
        n_positions = here if n_positions is None else n_positions
        prior = self.prior.maximise(spikes.unit, amplitude, self.energy * means**2, n_positions)
        return replace(self, templates=templates, prior=prior, support=support)

    def active(self, signal: np.ndarray, level: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions (bool, n_positions) of signal (n_channels, n_samples) where a spike could raise the log
        posterior, and those where it would raise it by much. The first have a margin for places between samples and for
        templates that still change. level (n_samples,): as for `encode`."""
        if signal.shape[1] < self.n_times or not self.n_units:
            return np.zeros(0, bool), np.zeros(0, bool)
        needed = self.needed(self._levels_of_positions(level)[0])
        return self.backend.active(signal, self._scaled, _ACTIVE_SHARE * needed, _STRONG / _ACTIVE_SHARE)

    def log_posterior(self, signal: np.ndarray, spikes: Spikes) -> float:
        """Return the log posterior odds of the spikes against no spike: half the energy they explain, and their log
        prior."""
        if not len(spikes):
            return 0.0
        rest = self.residual(signal, spikes)
        explained = 0.5 * (np.vdot(signal, signal) - np.vdot(rest, rest)) / self.sigma**2
        return float(explained + self.log_prior(spikes).sum())

    def misfit(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Return for each spike (n,) the energy that the residual of signal (n_channels, n_samples) has under its template:
        samples are weighted by the template's power, relative to its peak."""
        return self.backend.misfits(
            signal, self.shifted, self.copy_of(spikes), spikes.sample, spikes.amplitude, self._power, spikes.unit
        )

    @property
    def misfit_of_noise(self) -> np.ndarray:
        """Standard deviation of the cube root of a misfit of noise alone, (n_units,). The weighted sum of squares is
        nearly chi squared, with the degrees of freedom of its mean and variance; its cube root is nearly normal (Wilson
        and Hilferty 1931)."""
        n_channels = self.templates.shape[1]
        mean, variance = n_channels * self._power.sum(axis=1), 2 * n_channels * (self._power**2).sum(axis=1)
        deviation: np.ndarray = np.cbrt(self.sigma**2) * np.cbrt(mean) * np.sqrt(variance) / (3 * np.maximum(mean, 1e-12))
        return deviation

    def _doubtful(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Spikes (bool, n) that leave more in the signal than noise would on most of them."""
        weights = self._power
        expected = len(signal) * weights.sum(axis=1) + np.sqrt(2 * len(signal) * (weights**2).sum(axis=1))
        doubtful: np.ndarray = self.misfit(signal, spikes) > expected[spikes.unit] * self.sigma**2
        return doubtful

    @cached_property
    def _power(self) -> np.ndarray:
        """Power of the templates over time, relative to its peak (n_units, n_times)."""
        power: np.ndarray = (self.templates.astype(np.float64) ** 2).sum(axis=1)
        power /= np.maximum(power.max(axis=1, keepdims=True), 1e-12)
        return power


@dataclass(frozen=True)
class View:
    """A signal (n_channels, n_samples) with its correlation (n_units, n_positions) with every template, an array on the
    backend's device, and the overlaps (n_units, n_units * n_shifts, 2 n_times - 1) of the templates with their shifted
    copies. Encode it once only: encoding changes it."""

    signal: np.ndarray
    correlation: Any
    overlaps: np.ndarray

    def select(self, units: Sequence[int] | np.ndarray) -> View:
        """Return a copy for some of the units (indices or mask)."""
        return View(self.signal, self.correlation[units], _of_units(self.overlaps, units))


def _of_units(overlaps: np.ndarray, units: Sequence[int] | np.ndarray) -> np.ndarray:
    """The rows and copies of some units (indices or mask) of overlaps (n_units, n_units * n_shifts, n_lags)."""
    n_units, n_copies, n_lags = overlaps.shape
    if not n_units:
        return overlaps
    some = overlaps.reshape(n_units, n_units, -1, n_lags)[units][:, units]
    return some.reshape(len(some), len(some) * (n_copies // n_units), n_lags)
