"""Spike waveforms as analytic shapes, the templates sampled from them, and their sum at given spikes.

A shape is a sum of two-sided Gaussians, so it can be evaluated at any fraction of a sample. Components have the
shape (..., n_parts, 4): amplitude, centre, width to the left and width to the right, all times in ms; the largest
deflection lies at 0 ms.
"""

from __future__ import annotations

import numpy as np

from spikecrsae.units import ms_to_samples

#: Stretch of the paper's templates around the trough: 18 samples at 10 kHz (Table III, K = 18).
PAPER_SPAN_MS = (-0.6, 1.2)
#: Stretch of the tetrode templates around the trough.
TETRODE_SPAN_MS = (-1.0, 2.2)

# Trough, bump before it and hump after it of four spike-like shapes. Sampled at 10 kHz their normalised
# cross-correlations cover 0.55 to 0.94, at lag zero as well as at the best lag (paper: 0.5 to 0.95).
_PAPER_SHAPES = (
    ((-1.0, 0.0, 0.113, 0.114), (0.191, -0.275, 0.1, 0.1), (0.72, 0.503, 0.15, 0.227)),
    ((-1.0, 0.0, 0.110, 0.126), (0.320, -0.348, 0.1, 0.1), (0.648, 0.352, 0.15, 0.174)),
    ((-1.0, 0.0, 0.127, 0.163), (0.186, -0.317, 0.1, 0.1), (0.145, 0.518, 0.15, 0.239)),
    ((-1.0, 0.0, 0.214, 0.222), (0.157, -0.262, 0.1, 0.1), (0.148, 0.530, 0.15, 0.218)),
)


def paper_components() -> np.ndarray:
    """Components (4, 1, 3, 4) of the four single-channel shapes that stand for the paper's neurons."""
    return _centred(np.array(_PAPER_SHAPES)[:, None])


def tetrode_components(channel_positions: np.ndarray, n_units: int, rng: np.random.Generator) -> np.ndarray:
    """Components (n_units, n_channels, 3, 4) of cells placed around the contacts, largest deflection -1.

    channel_positions (n_channels, 2) in um. Cells lie in distinct directions around the contacts' centre. With the
    distance to a contact the amplitude decays, the spike comes later (conduction) and gets wider (filtering).
    """
    angle = 2 * np.pi * (np.arange(n_units) + rng.uniform(0.1, 0.9, n_units)) / n_units
    radius, height = rng.uniform(15.0, 40.0, n_units), rng.uniform(10.0, 25.0, n_units)
    cells = channel_positions.mean(axis=0) + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.sqrt(((cells[:, None] - channel_positions) ** 2).sum(-1) + height[:, None] ** 2)
    farther = distance - distance.min(axis=1, keepdims=True)
    gain = (distance.min(axis=1, keepdims=True) / distance) ** 2
    delay_ms, stretch = farther / 500.0, 1 + farther / 200.0

    trough, hump = rng.uniform(0.08, 0.17, n_units), rng.uniform(0.16, 0.3, n_units)
    one, zero = np.ones(n_units), np.zeros(n_units)
    shapes = np.stack(
        [
            np.stack([-one, zero, trough, 1.2 * trough], axis=1),
            np.stack([rng.uniform(0.0, 0.25, n_units), -2.4 * trough, 0.8 * trough, 0.8 * trough], axis=1),
            np.stack([rng.uniform(0.15, 0.5, n_units), trough + 1.5 * hump, hump, 1.5 * hump], axis=1),
        ],
        axis=1,
    )
    components = np.repeat(shapes[:, None], len(channel_positions), axis=1)
    components[..., 0] *= gain[..., None]
    components[..., 1:] *= stretch[..., None, None]
    components[..., 1] += delay_ms[..., None]
    return _centred(components)


def evaluate(components: np.ndarray, times_ms: np.ndarray) -> np.ndarray:
    """The shapes at the given times: components (..., n_parts, 4), times (n_times,) -> (..., n_times)."""
    amplitude, centre, left, right = np.moveaxis(components, -1, 0)[..., None]
    offset = times_ms - centre
    return (amplitude * np.exp(-0.5 * (offset / np.where(offset < 0, left, right)) ** 2)).sum(axis=-2)


def template_bank(
    components: np.ndarray, span_ms: tuple[float, float], sampling_frequency: float, n_shifts: int = 1
) -> tuple[np.ndarray, int]:
    """Sampled templates (n_shifts, n_units, n_channels, n_times) and the index of time zero in them.

    The rows are delayed by evenly spaced fractions of a sample from -0.5 to 0.5; a single row is not delayed.
    """
    before = ms_to_samples(-span_ms[0], sampling_frequency)
    n_times = ms_to_samples(span_ms[1] - span_ms[0], sampling_frequency)
    delays = np.linspace(-0.5, 0.5, n_shifts) if n_shifts > 1 else np.zeros(1)
    samples = np.arange(n_times) - before
    return np.stack([evaluate(components, (samples - d) * 1000 / sampling_frequency) for d in delays]), before


def unit_norm(templates: np.ndarray) -> np.ndarray:
    """Templates (n_units, n_channels, n_times) divided by their Frobenius norms."""
    return templates / np.linalg.norm(templates, axis=(1, 2), keepdims=True)


def paper_templates(sampling_frequency: float = 10000.0) -> np.ndarray:
    """The four unit-norm templates of the paper's simulation, (4, 1, K); K = 18 at 10 kHz, trough at sample 6."""
    return unit_norm(template_bank(paper_components(), PAPER_SPAN_MS, sampling_frequency)[0][0])


def add_spikes(traces: np.ndarray, bank: np.ndarray, start: np.ndarray, row: np.ndarray, amplitude: np.ndarray) -> None:
    """Add amplitude * bank[row] at every start, in place: traces (n_samples, n_channels), bank (rows, n_channels, n_times)."""
    offsets = np.arange(bank.shape[-1])
    for piece in np.array_split(np.arange(len(start)), len(start) // 8192 + 1):
        where = (start[piece, None] + offsets).ravel()
        for channel in range(traces.shape[1]):
            values = (amplitude[piece, None] * bank[row[piece], channel]).astype(traces.dtype)
            np.add.at(traces[:, channel], where, values.ravel())


def _centred(components: np.ndarray) -> np.ndarray:
    """The shapes (n_units, n_channels, n_parts, 4) with their largest deflection moved to 0 ms and scaled to -1.

    Neighbouring parts overlap, which moves the extremum away from the centre of the trough.
    """
    grid = np.linspace(-0.4, 0.4, 1601)
    values = evaluate(components, grid)
    peak = np.abs(values).reshape(len(values), -1).argmax(axis=1)
    channel, time = np.unravel_index(peak, values.shape[1:])
    extremum = values[np.arange(len(values)), channel, time]
    centred = components.copy()
    centred[..., 0] /= -extremum[:, None, None]
    centred[..., 1] -= grid[time][:, None, None]
    return centred
