"""What vendors' files say about each other and neo does not compare: a file that was cut off, a companion that is gone, a clock that
runs backward."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.system.files import refuse_unreadable

#: Bytes of a Neuralynx file before its first record, and of a record.
_NCS_HEADER, _NCS_RECORD = 16_384, 1044
#: The same of a file of the old format of Open Ephys.
_CONTINUOUS_HEADER, _RECORD_SAMPLES = 1024, 1024
_CONTINUOUS_RECORD = np.dtype([("timestamp", "<i8"), ("rest", "S4"), ("samples", ">i2", _RECORD_SAMPLES), ("mark", "S10")])
#: Channels that an Intan controller records at most.
_MOST_INTAN = 1024


def check_files(format: str, path: Path, arguments: dict) -> None:
    """Raise InputError where one of the files that a reader of neo is going to open with these arguments for what the user has
    named is no file that can be read, or is shorter or longer than the others say."""
    place = Path(arguments.get("dirname") or arguments["filename"])
    if path.is_file() and format in ("SpikeGLXRawIO", "NeuralynxRawIO", "OpenEphysRawIO"):
        place = path
    inside = sorted(place.rglob("*")) if place.is_dir() else sorted(place.parent.glob(f"{_escaped(place.stem)}.*"))
    for file in inside:
        if not file.is_dir():
            refuse_unreadable(file, "a folder without it, or of a file")
    if format in _CHECKS:
        _CHECKS[format](place)


def refuse_depths(files: Sequence[Path], path: Path) -> None:
    """Raise InputError where .mpx files of AlphaOmega are of several depths or places of an electrode, where other neurons are.
    Their names end in the number of the file, as in LT1D-2.500F0001.mpx at 2.5 mm."""
    places = list(dict.fromkeys(re.sub(r"(?:F|-|_)?\d+$", "", file.stem) for file in files))
    if len(places) > 1:
        some = ", ".join(places[:6]) + (f" and {len(places) - 6} more" if len(places) > 6 else "")
        raise InputError(
            f"{path} holds recordings at {len(places)} depths or places ({some}), each with neurons of its own. Sort each by itself: give one "
            f".mpx file, or all to batch: spikecrsae batch '{path if path.is_dir() else path.parent}/*.mpx' -o RESULTS."
        )


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _neuralynx(folder: Path) -> None:
    for path in [folder] if folder.suffix.lower() == ".ncs" and folder.is_file() else sorted(folder.rglob("*.ncs")):
        size = path.stat().st_size - _NCS_HEADER
        if size <= 0 or size % _NCS_RECORD:
            raise InputError(
                f"{folder}: {path.name} has {size + _NCS_HEADER} bytes, which is no header of {_NCS_HEADER} and whole records of "
                f"{_NCS_RECORD}; it is cut off. Copy it again, or move it away to sort the other channels."
            )


def _intan(header: Path) -> None:
    """Of the formats with several files, which lie beside info.rhd or info.rhs: all have as many samples as time.dat."""
    stamps = header.with_name("time.dat")
    if header.stem != "info":
        return
    if not stamps.is_file():
        raise InputError(f"{header.parent}: time.dat is missing; copy the whole folder again.")
    n_samples, rest = divmod(stamps.stat().st_size, 4)
    data = [*header.parent.glob("amp-*.dat"), *header.parent.glob("amplifier.dat")]
    if not data:
        raise InputError(
            f"{header.parent}: the file with the samples, amplifier.dat, is missing; copy the whole folder again."
        )
    for path in data:
        channels, over = divmod(path.stat().st_size, 2 * max(n_samples, 1))
        if rest or over or not 1 <= channels <= _MOST_INTAN:
            raise InputError(
                f"{header.parent}: {path.name} has {path.stat().st_size} bytes and time.dat {stamps.stat().st_size}, which is not "
                "the same number of samples; one of them is cut off. Copy the folder again."
            )


def _spikeglx(folder: Path) -> None:
    known = list(folder.rglob("*.meta")) if folder.is_dir() else [folder.with_suffix(".meta")]
    for facts in known:
        data = facts.with_suffix(".bin")
        if data.with_suffix(".cbin").is_file() and not data.is_file():
            continue
        if not data.is_file():
            raise InputError(f"{folder}: {data.name} is missing beside {facts.name}; copy the whole folder again.")
        lines = dict(line.partition("=")[::2] for line in facts.read_text("utf-8", "replace").splitlines())
        if lines.get("fileSizeBytes", "").isdecimal() and int(lines["fileSizeBytes"]) != data.stat().st_size:
            raise InputError(
                f"{folder}: {data.name} has {data.stat().st_size} bytes, and {facts.name} says {lines['fileSizeBytes']}; it is cut "
                "off or was changed. Copy it again, or write its true size into fileSizeBytes to sort what is there."
            )
    for data in folder.rglob("*.bin"):
        if data.with_suffix(".meta") not in known:
            raise InputError(
                f"{folder}: {data.with_suffix('.meta').name} is missing beside {data.name}; copy the folder again."
            )


def _open_ephys(folder: Path) -> None:
    for data in sorted(folder.rglob("continuous.dat")):
        for name in ("sample_numbers.npy", "timestamps.npy"):
            path = data.with_name(name)
            if path.is_file():
                try:
                    numbers = np.load(path, mmap_mode="r", allow_pickle=False)
                except (ValueError, EOFError, OSError) as error:
                    raise InputError(
                        f"{folder}: {path.name} is damaged or cut off ({error}); copy the folder again."
                    ) from error
                counts = numbers.ndim == 1 and numbers.dtype.kind in "iu"
                if counts and (not len(numbers) or data.stat().st_size % (2 * len(numbers))):
                    raise InputError(
                        f"{folder}: {data.name} has {data.stat().st_size} bytes, which is no whole number of channels for the "
                        f"{len(numbers)} samples of {name}; one of them is cut off. Copy the folder again."
                    )
                break


def _old_open_ephys(place: Path) -> None:
    for path in [place] if place.is_file() else sorted(place.rglob("*.continuous")):
        n = (path.stat().st_size - _CONTINUOUS_HEADER) // _CONTINUOUS_RECORD.itemsize
        if n > 1:
            records = np.memmap(path, _CONTINUOUS_RECORD, "r", _CONTINUOUS_HEADER, shape=(n,))
            if len(back := np.flatnonzero(np.diff(records["timestamp"]) <= 0)):
                first, next_ = records["timestamp"][back[0] : back[0] + 2]
                last = int(back[0] + 1) * _RECORD_SAMPLES - 1
                raise InputError(
                    f"{path}: the time stamps do not increase: the record that ends with sample {last} has {first}, the one from sample "
                    f"{last + 1} on {next_}. Repair the file, or move it away to sort the other channels."
                )


_CHECKS: dict[str, Callable[[Path], None]] = {
    "NeuralynxRawIO": _neuralynx,
    "IntanRawIO": _intan,
    "SpikeGLXRawIO": _spikeglx,
    "OpenEphysBinaryRawIO": _open_ephys,
    "OpenEphysRawIO": _old_open_ephys,
}
