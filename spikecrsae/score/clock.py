"""Whether known spikes that agree with nothing would agree, were their times counted in something else than samples."""

from __future__ import annotations

import math

import numpy as np

from spikecrsae.score.matching import Trains, agreement, match_counts
from spikecrsae.score.metrics import Comparison

#: Agreement from which another way to count is believed.
BELIEVED = 0.3
#: Rates in Hz at which recordings are commonly made, besides those of the scored one.
RATES = (10_000, 12_500, 15_000, 16_000, 20_000, 24_000, 24_414.0625, 25_000, 30_000, 32_000, 32_552, 40_000, 48_000, 50_000)


def doubt(comparison: Comparison, truth: Trains, test: Trains, start_time_s: float = 0.0) -> str:
    """Why no known unit agrees with any unit, as far as that can be seen; empty where one does, or where a side has no spike.

    truth, test: the trains (samples, int64) that were compared. start_time_s: of the recording, on its own clock.
    """
    if (
        comparison.best_match
        or not comparison.counts.size
        or not any(map(len, truth.values()))
        or not any(map(len, test.values()))
    ):
        return ""
    fs = comparison.sampling_frequency
    said = f"no known unit agrees with any unit of the sorting (at most {comparison.agreement.max():.2f})"
    factors = {"milliseconds": fs / 1e3, "microseconds": fs / 1e6, "seconds": fs}
    factors |= {f"samples at {rate:g} Hz": fs / rate for rate in RATES if abs(rate - fs) > 1}
    shifts = {"samples from the start of the recording's own clock": -start_time_s * fs} if start_time_s else {}
    ways = [
        *((name, factor, 0.0) for name, factor in factors.items()),
        *((name, 1.0, shift) for name, shift in shifts.items()),
    ]
    tried = [(_best(truth, test, comparison.tolerance, factor, shift), name) for name, factor, shift in ways]
    best, name = max(tried)
    if best >= BELIEVED:
        return (
            f"{said}, but its times read as {name} would agree ({best:.2f}): write them as samples of this recording, counted from its "
            "first, or as seconds (column spike_time_s, or floating-point numbers in .npy), or give --truth-unit"
        )
    return (
        f"{said}: does the truth belong to this recording, are its times samples or seconds from the recording's start, and was its "
        "neuron sorted? A larger --tolerance-ms helps where it marks another moment of the spike"
    )


def _best(truth: Trains, test: Trains, tolerance: int, factor: float, shift: float) -> float:
    """The largest agreement of a pair of units with the truth's times so read; times in a coarser unit are rounded by up to
    one."""
    moved = {name: np.round(train * factor + shift).astype(np.int64) for name, train in truth.items()}
    counts = match_counts(moved, test, tolerance + math.ceil(factor if factor > 1 else 0))
    n_truth, n_test = (np.array([len(train) for train in trains.values()], np.int64) for trains in (truth, test))
    return float(agreement(counts, n_truth, n_test).max())
