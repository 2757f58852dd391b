"""Groups of channels: each tetrode or shank is sorted on its own, in processes beside each other, into one result.

sort(recording, config) and apply(model, recording) are those of the pipeline, group by group where the recording has several.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.sort import apply_to_group, sort_group
from spikecrsae.preprocess.survey import survey
from spikecrsae.progress import Observer
from spikecrsae.readers.triggers import given_gaps
from spikecrsae.results.model_file import check_groups, load_checkpoint
from spikecrsae.system.logs import collected, repeat
from spikecrsae.system.processes import OnStage, Processes, StageReporter, Workers
from spikecrsae.system.text import counted
from spikecrsae.system.threads import n_cores
from spikecrsae.units import s_to_samples

log = logging.getLogger(__name__)

#: Stages that a group goes through when it is sorted, and when its units are known, for the course of the whole.
_STAGES_OF_SORT, _STAGES_OF_APPLY = 7, 6


@dataclass(frozen=True, eq=False)
class GroupTask:
    """What is to be done with one group, wherever: sort its channels (positions in the recording) with the settings, and the
    self-test where asked for; or, with the model that load_checkpoint has read, find its known units, of which the first
    has the number first_unit."""

    name: str
    channels: tuple[int, ...]
    config: Config
    self_test: bool = False
    model: dict[str, Any] | None = None
    cache: LearnedCache | None = None
    first_unit: int | None = None

    @property
    def log_name(self) -> str:
        """What its lines in the log begin with."""
        return f"group {self.name}: " if self.name else ""

    def run(self, recording: Recording, observer: Observer, gather: Gather = gathered) -> Outcome:
        """The outcome of this group of the recording; raises what the pipeline raises."""
        part = recording.select(self.channels)
        log.info("channels %s", ", ".join(part.channel_ids))
        if self.model is not None:
            name = f"of group {self.name}" if self.name else "that is applied"
            return apply_to_group(self.model, part, self.config, observer, name, gather, self.first_unit or 0)
        outcome = sort_group(part, self.config, observer, gather=gather, cache=self.cache)
        return _self_tested(part, outcome, observer, self.cache) if self.self_test else outcome


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
    """sort_group of each group of the recording, as one outcome; of all channels where it has no groups.

    reopen: opens the recording in another process, to which it is pickled; without it one group is sorted after the other,
    here. jobs: groups sorted at the same time, None for as many as there are cores; cluster: where they are sorted in place
    of this machine's processes, and the blocks of each are decoded. The result is the same for any. self_test: also
    self_test.self_test. cache: see sort_group; each group has an entry of its own. Raises InputError where no
    group can be sorted; one that cannot is a warning.
    """
    observer = observer or Observer()
    if not recording.groups and not (cluster and cluster.is_remote):
        outcome = sort_group(recording, config, observer, _gather(reopen, cluster), cache)
        return _self_tested(recording, outcome, observer, cache) if self_test else outcome
    found = recording.groups or {"": tuple(range(recording.n_channels))}
    groups = [
        GroupTask(name, channels, config, self_test, cache=cache and (cache.part(str(number)) if name else cache))
        for number, (name, channels) in enumerate(found.items())
    ]
    return _run(groups, recording, observer, reopen, jobs, cluster)


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
    """apply_to_group of a model of one or several groups; the groups are those of the model. Arguments as for `sort`.

    model: a model file, or what load_checkpoint reads.
    """
    observer, saved = observer or Observer(), load_checkpoint(model) if isinstance(model, Path) else model
    name = str(model) if isinstance(model, Path) else "of this sorting"
    found = _groups_of_model(saved, name, recording)
    if not found and not (cluster and cluster.is_remote):
        return apply_to_group(saved, recording, config, observer, name, _gather(reopen, cluster))
    models = {name: saved["groups"][name]["model"] for name in found}
    first = np.cumsum([0, *(np.count_nonzero(model["reported"]) for model in models.values())]).tolist()
    groups = [
        GroupTask(name, channels, config, model=models[name], first_unit=number)
        for (name, channels), number in zip(found.items(), first, strict=False)
    ]
    groups = groups or [GroupTask("", tuple(range(recording.n_channels)), config, model=saved)]
    return _run(groups, recording, observer, reopen, jobs, cluster)


def _groups_of_model(saved: dict[str, Any], name: str, recording: Recording) -> dict[str, tuple[int, ...]]:
    """Return the channels of each group of a model, none where it is of all channels together. Raises InputError where it is
    damaged or does not fit the recording."""
    if "groups" not in saved:
        return {}
    check_groups(saved, name)
    if saved["n_channels"] != recording.n_channels:
        raise InputError(
            f"{recording.source} has {recording.n_channels} channels, the model {name} {saved['n_channels']}; they must agree. "
            "Choose channels with --channels."
        )
    return {name: tuple(group["channels"].tolist()) for name, group in saved["groups"].items()}


def input_checksum(
    recording: Recording, config: Config, observer: Observer | None = None, model_path: Path | None = None
) -> str:
    """Return the input_checksum that the outcome of `sort` has, or of `apply` with a model, by reading the recording once for
    each group. Raises InputError where no channel can be used."""
    groups = (
        recording.groups if model_path is None else _groups_of_model(load_checkpoint(model_path), str(model_path), recording)
    )
    chunk_size = s_to_samples(config.infer.chunk_s, recording.sampling_frequency)
    gaps, _ = given_gaps(config.preprocess, recording)
    whole = tuple(range(recording.n_channels))
    known: list[str] = []
    failed: list[InputError] = []
    for channels in groups.values() or [whole]:
        try:
            part = recording.select(channels).in_range()
            known.append(survey(part, chunk_size, observer or Observer(), gaps, stage="compare").checksum)
        except ReadError:
            raise
        except InputError as error:
            failed.append(error)
    if not known:
        raise failed[0]
    return joint_checksum(known) if groups else known[0]


def _run(
    groups: list[GroupTask],
    recording: Recording,
    observer: Observer,
    reopen: Reopen | None,
    jobs: int | None,
    cluster: Workers | None,
) -> Outcome:
    """The groups' outcomes as one."""
    stages = [_STAGES_OF_SORT + group.self_test if group.model is None else _STAGES_OF_APPLY for group in groups]
    observer.start("groups", sum(stages))
    workers = cluster or _processes(groups, reopen, jobs)

    def count(number: int, stage: str, has_ended: bool) -> None:
        if has_ended:
            observer.advance()

    results: list[Outcome | Exception]
    if workers is None:
        results = [_tried(group, recording, StageReporter(functools.partial(count, 0))) for group in groups]
    else:
        results = _run_elsewhere(groups, workers, reopen, _gather(reopen, cluster), count)
    for result in results:
        # what is wrong with a group's signal concerns it alone; what is wrong with the disk does not
        alone = groups[0].name and isinstance(result, InputError) and not isinstance(result, ReadError)
        if isinstance(result, Exception) and not alone:
            raise result
    sorted_ones = [result for result in results if isinstance(result, Outcome)]
    if not sorted_ones:
        raise InputError("; ".join(f"group {group.name}: {error}" for group, error in zip(groups, results, strict=True)))
    outcome = combined(recording, groups, results) if groups[0].name else sorted_ones[0]
    observer.finish(f"{counted(len(groups), 'group')}, {counted(outcome.sorting.n_units, 'unit')}")
    return outcome


def _gather(reopen: Reopen | None, cluster: Workers | None) -> Gather:
    """Where the blocks of a group are decoded: on the cluster if there is one, else here."""
    return Elsewhere(reopen, cluster) if cluster and reopen else gathered


def _run_elsewhere(
    groups: list[GroupTask], workers: Workers, reopen: Reopen | None, gather: Gather, on_stage: OnStage
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
    with collected(group.log_name) as records:
        try:
            with contextlib.closing(reopen()) as recording:
                return group.run(recording, observer, gather), records
        except Exception as error:
            if not isinstance(error, SpikeCRsAEError):
                log.debug("a task ended with an error:\n%s", traceback.format_exc())
            return error, records


def _tried(group: GroupTask, recording: Recording, observer: Observer) -> Outcome | InputError:
    try:
        with _named_in_log(group.log_name):
            return group.run(recording, observer)
    except InputError as error:
        return error
