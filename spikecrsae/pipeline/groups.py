"""Groups of channels, and the neighbourhoods of a probe: each is sorted on its own, in processes beside each other, into one
result.

sort(recording, config) and apply(model, recording) are those of the pipeline, group by group where the recording has several.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.decode.collect import Gather, gathered
from spikecrsae.errors import InputError, ReadError, SpikeCRsAEError
from spikecrsae.pipeline.combine import combined, joint_checksum
from spikecrsae.pipeline.distributed import Elsewhere, Reopen
from spikecrsae.pipeline.learned import LearnedCache
from spikecrsae.pipeline.neighbourhoods import Neighbourhood, divide, in_words, undivided
from spikecrsae.pipeline.one_pass import WithSignal, holding
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.probe import of_neighbourhoods
from spikecrsae.pipeline.sort import apply_to_group, sort_group
from spikecrsae.preprocess.survey import survey
from spikecrsae.progress import Observer
from spikecrsae.readers.chosen_channels import TOGETHER
from spikecrsae.readers.triggers import given_gaps
from spikecrsae.results.model_file import check_groups, load_checkpoint
from spikecrsae.system.logs import collected, repeat
from spikecrsae.system.processes import OnStage, Processes, StageReporter, Workers
from spikecrsae.system.text import counted
from spikecrsae.system.threads import n_cores
from spikecrsae.units import s_to_samples

log = logging.getLogger(__name__)

#: So many channels without positions or groups are seldom one electrode.
MANY_CHANNELS = 16
#: Stages that a group goes through when it is sorted, and when its units are known, for the course of the whole.
_STAGES_OF_SORT, _STAGES_OF_APPLY = 7, 6


@dataclass(frozen=True, eq=False)
class GroupTask:
    """What is to be done with a group, or with one neighbourhood of it, wherever: sort its channels (positions in the recording)
    with the settings, and the self-test where asked for; or, with the model that load_checkpoint has read, find its known
    units, of which the first has the number first_unit. label: its name in the log, empty where it is all there is. signal: the
    stored samples of its channels where they have been read."""

    label: str
    channels: tuple[int, ...]
    config: Config
    self_test: bool = False
    model: dict[str, Any] | None = None
    cache: LearnedCache | None = None
    first_unit: int | None = None
    signal: np.ndarray | None = None

    def run(self, recording: Recording, observer: Observer, gather: Gather = gathered) -> Outcome:
        """The outcome of this group of the recording; raises what the pipeline raises."""
        part = recording.select(self.channels)
        if self.signal is not None:
            part = holding(part, self.signal)
        log.info("channels %s", ", ".join(part.channel_ids))
        if self.model is not None:
            name = f"of {self.label}" if self.label else "that is applied"
            return apply_to_group(self.model, part, self.config, observer, name, gather, self.first_unit or 0)
        outcome = sort_group(part, self.config, observer, gather=gather, cache=self.cache)
        return _self_tested(part, outcome, observer, self.cache) if self.self_test else outcome


@dataclass(frozen=True, eq=False)
class Group:
    """Channels, by position in the recording, whose units become one sorting: those of one neighbourhood, or of several, each of
    which is a task. name: empty where the recording has no groups."""

    name: str
    channels: tuple[int, ...]
    neighbourhoods: tuple[Neighbourhood, ...]
    tasks: tuple[GroupTask, ...]

    @classmethod
    def of(
        cls,
        recording: Recording,
        name: str,
        channels: tuple[int, ...],
        neighbourhoods: Sequence[Neighbourhood],
        settings: Sequence[dict[str, Any]],
    ) -> Group:
        """neighbourhoods: of its channels; settings: further values of the task of each."""
        tasks = []
        for each, values in zip(neighbourhoods, settings, strict=True):
            here = tuple(channels[channel] for channel in each.channels)
            own = f"channels {in_words(recording, here)}" if len(neighbourhoods) > 1 else ""
            label = ", ".join(filter(None, (f"group {name}" if name else "", own)))
            tasks.append(GroupTask(label, here, **values))
        return cls(name, channels, tuple(neighbourhoods), tuple(tasks))

    @property
    def first_unit(self) -> int | None:
        """Number of its first unit where its units are known."""
        return self.tasks[0].first_unit

    def outcome(self, recording: Recording, results: Sequence[Outcome | Exception]) -> Outcome | Exception:
        """The results of the tasks as one."""
        if len(results) == 1:
            return results[0]
        if not any(isinstance(result, Outcome) for result in results):
            return InputError("; ".join(dict.fromkeys(map(str, results))))
        return of_neighbourhoods(recording.select(self.channels), self.neighbourhoods, results)


def _self_tested(recording: Recording, outcome: Outcome, observer: Observer, cache: LearnedCache | None) -> Outcome:
    from spikecrsae.pipeline import self_test  # with libraries that take long to load, and that nothing else needs

    return self_test.self_test(recording, outcome, observer, cache)


@contextmanager
def _named_in_log(name: str) -> Iterator[None]:
    """Meanwhile the package's records begin with `name`."""
    make = logging.getLogRecordFactory()

    def named(logger: str, *arguments: Any, **values: Any) -> logging.LogRecord:
        record = make(logger, *arguments, **values)
        if logger.startswith("spikecrsae"):
            record.msg, record.args = name + record.getMessage(), None
        return record

    logging.setLogRecordFactory(named)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


