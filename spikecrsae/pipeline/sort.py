"""The order of the stages: sort(recording, config) and apply(model, recording). Only this module knows it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from spikecrsae.config import Config, TrainConfig
from spikecrsae.crsae.drift import DriftingSlab, fit_drift
from spikecrsae.crsae.train import train
from spikecrsae.csc.pursuit import SpikeSlab
from spikecrsae.curate.bursts import BURST_MS
from spikecrsae.curate.curate import curate
from spikecrsae.data.dictionary import Dictionary
from spikecrsae.data.intervals import gaps_from_the_start, widened
from spikecrsae.data.recording import BLOCK, Recording
from spikecrsae.data.sorting import Sorting
from spikecrsae.decode.blocks import Decoding
from spikecrsae.decode.collect import Collector, Gather, build_sorting, gathered
from spikecrsae.detect.clustering import first_templates
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.errors import InputError
from spikecrsae.pipeline.device import resolve_device
from spikecrsae.pipeline.learned import Learned, LearnedCache, LearnedModel
from spikecrsae.pipeline.memory import within_limit
from spikecrsae.preprocess import sanity
from spikecrsae.preprocess.artefacts import find_artefacts
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor
from spikecrsae.preprocess.survey import Survey
from spikecrsae.preprocess.survey import survey as survey_recording
from spikecrsae.preprocess.whitening import check_filter, fit
from spikecrsae.progress import Observer
from spikecrsae.results.model_file import check_model, load_checkpoint
from spikecrsae.system.text import counted
from spikecrsae.system.threads import n_cores
from spikecrsae.units import ms_to_samples, s_to_samples

log = logging.getLogger(__name__)

EXAMPLE_S = 0.1
#: Epochs in which lambda settles from curated templates, and seconds of signal that it takes, where only lambda is asked for.
LAMBDA_EPOCHS, LAMBDA_TRAINING_S = 4, 5.0


@dataclass(frozen=True)
class Outcome:
    """All that a run gives: the sorting, the model for `apply`, and the facts about the run."""

    sorting: Sorting
    checkpoint: dict[str, Any]
    stage_seconds: dict[str, float]
    device: str
    warnings: tuple[str, ...]
    input_checksum: str
    config: Config


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


#: The threads are ours (csc.convolution.in_threads); those of the matrix library would only wait for each other.
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
    config = within_limit(config, recording.n_channels, recording.sampling_frequency)
    device = resolve_device(config.runtime.device)
    rng = np.random.default_rng(config.runtime.seed)
    clock = _Clock()
    window = TemplateWindow.from_config(config.initialise, recording.sampling_frequency)
    if recording.n_samples < 2 * window.n_times:
        raise InputError(
            f"{recording.source}: {counted(recording.n_samples, 'sample')} ({1000 * recording.duration_s:.3g} ms) of signal is too short for templates of "
            f"{config.initialise.template_ms:g} ms; give a longer recording."
        )
    check_filter(recording, config.preprocess)
    given = gaps_from_the_start(config.preprocess.exclude_s, whole)
    survey = survey_recording(recording, s_to_samples(config.infer.chunk_s, recording.sampling_frequency), observer, given)
    survey = survey.with_remarks(sanity.of_facts(recording))
    clock.lap("check")
    learned = cache and cache.load(survey.checksum)
    if learned is None:
        learned = _learned(recording, config, window, survey, given, rng, device, observer, clock)
        if cache is not None:
            cache.save(learned)
    else:
        log.info("going on with what was learned before, %d templates", len(learned.model.reported))
        clock.seconds |= learned.seconds
    # as it is read back from the cache: a run that was stopped gives the same to the last bit
    learned = Learned.from_bytes(learned.to_bytes())
    used = recording.select(np.flatnonzero(learned.survey.usable))
    view = PreprocessedRecording(used, learned.preprocessor, learned.gaps)
    return _finish(whole, view, learned.survey, learned.model, window.n_times, config, device, observer, clock, gather)


@_one_thread_for_matrices
def apply_to_group(
    model: Path | dict[str, Any],
    recording: Recording,
    config: Config,
    observer: Observer | None = None,
    name: str = "",
    gather: Gather = gathered,
) -> Outcome:
    """Spikes of a recording, in its time range, with the filters, templates and priors of an earlier sorting; nothing is
    learned.

    model: of one group of channels, a file or what load_checkpoint reads (then with its `name` for errors). gather: as for
    `sort`. Raises InputError where it does not fit the recording (channels, sampling frequency).
    """
    observer = observer or Observer()
    clock = _Clock()
    whole, recording = recording, recording.in_range()
    saved, model_path = (load_checkpoint(model), model) if isinstance(model, Path) else (model, name)
    if "groups" in saved:
        raise InputError(f"the model {model_path} is of several groups of channels; groups.apply takes it.")
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
    learned = Config().with_values(saved["config"], origin=str(model_path))
    here = {name: getattr(config.preprocess, name) for name in ("exclude_s", "find_artefacts")}
    config = replace(
        learned,
        preprocess=replace(learned.preprocess, **here),
        infer=replace(learned.infer, chunk_s=config.infer.chunk_s),
        runtime=config.runtime,
    )
    given = gaps_from_the_start(config.preprocess.exclude_s, whole)
    survey = survey_recording(recording, s_to_samples(config.infer.chunk_s, recording.sampling_frequency), observer, given)
    clock.lap("check")
    usable = saved["usable"].astype(bool)
    if np.any(usable & ~survey.usable):
        raise InputError(
            f"{recording.source} lacks a channel that the model {model_path} uses: {'; '.join(survey.problems)}."
        )
    slab = SpikeSlab(**saved["slab"])
    used = recording.select(np.flatnonzero(usable))
    gaps, survey = _gaps(used, replace(survey, usable=usable), given, config, slab.templates.shape[2], observer)
    clock.lap("artefacts")
    view = PreprocessedRecording(used, Preprocessor(**saved["preprocessor"]), gaps)
    dictionary = Dictionary(saved["dictionary"]["atoms"], saved["dictionary"]["scale"])
    # drift belongs to the recording that it was learnt from
    still = DriftingSlab(slab, np.zeros((0, *slab.templates.shape)), recording.n_samples)
    learned_model = LearnedModel(still, dictionary, saved["lambda"], saved["sigma"], {}, (), saved["reported"].astype(bool))
    device = resolve_device(config.runtime.device)
    return _finish(whole, view, survey, learned_model, slab.templates.shape[2], config, device, observer, clock, gather)


def _learned(recording, config, window, survey, given, rng, device, observer, clock) -> Learned:
    """What lies before inference: gaps, filters, templates."""
    used = recording.select(np.flatnonzero(survey.usable))
    gaps, survey = _gaps(used, survey, given, config, window.n_times, observer)
    clock.lap("artefacts")
    view = PreprocessedRecording(used, fit(used, config.preprocess, rng, observer, gaps), gaps)
    clock.lap("noise")
    training = _TrainingSignal.of(view, config, rng)
    clock.lap("whiten")
    model = _learn(training, view, window, config, device, observer, clock)
    return Learned(survey, gaps, view.preprocessor, model, dict(clock.seconds))


def _gaps(
    used: Recording, survey: Survey, given: np.ndarray, config: Config, n_times: int, observer: Observer
) -> tuple[np.ndarray, Survey]:
    """The given intervals and those that look like artefacts, as one array (n, 2), and the survey with a word on the latter.

    Raises InputError where less than two templates' length of signal is left.
    """
    if not config.preprocess.find_artefacts:
        return given, survey
    fs = used.sampling_frequency
    found = find_artefacts(used, config.preprocess, observer, given)
    gaps = widened(np.concatenate([given, found]), 0, used.n_samples)
    if not len(found):
        return gaps, survey
    several = f"{len(found)} stretches look like artefacts and are"
    what = several if len(found) > 1 else "1 stretch looks like an artefact and is"
    said = f"{what} left out, {np.diff(found).sum() / fs:.3g} s; first at {found[0, 0] / fs + used.start_time_s:.3f} s"
    if used.n_samples - np.diff(gaps).sum() < 2 * n_times:
        raise InputError(f"{used.source}: {said}; nothing is left to sort. Look at the file, or give --no-find-artefacts.")
    return gaps, survey.with_remarks([said])


@dataclass(frozen=True)
class _TrainingSignal:
    """Whitened signal (n_channels, n_samples) to learn from: the whole recording, or windows drawn at random, in order, each of
    `length` samples (the last may be shorter) from one of `starts`."""

    signal: np.ndarray
    starts: np.ndarray
    length: int

    @classmethod
    def of(cls, view: PreprocessedRecording, config: Config, rng: np.random.Generator) -> _TrainingSignal:
        fs = view.sampling_frequency
        length = min(s_to_samples(config.train.window_s, fs), view.n_samples)
        n_wanted = max(1, s_to_samples(config.initialise.max_signal_s, fs) // length)
        if n_wanted * length >= view.n_samples:
            length = BLOCK
            starts = np.arange(0, view.n_samples, length)
        else:
            starts = np.sort(rng.choice(view.n_samples // length, n_wanted, replace=False)) * length
        places = [(int(start), min(int(start) + length, view.n_samples)) for start in starts]
        at_once = n_cores()
        signal = np.empty((view.n_channels, sum(stop - start for start, stop in places)), np.float32)
        end = 0
        for k in range(0, len(places), at_once):
            for _, white in view.both_of(places[k : k + at_once]):
                begin, end = end, end + len(white)
                signal[:, begin:end] = white.T
        return cls(signal, starts, length)

    def in_recording(self, samples: np.ndarray) -> np.ndarray:
        """Where samples of the signal stand in the recording."""
        return self.starts[samples // self.length] + samples % self.length


def _learn(data: _TrainingSignal, view, window, config, device, observer, clock) -> LearnedModel:
    """First templates, then the set of units and how they drift, then CRsAE's templates, lambda and sigma."""
    signal = data.signal
    fs, initial, seed = view.sampling_frequency, config.initialise, config.runtime.seed
    dead_time = max(1, ms_to_samples(initial.dead_time_ms, fs))
    refractory = ms_to_samples(initial.refractory_ms, fs)
    observer.start("initialise")
    subspace = SpikeSubspace.learn(signal.T, initial.detection_threshold, max(4, ms_to_samples(1.0, fs)), dead_time)
    events, templates, members = first_templates(signal.T, subspace, window, initial, dead_time, seed)
    observer.finish(counted(len(templates), "cluster"))
    clock.lap("initialise")
    observer.start("curate")
    curated = curate(
        signal, events, templates, members, subspace, window, threshold=initial.detection_threshold, dead_time=dead_time,
        refractory=refractory, burst=ms_to_samples(BURST_MS, fs), fixed_number=initial.units is not None, seed=seed, observer=observer,
    )  # fmt: skip
    slab = curated.model
    riding = int(curated.satellites.sum())
    aside = f"; {riding} more ride on stronger ones and are not reported" if riding else ""
    observer.finish(f"{counted(slab.n_units - riding, 'unit')} after {counted(curated.rounds, 'round')}{aside}")
    clock.lap("curate")
    if not slab.n_units:
        empty = Dictionary(np.zeros((0, view.n_channels, window.n_times), np.float32), np.zeros(0))
        still = DriftingSlab(slab, np.zeros((0, *slab.templates.shape)), view.n_samples)
        return LearnedModel(still, empty, 0.0, 1.0, {}, curated.decisions, np.zeros(0, bool), curated.ids)
    drifting = fit_drift(signal, slab, curated.spikes, data.in_recording(curated.spikes.sample), view.n_samples)
    # the templates are known by now: the penalty need not begin high, and where CRsAE only gives lambda few epochs do
    settings = replace(config.train, annealing=0.0)
    if config.infer.prior != "laplace":
        settings = replace(
            settings,
            epochs=min(settings.epochs, LAMBDA_EPOCHS),
            max_training_s=min(settings.max_training_s, LAMBDA_TRAINING_S),
        )
    training = train(
        _training_windows(signal, settings, fs), Dictionary.from_templates(slab.templates), settings,
        sigma=1.0, seed=seed, device=device, observer=observer,
    )  # fmt: skip
    clock.lap("train")
    return LearnedModel(
        drifting,
        training.dictionary,
        training.lam,
        training.sigma,
        training.history,
        curated.decisions,
        ~curated.satellites,
        curated.ids,
    )


