"""Pieces of a recording that are learned from, laid end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: A unit with at least so many spikes in the pieces drawn at random has its rate from them.
ENOUGH = 30


@dataclass(frozen=True)
class Pieces:
    """Pieces [starts[k], stops[k]) of a recording of n_recorded samples, int64, in order and apart.

    random (bool, n): those drawn at random. The others were drawn because of the events in them. share: the part of the
    recording's events that lie in pieces.
    """

    starts: np.ndarray
    stops: np.ndarray
    n_recorded: int
    random: np.ndarray
    share: float = 1.0

    @classmethod
    def whole(cls, n_samples: int) -> Pieces:
        """The whole recording as one piece."""
        return cls(np.zeros(1, np.int64), np.array([n_samples]), n_samples, np.ones(1, bool))

    @property
    def n_samples(self) -> int:
        return int((self.stops - self.starts).sum())

    @property
    def represented(self) -> int:
        """Samples of the recording that hold as many events as the pieces: all where the pieces hold all events."""
        return round(self.share * self.n_recorded)

    def _piece(self, samples: np.ndarray) -> np.ndarray:
        """The piece in which samples of the joined signal lie."""
        return np.asarray(np.searchsorted(self._begins, samples, "right") - 1)

    @property
    def _begins(self) -> np.ndarray:
        """Where each piece begins in the joined signal."""
        return np.asarray(np.r_[0, np.cumsum(self.stops - self.starts)[:-1]])

    def in_recording(self, samples: np.ndarray) -> np.ndarray:
        """Where samples of the joined signal stand in the recording."""
        piece = self._piece(samples)
        return np.asarray(self.starts[piece] + samples - self._begins[piece])

    def positions(self, samples: np.ndarray, unit: np.ndarray, n_units: int) -> np.ndarray | None:
        """Positions (n_units,), None for those of the joined signal, among which the spikes of each unit, at `samples` of the joined signal, were found, for its rate.

        A unit with ENOUGH spikes in the random pieces has the rate that these tell: its number of spikes over its positions. The
        spikes of another were drawn as events, from `represented` samples.
        """
        if self.random.all():
            return None
        counts = np.bincount(unit, minlength=n_units)
        there = np.bincount(unit[self.random[self._piece(samples)]], minlength=n_units)
        length = int((self.stops - self.starts)[self.random].sum())
        return np.where(there >= ENOUGH, counts * (length / np.maximum(there, 1)), float(self.represented))