def sort(
    recording: Recording,
    config: Config,
    observer: Observer | None = None,
    *,
    reopen: Reopen | None = None,
    jobs: int | None = None,
    cluster: Workers | None = None,
    self_test: bool = False,
    cache: LearnedCache | None = None,
) -> Outcome:
    """sort_group of each group of the recording, as one outcome; of all channels where it has no groups. Many channels with positions
    are divided into neighbourhoods, each of which is sorted on its own (`neighbourhoods.divide`).

    reopen: opens the recording in another process, to which it is pickled; without it one group is sorted after the other,
    here. jobs: groups sorted at the same time, None for as many as there are cores; cluster: where they are sorted in place
    of this machine's processes, and the blocks of each are decoded. The result is the same for any. self_test: also
    self_test.self_test. cache: see sort_group; each group has an entry of its own. Raises InputError where no
    group can be sorted; one that cannot is a warning.
    """
    observer = observer or Observer()
    groups = _groups_to_sort(recording, config, self_test, cache)
    if _is_one(groups, cluster):
        outcome = sort_group(recording, config, observer, _gather(reopen, cluster), cache)
        outcome = _self_tested(recording, outcome, observer, cache) if self_test else outcome
    else:
        outcome = _run(groups, recording, observer, reopen, jobs, cluster)
    return replace(outcome, warnings=(*_of_many_channels(recording, groups), *outcome.warnings))


def _of_many_channels(recording: Recording, groups: list[Group]) -> tuple[str, ...]:
    """A remark where MANY_CHANNELS are sorted together, nothing tells where they are, and no note has said it before."""
    most = max(len(group.channels) for group in groups)
    if recording.channel_positions is not None or most < MANY_CHANNELS or any(TOGETHER in n for n in recording.notes):
        return ()
    return (
        f"{most} channels are sorted together, though nothing tells which of them are near each other: this takes long, and neurons far apart "
        "are compared; give --probe, or --groups for channels that belong together, such as 0-3,4-7",
    )


def apply(
    model: Path | dict[str, Any],
    recording: Recording,
    config: Config,
    observer: Observer | None = None,
    *,
    reopen: Reopen | None = None,
    jobs: int | None = None,
    cluster: Workers | None = None,
) -> Outcome:
    """apply_to_group of a model of one or several groups; groups and neighbourhoods are those of the model. Arguments as for
    `sort`.

    model: a model file, or what load_checkpoint reads.
    """
    observer, saved = observer or Observer(), load_checkpoint(model) if isinstance(model, Path) else model
    name = str(model) if isinstance(model, Path) else "of this sorting"
    groups = _groups_of_model(saved, name, recording, config)
    if _is_one(groups, cluster):
        return apply_to_group(saved, recording, config, observer, name, _gather(reopen, cluster))
    return _run(groups, recording, observer, reopen, jobs, cluster)


