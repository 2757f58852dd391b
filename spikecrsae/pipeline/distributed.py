"""The blocks of a long recording decoded by workers, each of which reads its own part of the file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.crsae.drift import Drifting
from spikecrsae.crsae.model import CRsAE
from spikecrsae.data.artefacts import Pulses
from spikecrsae.data.loudness import Loudness
from spikecrsae.data.recording import Recording
from spikecrsae.decode.blocks import Decoding
from spikecrsae.decode.collect import Gathered, gathered
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor
from spikecrsae.progress import Observer
from spikecrsae.system.processes import Workers

#: Blocks that make up one piece of work; a recording that has no more of them is decoded where it is.
BLOCKS_AT_ONCE = 4
#: Opens a recording again, in another process, to which it is pickled.
Reopen = Callable[[], Recording]


@dataclass(frozen=True)
class Elsewhere:
    """Decodes the blocks of a recording on workers; a spikes.Gather. reopen opens the recording there, all channels of it."""

    reopen: Reopen
    workers: Workers

    def __call__(self, decoding: Decoding, chunk_size: int, seed: int, observer: Observer) -> Iterator[Gathered]:
        """What is kept of each block, in order. Raises what a piece of work raises."""
        n_blocks = decoding.n_blocks
        parts = [range(first, min(first + BLOCKS_AT_ONCE, n_blocks)) for first in range(0, n_blocks, BLOCKS_AT_ONCE)]
        if len(parts) == 1:
            yield from gathered(decoding, chunk_size, seed, observer)
            return
        view = decoding.view
        common = _Shared(
            self.reopen, view.recording.channels, view.recording.pulses, view.preprocessor, view.gaps, view.loudness, decoding.model, decoding.n_times, chunk_size, seed
        )  # fmt: skip
        found: dict[int, list[Gathered]] = {}
        following = 0
        with contextlib.closing(self.workers.each(_decoded, common, parts)) as results:
            for number, result in results:
                if isinstance(result, Exception):
                    raise result
                found[number] = result
                observer.advance(round(view.n_samples * len(parts[number]) / n_blocks))
                while following in found:
                    yield from found.pop(following)
                    following += 1


@dataclass(frozen=True)
class _Shared:
    """What every piece of work needs: how the recording is opened, its stored channels in use, and the rest of a Decoding."""

    reopen: Reopen
    channels: tuple[int, ...]
    pulses: tuple[Pulses, ...]
    preprocessor: Preprocessor
    gaps: np.ndarray
    loudness: Loudness
    model: Drifting | CRsAE
    n_times: int
    chunk_size: int
    seed: int


def _decoded(shared: _Shared, blocks: range, observer: Observer) -> list[Gathered]:
    with contextlib.closing(shared.reopen()) as opened:
        used = opened.in_range().select([opened.channels.index(channel) for channel in shared.channels])
        used = replace(used, pulses=shared.pulses)
        view = PreprocessedRecording(used, shared.preprocessor, shared.gaps, shared.loudness)
        decoding = Decoding(view, shared.model, shared.n_times)
        return list(gathered(decoding, shared.chunk_size, shared.seed, observer, blocks))
