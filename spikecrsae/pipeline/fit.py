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
from spikecrsae.curate.curate import Curated, FirstUnits, curate
from spikecrsae.curate.steps import Sorted, join_across_steps
from spikecrsae.curate.sudden_changes import sudden_changes
from spikecrsae.data.loudness import Loudness
from spikecrsae.data.recording import BLOCK
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.clustering import first_templates
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.pipeline.learned import LearnedModel
from spikecrsae.preprocess.loudness import Loudnesses, of_recording
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.progress import Observer
from spikecrsae.system.text import counted
from spikecrsae.system.threads import n_cores
from spikecrsae.units import ms_to_samples, s_to_samples

#: Length of the windows that are drawn from a long recording.
DRAWN_S = 1.0
#: Length of the shapes that detection learns.
SHAPE_MS = 1.0


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


@dataclass(frozen=True)
class TrainingSignal:
    """Whitened signal (n_channels, n_samples) to learn from: the whole recording, or windows drawn at random, in order, each of
    `length` samples (the last may be shorter) from one of `starts`. level (n_samples,) uint8: of the noise that it is divided by,
    None where it is steady, see data.loudness."""

    signal: np.ndarray
    starts: np.ndarray
    length: int
    level: np.ndarray | None = None

    @classmethod
    def of(cls, view: PreprocessedRecording, config: Config, rng: np.random.Generator) -> TrainingSignal:
        fs = view.sampling_frequency
        length = min(s_to_samples(DRAWN_S, fs), view.n_samples)
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
                begin, end = end, end + white.shape[1]
                signal[:, begin:end] = white
        levels = [view.level(*place) for place in places]
        known = [level for level in levels if level is not None]
        return cls(signal, starts, length, np.concatenate(known) if known else None)

    def loudness(self, view: PreprocessedRecording) -> Loudness:
        """The loudness of the recording whose whitened signal this is."""
        if self.signal.shape[1] < view.n_samples:
            return of_recording(view)
        gathered = Loudnesses(view.sampling_frequency)
        gathered.add(self.signal)
        return gathered.loudness()

    def in_recording(self, samples: np.ndarray) -> np.ndarray:
        """Where samples of the signal stand in the recording."""
        return self.starts[samples // self.length] + samples % self.length


def learn(data: TrainingSignal, view: PreprocessedRecording, window: TemplateWindow, run: Run) -> LearnedModel:
    """First templates, then the set of units, a last training on all of the signal, and how the templates drift."""
    curated = _curated(data, window, view.sampling_frequency, run)
    crsae = curated.model
    if not crsae.n_units:
        still = Drifting(crsae, np.zeros((0, *crsae.templates.shape)), view.n_samples)
        return LearnedModel(still, {}, curated.decisions, np.zeros(0, bool), curated.ids)
    run.observer.start("train")
    crsae, spikes = _train_last(data, curated, run)
    samples, ids = data.in_recording(spikes.sample), curated.ids
    joined = join_across_steps(Sorted(data.signal, crsae, spikes, samples, view.n_samples, ~curated.satellites, ids))
    samples, kept = data.in_recording(joined.spikes.sample), joined.kept
    neurons = ~curated.satellites[kept]
    stepping = Sorted(data.signal, joined.model, joined.spikes, samples, view.n_samples, neurons, ids[kept])
    steps = sudden_changes(stepping, joined.steps)
    drifting = fit_drift(data.signal, joined.model, joined.spikes, samples, view.n_samples, steps)
    run.observer.finish(counted(len(spikes), "spike"))
    run.clock.lap("train")
    last = drifting.model.prior.parameters()
    history = {name: np.vstack([rows[:, kept], last[name]]) for name, rows in curated.history.items()}
    decisions = curated.decisions + joined.decisions
    return LearnedModel(drifting, history, decisions, neurons, ids[kept])


def _train_last(data: TrainingSignal, curated: Curated, run: Run) -> tuple[CRsAE, Spikes]:
    """The units' model trained once more on whitened signal, and its spikes there: one round of EM, or
    back-propagation on windows about their spikes."""
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
        model = replace(model, prior=model.maximise(signal, found).prior)
        return model, model.encode(signal, E_STEP, data.level)
    return expectation_maximisation(signal, model, 1, spikes=spikes, level=data.level)


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
    curated = curate(signal, FirstUnits(events, first, members, subspace, window), settings, observer, level)
    n_satellites = int(curated.satellites.sum())
    aside = f"; {n_satellites} satellite units (residuals of larger ones) were left out" if n_satellites else ""
    units = counted(curated.model.n_units - n_satellites, "unit")
    observer.finish(f"{units} after {counted(curated.rounds, 'round')}{aside}")
    run.clock.lap("curate")
    return curated
