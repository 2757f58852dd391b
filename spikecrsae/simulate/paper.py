"""The paper's simulated data set of separate windows (Sec. VII-A, Table III)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.data.sparse_code import SparseCode
from spikecrsae.errors import UsageError
from spikecrsae.simulate.settings import PAPER_AMPLITUDE
from spikecrsae.simulate.shapes import add_spikes, paper_templates


@dataclass(frozen=True)
class PaperSimulation:
    """The paper's simulated windows (Sec. VII-A), divided by their largest absolute value.

    windows (n_windows, 1, n_samples) float32; positions (n_windows, n_units, n_spikes): first sample of each template,
    ascending; amplitudes likewise, of the unit-norm templates (n_units, 1, n_times), on the scale of the windows.
    sigma: standard deviation of the noise on that scale; scale: what everything was divided by.
    """

    windows: np.ndarray
    positions: np.ndarray
    amplitudes: np.ndarray
    templates: np.ndarray
    sigma: float
    scale: float

    def code(self, window: int) -> SparseCode:
        """The true code of one window."""
        units, n_spikes = self.positions.shape[1:]
        return SparseCode.build(
            np.repeat(np.arange(units), n_spikes),
            self.positions[window].ravel(),
            self.amplitudes[window].ravel(),
            units,
            self.windows.shape[-1] - self.templates.shape[-1] + 1,
        )


def paper_windows(n_windows: int = 1000, snr_db: float = 16.0, seed: int = 0) -> PaperSimulation:
    """Separate windows as in Sec. VII-A and Table III: 10 kHz, N = 1000, K = 18, four neurons, three spikes each.

    Spikes of one neuron are at least K samples apart, those of different neurons overlap freely; amplitudes are
    N(180, 30). snr_db = 10 log10(var(Hx) / sigma^2), over all windows. Raises UsageError for less than one window.
    """
    if n_windows < 1:
        raise UsageError(f"n_windows = {n_windows} must be at least 1.")
    rng = np.random.default_rng(seed)
    n_samples, n_spikes = 1000, 3
    templates = paper_templates()
    n_units, _, n_times = templates.shape
    # Three ascending draws spread by K each: every set of positions at least K apart can occur.
    free = n_samples - n_times + 1 - (n_spikes - 1) * n_times
    positions = np.sort(rng.integers(0, free, (n_windows, n_units, n_spikes)), axis=-1) + n_times * np.arange(n_spikes)
    amplitudes = rng.normal(*PAPER_AMPLITUDE, positions.shape)

    signal = np.zeros((n_windows * n_samples, 1))
    first = positions + n_samples * np.arange(n_windows)[:, None, None]
    for unit in range(n_units):
        start = first[:, unit].ravel()
        add_spikes(signal, templates[None, unit], start, np.zeros(len(start), np.int64), amplitudes[:, unit].ravel())
    sigma = signal.std() / 10 ** (snr_db / 20)
    signal += sigma * rng.standard_normal(signal.shape)
    scale = float(np.abs(signal).max())
    windows = (signal / scale).reshape(n_windows, 1, n_samples).astype(np.float32)
    return PaperSimulation(windows, positions, amplitudes / scale, templates, float(sigma / scale), scale)
