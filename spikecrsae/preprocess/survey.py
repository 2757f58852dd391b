"""Read a recording once: checksum, numbers that cannot be voltages, flat and saturated channels."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.data.intervals import NONE, inside, within
from spikecrsae.data.recording import Recording, refuse_impossible
from spikecrsae.errors import InputError
from spikecrsae.progress import Observer
from spikecrsae.system.threads import n_cores

#: A channel is saturated where more than this part of its samples repeats its own extreme value.
SATURATED_FRACTION = 0.01


@dataclass(frozen=True)
class Survey:
    """What one pass over all samples tells: usable channels (bool, n_channels), what is wrong with the others, and the
    checksum (blake2b of the stored samples in order)."""

    usable: np.ndarray
    problems: tuple[str, ...]
    checksum: str

    def with_remarks(self, *remarks: Sequence[str]) -> Survey:
        """The survey with more to be said."""
        return replace(self, problems=(*self.problems, *itertools.chain(*remarks)))


def survey(
    recording: Recording, chunk_size: int, observer: Observer, gaps: np.ndarray = NONE, stage: str = "check"
) -> Survey:
    """Read everything once: checksum, non-finite samples, flat and saturated channels (judged outside the `gaps`).

    stage: the name that the observer is told. Raises InputError where a sample is NaN or infinite (names the first), or where
    no usable channel is left.
    """
    observer.start(stage, recording.n_samples)
    digest = hashlib.blake2b(digest_size=16)
    extremes = [(_Extreme(1), _Extreme(-1)) for _ in range(recording.n_channels)]
    at_work: list[Future] = []
    with ThreadPoolExecutor(n_cores()) as pool:
        for start in range(0, recording.n_samples, chunk_size):
            stop = min(start + chunk_size, recording.n_samples)
            # read while the chunk before is worked on
            raw = np.ascontiguousarray(recording.raw(start, stop))
            refuse_impossible(recording, raw, start)
            kept = raw[~inside(gaps, start, stop)] if len(within(gaps, start, stop)) else raw
            _finish(at_work)
            at_work = [pool.submit(digest.update, raw.data)]
            if len(kept):
                at_work += [pool.submit(_add, pair, samples) for pair, samples in zip(extremes, kept.T, strict=True)]
            observer.advance(stop - start)
        _finish(at_work)
    usable = np.ones(recording.n_channels, bool)
    problems = []
    for channel, name in enumerate(recording.channel_ids):
        highest, lowest = extremes[channel]
        stuck = max(highest.repeated, lowest.repeated) / recording.n_samples
        if highest.value == lowest.value:
            problems.append(f"channel {name} is flat (every sample is {highest.value}) and is left out")
        elif stuck > SATURATED_FRACTION:
            problems.append(
                f"channel {name} is saturated ({stuck:.0%} of its samples stay at an extreme value) and is left out"
            )
        else:
            continue
        usable[channel] = False
    if not usable.any():
        raise InputError(
            f"{recording.source}: no usable channel is left: {'; '.join(problems)}. Choose others with --channels."
        )
    observer.finish(f"{usable.sum()} of {recording.n_channels} channels usable")
    return Survey(usable, tuple(problems), digest.hexdigest())


def _finish(jobs: list[Future]) -> None:
    for job in jobs:
        job.result()


def _add(extremes: tuple[_Extreme, _Extreme], samples: np.ndarray) -> None:
    samples = np.ascontiguousarray(samples)
    for extreme in extremes:
        extreme.add(samples)


class _Extreme:
    """Running maximum (sign 1) or minimum (sign -1) of a channel, and how many samples repeat it at once."""

    def __init__(self, sign: int) -> None:
        self.value = -np.inf * sign
        self.repeated = 0
        self._last = np.nan
        self._pick = np.max if sign > 0 else np.min

    def add(self, samples: np.ndarray) -> None:
        here = self._pick(samples)
        if self._pick([here, self.value]) == here:
            if here != self.value:
                self.value, self.repeated = here, 0
            at = samples == here
            # the first one may repeat the last one of the chunk before
            self.repeated += int(np.count_nonzero(at[1:] & at[:-1])) + int(at[0] and self._last == here)
        self._last = samples[-1]
