"""EM of the spike-and-slab model: decode, then update templates, spreads and penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spikecrsae.csc.least_squares import fit_templates
from spikecrsae.csc.operator import BlockSpectra
from spikecrsae.csc.pursuit import Spikes, SpikeSlab
from spikecrsae.data.sparse_code import SparseCode

#: Bounds of the learned amplitude spread: below, a spike would have to fit its template better than any real one does;
#: above, the prior would no longer tell a spike from noise.
SPREAD_BOUNDS = (0.03, 0.2)
#: Amplitude spread and log-odds penalty before anything is known, and the number of spikes that the first is worth against
#: what a unit's own spikes say (a conjugate prior of its variance).
FIRST_SPREAD, FIRST_PENALTY, SPREAD_COUNT = 0.1, 8.0, 20


def first_model(templates: np.ndarray, refractory: int) -> SpikeSlab:
    """Templates with the prior that is assumed before anything is known."""
    n_units = len(templates)
    return SpikeSlab(np.asarray(templates), np.full(n_units, FIRST_SPREAD), np.full(n_units, FIRST_PENALTY), refractory)


def keep(model: SpikeSlab, units: Sequence[int] | np.ndarray) -> SpikeSlab:
    """The model with only these units (indices or mask)."""
    return replace(model, templates=model.templates[units], spread=model.spread[units], penalty=model.penalty[units])


def add(model: SpikeSlab, templates: np.ndarray) -> SpikeSlab:
    """The model with further units at its end."""
    more = first_model(templates, model.refractory)
    return replace(
        model,
        templates=np.concatenate([model.templates, more.templates]),
        spread=np.concatenate([model.spread, more.spread]),
        penalty=np.concatenate([model.penalty, more.penalty]),
    )


def expectation_maximisation(
    signal: np.ndarray | BlockSpectra,
    model: SpikeSlab,
    n_rounds: int,
    n_positions: int | None = None,
    spikes: Spikes | None = None,
) -> tuple[SpikeSlab, Spikes]:
    """Decode, then update templates (joint least squares), spreads and penalties; ends with a decoding of the last model.

    n_positions: among which spikes of a unit are counted for its rate; those of the signal unless given. spikes: what
    decoding with the model gives, or nearly, where that is known.
    """
    spectra = BlockSpectra.of(signal, model.templates.shape[2]) if isinstance(signal, np.ndarray) else signal
    for _ in range(n_rounds):
        found = model.decode(spectra, n_sweeps=2, with_rivals=False) if spikes is None else spikes
        model, spikes = maximise(spectra.signal, model, found, n_positions), None
    return model, model.decode(spectra, n_sweeps=2, with_rivals=False) if spikes is None else spikes


def maximise(signal: np.ndarray, model: SpikeSlab, spikes: Spikes, n_positions: int | None = None) -> SpikeSlab:
    """The M-step for decoded spikes. Units without a spike keep what they have.

    Templates: joint least squares with the decoded amplitudes, those of before counting a little (see fit_templates),
    rescaled so that the mean amplitude is 1. Spread: that of the amplitudes (from the median to 84 %) less what noise adds
    (1 / ||h||^2). Penalty: minus the log of the rate per position.
    """
    if not len(spikes) or not model.n_units:
        return model
    here = signal.shape[1] - model.templates.shape[2] + 1
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    code = SparseCode.build(spikes.unit, spikes.sample, spikes.amplitude, model.n_units, here)
    fitted = fit_templates(signal, code, model.templates.shape[2], before=model.templates)
    templates, spread, penalty = model.templates.astype(np.float64), model.spread.copy(), model.penalty.copy()
    for unit in np.flatnonzero(counts):
        amplitudes = spikes.amplitude[spikes.unit == unit]
        if counts[unit] >= 2:
            templates[unit] = fitted[unit] * amplitudes.mean()
        energy, precision = model.energy[unit], 1 / model.spread[unit] ** 2
        unshrunk = amplitudes + (amplitudes - 1) * precision / max(energy, 1e-9)
        spread[unit] = learned_spread(unshrunk / amplitudes.mean(), energy)
        penalty[unit] = np.log((n_positions or here) / (counts[unit] + 1.0))
    return replace(model, templates=templates, spread=spread, penalty=penalty)


def learned_spread(amplitudes: np.ndarray, energy: float) -> float:
    """Spread of a unit's amplitudes (least squares, about 1) without what noise adds (1 / energy), within SPREAD_BOUNDS.

    From the upper half: small spikes of other neurons must not widen the prior that lets more of them in. A conjugate prior
    counts as much as SPREAD_COUNT spikes.
    """
    n = len(amplitudes)
    deviation = np.subtract(*np.percentile(amplitudes, [84, 50]))
    noise_free = max(deviation**2 - 1 / max(energy, 1e-9), 0.0)
    variance = (n * noise_free + SPREAD_COUNT * FIRST_SPREAD**2) / (n + SPREAD_COUNT)
    return float(np.clip(np.sqrt(variance), *SPREAD_BOUNDS))
