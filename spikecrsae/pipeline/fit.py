"""Learn the units of a group of channels from its whitened signal: first templates, curation, drift, and training of CRsAE."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from spikecrsae.config import Config
from spikecrsae.crsae.drift import Drifting, fit_drift
from spikecrsae.crsae.em import E_STEP, expectation_maximisation
from spikecrsae.crsae.first_training import WINDOW_TEMPLATES, away_from_loud, draw_windows
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import PRIORS
from spikecrsae.crsae.train import train
from spikecrsae.csc.backends import Backend
from spikecrsae.curate.bursts import BURST_MS
from spikecrsae.curate.candidates import CurationSettings
from spikecrsae.curate.complex_spikes import Found, Searched, find_complex_spikes, spikelets_only
from spikecrsae.curate.curate import Curated, FirstUnits, curate
from spikecrsae.curate.steps import Sorted, join_across_steps
from spikecrsae.curate.sudden_changes import sudden_changes
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.clustering import first_templates
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.pipeline.learned import LearnedModel
from spikecrsae.pipeline.training_signal import SHAPE_MS, TrainingSignal
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.progress import Observer
from spikecrsae.system.text import counted
from spikecrsae.units import ms_to_samples


@dataclass
class Clock:
    """Seconds that each stage took."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """A stage has ended; the next one begins."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


@dataclass(frozen=True)
class Run:
    """What every stage of the sorting of one group is given besides its data."""

    config: Config
    device: str
    backend: Backend
    observer: Observer
    clock: Clock = field(default_factory=Clock)


def learn(data: TrainingSignal, view: PreprocessedRecording, window: TemplateWindow, run: Run) -> LearnedModel:
    """First templates, then the set of units, a last training on all of the signal, and how the templates drift."""
    curated = _curated(data, window, view.sampling_frequency, run)
    crsae = curated.model
    if not crsae.n_units:
        still = Drifting(crsae, np.zeros((0, *crsae.templates.shape)), view.n_samples)
        return LearnedModel(still, {}, curated.decisions, np.zeros(0, bool), curated.ids)
    run.observer.start("train")
    pieces = data.pieces
    n_positions = pieces.positions(curated.spikes.sample, curated.spikes.unit, crsae.n_units)
    crsae, spikes = _train_last(data, curated, run, n_positions)
    samples, ids = pieces.in_recording(spikes.sample), curated.ids
    joined = join_across_steps(Sorted(data.signal, crsae, spikes, samples, view.n_samples, ~curated.satellites, ids))
    samples, kept = pieces.in_recording(joined.spikes.sample), joined.kept
    neurons = ~curated.satellites[kept]
    stepping = Sorted(data.signal, joined.model, joined.spikes, samples, view.n_samples, neurons, ids[kept])
    steps = sudden_changes(stepping, joined.steps)
    n_positions = pieces.positions(joined.spikes.sample, joined.spikes.unit, joined.model.n_units)
    drifting = fit_drift(data.signal, joined.model, joined.spikes, samples, view.n_samples, steps, n_positions)
    run.observer.finish(counted(len(spikes), "spike"))
    run.clock.lap("train")
    last = drifting.model.prior.parameters()
    history = {name: np.vstack([rows[:, kept], last[name]]) for name, rows in curated.history.items()}
    decisions = curated.decisions + joined.decisions
    learned = LearnedModel(drifting, history, decisions, neurons, ids[kept])
    if not run.config.initialise.complex_spikes:
        return learned
    seed = run.config.runtime.seed
    where = Searched.of(data.signal, pieces, data.level, window, view.sampling_frequency, seed)
    found = find_complex_spikes(where, Found(drifting.model, joined.spikes))
    return learned.with_complex_spikes(found, spikelets_only(joined.spikes, found))


def _train_last(data: TrainingSignal, curated: Curated, run: Run, n_positions: np.ndarray | None) -> tuple[CRsAE, Spikes]:
    """The units' model trained once more on whitened signal, and its spikes there: one round of EM, or
    back-propagation on windows about their spikes. n_positions: see CRsAE.maximise."""
    model, spikes, config, signal = curated.model, curated.spikes, run.config.train, data.signal
    if config.method == "unrolled":
        members = [spikes.sample[spikes.unit == unit] for unit in range(model.n_units)]
        members = away_from_loud(members, data.level, WINDOW_TEMPLATES * model.n_times)
        rng = np.random.default_rng(run.config.runtime.seed)
        windows = draw_windows(signal, [m for m in members if len(m)], model.n_times, config.max_windows, rng)
        if len(windows):
            trained = train(windows, model, config, seed=run.config.runtime.seed).model
            model = replace(model, templates=trained.templates)
        # the windows lie about spikes, so they say nothing of the rates: the prior is learned from the whole signal
        found = model.encode(signal, E_STEP, data.level)
        model = replace(model, prior=model.maximise(signal, found, n_positions).prior)
        return model, model.encode(signal, E_STEP, data.level)
    return expectation_maximisation(signal, model, 1, n_positions, spikes, data.level)


def _curated(data: TrainingSignal, window: TemplateWindow, fs: float, run: Run) -> Curated:
    """The set of units of whitened signal."""
    signal, level = data.signal, data.level
    initial, seed, observer = run.config.initialise, run.config.runtime.seed, run.observer
    settings = CurationSettings(
        threshold=initial.detection_threshold,
        dead_time=max(1, ms_to_samples(initial.dead_time_ms, fs)),
        refractory=ms_to_samples(initial.refractory_ms, fs),
        burst=ms_to_samples(BURST_MS, fs),
        fixed_number=initial.units is not None,
        seed=seed,
        train=run.config.train,
    )
    observer.start("initialise")
    length = max(4, ms_to_samples(SHAPE_MS, fs))
    subspace = SpikeSubspace.learn(signal, settings.threshold, length, settings.dead_time, backend=run.backend)
    events, templates, members = first_templates(signal, subspace, window, initial, settings.dead_time, seed, level)
    first = CRsAE(
        templates,
        PRIORS[run.config.infer.prior].first(len(templates)),
        1.0,
        settings.refractory,
        local_search=run.config.infer.local_search,
        backend=run.backend,
    )
    observer.finish(counted(len(templates), "cluster"))
    run.clock.lap("initialise")
    observer.start("curate")
    curated = curate(signal, FirstUnits(events, first, members, subspace, window), settings, observer, level, data.pieces)
    n_satellites = int(curated.satellites.sum())
    aside = f"; {n_satellites} satellite units (residuals of larger ones) were left out" if n_satellites else ""
    units = counted(curated.model.n_units - n_satellites, "unit")
    observer.finish(f"{units} after {counted(curated.rounds, 'round')}{aside}")
    run.clock.lap("curate")
    return curated