def _training_windows(signal: np.ndarray, config: TrainConfig, fs: float) -> np.ndarray:
    """(n_windows, n_channels, n_samples) of a signal (n_channels, n_samples), at most config.max_training_s, evenly spread."""
    length = min(s_to_samples(config.window_s, fs), signal.shape[1])
    n_windows = signal.shape[1] // length
    windows = signal[:, : n_windows * length].reshape(len(signal), n_windows, length).transpose(1, 0, 2)
    n_wanted = max(1, int(config.max_training_s // config.window_s))
    return windows if n_windows <= n_wanted else windows[np.linspace(0, n_windows - 1, n_wanted).astype(int)]


def _finish(whole, view, survey, model, n_times, config, device, observer, clock, gather) -> Outcome:
    """Inference over the time range of the whole recording and everything that is made of it."""
    recording = whole.in_range()
    fs = recording.sampling_frequency
    decoder = model.decoder(config.infer.prior, config.train.shrinkage == "one-sided")
    collector = Collector(model.slab.n_units, view.n_channels, n_times, config.runtime.seed)
    observer.start("infer", view.n_samples)
    chunk_size, seed = s_to_samples(config.infer.chunk_s, fs), config.runtime.seed
    for chunk in gather(Decoding(view, decoder, n_times), chunk_size, seed, observer):
        collector.add(chunk)
    sorting = build_sorting(
        collector, model.slab, model.reported, sampling_frequency=fs, n_samples=recording.n_samples, usable=survey.usable,
        channels=_channel_table(recording, view, survey), noise_level=view.preprocessor.noise_level,
        amplitude_unit=recording.amplitude_unit, start_time_s=recording.start_time_s,
        learned={"lambda": np.array(model.lam), "sigma": np.array(model.sigma)} | model.history, curation=model.curation,
        excluded=view.excluded, drift=model.drifting.extent(), curation_id=model.ids,
    )  # fmt: skip
    observer.finish(counted(len(sorting.spikes), "spike"))
    clock.lap("infer")
    return Outcome(
        sorting=_with_example(sorting, view, survey).placed(whole),
        checkpoint=_checkpoint(recording, view, survey, model, config),
        stage_seconds=clock.seconds,
        device=device,
        warnings=survey.with_remarks(sanity.of_result(view.recording, sorting)).problems,
        input_checksum=survey.checksum,
        config=config,
    )


def _channel_table(recording: Recording, view: PreprocessedRecording, survey: Survey) -> dict[str, np.ndarray]:
    noise = np.full(recording.n_channels, np.nan)
    noise[survey.usable] = view.preprocessor.noise_level
    table = {
        "ids": np.array(recording.channel_ids, dtype=object),
        "groups": np.zeros(recording.n_channels, np.int64),
        "noise_level": noise,
        "masked": ~survey.usable,
    }
    if recording.channel_positions is not None:
        table["positions"] = recording.channel_positions
    return table


def _checkpoint(recording, view, survey, model, config) -> dict[str, Any]:
    return {
        "n_channels": recording.n_channels,
        "amplitude_unit": recording.amplitude_unit,
        "sampling_frequency": recording.sampling_frequency,
        "usable": survey.usable,
        "preprocessor": _fields(view.preprocessor),
        "slab": _fields(model.slab),
        "dictionary": {"atoms": model.dictionary.atoms, "scale": model.dictionary.scale},
        "reported": model.reported,
        "lambda": float(model.lam),
        "sigma": float(model.sigma),
        "config": config.to_dict(),
    }


def _with_example(sorting: Sorting, view: PreprocessedRecording, survey: Survey) -> Sorting:
    """The sorting with the stretch of EXAMPLE_S of high-passed traces in which most units fire."""
    start, stop = busiest_stretch(sorting)
    traces = np.zeros((stop - start, sorting.n_channels), np.float32)
    traces[:, survey.usable] = view.highpassed(start, stop)
    return replace(sorting, example=traces, example_start=start)


def busiest_stretch(sorting: Sorting) -> tuple[int, int]:
    """(start, stop) of the EXAMPLE_S in which most units fire."""
    length = min(s_to_samples(EXAMPLE_S, sorting.sampling_frequency), sorting.n_samples)
    bins = sorting.spikes["sample"] // length
    pairs = np.unique(np.stack([bins, sorting.spikes["unit"]], axis=1), axis=0) if len(bins) else np.zeros((1, 2), np.int64)
    start = min(int(np.bincount(pairs[:, 0]).argmax()) * length, sorting.n_samples - length)
    return start, start + length


def _fields(value) -> dict[str, Any]:
    """The fields of a dataclass, without what it has derived from them."""
    return {f.name: getattr(value, f.name) for f in fields(value)}
