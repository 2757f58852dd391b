"""The public functions for scripts and notebooks: sort, apply, score, simulate, open_recording and read_sorting."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from spikecrsae.api.arguments import Rule, checked, one_of
from spikecrsae.api.course import Callback, followed
from spikecrsae.api.messages import in_python_words, speaks_python
from spikecrsae.api.sorting import Sorting
from spikecrsae.config import LISTED_IN_PYTHON, Config
from spikecrsae.data.recording import Recording
from spikecrsae.errors import OutputError, UsageError
from spikecrsae.readers import ReadOptions, neuron_and_unit, open_session, phy_rate, read_array, read_truth
from spikecrsae.results.folder import MODEL, ResultFolder
from spikecrsae.run.curated import is_sorting, open_sorting
from spikecrsae.run.record import model_facts, record, recording_facts
from spikecrsae.system.files import refuse_undecodable
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from spikecrsae.pipeline.outcome import Outcome
    from spikecrsae.score.metrics import Comparison

log = logging.getLogger(__name__)

#: A file, the files of one session, an open Recording, or traces (n_samples, n_channels) in microvolts.
Source: TypeAlias = "str | Path | Sequence[str | Path] | Recording | npt.NDArray[Any]"
#: A Sorting, the path of one, or a mapping from the name of each unit to the samples of its spikes.
Spikes: TypeAlias = "Sorting | str | Path | Mapping[str, npt.NDArray[np.int64]]"

_READ_OPTIONS = {option.name for option in fields(ReadOptions)}
#: Settings that have an effect where the templates are known.
_OF_APPLY = {
    "exclude_s", "triggers", "blank_ms", "find_artefacts", "adapt", "chunk_s", "device", "backend", "memory_limit",
}  # fmt: skip
_MODEL: dict[str, Rule] = {"model": (one_of(Sorting, str, os.PathLike), "a Sorting, a result folder or a model file")}
_KINDS = "a Sorting, the name of a file or folder, or samples by the name of the unit"
_SPIKES: dict[str, Rule] = {name: (one_of(Sorting, str, Path, Mapping), _KINDS) for name in ("sorting", "truth")}


@speaks_python
@checked()
def open_recording(source: str | Path | Sequence[str | Path] | npt.NDArray[Any], **options: Any) -> Recording:
    """Open a file, several files that are one recording, or an array. Only the header of a file is read.

    source: a path, a list of paths, or traces (n_samples, n_channels). Traces are in microvolts; with gain they are stored
    numbers. options: those that `spikecrsae info --help` shows, such as sampling_frequency (Hz), n_channels, dtype,
    gain, channels, groups. Raises InputError where the source cannot be used, UsageError where an option is wrong or
    missing.
    """
    given = _read_options(options, open_recording)
    return open_session(_paths(source), given) if _is_path(source) else read_array(source, given)


@speaks_python
@checked()
def sort(
    recording: Source,
    *,
    sampling_frequency: float | None = None,
    config: Config | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    estimate_errors: bool = False,
    jobs: int = 1,
    callback: Callback | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Sorting:
    """Find the units and spikes of a recording.

    recording: a Recording, or what open_recording takes; an array needs its sampling_frequency in Hz. settings: values of the
    configuration and options of open_recording, by their names on the command line: detection_threshold=5.0, seed=1,
    channels="0-3". They override config.
    folder: also save the result there. estimate_errors: also run the self-test. jobs: number of groups of channels that are
    sorted at the same time, each in its own process. A script needs `if __name__ == "__main__":` for more than 1.
    callback(stage, done, total) is called with the progress. progress: draw a bar; by default in a notebook only.

    Raises UsageError for a wrong argument, InputError where the recording cannot be sorted, OutputError where the folder
    cannot be written. Finding no unit is not an error.
    """
    from spikecrsae.pipeline import groups

    reader, settings = _parted(settings, sampling_frequency)
    _refuse_unknown(settings, Config.stages(), sort)
    config = (config or Config()).with_settings(**settings)
    config.refuse_contradictions()
    options = {"estimate_errors": estimate_errors, "save_components": False, "exports": []}
    with _opened(recording, reader) as source, followed(callback, progress) as observer:
        work = functools.partial(
            groups.sort, source.recording, config, observer, reopen=source.reopen, jobs=jobs, self_test=estimate_errors
        )
        return _run(work, source, {"task": "sort", "options": options}, folder, overwrite)


@speaks_python
@checked(_MODEL)
def apply(
    model: Sorting | str | Path,
    recording: Source,
    *,
    sampling_frequency: float | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    callback: Callback | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Sorting:
    """Find the spikes of known units in another recording. Spikes of other neurons are left out; a warning says how many.

    model: a Sorting, a result folder, or its model file. The recording must have the channels and the sampling frequency
    of the one that was sorted. settings: reading options, exclude_s, triggers, blank_ms, find_artefacts, adapt (adapt the
    templates to this recording), chunk_s, device, backend, memory_limit. All other arguments and errors are those of
    `sort`.
    """
    from spikecrsae.pipeline import groups

    reader, settings = _parted(settings, sampling_frequency)
    _refuse_unknown(settings, Config.stages(), apply)
    if idle := sorted(set(settings) - _OF_APPLY):
        raise UsageError(
            f"{', '.join(idle)}: no effect here; apply takes filters and templates from the model. Leave it out."
        )
    config = Config().with_settings(**settings)
    found = model.model if isinstance(model, Sorting) else _model_file(Path(model))
    if found is None:
        raise UsageError(f"{model!r} has no model; give a sorting that sort has made, or its folder.")
    with _opened(recording, reader) as source, followed(callback, progress) as observer:
        work = functools.partial(groups.apply, found, source.recording, config, observer, reopen=source.reopen, jobs=jobs)
        options = {"estimate_errors": False, "save_components": False, "exports": []}
        facts = {"task": "apply", "options": options, "model": model_facts(found) if isinstance(found, Path) else None}
        return _run(work, source, facts, folder, overwrite)


@speaks_python
@checked()
def read_sorting(path: str | Path) -> Sorting:
    """Read a result folder, its sorting.h5, or a Phy folder that this program wrote, with its present curation.

    Raises InputError where it is missing or damaged.
    """
    return _read(path)


@speaks_python
@checked(_SPIKES)
def score(
    sorting: Spikes,
    truth: Spikes,
    *,
    sampling_frequency: float | None = None,
    tolerance_ms: float = 0.4,
    exhaustive: bool = False,
    truth_column: str | None = None,
    truth_unit: str | None = None,
    truth_neuron: str | None = None,
    truth_channel: int | None = None,
    truth_threshold: float | None = None,
    **options: Any,
) -> Comparison:
    """Compare a sorting with known spikes: accuracy, precision, recall, miss and false alarm of each true unit.

    sorting, truth: a Sorting, a file or folder, or samples by the name of the unit; samples alone need the
    sampling_frequency. tolerance_ms: largest distance of a match. exhaustive: the truth names every neuron, so that false,
    redundant and merged units are counted too. truth_column: column of a table with the times, by name or number
    from 0. truth_unit: unit of the times (s, ms, samples). truth_neuron: compare with this neuron only. truth_channel: the
    true spikes are those on this intracellular channel, above truth_threshold; options say how its file is read.

    Raises UsageError for a wrong argument, InputError where a file cannot be used.
    """
    from spikecrsae.score.clock import doubt
    from spikecrsae.score.metrics import compare

    if sampling_frequency is None and isinstance(sorting, str | Path):
        sampling_frequency = phy_rate(Path(sorting))
    tested = _found(sorting, sampling_frequency)
    data = tested.data if isinstance(tested, Sorting) else None
    rate = sampling_frequency if data is None else data.sampling_frequency
    if rate is None:
        raise UsageError("samples alone do not tell the sampling frequency; give --sampling-frequency.")
    reader = _read_options(options, score)
    if truth_channel is None and (reader.given() or truth_threshold is not None):
        raise UsageError(
            "truth_threshold and reading options have no effect without --truth-channel; leave them out, or give it."
        )
    neuron, time_unit = neuron_and_unit(truth_neuron, truth_unit)
    if isinstance(truth, str | Path):
        known = read_truth(
            truth, rate, truth_channel=truth_channel, recording=data, threshold=truth_threshold, unit=neuron,
            column=truth_column, time_unit=time_unit, options=None if truth_channel is None else reader,
        )  # fmt: skip
    else:
        known = _trains(truth, neuron)
    if isinstance(tested, Sorting):  # only the part that was sorted counts
        first, end = tested.run.get("recording", {}).get("time_range") or (0, tested.data.n_samples)
        known = {name: samples[(samples >= first) & (samples < end)] for name, samples in known.items()}
    trains = _trains(tested)
    comparison = compare(known, trains, rate, tolerance_ms, exhaustive)
    if doubted := doubt(comparison, known, trains, 0.0 if data is None else data.start_time_s):
        log.warning("%s", in_python_words(doubted))
    return comparison


@speaks_python
@checked()
def simulate(
    *, preset: str = "tetrode", path: str | Path | None = None, overwrite: bool = False, **settings: Any
) -> tuple[Recording, Sorting]:
    """Simulate a recording; return it and its true spikes.

    preset: "tetrode", four channels with coloured noise, or "paper", the simulation of the CRsAE paper. settings: by the
    names of `spikecrsae simulate --help`, such as duration_s=10.0, n_units=3, seed=1. path: also write both to this HDF5 file.

    Raises UsageError for a wrong setting, OutputError where the file cannot be written.
    """
    from spikecrsae.simulate.generate import simulate as generate
    from spikecrsae.simulate.settings import preset_config
    from spikecrsae.simulate.write import check_place, write_simulation

    config = preset_config(preset, **settings)
    if path is not None:
        check_place(Path(path), overwrite)
    simulation = generate(config)
    if path is not None:
        write_simulation(simulation, path, overwrite)
    return simulation.recording(), Sorting(simulation.truth)


@dataclass(frozen=True)
class _Opened:
    """A recording to work on; for run.json and other processes also its files, if it comes from files."""

    recording: Recording
    paths: tuple[Path, ...] = ()
    reader: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reopen(self) -> Callable[[], Recording] | None:
        return functools.partial(open_session, self.paths, **self.reader) if self.paths else None


@contextlib.contextmanager
def _opened(source: Source, reader: dict[str, Any]) -> Iterator[_Opened]:
    """The recording; what was opened here is closed at the end."""
    if _is_path(source):
        paths = tuple(path.absolute() for path in _paths(source))
        for path in paths:
            refuse_undecodable(path)
        with contextlib.closing(open_session(paths, **reader)) as recording:
            yield _Opened(recording, paths, reader)
        return
    if not isinstance(source, Recording):
        yield _Opened(read_array(source, ReadOptions(**reader)))
    elif reader:
        raise UsageError(
            f"{', '.join(sorted(reader))}: no effect on a Recording, which is open already; give it to open_recording."
        )
    else:
        yield _Opened(source)


def _run(
    work: Callable[[], Outcome], source: _Opened, facts: dict[str, Any], folder: str | Path | None, overwrite: bool
) -> Sorting:
    """Call work() and make a Sorting of its Outcome, saved where a folder is given."""
    if folder is not None:
        refuse_undecodable(folder, OutputError)
        ResultFolder(folder).check(overwrite)
    for note in source.recording.notes:
        log.warning("%s: %s", source.recording.source, in_python_words(note))
    facts = facts | {"recording": recording_facts(source.recording, source.paths, dict(source.reader))}
    began = datetime.now(UTC)
    outcome = work()
    outcome = replace(outcome, warnings=tuple(map(in_python_words, outcome.warnings)))
    for text in outcome.warnings:
        log.warning("%s", text)
    sorting = Sorting(outcome.sorting, to_json(record(facts, outcome, began)), outcome.checkpoint)
    if folder is not None:
        sorting.save(folder, overwrite=overwrite)
    return sorting


def _parted(settings: dict[str, Any], sampling_frequency: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reading options, and settings of the configuration."""
    given = settings if sampling_frequency is None else {**settings, "sampling_frequency": sampling_frequency}
    reader = {name: value for name, value in given.items() if name in _READ_OPTIONS}
    return reader, {name: value for name, value in given.items() if name not in _READ_OPTIONS}


