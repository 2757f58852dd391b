"""Raw binary: interleaved samples without a header, whose facts only the user knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import LARGEST_SAMPLE, Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble
from spikecrsae.readers.read_options import ReadOptions, numeric_dtype, side_file

SUFFIXES = (".dat", ".raw", ".bin")
#: So many of the first numbers are looked at; a part of them that has impossible sizes means another type.
_LOOKED_AT, STRANGE = 2**14, 0.01
#: First bytes of files that are no samples from the beginning on.
_OTHERS = {
    b"\x93NUMPY": "a .npy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b\x08": "packed by gzip",
    b"RIFF": "a WAV file",
    b"MATLAB 5.0": "a MATLAB file",
}


def _refuse_wrong_type(path: Path, values: np.ndarray) -> None:
    """Raise InputError where the first numbers of a raw file show that they were stored as another type: voltages in any unit
    are not 1e-34, and upper halves of larger integers are 0 or -1."""
    looks = ""
    if values.dtype.kind == "f":
        size = np.abs(values[np.isfinite(values) & (values != 0)].astype(np.float64))
        strange = (size < 1 / LARGEST_SAMPLE) | (size > LARGEST_SAMPLE)
        if strange.sum() > STRANGE * max(len(size), 1):
            looks = (
                f"{strange.mean():.0%} of the first numbers have sizes such as {np.median(size[strange]):.2g}, as when integers are read "
                "as floats; give their type, such as int16 or uint16"
            )
    elif values.dtype.kind == "i":
        pairs = values[: len(values) // 2 * 2].reshape(-1, 2)
        low, high = pairs.T if values.dtype.newbyteorder("=") == values.dtype else pairs.T[::-1]
        if (low < 0).any() and (low > 0).any() and np.array_equal(high, -(low < 0).astype(values.dtype)):
            looks = (
                f"every second number is 0 or -1, the upper half of a larger integer; give int{16 * values.dtype.itemsize}"
            )
    if looks:
        raise InputError(f"{path}: --dtype {values.dtype} is wrong: {looks}.")


def raw_rows(path: Path, dtype: np.dtype, n_channels: int, offset: int = 0) -> Callable[[int, int], np.ndarray]:
    """read(start, stop) -> (stop - start, n_channels) of interleaved samples that begin `offset` bytes into a file."""
    frame = dtype.itemsize * n_channels

    def read(start: int, stop: int) -> np.ndarray:
        # No memory map: a file that shrinks under one kills the process instead of raising an error.
        values = np.fromfile(path, dtype, count=(stop - start) * n_channels, offset=offset + start * frame)
        return values[: len(values) // n_channels * n_channels].reshape(-1, n_channels)

    return read


def read_binary(path: Path, options: ReadOptions) -> Recording:
    """A Recording over an interleaved file; stays in ADC counts unless --gain is given.

    Raises UsageError where sampling frequency, channel count or type are not told, InputError where the file begins as one of
    another kind does, or its size is no multiple of one sample on all channels.
    """
    options.refuse_others(path, "raw binary", ("n_channels", "dtype"))
    needed = ("sampling_frequency", "n_channels", "dtype")
    missing = [f"--{name.replace('_', '-')}" for name in needed if getattr(options, name) is None]
    if missing:
        raise UsageError(
            f"{path} is raw binary, which does not say what it holds: give {', '.join(missing)}, or write them into "
            f"{side_file(path).name} beside it."
        )
    dtype, n_channels = numeric_dtype(options.dtype), int(options.n_channels or 0)
    frame = dtype.itemsize * n_channels
    size = path.stat().st_size
    if size == 0 or size % frame:
        raise InputError(
            f"{path} has {size} bytes, which is no multiple of {n_channels} channels of {dtype} ({frame} bytes); "
            "correct --n-channels or --dtype, unless the file is cut off or has a header."
        )

    with path.open("rb") as file:
        begins = file.read(max(map(len, _OTHERS)))
    for first, kind in _OTHERS.items():
        if begins.startswith(first):
            raise InputError(
                f"{path} is {kind} by its first bytes, not raw samples; give it the ending that its format has and leave --dtype and "
                "--n-channels out, or write its samples into a raw file."
            )

    _refuse_wrong_type(path, np.fromfile(path, dtype, count=_LOOKED_AT))
    return assemble(
        Found(
            path=path,
            format="raw binary",
            read=raw_rows(path, dtype, n_channels),
            n_samples=size // frame,
            n_channels=n_channels,
            dtype=dtype,
            unit="ADC",
            sampling_frequency=None,
        ),
        options,
    )
