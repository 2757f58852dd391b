"""More cases of the corpus: HDF5 and NWB files whose parts do not fit each other, clocks, and what is no recording at all."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.corpus import FS, Case, content, cut_cases, holding, words_of
from helpers.corpus_cases import as_hdf5, as_raw, fact_cases, number_cases, same, type_cases


def container_cases() -> list[Case]:
    """HDF5 and NWB files whose parts do not fit each other, and clocks that stand still, jump or go back."""
    return [*_hdf5_parts(), *_nwb_parts(), *_clocks()]


def _changed(writer: Callable[[Path], files.Written], change: Callable[[files.h5py.File], None]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        with holding():
            written = writer(folder)
        with files.h5py.File(written.path, "r+") as file:
            change(file)
        return words_of(written)

    return make


def _replaced(name: str, **values) -> Callable[[files.h5py.File], None]:
    """The dataset of that name made anew, with its attributes; without values it is gone."""

    def change(file: files.h5py.File) -> None:
        facts = dict(file[name].attrs)
        del file[name]
        if values:
            file.create_dataset(name, **values).attrs.update(facts)

    return change


def _hdf5_parts() -> list[Case]:
    def link(file: files.h5py.File) -> None:
        del file["traces"]
        file["traces"] = files.h5py.ExternalLink("elsewhere.h5", "/traces")

    def group(file: files.h5py.File) -> None:
        del file["traces"]
        file.create_group("traces")

    def virtual(file: files.h5py.File) -> None:
        del file["traces"]
        layout = files.h5py.VirtualLayout((40_960, 4), "int16")
        layout[:] = files.h5py.VirtualSource("elsewhere.h5", "traces", (40_960, 4))
        file.create_virtual_dataset("traces", layout)

    def half_written(file: files.h5py.File) -> None:
        _replaced("traces", shape=(60_000, 4), dtype="int16", chunks=(2000, 4))(file)
        file["traces"][:40_000] = content()[:40_000] * 5 + 3000

    sparse = {"shape": (2**40, 4), "dtype": "int16", "chunks": (4096, 4)}
    wide = {"shape": (2**40, 2**30), "dtype": "int16", "chunks": (4096, 4)}
    kinds = {
        "never written": (_replaced("traces", shape=(40_000, 4), dtype="int16", chunks=(1000, 4)), "ever written"),
        "never written, in one piece": (_replaced("traces", shape=(40_000, 4), dtype="int16"), "ever written"),
        "announced for a year": (_replaced("traces", **sparse), "of it are stored"),
        "of absurd width": (_replaced("traces", **wide), "of it are stored"),
        "of three axes": (_replaced("traces", data=np.zeros((100, 20, 4))), "two axes"),
        "a single number": (_replaced("traces", data=3.0), "no traces"),
        "gone": (_replaced("traces"), "no dataset at all"),
        "a group of that name": (group, "no dataset at all"),
        "a link to nowhere": (link, "link to another file"),
        "transposed": (_replaced("traces", data=content().T), "--axis"),
        "of no channel": (_replaced("traces", shape=(40_000, 0), dtype="int16"), "empty"),
    }
    cases = [
        Case(f"HDF5: traces {name}", _changed(files.hdf5_unsigned, change), "refused", words, (2, 3))
        for name, (change, words) in kinds.items()
    ]
    lost = Case("HDF5: traces of a file that is gone", _changed(files.hdf5_unsigned, virtual), "refused", "virtual dataset")
    return [
        *cases,
        lost,
        Case("HDF5: traces written in part", _changed(files.hdf5_unsigned, half_written), "warned", "ever written"),
    ]


def _nwb_parts() -> list[Case]:
    series = "acquisition/Raw"
    nwb = {
        "no data": (_replaced(f"{series}/data"), "no data"),
        "a rate of 0": (lambda f: f[f"{series}/starting_time"].attrs.update(rate=0.0), "sampling frequency"),
        "a rate of NaN": (lambda f: f[f"{series}/starting_time"].attrs.update(rate=np.nan), "sampling frequency"),
        "no rate": (lambda f: f[f"{series}/starting_time"].attrs.pop("rate"), "sampling frequency"),
        "a conversion of 0": (lambda f: f[f"{series}/data"].attrs.update(conversion=0.0), "gain 0 must have a magnitude"),
        "a conversion of NaN": (lambda f: f[f"{series}/data"].attrs.update(conversion=np.nan), "gain nan must have a "
        "magnitude"),
        "a channel conversion too short": (_replaced(f"{series}/channel_conversion", data=np.ones(2)), "gain has 2 values"),
        "electrodes that the table lacks": (_replaced(f"{series}/electrodes", data=np.arange(4) + 90), "electrodes"),
        "no series": (lambda f: f[series].attrs.update(neurodata_type="TimeSeries"), "without an ElectricalSeries"),
        "transposed without electrodes": (_transposed, "more samples than channels|--axis"),
    }  # fmt: skip
    stamps = {"a step back": (slice(20_000, None), -0.5), "no end": (slice(-1, None), np.inf),
              "a stamp twice": (slice(500, 501), -1 / FS), "a stamp that is no number": (slice(77, 78), np.nan)}  # fmt: skip

    def stamped(place: slice, shift: float) -> Callable[[Path], list]:
        def make(folder: Path) -> list:
            values = 3.0 + np.arange(len(content())) / FS
            values[place] += shift
            files.write_nwb(folder / "raw.nwb", content(), timestamps=values)
            return [folder / "raw.nwb"]

        return make

    cases = [
        Case(f"NWB: {name}", _changed(files.nwb, change), "refused", words, (2, 3)) for name, (change, words) in nwb.items()
    ]
    return [
        *cases,
        *(Case(f"NWB: time stamps with {name}", stamped(*how), "refused", "time stamps") for name, how in stamps.items()),
        Case("NWB: time stamps with a gap", stamped(slice(20_000, None), 1.0), "warned", "signal is missing at 1 place"),
    ]


def _transposed(file: files.h5py.File) -> None:
    _replaced("acquisition/Raw/electrodes")(file)
    _replaced("acquisition/Raw/channel_conversion")(file)
    _replaced("acquisition/Raw/data", data=content().T)(file)


def _clocks() -> list[Case]:
    """Sample numbers and time stamps beside vendors' samples."""

    def dropped(numbers: np.ndarray) -> None:
        numbers[20_000:] += 300

    def twice(numbers: np.ndarray) -> None:
        numbers[20_000] = numbers[19_999]

    def back(numbers: np.ndarray) -> None:
        numbers[20_000:] -= 10_000

    def open_ephys(change: Callable) -> Callable[[Path], list]:
        def make(folder: Path) -> list:
            with holding():
                written = files.open_ephys(folder)
            path = next(folder.rglob("sample_numbers.npy"))
            numbers = np.load(path)
            change(numbers)
            np.save(path, numbers)
            return words_of(written)

        return make

    def intan(writer: Callable, change: Callable) -> Callable[[Path], list]:
        def make(folder: Path) -> list:
            with holding():
                written = writer(folder)
            path = next(folder.rglob("time.dat"))
            numbers = np.fromfile(path, "<i4")
            change(numbers)
            numbers.tofile(path)
            return words_of(written)

        return make

    changes = {"dropped samples": dropped, "a number twice": twice, "a step back": back}
    cases = []
    for name, change in changes.items():
        how = ("warned", "signal is missing at 1 place") if change is dropped else ("refused", "do not increase")
        cases.append(Case(f"Open Ephys: {name}", open_ephys(change), *how))
        cases.append(Case(f"Intan folder: {name}", intan(vendors.intan_folder, change), *how))
    for pause in (1.0, -0.3):
        made = functools.partial(_paused, pause_s=pause)
        cases.append(Case(f"Plexon: the second half {pause:+g} s", made, "warned", "segments are read one after the other"))
    return cases


