"""How much signal is held at once, so that a memory limit is kept."""

from __future__ import annotations

from dataclasses import replace

from spikecrsae.config import Config
from spikecrsae.data.recording import BLOCK
from spikecrsae.errors import UsageError

#: Resident memory of the program before it holds any signal, with the libraries that write the result, in MB.
BASE_MB = 540.0
#: Bytes per sample and channel that the search for units holds of the signal that it learns from, and those of a chunk that
#: is filtered and decoded; measured by `benchmarks/memory.py`, the largest of recordings of 1 to 16 channels.
LEARNING_BYTES, CHUNK_BYTES = 64.0, 44.0
#: With less signal than this no unit can be told.
LEAST_LEARNING_S = 10.0


def within_limit(config: Config, n_channels: int, sampling_frequency: float) -> Config:
    """The configuration with as much signal at once as runtime.memory_limit leaves room for: initialise.max_signal_s and
    infer.chunk_s, at most what they are.

    Raises UsageError where the limit leaves no room for LEAST_LEARNING_S and a block.
    """
    limit = config.runtime.memory_limit
    if limit is None:
        return config
    mb_per_s = n_channels * sampling_frequency / 2**20
    learning_s, chunk_s = ((limit - BASE_MB) / (mb_per_s * size) for size in (LEARNING_BYTES, CHUNK_BYTES))
    least_chunk_s = BLOCK / sampling_frequency
    if learning_s < LEAST_LEARNING_S or chunk_s < least_chunk_s:
        least = BASE_MB + mb_per_s * max(LEARNING_BYTES * LEAST_LEARNING_S, CHUNK_BYTES * least_chunk_s)
        raise UsageError(
            f"a memory limit of {limit:g} MB is too small for {n_channels} channels at {sampling_frequency:g} Hz; it takes at "
            f"least {least:.0f} MB. Raise --memory-limit, or sort fewer channels at a time (--channels)."
        )
    return replace(
        config,
        initialise=replace(config.initialise, max_signal_s=min(config.initialise.max_signal_s, learning_s)),
        infer=replace(config.infer, chunk_s=min(config.infer.chunk_s, chunk_s)),
    )
