"""Sort one group of channels, or apply a model to it: the order of the stages."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from spikecrsae.config import OF_RECORDING, Config
from spikecrsae.crsae.drift import Drifting
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.backends import backend_of
from spikecrsae.data.artefacts import pulse_samples
from spikecrsae.data.recording import Recording
from spikecrsae.decode.collect import Gather, gathered
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.errors import InputError, UsageError
from spikecrsae.pipeline.device import resolve_device
from spikecrsae.pipeline.fit import Clock, Run, learn
from spikecrsae.pipeline.known_units import with_new_units
from spikecrsae.pipeline.learned import Learned, LearnedCache, LearnedModel
from spikecrsae.pipeline.memory import within_limit
from spikecrsae.pipeline.outcome import Outcome, decode_group
from spikecrsae.pipeline.training_signal import TrainingSignal
from spikecrsae.preprocess import sanity
from spikecrsae.preprocess.artefacts import Artefacts, find_artefacts, told
from spikecrsae.preprocess.loudness import of_recording
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor
from spikecrsae.preprocess.survey import Survey
from spikecrsae.preprocess.survey import survey as survey_recording
from spikecrsae.preprocess.whitening import check_filter, fit, rewhitened
from spikecrsae.progress import Observer
from spikecrsae.readers.intracellular import refuse_inside_cell
from spikecrsae.readers.triggers import given_gaps
from spikecrsae.results.model_file import check_model, load_checkpoint
from spikecrsae.system.text import counted
from spikecrsae.units import s_to_samples

log = logging.getLogger(__name__)

#: The threads are ours (system.threads.in_threads); those of the matrix library would only wait for each other.
_one_thread_for_matrices = threadpool_limits.wrap(limits=1, user_api="blas")


@_one_thread_for_matrices
def sort_group(
    recording: Recording,
    config: Config,
    observer: Observer | None = None,
    gather: Gather = gathered,
    cache: LearnedCache | None = None,
) -> Outcome:
    """Find the units of a recording, all channels as one group, in its time range; their templates and their spikes.

    gather: where its blocks are decoded, with the same result anywhere. cache: stores the learned model; a matching entry
    skips learning.
    Raises UsageError where values of the configuration exclude each other, InputError where the recording cannot be sorted; one
    without any unit is no error, its sorting is empty.
    """
    whole, recording = recording, recording.in_range()
    observer = observer or Observer()
    config.refuse_contradictions()
    if config.infer.adapt:
        raise UsageError(
            "infer.adapt = True has no effect here: there are no known units to adapt; leave it out, or give it to apply."
        )
    config = within_limit(config, recording.n_channels, recording.sampling_frequency)
    device = resolve_device(config.runtime.device, config.runtime.backend)
    run = Run(config, device, backend_of(config.runtime.backend, device, config.train.n_iterations), observer)
    window = TemplateWindow.from_config(config.initialise, recording.sampling_frequency)
    if recording.n_samples < 2 * window.n_times:
        raise InputError(
            f"{recording.source}: {counted(recording.n_samples, 'sample')} ({1000 * recording.duration_s:.3g} ms) of signal is too short for templates of "
            f"{config.initialise.template_ms:g} ms; give a longer recording."
        )
    check_filter(recording, config.preprocess)
    if config.initialise.units is None:
        refuse_inside_cell(recording)
    given = Artefacts.given(*given_gaps(config.preprocess, whole))
    survey = survey_recording(
        recording, s_to_samples(config.infer.chunk_s, recording.sampling_frequency), observer, given.gaps
    )
    survey = survey.with_remarks(sanity.of_facts(recording))
    run.clock.lap("check")
    learned = cache and cache.load(survey.checksum, run.backend)
    if learned is None:
        learned = _learn_group(recording, window, survey, given, run)
        if cache is not None:
            cache.save(learned)
    else:
        log.info("going on with what was learned before, %d templates", len(learned.model.reported))
        run.clock.seconds.update(learned.seconds)
    return decode_group(whole, learned.stored(), run, gather)


@_one_thread_for_matrices
def apply_to_group(
    source: Path | dict[str, Any],
    recording: Recording,
    config: Config,
    observer: Observer | None = None,
    name: str = "",
    gather: Gather = gathered,
    first_unit: int = 0,
) -> Outcome:
    """Spikes of a recording, in its time range, with the templates and priors of an earlier sorting.

    Noise and units are learned as `sort` does. Units that are none of the known ones take the spikes that would be forced into
    one, and are not reported. With infer.adapt the known units take on how they are here.

    source: the model of one group of channels, a file or what load_checkpoint reads (then with its `name` for errors). gather: as for
    `sort`. first_unit: number of the first known unit. Raises InputError where it does not fit the recording (channels,
    sampling frequency).
    """
    observer, clock = observer or Observer(), Clock()
    whole, recording = recording, recording.in_range()
    saved, model_path = (load_checkpoint(source), source) if isinstance(source, Path) else (source, name)
    _check_fits(saved, recording, model_path)
    then = Config().with_values(saved["config"], origin=str(model_path))
    here = {name: getattr(config.preprocess, name) for name in OF_RECORDING}
    chosen = {name: getattr(config.infer, name) for name in ("chunk_s", "adapt")}
    config = replace(
        then,
        preprocess=replace(then.preprocess, **here),
        infer=replace(then.infer, **chosen),
        runtime=replace(config.runtime, seed=then.runtime.seed),
    )
    config = within_limit(config, recording.n_channels, recording.sampling_frequency)
    given = Artefacts.given(*given_gaps(config.preprocess, whole))
    chunk_size = s_to_samples(config.infer.chunk_s, recording.sampling_frequency)
    survey = survey_recording(recording, chunk_size, observer, given.gaps)
    clock.lap("check")
    usable = saved["usable"].astype(bool)
    if np.any(usable & ~survey.usable):
        raise InputError(
            f"{recording.source} lacks a channel that the model {model_path} uses: {'; '.join(survey.problems)}. "
            "Give a recording that has this channel."
        )
    device = resolve_device(config.runtime.device, config.runtime.backend)
    crsae = CRsAE.of_dict(saved["crsae"], backend_of(config.runtime.backend, device, config.train.n_iterations))
    run = Run(config, device, crsae.backend, observer, clock)
    learned = _learn_beside(recording, replace(survey, usable=usable), given, run)
    then_filters = Preprocessor(**saved["preprocessor"])
    crsae = replace(crsae, templates=rewhitened(crsae.templates, then_filters, learned.preprocessor))
    # drift belongs to the recording that it was learnt from
    still = Drifting(crsae, np.zeros((0, *crsae.templates.shape)), recording.n_samples)
    known = LearnedModel(still, {}, (), saved["reported"].astype(bool))
    model = with_new_units(known, learned.model, config.infer.adapt, first_unit)
    return decode_group(whole, replace(learned, model=model), run, gather)


def _check_fits(saved: dict[str, Any], recording: Recording, model_path: Path | str) -> None:
    """Raise InputError where the model is damaged, or does not fit the recording."""
    if "groups" in saved or "neighbourhoods" in saved:
        raise InputError(f"the model {model_path} has several groups of channels; apply it with pipeline.groups.apply.")
    check_model(saved, model_path)
    if saved["n_channels"] != recording.n_channels or saved["sampling_frequency"] != recording.sampling_frequency:
        raise InputError(
            f"{recording.source} has {recording.n_channels} channels at {recording.sampling_frequency:g} Hz, the model {model_path} "
            f"{saved['n_channels']} at {saved['sampling_frequency']:g} Hz; they must agree. Choose channels with --channels, or give "
            "a recording at the model's rate."
        )
    if saved["amplitude_unit"] != recording.amplitude_unit:
        raise InputError(
            f"{recording.source} is in {recording.amplitude_unit}, the model {model_path} in {saved['amplitude_unit']}; the scale must "
            "agree. Give --gain (uV per stored number), or sort the recording by itself."
        )


def _learn_beside(recording: Recording, survey: Survey, given: Artefacts, run: Run) -> Learned:
    """The units of a recording, their number not known, with the least effort."""
    config = run.config
    config = replace(config, initialise=replace(config.initialise, units=None), train=replace(config.train, method="em"))
    window = TemplateWindow.from_config(config.initialise, recording.sampling_frequency)
    return _learn_group(recording, window, survey, given, replace(run, config=config))


def _learn_group(recording: Recording, window: TemplateWindow, survey: Survey, given: Artefacts, run: Run) -> Learned:
    """What lies before inference: gaps, filters, templates."""
    config, rng = run.config, np.random.default_rng(run.config.runtime.seed)
    used = recording.select(np.flatnonzero(survey.usable))
    artefacts, survey = _artefacts(used, survey, given, config, window.n_times, run.observer)
    used, gaps = artefacts.without_pulses(used), artefacts.gaps
    run.clock.lap("artefacts")
    view = PreprocessedRecording(used, fit(used, config.preprocess, rng, run.observer, gaps), gaps)
    run.clock.lap("noise")
    training = TrainingSignal.of(view, config, rng, run.backend)
    loudness = training.loudness
    if not loudness.is_steady:
        # the filters are those of the usual noise, and by them what is loud is measured once more
        rng = np.random.default_rng(run.config.runtime.seed)
        filters = fit(used, config.preprocess, rng, Observer(), gaps, loudness.intervals(0, used.n_samples))
        view = replace(view, preprocessor=filters)
        view = replace(view, loudness=of_recording(view))
        training = TrainingSignal.of(view, config, rng, run.backend)
    run.clock.lap("whiten")
    model = learn(training, view, window, run)
    return Learned(survey, artefacts, view.preprocessor, model, dict(run.clock.seconds), view.loudness)


def _artefacts(
    used: Recording, survey: Survey, given: Artefacts, config: Config, n_times: int, observer: Observer
) -> tuple[Artefacts, Survey]:
    """The given artefacts and those that were found, and the survey with a word on the latter.

    Raises InputError where less than two templates' length of signal is left.
    """
    if not config.preprocess.find_artefacts:
        return given, survey
    found = find_artefacts(used, config.preprocess, observer, given.gaps, pulse_samples(given.table))
    said, artefacts = told(found, used), given.joined(found, used.n_samples)
    if said and used.n_samples - np.diff(artefacts.gaps).sum() < 2 * n_times:
        raise InputError(
            f"{used.source}: {said[0]}; nothing is left to sort. Look at the file, or give --no-find-artefacts."
        )
    return artefacts, survey.with_remarks(said)