def _paused(folder: Path, pause_s: float) -> list:
    with holding():
        return words_of(vendors.plexon(folder, pause_s=pause_s))


#: Endings of formats that are told by them, a few of each kind.
ENDINGS = (
    "h5",
    "nwb",
    "mat",
    "dat",
    "bin",
    "raw",
    "rhd",
    "rhs",
    "ns5",
    "nev",
    "plx",
    "ncs",
    "vhdr",
    "xml",
    "json",
    "smr",
    "edf",
    "tdms",
    "brw",
    "oebin",
)


def path_cases() -> list[Case]:
    """What is no recording at all, under the names that recordings have; and names that are hard to read."""
    kinds: dict[str, Callable[[Path], object]] = {
        "text": lambda path: path.write_text("no recording, only words\n" * 50),
        "random bytes": lambda path: path.write_bytes(np.random.default_rng(5).bytes(5003)),
        "an empty file": lambda path: path.touch(),
        "a folder": lambda path: path.mkdir(),
        "a pipe": lambda path: os.mkfifo(path),
    }
    said = {"a pipe": "is a pipe", "an empty file": "is empty", "a folder": "no reader knows this folder"}
    cases = []
    for ending in ENDINGS:
        for kind, write in kinds.items():
            words = said.get(kind, "not HDF5|damaged|cut off|raw binary|no reader|several|no multiple")
            made = functools.partial(_named, name=f"session.{ending}", write=write)
            cases.append(Case(f"{kind} called .{ending}", made, "refused", words, (2, 3)))
    cases.append(Case("a device", lambda folder: ["/dev/zero"], "refused", "is a device"))
    cases.append(
        Case("a raw binary device", lambda folder: ["/dev/zero", *as_raw(same)(folder)[1:]], "refused", "is a device")
    )
    cases.append(Case("nothing there", lambda folder: [folder / "nowhere.h5"], "refused", "does not exist"))
    cases.append(Case("a link to nowhere", _dangling, "refused", "does not exist"))
    cases.append(Case("a name that is too long", lambda folder: [folder / ("x" * 300 + ".h5")], "refused", "cannot be read"))
    cases.append(Case("a pipe in a folder", _pipe_inside, "refused", "is a pipe", named="continuous.dat"))
    cases += [
        _strange_name(name)
        for name in (
            "two words.h5",
            "Aufnahme \u00e4\u00f6\u00fc \u2013 \u65e5\u672c.h5",
            "-dash.h5",
            "a'b\"c;d.h5",
            "line\nbreak.h5",
        )
    ]
    for option in ("--probe", "--config", "--groups"):
        made = functools.partial(_piped, option=option)
        cases.append(
            Case(
                f"a pipe for {option}",
                made,
                "refused",
                "is a pipe|is no file, and no channel range",
                (2, 3),
                named="facts.json",
            )
        )
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        cases.append(Case("a file without permission", _forbidden, "refused", "Permission denied"))
    return cases


