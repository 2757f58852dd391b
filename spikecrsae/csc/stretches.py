"""Where a correlation with templates shows that something can be active, and where it may be cut in pieces; compiled."""

from __future__ import annotations

import numpy as np

from spikecrsae.system.compiled import compiled


@compiled
def above_any(correlation: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Positions (bool) where the correlation of some unit is more than enough for it."""
    above = np.zeros(correlation.shape[1], np.bool_)
    for unit in range(len(correlation)):
        row = correlation[unit]
        for position in range(len(row)):
            above[position] |= row[position] > enough[unit]
    return above


@compiled
def cuts(correlation: np.ndarray, enough: np.ndarray, gap: int, piece: int) -> np.ndarray:
    """Bounds of pieces of at least `piece` positions; between two of them lies a gap in which no correlation is enough."""
    n_units, n_positions = correlation.shape
    bounds = [0]
    quiet = 0
    for position in range(n_positions):
        loud = False
        if position - bounds[-1] >= piece - gap:
            for unit in range(n_units):
                if correlation[unit, position] > enough[unit]:
                    loud = True
                    break
            quiet = 0 if loud else quiet + 1
            if quiet >= gap and position - bounds[-1] >= piece:
                bounds.append(position - gap // 2)
                quiet = 0
    if bounds[-1] < n_positions:
        bounds.append(n_positions)
    return np.array(bounds)