def _is_one(groups: list[Group], cluster: Workers | None) -> bool:
    """Whether all channels are sorted together, and here."""
    return not groups[0].name and len(groups[0].tasks) == 1 and not (cluster and cluster.is_remote)


def _groups_to_sort(
    recording: Recording, config: Config, self_test: bool = False, cache: LearnedCache | None = None
) -> list[Group]:
    """The groups of the recording, all channels where it has none, each divided into neighbourhoods. A number of units that is
    given is that of a whole group, which then is not divided."""
    groups = []
    for number, (name, channels) in enumerate((recording.groups or {"": tuple(range(recording.n_channels))}).items()):
        part = recording.select(channels)
        neighbourhoods = divide(part) if config.initialise.units is None else [undivided(part)]
        own = cache.part(str(number)) if cache and name else cache
        caches = [own.part(each.name) if own and len(neighbourhoods) > 1 else own for each in neighbourhoods]
        settings = [{"config": config, "self_test": self_test, "cache": each} for each in caches]
        groups.append(Group.of(recording, name, channels, neighbourhoods, settings))
    return groups


def _groups_of_model(saved: dict[str, Any], name: str, recording: Recording, config: Config) -> list[Group]:
    """The groups of a model, with their neighbourhoods. Raises InputError where it is damaged or does not fit the recording."""
    whole = np.arange(recording.n_channels)
    if "groups" not in saved and "neighbourhoods" not in saved:
        settings = [{"config": config, "model": saved, "first_unit": 0}]
        return [Group.of(recording, "", tuple(whole.tolist()), [undivided(recording)], settings)]
    check_groups(saved, name)
    if saved["n_channels"] != recording.n_channels:
        raise InputError(
            f"{recording.source} has {recording.n_channels} channels, the model {name} {saved['n_channels']}; they must agree. "
            "Choose channels with --channels."
        )
    groups, first = [], 0
    for group, part in saved.get("groups", {"": {"channels": whole, "model": saved}}).items():
        alone = {"0": {"channels": np.arange(len(part["channels"])), "model": part["model"]}}
        neighbourhoods, settings = [], []
        for number, each in part["model"].get("neighbourhoods", alone).items():
            neighbourhoods.append(Neighbourhood(number, tuple(each["channels"].tolist()), first_unit=first))
            settings.append({"config": config, "model": each["model"], "first_unit": first})
            first += int(np.count_nonzero(each["model"]["reported"]))
        groups.append(Group.of(recording, group, tuple(part["channels"].tolist()), neighbourhoods, settings))
    return groups


def input_checksum(
    recording: Recording, config: Config, observer: Observer | None = None, model_path: Path | None = None
) -> str:
    """Return the input_checksum that the outcome of `sort` has, or of `apply` with a model, by reading the recording once for
    each group and neighbourhood. Raises InputError where no channel can be used."""
    if model_path is None:
        groups = _groups_to_sort(recording, config)
    else:
        groups = _groups_of_model(load_checkpoint(model_path), str(model_path), recording, config)
    chunk_size = s_to_samples(config.infer.chunk_s, recording.sampling_frequency)
    gaps, _ = given_gaps(config.preprocess, recording)
    known: list[str] = []
    failed: list[InputError] = []
    for group in groups:
        found = []
        for task in group.tasks:
            try:
                part = recording.select(task.channels).in_range()
                found.append(survey(part, chunk_size, observer or Observer(), gaps, stage="compare").checksum)
            except ReadError:
                raise
            except InputError as error:
                failed.append(error)
        if found:
            known.append(joint_checksum(found) if len(group.tasks) > 1 else found[0])
    if not known:
        raise failed[0]
    return joint_checksum(known) if groups[0].name else known[0]


