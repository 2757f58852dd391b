"""Spikes of a whole recording, block by block, with seams laid where no spike bears on what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from spikecrsae.crsae.complex_spikes import ComplexSpikes, tell_apart
from spikecrsae.crsae.drift import Drifting
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.subsample import SINC_REACH
from spikecrsae.data.recording import BLOCK
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.unexplained import large_events
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.progress import Observer
from spikecrsae.system.threads import in_threads

T = TypeVar("T")
#: Reaches of the model from a seam's stretch of signal to its end, and within which a seam does not trust its beginning.
_MARGIN, _UNSURE = 8, 4
#: A seam is looked for in so many reaches before the end of a block, where the fewer do not hold one in the more.
_LOOKS = (8, 32)


@dataclass(frozen=True)
class DecodedChunk:
    """Spikes whose templates begin in [start, stop) of the recording, with samples counted from `start`, their misfit
    (n_spikes,), and the high-passed traces (n_samples, n_channels) that hold their templates whole, from `start` on. events (n,):
    the large ones that the spikes leave in the signal, likewise, see unexplained.large_events."""

    start: int
    stop: int
    spikes: Spikes
    misfit: np.ndarray
    highpassed: np.ndarray
    events: np.ndarray


@dataclass(frozen=True)
class Decoding:
    """A recording that is to be decoded by a model, in blocks of about `block` samples, at least 64 times the model's reach.

    n_times: length of a template. A block is decoded by itself, from the seam at its beginning to the one at its end. Each seam
    is laid where no spike bears on what follows, as a decoding of the signal around it says, the same one for the blocks on
    both sides; so together they are what the whole would give. Where spikes leave no such place it is laid anyway.
    """

    view: PreprocessedRecording
    model: Drifting | CRsAE
    n_times: int
    block: int = BLOCK

    @property
    def _reach(self) -> int:
        return max(self.n_times, self.model.reach)

    @property
    def _size(self) -> int:
        return max(self.block, 2 * max(_LOOKS) * self._reach)

    @property
    def _steps(self) -> np.ndarray:
        """Samples at which the templates step."""
        steps = self.model.steps if isinstance(self.model, Drifting) else np.zeros(0, np.int64)
        return np.asarray(steps[(steps > 0) & (steps < self.view.n_samples)])

    @property
    def _complexes(self) -> tuple[ComplexSpikes, ...]:
        return self.model.complexes if isinstance(self.model, Drifting) else ()

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where blocks end, about; a step of the templates always ends one."""
        bounds = np.r_[0, self._steps, self.view.n_samples]
        ends = []
        for first, end in pairwise(bounds.tolist()):
            n = max(1, (end - first) // self._size)
            ends += [*(first + self._size * np.arange(1, n)).tolist(), end]
        return np.array(ends, np.int64)

    @property
    def n_blocks(self) -> int:
        return len(self._ends)

    def chunks(
        self, blocks: range, chunk_size: int, observer: Observer, finish: Callable[[DecodedChunk], Any] = lambda chunk: chunk
    ) -> Iterator[Any]:
        """What `finish` makes of these blocks, in order; as many are worked on at once as chunk_size samples hold, one at
        least."""
        at_once = max(1, chunk_size // self._size)
        seams = self._seams([blocks.start])
        for first in range(blocks.start, blocks.stop, at_once):
            numbers = range(first, min(first + at_once, blocks.stop))
            seams = [seams[-1], *self._seams([number + 1 for number in numbers])]
            for made, start, stop in zip(self._decoded(seams, finish), seams[:-1], seams[1:], strict=True):
                yield made
                observer.advance(stop - start)

    def _decoded(self, seams: Sequence[int], finish: Callable[[DecodedChunk], T]) -> list[T]:
        """What `finish` makes of the blocks between the seams."""
        margin, n_samples = _MARGIN * self._reach, self.view.n_samples
        places = [(int(a), int(min(b + margin, n_samples))) for a, b in pairwise(seams)]
        traces = self.view.both_of(places)

        def decode(part: slice) -> T:
            (start, end), stop, (highpassed, whitened) = places[part.start], seams[part.stop], traces[part.start]
            signal = np.ascontiguousarray(whitened)
            model = self.model.at(min((start + end) // 2, stop - 1))
            level = self.view.level(start, end)
            spikes, signal = tell_apart(self._complexes, model, signal, model.encode(signal, level=level), level)
            here, misfit = spikes.sample < stop - start, model.misfit(signal, spikes)
            events = large_events(model.residual(signal, spikes), model)
            events = events[events < stop - start]
            return finish(DecodedChunk(start, stop, spikes.select(here), misfit[here], highpassed, events))

        return in_threads(decode, len(places), 1)

    def _seams(self, numbers: Sequence[int]) -> list[int]:
        """Where the blocks of these numbers begin; that after the last one, the end of the recording."""
        reach, n_samples = self._reach, self.view.n_samples
        nominal = np.r_[0, self._ends]
        fixed = {0, self.n_blocks} | set((np.flatnonzero(np.isin(self._ends, self._steps)) + 1).tolist())
        found = {number: int(nominal[number]) for number in numbers if number in fixed}
        for look in _LOOKS:
            wanted = [number for number in numbers if number not in found]
            ends = [int(nominal[number]) for number in wanted]
            stretches = [(end - look * reach, min(end + _MARGIN * reach, n_samples)) for end in ends]
            traces = self.view.both_of(stretches)

            def seam(
                part: slice,
                look: int = look,
                ends: list[int] = ends,
                stretches: list[tuple[int, int]] = stretches,
                traces: list[tuple[np.ndarray, np.ndarray]] = traces,
            ) -> int | None:
                signal = np.ascontiguousarray(traces[part.start][1])
                level = self.view.level(*stretches[part.start])
                samples = self.model.at(ends[part.start]).encode(signal, level=level).sample
                return _seam(samples, self.model.reach, _UNSURE * reach, look * reach)

            places = in_threads(seam, len(wanted), 1)
            found |= {
                number: end - look * reach + place
                for number, end, place in zip(wanted, ends, places, strict=True)
                if place is not None
            }
        return [found.get(number, int(nominal[number])) for number in numbers]


def _seam(samples: np.ndarray, reach: int, low: int, high: int) -> int | None:
    """The last position from low to high over which no spike reaches, with room for interpolation before the next spike; None
    where there is none."""
    later = samples[samples >= high]
    following = min(int(later[0]) if len(later) else high + SINC_REACH, high + SINC_REACH)
    for begin in samples[samples < high][::-1]:
        if begin + reach <= following:
            break
        following = int(begin)
    seam = min(high, following - SINC_REACH)
    return seam if seam >= low else None
