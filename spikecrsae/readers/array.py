"""Traces in memory, with the same options as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.data.recording import Recording, check_traces
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.system.text import counted

_NAME = "array in memory"


def read_array(source: Any, options: ReadOptions) -> Recording:
    """A Recording over source, traces (n_samples, n_channels), in microvolts, or with a gain in stored numbers.

    Raises UsageError where the sampling frequency is not given or an option has no meaning for an array, InputError where the
    array is transposed, holds no real numbers, or has masked samples.
    """
    if np.ma.is_masked(source):
        raise InputError(
            f"{_NAME} has {counted(np.ma.count_masked(source), 'masked sample')}, and masks are not used; give a number for each sample, "
            "such as with filled(0), and leave those times out with --exclude-s."
        )
    try:
        traces = np.asarray(source)
    except ValueError as error:  # rows of different lengths
        raise InputError(
            f"{_NAME}: it cannot be read as traces (n_samples, n_channels) ({error}); give rows of the same length."
        ) from error
    check_traces(traces, _NAME)
    options.refuse_others(Path(_NAME), "an array")
    if options.sampling_frequency is None:
        raise UsageError("an array does not tell its sampling frequency; give --sampling-frequency.")
    n_samples, n_channels = traces.shape
    found = Found(
        path=Path(_NAME),
        format="array",
        read=lambda start, stop: traces[start:stop],
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=traces.dtype,
        unit="uV",
        sampling_frequency=None,
    )
    return assemble(found, options)