def _named(folder: Path, name: str, write: Callable[[Path], object]) -> list:
    write(folder / name)
    return [folder / name]


def _piped(folder: Path, option: str) -> list:
    pipe = folder / "facts.json"
    os.mkfifo(pipe)
    return [*as_hdf5(same)(folder), option, pipe]


def _dangling(folder: Path) -> list:
    (folder / "link.h5").symlink_to(folder / "gone.h5")
    return [folder / "link.h5"]


def _forbidden(folder: Path) -> list:
    (path,) = as_hdf5(same)(folder)
    path.chmod(0)
    return [path]


def _pipe_inside(folder: Path) -> list:
    with holding():
        written = files.open_ephys(folder)
    data = next(folder.rglob("continuous.dat"))
    data.unlink()
    os.mkfifo(data)
    return words_of(written)


def _strange_name(name: str) -> Case:
    """A recording that is short and otherwise sound: the name is no trouble, and the one warning is about the length."""

    def make(folder: Path) -> list:
        (path,) = as_hdf5(same)(folder)
        return [path.rename(folder / name)]

    return Case(f"named {name!r}", make, "warned", "too short to learn")


def cases() -> list[Case]:
    """The whole corpus, in a fixed order."""
    return [*cut_cases(), *number_cases(), *type_cases(), *fact_cases(), *container_cases(), *path_cases()]
