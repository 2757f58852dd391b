"""Hum: lines in the spectrum of the noise, of mains and of whatever else oscillates, found by a test and notched out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special
from scipy.ndimage import median_filter

from spikecrsae.data.artefacts import Pulses, period_of
from spikecrsae.preprocess import noise

#: Chance of finding a line in a recording that has none.
LINE_LEVEL = 1e-3
#: Lines that make up less than this part of the variance are let be: they move no detection.
LEAST_PART = 1e-2
#: Hum below this part of the noise, by amplitude, counts as filtered out.
HUM_LEFT = 0.03
#: The spectrum around a line is the median over so many Hz.
SURROUND_HZ = 41
#: Where more lines than this are found they are no hum but the shape of the signal; a notch each would leave nothing.
MOST_LINES = 30
#: Fewer blocks than this tell no line from chance.
FEWEST_BLOCKS = 4
#: A notch is this many times as wide as the line in the periodogram, because mains wander, and at least so wide in Hz: a
#: narrower one takes long to settle.
NOTCH_WIDTH, NARROWEST_HZ = 1.5, 4.0
#: Pulses that come at least so often may look like hum.
SLOWEST_PULSES_HZ = 15.0


def find_lines(blocks: list[np.ndarray], quiet: list[np.ndarray], sampling_frequency: float) -> np.ndarray:
    """Lines (n, 3), centre and width in Hz and part of the variance, in noise: blocks (n_samples, n_channels) of one second,
    masks of their quiet samples.

    The periodogram (Hann window, loud samples zero), averaged over the blocks, is divided by its running median over the
    frequencies. In noise that ratio is gamma distributed, with as many degrees of freedom as there are blocks; frequencies at
    which it exceeds, on any channel, what LINE_LEVEL of recordings exceed anywhere are a line. Neighbours are one line.
    """
    length = int(sampling_frequency)
    whole = [(b[:length], q[:length]) for b, q in zip(blocks, quiet, strict=True) if len(b) >= length]
    if len(whole) < FEWEST_BLOCKS:
        return np.zeros((0, 3))
    window, n = np.hanning(length), len(whole)
    power = noise.power([block for block, _ in whole], [mask * window for _, mask in whole], length)
    usual = np.stack([median_filter(channel, SURROUND_HZ, mode="nearest") for channel in power])
    ratio = power / np.maximum(usual, np.finfo(float).tiny)
    bound = special.gammainccinv(n, LINE_LEVEL / ratio.size) / special.gammainccinv(n, 0.5)
    found = (ratio > bound).any(axis=0)
    step = sampling_frequency / length
    lines = []
    for first, end in np.flatnonzero(np.diff(np.r_[0, found, 0])).reshape(-1, 2):
        here = power[:, first:end]
        part = (here.sum(axis=1) / power.sum(axis=1)).max()
        centre = np.average(np.arange(first, end), weights=here.sum(axis=0))
        lines.append((centre * step, (end - first) * step, part))
    table = np.array(lines).reshape(-1, 3)
    return table if table[:, 2].sum() > LEAST_PART else table[:0]


def not_of_pulses(lines: np.ndarray, pulses: Sequence[Pulses], sampling_frequency: float) -> np.ndarray:
    """The lines (n, 3) that are no harmonics of pulses that keep a period, of which something is always left; pulses that come less often than
    SLOWEST_PULSES_HZ have harmonics everywhere, and too little is left of them."""
    for one in pulses:
        period = period_of(one.samples, sampling_frequency)
        if period and 1 / period >= SLOWEST_PULSES_HZ:
            off = np.abs(lines[:, 0] * period - np.round(lines[:, 0] * period)) / period
            lines = lines[off > np.maximum(lines[:, 1], 1.0)]
    return lines if lines[:, 2].sum() > LEAST_PART else lines[:0]


def strongest(lines: np.ndarray) -> tuple[np.ndarray, str]:
    """Of lines (n, 3) as from `find_lines` the MOST_LINES with the largest part, in their order; what is done, in words."""
    kept = np.sort(np.argsort(-lines[:, 2], kind="stable")[:MOST_LINES])
    if len(kept) == len(lines):
        return lines, f"hum is filtered out at {', '.join(f'{centre:.0f}' for centre in lines[:, 0])} Hz"
    said = (
        f"{len(lines)} lines stand out of the noise's spectrum, more than hum has; the {len(kept)} largest are filtered out"
    )
    return lines[kept], said


def notches(lines: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Second-order sections (n, 6) that take away lines (n, 3) as from `find_lines`."""
    from scipy.signal import iirnotch

    widths = np.maximum(NOTCH_WIDTH * lines[:, 1], NARROWEST_HZ)
    filters = [
        iirnotch(centre, centre / width, sampling_frequency) for centre, width in zip(lines[:, 0], widths, strict=True)
    ]
    return np.array([np.concatenate(pair) for pair in filters]).reshape(-1, 6)


def part_to_leave(lines: np.ndarray) -> float:
    """The part of the hum, by amplitude, that may be left so that it stays below HUM_LEFT of the noise; at most 1."""
    hum = min(float(lines[:, 2].sum()), 1 - 1e-6)
    return min(1.0, HUM_LEFT * np.sqrt((1 - hum) / hum))
