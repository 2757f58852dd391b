"""The units on their way through curation: the model with its spikes, the parts of the signal that are looked at, names that
stay, and the decisions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.em import expectation_maximisation
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.operator import gram
from spikecrsae.curate.coincidences import LEAST_DISTANCE
from spikecrsae.curate.evidence import COMPARED_SPIKES, Excerpt
from spikecrsae.data.loudness import CLEAR
from spikecrsae.data.pieces import Pieces
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.clustering import SMALLEST_CLUSTER
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.system.threads import in_threads

log = logging.getLogger(__name__)

#: A unit whose number of spikes, or whose template, has changed by more than this part is another one to a test that it has passed.
_CHANGED = 0.1
#: Waveforms of a unit that are looked at, at most.
MOST_WAVEFORMS = 5000
#: Samples that are searched at a time for stretches to look at.
_SEARCHED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class CurationSettings:
    """threshold, dead_time: for events in the residual, see SpikeSubspace.detect. refractory, burst: in samples, see bursts.
    fixed_number: only EM, no decision. train: of the first training."""

    threshold: float
    dead_time: int
    refractory: int
    burst: int
    fixed_number: bool
    seed: int
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class Candidates:
    """The model on its way, with its spikes and what is left of the signal. ids name units once and for all.

    whole (n_channels, n_samples) is the signal to explain, events (n,) first samples of windows in it that hold something.
    Until `focus` is called, and between its calls, `signal` is the part of it that is looked at, in which spikes are counted.
    """

    whole: np.ndarray
    events: np.ndarray
    subspace: SpikeSubspace
    window: TemplateWindow
    settings: CurationSettings
    model: CRsAE
    spikes: Spikes = field(default_factory=Spikes.none)
    decisions: list[dict] = field(default_factory=list)
    #: the units' ids and the prior's parameters after every update
    history: list[tuple[list[int], dict[str, np.ndarray]]] = field(default_factory=list)
    round_number: int = 0
    #: samples from the beginning of every template to where its energy peaks, once that is settled
    before: int | None = None
    #: of the noise in `whole`, (n_samples,); None where it is steady (see data.loudness)
    whole_level: np.ndarray | None = None

    def __post_init__(self) -> None:
        #: of the recording that `whole` is made of
        self.pieces = Pieces.whole(self.whole.shape[1])
        self.ids = list(range(self.model.n_units))
        self.next_id = len(self.ids)
        #: templates (n_channels, n_times) of the units that were merged with a unit, or that came of it and were removed
        self.parts: dict[int, list[np.ndarray]] = {}
        #: units whose windows have been aligned
        self.aligned: set[int] = set()
        #: units that were found in the residual
        self.born: set[int] = set()
        #: of units that came of a split, the unit that was split
        self.parent: dict[int, int] = {}
        self._passed: dict[tuple[str, int], tuple[int, np.ndarray, int]] = {}
        self._rest: np.ndarray | None = None
        #: the model that the spikes are of
        self._decoded: CRsAE | None = None

    def focus(self) -> None:
        """Look at the stretches where a template of the model may find a spike, and at those around the events; what lies
        between them is noise. The spikes that lie there stay, until the next `update`."""
        n_times = self.window.n_times
        known = self.in_whole(self.spikes.sample) if len(self.spikes) else self.spikes.sample
        # what was looked at before is not held beside what comes
        for name in ("signal", "seen", "level"):
            vars(self).pop(name, None)
        self._rest = None
        active = np.zeros(self.whole.shape[1], bool)
        active[self.events] = True

        def look(part: slice) -> tuple[np.ndarray, np.ndarray]:
            here = slice(part.start, part.stop + n_times - 1)
            found, strong = self.model.active(
                self.whole[:, here], None if self.whole_level is None else self.whole_level[here]
            )
            return np.flatnonzero(found) + part.start, np.flatnonzero(strong) + part.start

        for found, strong in in_threads(look, self.whole.shape[1] - n_times + 1, _SEARCHED_AT_ONCE):
            active[found] = True
            # strong spikes reach beyond their templates
            active[np.maximum(strong - n_times, 0)] = True
            active[np.minimum(strong + n_times, len(active) - n_times)] = True
        at = np.flatnonzero(active)
        new = np.flatnonzero(np.diff(at) > 2 * n_times)
        before, after = n_times // 2, n_times + n_times // 2
        self.first = np.maximum(at[np.r_[0, new + 1]] - before, 0) if len(at) else np.zeros(1, np.int64)
        last = np.minimum(at[np.r_[new, len(at) - 1]] + after, self.whole.shape[1]) if len(at) else self.first + n_times
        self.signal = np.concatenate([self.whole[:, a:b] for a, b in zip(self.first, last, strict=True)], axis=1)
        self.level = None
        if self.whole_level is not None:
            self.level = np.concatenate([self.whole_level[a:b] for a, b in zip(self.first, last, strict=True)])
        self.begins = np.r_[0, np.cumsum(last - self.first)[:-1]]
        self.seen = self.model.seen(self.signal)
        stretch = np.searchsorted(self.first, known, "right") - 1
        still = known + n_times <= np.where(stretch < 0, 0, last[stretch])
        sample = self.begins[stretch] + known - self.first[stretch]
        self.spikes = replace(self.spikes, sample=sample).select(still)
        log.debug("looking at %.0f %% of the signal", 100 * self.signal.shape[1] / self.whole.shape[1])

    def in_whole(self, samples: np.ndarray) -> np.ndarray:
        """Where samples of `signal` stand in `whole`."""
        stretch = np.searchsorted(self.begins, samples, "right") - 1
        return self.first[stretch] + samples - self.begins[stretch]

    def times(self, samples: np.ndarray) -> np.ndarray:
        """Where samples of `signal` stand in the recording."""
        return self.pieces.in_recording(self.in_whole(samples))

    def timed(self) -> Spikes:
        """The spikes, samples counted in the recording."""
        return replace(self.spikes, sample=self.times(self.spikes.sample))

    @property
    def rest(self) -> np.ndarray:
        """The residual (n_channels, n_samples)."""
        if self._rest is None:
            self._rest = self.model.residual(self.signal, self.spikes)
        return self._rest

    def rest_of_whole(self, model: CRsAE) -> np.ndarray:
        """The residual of the whole signal (n_channels, n_samples); model: that of which the spikes are."""
        return model.residual(self.whole, replace(self.spikes, sample=self.in_whole(self.spikes.sample)))

    def update(
        self,
        n_rounds: int,
        model: CRsAE | None = None,
        spikes: Spikes | None = None,
        near: Spikes | None = None,
    ) -> None:
        """EM of the model (or of one put in its place, with its spikes, or some near them, where these are known), and its spikes."""
        n_positions = self.pieces.represented - self.window.n_times + 1
        model = model or self.model
        known = self.spikes if model is self._decoded else spikes
        self.model, self.spikes = expectation_maximisation(self.seen, model, n_rounds, n_positions, known, self.level, near)
        self._decoded = self.model
        self.history.append((list(self.ids), self.model.prior.parameters()))
        self._rest = None

    def keep(self, units: np.ndarray, others_explain: bool = True) -> None:
        """Keep these units (indices), and decode again where others may explain what those that go have explained."""
        self.ids = [self.ids[u] for u in units]
        model, row = self.model.select(units), np.full(self.model.n_units, -1)
        row[units] = np.arange(len(units))
        known = self.spikes.select(row[self.spikes.unit] >= 0)
        known = replace(known, unit=row[known.unit])
        if others_explain:
            self.update(0, model, near=known)
        else:
            self.update(0, model, known)

    def course(self) -> dict[str, np.ndarray]:
        """The course of the prior's parameters, (n_updates, n_units) by name, of the units as they are; NaN before a unit came."""
        names = self.model.prior.parameters()
        course = {name: np.full((len(self.history), self.model.n_units), np.nan) for name in names}
        for row, (ids, parameters) in enumerate(self.history):
            for column, unit in enumerate(self.ids):
                if unit in ids:
                    for name in names:
                        course[name][row, column] = parameters[name][ids.index(unit)]
        return course

    def add(self, templates: list[np.ndarray]) -> list[int]:
        """Add units, without decoding; returns their ids."""
        self.model = self.model.extended(np.stack(templates))
        new = list(range(self.next_id, self.next_id + len(templates)))
        self.ids += new
        self.next_id += len(new)
        return new

    def of(self, unit: int) -> np.ndarray:
        """Indices of a unit's spikes."""
        return np.flatnonzero(self.spikes.unit == unit)

    def starts(self, unit: int) -> np.ndarray:
        """First samples of a unit's spikes."""
        return self.spikes.sample[self.spikes.unit == unit]

    def clear(self, unit: int) -> np.ndarray:
        """Indices of a unit's spikes whose noise is hardly louder than usual; of all where these are too few."""
        mine = self.of(unit)
        clear = mine[self.spikes.clear[mine]]
        return clear if len(clear) >= SMALLEST_CLUSTER else mine

    def clear_starts(self, unit: int) -> np.ndarray:
        """First samples of a unit's `clear` spikes."""
        return self.spikes.sample[self.clear(unit)]

    def is_clear(self, starts: np.ndarray) -> np.ndarray:
        """Windows (bool, n) of `signal` that begin at these samples and whose noise is hardly louder than usual."""
        if self.level is None:
            return np.ones(len(starts), bool)
        return self.level[np.minimum(starts + self.window.n_times // 2, len(self.level) - 1)] <= CLEAR

    def around(self, unit: int, rest: np.ndarray, near: np.ndarray | None = None, most: int = COMPARED_SPIKES) -> Excerpt:
        """The signal around spikes of a unit, at most so many; rest: the residual. near (n_units,) bool: the spikes of other units are
        taken away."""
        spikes = self.spikes if near is None or near.all() else self.spikes.select(near[self.spikes.unit])
        return Excerpt.around(rest, self.model, spikes, self.clear_starts(unit), self.settings.seed, self.level, most)

    def looked_at(self, unit: int) -> np.ndarray:
        """Indices of the spikes of a unit whose waveforms are looked at: at most MOST_WAVEFORMS of the clear ones, drawn at random."""
        return at_most(self.clear(unit), MOST_WAVEFORMS, self.settings.seed)

    def passes(self, test: str, unit: int) -> None:
        """Remember that a unit has passed a test clearly."""
        self._passed[test, self.ids[unit]] = len(self.starts(unit)), self.model.templates[unit], self.next_id

    def has_passed(self, test: str, unit: int, beside: np.ndarray | None = None) -> bool:
        """Whether a unit has passed a test and its number of spikes and its template have hardly changed since; nor has any unit come
        since of those `beside` it (bool, n_units) that could explain its spikes. Without them it is judged alone."""
        if (test, self.ids[unit]) not in self._passed:
            return False
        count, template, next_id = self._passed[test, self.ids[unit]]
        moved = np.linalg.norm(self.model.templates[unit] - template) / max(float(np.linalg.norm(template)), 1e-9)
        same = bool(abs(len(self.starts(unit)) - count) <= _CHANGED * count and moved <= _CHANGED)
        return same and (beside is None or all(self.ids[u] < next_id for u in np.flatnonzero(beside)))

    def has_had(self, unit: int, template: np.ndarray) -> bool:
        """Whether a unit was merged with one of this template (n_channels, n_times), or nearly, or such a one came of it and was removed:
        it is not split off again."""
        for part in self.parts.get(self.ids[unit], []):
            pair = gram(np.stack([part, template]))
            if pair[[0, 1], [0, 1], part.shape[1] - 1].sum() - 2 * pair[0, 1].max() < LEAST_DISTANCE**2:
                return True
        return False

    def decide(self, decision: str, units: Iterable[int | np.integer], statistic: float, level: float, **more: Any) -> None:
        """Keep a decision; units are indices of the model, and are named by their ids."""
        named = [self.ids[u] for u in units]
        row = {"decision": decision, "units": named, "statistic": float(statistic), "level": float(level), **more}
        self.decisions.append(row | {"round": self.round_number})
        log.info("%s", self.decisions[-1])


def at_most(indices: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The indices, or n of them drawn at random, in order."""
    return indices if len(indices) <= n else np.sort(np.random.default_rng(seed).choice(indices, n, replace=False))