def _run(
    groups: list[Group],
    recording: Recording,
    observer: Observer,
    reopen: Reopen | None,
    jobs: int | None,
    cluster: Workers | None,
) -> Outcome:
    """The groups' outcomes as one."""
    tasks = [task for group in groups for task in group.tasks]
    stages = [_STAGES_OF_SORT + task.self_test if task.model is None else _STAGES_OF_APPLY for task in tasks]
    kind, n_parts = ("group", len(groups)) if groups[0].name else ("neighbourhood", len(tasks))
    observer.start(f"{kind}s", sum(stages))
    observer.give_no_estimate()  # a stage counts as one, and learning takes most of the time
    if len(tasks) > 1:
        log.info("%s: %s", counted(n_parts, kind), "; ".join(task.label for task in tasks))
    workers = cluster or _processes(tasks, reopen, jobs)
    # tasks on other machines read for themselves
    reads_alone = cluster or len(tasks) == 1 or recording.time_range or tasks[0].config.runtime.memory_limit
    items = tasks if reads_alone else WithSignal(tasks, recording)

    def count(number: int, stage: str, has_ended: bool) -> None:
        if has_ended:
            observer.advance()

    results: list[Outcome | Exception]
    if workers is None:
        results = [_tried(task, recording, StageReporter(functools.partial(count, 0))) for task in items]
    else:
        results = _run_elsewhere(items, workers, reopen, _gather(reopen, cluster), count)
    for result in results:
        # what is wrong with a part's signal concerns it alone; what is wrong with the disk does not
        alone = (len(tasks) > 1 or groups[0].name) and isinstance(result, InputError) and not isinstance(result, ReadError)
        if isinstance(result, Exception) and not alone:
            raise result
    each = iter(results)
    outcomes = [group.outcome(recording, [next(each) for _ in group.tasks]) for group in groups]
    if not any(isinstance(outcome, Outcome) for outcome in outcomes):
        raise InputError(
            "; ".join(f"group {g.name}: {o}" if g.name else str(o) for g, o in zip(groups, outcomes, strict=True))
        )
    outcome = combined(recording, groups, outcomes) if groups[0].name else outcomes[0]
    assert isinstance(outcome, Outcome)
    observer.finish(f"{counted(n_parts, kind)}, {counted(outcome.sorting.n_units, 'unit')}")
    return outcome


def _gather(reopen: Reopen | None, cluster: Workers | None) -> Gather:
    """Where the blocks of a group are decoded: on the cluster if there is one, else here."""
    return Elsewhere(reopen, cluster) if cluster and reopen else gathered


def _run_elsewhere(
    groups: Sequence[GroupTask], workers: Workers, reopen: Reopen | None, gather: Gather, on_stage: OnStage
) -> list[Outcome | Exception]:
    """Return the groups' outcomes, or why they cannot be sorted. Raises what ends a worker."""
    found = {}
    with contextlib.closing(workers.each(_reopened, (reopen, gather), groups, on_stage)) as results:
        for number, result in results:
            if isinstance(result, Exception):
                raise result
            found[number] = result
    in_order = [found[number] for number in range(len(groups))]
    for _, records in in_order:
        repeat(records)
    return [result for result, _ in in_order]


def _processes(groups: list[GroupTask], reopen: Reopen | None, jobs: int | None) -> Workers | None:
    """As many processes as groups are sorted in at the same time; None where that is one, which then is this one."""
    # a daemonic process may have no children, and a memory limit is for all processes together
    limited = groups[0].config.runtime.memory_limit is not None
    if reopen is None or limited or multiprocessing.current_process().daemon:
        return None
    n = min(jobs or n_cores(), len(groups))
    return Processes(n) if n > 1 else None


def _reopened(
    common: tuple[Reopen, Gather], group: GroupTask, observer: Observer
) -> tuple[Outcome | Exception, list[logging.LogRecord]]:
    """In another process: the group of the recording that is opened there, or why it cannot be sorted, and its log."""
    reopen, gather = common
    with collected(f"{group.label}: " if group.label else "") as records:
        try:
            with contextlib.closing(reopen()) as recording:
                return group.run(recording, observer, gather), records
        except Exception as error:
            if not isinstance(error, SpikeCRsAEError):
                log.debug("a task ended with an error:\n%s", traceback.format_exc())
            return error, records


def _tried(group: GroupTask, recording: Recording, observer: Observer) -> Outcome | InputError:
    try:
        with _named_in_log(f"{group.label}: " if group.label else ""):
            return group.run(recording, observer)
    except InputError as error:
        return error
