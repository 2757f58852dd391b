"""Comparing a sorting with the truth: matching, metrics, and the paper's trade-off curve."""

from spikecrsae.score.clock import doubt
from spikecrsae.score.matching import Labels, agreement, label_spikes, match_counts, match_units_best, match_units_one_to_one
from spikecrsae.score.metrics import Comparison, UnitScore, compare
from spikecrsae.score.tradeoff import CURVES, Tradeoff, best_match_curves, component_spikes, tradeoff_curve

__all__ = [
    "CURVES",
    "Comparison",
    "Labels",
    "Tradeoff",
    "UnitScore",
    "agreement",
    "best_match_curves",
    "compare",
    "component_spikes",
    "doubt",
    "label_spikes",
    "match_counts",
    "match_units_best",
    "match_units_one_to_one",
    "tradeoff_curve",
]
