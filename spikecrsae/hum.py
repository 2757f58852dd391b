"""Hum: lines in the spectrum of the noise, of mains and of whatever else oscillates, found by a test and notched out."""

from __future__ import annotations

import numpy as np
from scipy import signal as sps
from scipy.ndimage import median_filter
from scipy.stats import gamma

#: Chance of finding a line in a recording that has none.
LEVEL = 1e-3
#: A line with less than this part of the noise's variance is let be: it moves no detection.
LEAST_PART = 1e-3
#: The spectrum around a line is the median over so many Hz.
SURROUND_HZ = 41
#: Fewer blocks than this tell no line from chance.
FEWEST_BLOCKS = 4
#: A notch is this many times as wide as the line: its slopes must be steep enough to take the line away.
NOTCH_WIDTH = 1.5


def find_lines(blocks: list[np.ndarray], quiet: list[np.ndarray], sampling_frequency: float) -> np.ndarray:
    """Lines (n, 2), centre and width in Hz, in noise: blocks (n_samples, n_channels) of one second, masks of their quiet samples.

    The periodogram (Hann window, loud samples zero), averaged over the blocks, is divided by its running median over the
    frequencies. In noise that ratio is gamma distributed, with as many degrees of freedom as there are blocks; frequencies at
    which it exceeds, on any channel, what LEVEL of recordings exceed anywhere are a line. Neighbours are one line.
    """
    length = int(sampling_frequency)
    whole = [(b[:length], q[:length]) for b, q in zip(blocks, quiet, strict=True) if len(b) >= length]
    if len(whole) < FEWEST_BLOCKS:
        return np.zeros((0, 2))
    power = np.zeros((length // 2 + 1, blocks[0].shape[1]))
    for block, mask in whole:
        power += np.abs(np.fft.rfft(block * (mask * np.hanning(length))[:, None], axis=0)) ** 2
    ratio = power / np.maximum(median_filter(power, (SURROUND_HZ, 1), mode="nearest"), np.finfo(float).tiny)
    n = len(whole)
    bound = gamma.isf(LEVEL / ratio.size, n) / gamma.median(n)
    found = (ratio > bound).any(axis=1)
    step = sampling_frequency / length
    lines = []
    for first, end in np.flatnonzero(np.diff(np.r_[0, found, 0])).reshape(-1, 2):
        here = power[first:end]
        if (here.sum(axis=0) / power.sum(axis=0)).max() > LEAST_PART:
            centre = np.average(np.arange(first, end), weights=here.sum(axis=1))
            lines.append((centre * step, (end - first) * step))
    return np.array(lines).reshape(-1, 2)


def notches(lines: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Second-order sections (n, 6) that take away lines (n, 2), centre and width in Hz."""
    filters = [sps.iirnotch(centre, centre / (NOTCH_WIDTH * width), sampling_frequency) for centre, width in lines]
    return np.array([np.concatenate(pair) for pair in filters]).reshape(-1, 6)
