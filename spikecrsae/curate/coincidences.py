"""Whether two trains are of two neurons: these fire together as often as chance has it, one neuron never does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from spikecrsae.curate.bursts import BURST_MS, REFRACTORY_MS

#: Spikes of two templates closer than this may be one spike that was taken for two.
LEAST_MS = 0.5
#: Lags from which the number of pairs that chance gives is read: beyond refractory periods, within common changes of the rate.
FLANK_MS = (4.0, 24.0)
#: Of the pairs that chance gives, one neuron shows at least and at most this part: spikes of others that were taken for its own.
CONTAMINATION = (0.05, 0.3)
#: Of two spikes within the refractory period one is lost in decoding at most so often.
MISSED = 0.5
#: Fewer pairs than this within the refractory period say nothing.
LEAST_PAIRS = 3
#: Level of the test.
INDEPENDENT_LEVEL = 1e-2
#: Level at which a train is looked at closely.
SUSPICIOUS_LEVEL = 0.2
#: Whitened waveforms of two neurons lie at least so many noise levels apart; nearer ones are parts of one cloud.
LEAST_DISTANCE = 3.0


@dataclass(frozen=True)
class Lags:
    """Where pairs are counted, in samples: |lag| from `near` to less than `refractory`, and in the flank."""

    near: int
    refractory: int
    flank: tuple[int, int]

    @classmethod
    def of(cls, burst: int, blocked: int) -> Lags:
        """burst: bursts.BURST_MS in samples; blocked: within so many samples the model lets no unit fire twice."""
        per_ms = burst / BURST_MS
        near = max(int(LEAST_MS * per_ms), blocked + 1)
        refractory = max(int(REFRACTORY_MS * per_ms), near + 1)
        return cls(near, refractory, (max(int(FLANK_MS[0] * per_ms), refractory), int(FLANK_MS[1] * per_ms)))

    def counts(self, first: np.ndarray, second: np.ndarray) -> tuple[int, float]:
        """Pairs of two trains (samples, ascending) within the refractory period, and how many the flank lets expect."""
        share = (self.refractory - self.near) / (self.flank[1] - self.flank[0])
        return _pairs(first, second, self.near, self.refractory), _pairs(first, second, *self.flank) * share


def independence_p_value(first: np.ndarray, second: np.ndarray, lags: Lags) -> float:
    """Probability that one neuron, with the spikes of others among its own, shows as many pairs of a spike of the first and one
    of the second train (samples, ascending) within the refractory period; small where they are two neurons.

    How many spikes of others there are is read from pairs within each train (Poisson; see CONTAMINATION).
    """
    found, expected = lags.counts(first, second)
    if found < LEAST_PAIRS:
        return 1.0
    within = [lags.counts(train, train) for train in (first, second)]
    others = (sum(k for k, _ in within) + 1) / max(sum(mu for _, mu in within), 1.0)
    return float(special.pdtrc(found - 1, np.clip(others, *CONTAMINATION) * expected))


def dependence_p_value(first: np.ndarray, second: np.ndarray, lags: Lags) -> float:
    """Probability that two neurons that fire independently show as few pairs of a spike of the first and one of the second train
    (samples, ascending) within the refractory period; small where they are one neuron. Of their pairs so close MISSED may be lost in
    decoding."""
    found, expected = lags.counts(first, second)
    return float(special.pdtr(found, (1 - MISSED) * expected))


def contaminated(train: np.ndarray, lags: Lags) -> bool:
    """Whether a train (samples, ascending) may hold two neurons: it has more pairs within the refractory period than a neuron with
    the least contamination probably has."""
    found, expected = lags.counts(train, train)  # each pair twice
    return bool(found) and float(special.pdtrc(found // 2 - 1, CONTAMINATION[0] * expected / 2)) < SUSPICIOUS_LEVEL


def _pairs(first: np.ndarray, second: np.ndarray, low: int, high: int) -> int:
    """Pairs with low <= |lag| < high."""
    total = 0
    for a, b in ((first, second), (-first[::-1], -second[::-1])):
        total += int((np.searchsorted(b, a + high) - np.searchsorted(b, a + low)).sum())
    return total
