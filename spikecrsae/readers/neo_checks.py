"""What vendors' files say about each other and neo does not compare: a file that was cut off, a companion that is gone, a clock that
runs backward."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.system.files import refuse_unreadable

#: Bytes of a Neuralynx file before its first record, and of a record.
_NCS_HEADER, _NCS_RECORD = 16_384, 1044
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
    if folder.is_file() and folder.stat().st_size == _NCS_HEADER:
        raise InputError(
            f"{folder} holds no sample: it ends after its header of {_NCS_HEADER} bytes. Give a file with samples."
        )
    for path in [folder] if folder.suffix.lower() == ".ncs" and folder.is_file() else _ncs_files(folder):
        size = path.stat().st_size - _NCS_HEADER
        if size < 0 or size % _NCS_RECORD:
            raise InputError(
                f"{folder}: {path.name} has {size + _NCS_HEADER} bytes, which is not a header of {_NCS_HEADER} and whole "
                "records of "
                f"{_NCS_RECORD}; it is cut off. Copy it again, or move it away to sort the other channels."
            )


def _ncs_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".ncs")


def why_unreadable(place: Path) -> str:
    """Why neo does not read what lies at a place, where that shows: files of different lengths, an ending of Blackrock's in capitals; else empty."""
    if place.is_dir():
        later = [path.name for path in _ncs_files(place) if re.search(r"_\d{4}$", path.stem)]
        if later and len(later) < len(_ncs_files(place)):
            return f"it holds several recordings of the same channels, by names such as {later[0]}; give the files of one recording by name"
        records = {path.name: (path.stat().st_size - _NCS_HEADER) // _NCS_RECORD for path in _ncs_files(place)}
        lengths = Counter(n for n in records.values() if n > 0)
        if len(lengths) < 2:
            return ""
        usual = lengths.most_common(1)[0][0]
        odd = [f"{name} {n}" for name, n in records.items() if n not in (usual, 0)]
        return f"most files have {usual} records, and {', '.join(odd[:10])}; give the files of one length by name"
    capitals = place.suffix.startswith((".NS", ".NEV"))
    return (
        f"neo knows this ending only in small letters; rename the file to {place.stem}{place.suffix.lower()}"
        if capitals
        else ""
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


_CHECKS: dict[str, Callable[[Path], None]] = {
    "NeuralynxRawIO": _neuralynx,
    "IntanRawIO": _intan,
    "SpikeGLXRawIO": _spikeglx,
    "OpenEphysBinaryRawIO": _open_ephys,
}