def _refuse_unknown(
    given: Iterable[str], known: Iterable[str], function: Callable[..., Any], listed: str = LISTED_IN_PYTHON
) -> None:
    """Raise UsageError for a name that is neither known nor an argument of the function."""
    for name in given:
        if name not in known:
            arguments = {*known, *_READ_OPTIONS, *inspect.signature(function).parameters}
            raise UsageError(unknown_name(name, sorted(arguments), listed))


def _read_options(options: dict[str, Any], function: Callable[..., Any]) -> ReadOptions:
    _refuse_unknown(options, _READ_OPTIONS, function, f"options of a recording are {', '.join(sorted(_READ_OPTIONS))}")
    return ReadOptions(**options)


def _is_path(source: Source) -> TypeGuard[str | Path | Sequence[str | Path]]:
    return isinstance(source, str | Path) or (
        isinstance(source, Sequence) and all(isinstance(p, str | Path) for p in source)
    )


def _paths(path: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return (Path(path),) if isinstance(path, str | Path) else tuple(map(Path, path))


def _model_file(path: Path) -> Path:
    return path / MODEL if path.is_dir() else path


def _read(path: str | Path) -> Sorting:
    data, run = open_sorting(path)
    model = Path(path) / MODEL
    return Sorting(data, run, model if model.is_file() else None)


def _found(spikes: Spikes, sampling_frequency: float | None) -> Sorting | Mapping[str, npt.NDArray[np.int64]]:
    """What was given, or what is in the file or folder: a sorting of this program, or spikes in another form."""
    if not isinstance(spikes, str | Path):
        return spikes
    if is_sorting(spikes) or not Path(spikes).exists():
        return _read(spikes)
    if sampling_frequency is None:
        raise UsageError(f"{spikes} does not tell its sampling frequency; give --sampling-frequency.")
    return read_truth(spikes, sampling_frequency)


def _trains(
    spikes: Sorting | Mapping[str, npt.NDArray[np.int64]], unit: str | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """Samples by the name of the unit, of one unit if asked for."""
    if isinstance(spikes, Sorting):
        trains = spikes.data.trains()
    else:
        trains = {str(name): _samples(name, samples) for name, samples in spikes.items()}
    if unit is None:
        return trains
    if unit not in trains:
        raise UsageError(f"unit {unit!r} does not exist; the units are {', '.join(trains)}.")
    return {unit: trains[unit]}


def _samples(unit: object, samples: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The samples, ascending. Raises UsageError where they are no whole numbers, as times in seconds are not."""
    numbers = np.asarray(samples)
    if (
        numbers.dtype.kind not in "iuf"
        or numbers.ndim != 1
        or not (np.isfinite(numbers) & (numbers == np.floor(numbers))).all()
    ):
        raise UsageError(
            f"unit {unit}: its spikes must be samples, a 1-D array of whole numbers; multiply times in s by the sampling "
            "frequency, and round."
        )
    return np.sort(numbers.astype(np.int64))
