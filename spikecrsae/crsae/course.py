"""The course of training: the model after every epoch, what the methods have in common, and what comes out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikecrsae.crsae.model import CRsAE

log = logging.getLogger(__name__)

#: By this factor the excess of the penalty falls from epoch to epoch (at 0.8 one start of six lost two similar templates), and
#: by this one where templates and lambda have already settled for the penalty as it is.
ANNEALING_RATE, SETTLED_RATE = 0.9, 0.5


@dataclass(frozen=True)
class Training:
    """What training learned.

    model: templates at full scale, prior and sigma. A template's scale is the mean unpenalised amplitude of its spikes; a unit
    without a code keeps the scale it came with. templates_history (n_epochs + 1, n_units, n_channels, n_times): at the start and
    after every epoch, scaled like the start. history: `objective` (n_epochs,), Eq. 19 per window at the codes that the epoch
    found; `sigma` and `template_change` (n_epochs,); and each parameter of the prior, (n_epochs, n_units).
    """

    model: CRsAE
    history: dict[str, np.ndarray]
    templates_history: np.ndarray


class Course:
    """The model on its way through training, with its history."""

    def __init__(self, model: CRsAE) -> None:
        self.model = model
        self.rows: list[dict[str, Any]] = []
        self.templates = [model.templates]

    def advance(self, model: CRsAE, objective: float) -> float:
        """Take over an epoch's model; by how much templates and prior have moved, relative."""
        flat = [m.templates.reshape(m.n_units, -1).astype(np.float64) for m in (self.model, model)]
        norms = [np.maximum(np.linalg.norm(t, axis=1), 1e-12) for t in flat]
        cosine = np.abs((flat[0] * flat[1]).sum(axis=1)) / (norms[0] * norms[1])
        change = float(np.sqrt(2 * np.clip(1 - cosine, 0, None)).max())
        before, now = self.model.prior.parameters(), model.prior.parameters()
        moved = max((float(np.abs(now[name] / np.maximum(before[name], 1e-12) - 1).max()) for name in now), default=0.0)
        self.model = model
        self.rows.append({"objective": objective, "sigma": model.sigma, "template_change": change} | now)
        self.templates.append(model.templates)
        log.debug("epoch %d: objective %.6g, sigma %.4g, change %.2g", len(self.rows), objective, model.sigma, change)
        return max(change, moved)

    def training(self) -> Training:
        names = self.rows[0] if self.rows else {}
        history = {name: np.array([row[name] for row in self.rows]) for name in names}
        return Training(self.model, history, np.stack(self.templates))


def spike_sizes(codes: np.ndarray, n_times: int) -> list[np.ndarray]:
    """The sizes of each unit's spikes, as the penalty has left them, in l1 codes (n_windows, n_units, n_positions).

    Codes of one unit within a quarter template are one spike; n_times: of a template.
    """
    sizes = []
    for unit in range(codes.shape[1]):
        window, position = np.nonzero(codes[:, unit])
        if not len(window):
            sizes.append(np.zeros(0))
            continue
        place = window * (codes.shape[2] + n_times) + position
        firsts = np.flatnonzero(np.r_[True, np.diff(place) > max(1, n_times // 4)])
        sizes.append(np.abs(np.add.reduceat(codes[window, unit, position].astype(np.float64), firsts)))
    return sizes


def mean_sizes(sizes: list[np.ndarray], bias: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Mean unpenalised size of each unit's spikes, (n_units,); `before` for a unit without a spike.

    sizes: see spike_sizes. bias (n_units,): what the penalty takes from a spike that stands alone, by the optimality
    conditions. Each spike is weighted by its penalised size, so that codes of noise do not count.
    """
    mean = np.array(before, np.float64)
    for unit, shrunk in enumerate(sizes):
        if shrunk.sum() > 0:
            mean[unit] = np.average(shrunk + bias[unit], weights=shrunk)
    return mean
