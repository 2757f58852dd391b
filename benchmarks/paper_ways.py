"""The ways to learn the templates of the paper's simulation, and a trial of each: what paper_simulation.py compares."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from lcsc import train_lcsc
from runs import checksum

import spikecrsae
from spikecrsae.config import Config, TrainConfig
from spikecrsae.crsae.course import Training
from spikecrsae.crsae.em import E_STEP, expectation_maximisation
from spikecrsae.crsae.first_training import joined
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace, SpikeSlab
from spikecrsae.crsae.train import train
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.curate.bursts import BURST_MS
from spikecrsae.curate.candidates import CurationSettings
from spikecrsae.curate.curate import FirstUnits, curate
from spikecrsae.detect.clustering import first_templates
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.progress import Observer
from spikecrsae.simulate import PaperSimulation, match_templates, paper_windows, perturb_templates, template_error_db
from spikecrsae.simulate.shapes import unit_norm
from spikecrsae.units import ms_to_samples

START_DB, GOAL_DB, SNRS = -3.5, -14.0, (7.0, 10.0, 13.0, 16.0)
FS = 10_000.0
#: Rounds of EM with the slab alone, where nothing else is done.
ROUNDS = 6
#: Windows and epochs of back-propagation through T = 180 layers, which takes some 200 times as long as closed-form EM.
UNROLLED_WINDOWS, UNROLLED_EPOCHS = 256, 20


@dataclass(frozen=True)
class Trial:
    """What a way has learned in one trial.

    errors (n_units,): Eq. 29 without shift or permutation; matched: after the best of both. residual: its variance over that of
    the noise, of LCSC on windows held out. n_codes: spikes per window, 12 in truth. n_units: how many were learned. lam: of
    each unit, in units of 1 / sigma, where there is one. seconds: of the whole trial, by the clock.
    """

    errors: list[float]
    matched: list[float]
    residual: float
    n_codes: float
    n_units: int
    lam: list[float]
    seconds: float = 0.0


@dataclass(frozen=True)
class Way:
    """A way to learn templates. learn: of a simulation, a start with the Laplace prior, and a seed. slowness: it has this many times
    fewer trials. n_windows: the most it is given."""

    name: str
    learn: Callable[[PaperSimulation, CRsAE, int], Trial]
    slowness: int = 1
    n_windows: int | None = None


def model_of(simulation: PaperSimulation, templates: np.ndarray) -> CRsAE:
    """Templates at full scale with the Laplace prior. The simulation's spikes stand at whole samples."""
    return CRsAE(templates, Laplace.first(len(templates)), simulation.sigma, n_shifts=1)


def oracle_start(simulation: PaperSimulation, seed: int) -> CRsAE:
    """The true templates moved START_DB away, at the scale of a mean spike."""
    templates = perturb_templates(simulation.templates, START_DB, np.random.default_rng(seed))
    return model_of(simulation, templates * simulation.amplitudes.mean())


def errors_db(simulation: PaperSimulation, templates: np.ndarray) -> np.ndarray:
    """Eq. 29 (n_units,), without shift or permutation."""
    return np.array([template_error_db(t, a) for t, a in zip(simulation.templates, templates, strict=True)])


def errors_by_epoch(simulation: PaperSimulation, training: Training) -> np.ndarray:
    """Eq. 29 (n_epochs + 1, n_units)."""
    return np.array([errors_db(simulation, templates) for templates in training.templates_history])


def judged(simulation: PaperSimulation, model: CRsAE) -> Trial:
    """The trial of a model."""
    signal = joined(simulation.windows, model.n_times)
    spikes = model.encode(signal, E_STEP)
    rest = model.residual(signal, spikes).reshape(len(simulation.windows), -1)[:, : simulation.windows.shape[2]]
    matched = match_templates(simulation.templates, model.templates)[2]
    same = model.templates.shape == simulation.templates.shape
    errors = errors_db(simulation, model.templates) if same else matched
    return Trial(
        errors=errors.tolist(),
        matched=matched.tolist(),
        residual=float(rest.var() / simulation.sigma**2),
        n_codes=len(spikes) / len(simulation.windows),
        n_units=model.n_units,
        lam=model.prior.lam.tolist() if isinstance(model.prior, Laplace) else [],
    )


def rounds_of_em(simulation: PaperSimulation, model: CRsAE, n_rounds: int) -> CRsAE:
    """EM of a model on the windows laid end to end."""
    return expectation_maximisation(joined(simulation.windows, model.n_times), model, n_rounds)[0]


def with_slab(model: CRsAE) -> CRsAE:
    return replace(model, prior=SpikeSlab.first(model.n_units))


def annealed(simulation: PaperSimulation, start: CRsAE, seed: int, observer: Observer | None = None) -> Training:
    return train(simulation.windows, start, TrainConfig(epochs=30), seed=seed, observer=observer)


def annealed_then_slab(simulation: PaperSimulation, start: CRsAE, seed: int) -> CRsAE:
    """The engine's way: the l1 stage, then EM with the slab, here one round."""
    return rounds_of_em(simulation, with_slab(annealed(simulation, start, seed).model), 1)


def back_propagated(
    simulation: PaperSimulation, start: CRsAE, seed: int, epochs: int = 30, observer: Observer | None = None
) -> Training:
    config = TrainConfig(method="unrolled", n_iterations=180, epochs=epochs)
    return train(simulation.windows, start, config, seed=seed, observer=observer, rotate=True)


def by_lcsc(simulation: PaperSimulation, start: CRsAE, seed: int, two_sided: bool = True) -> Trial:
    """The decoder's filters of LCSC, from the same start."""
    windows = simulation.windows / simulation.sigma
    trained = train_lcsc(windows, unit_norm(start.templates), seed, two_sided=two_sided)
    return Trial(
        errors=errors_db(simulation, trained.filters).tolist(),
        matched=match_templates(simulation.templates, trained.filters)[2].tolist(),
        residual=trained.loss,
        n_codes=trained.n_codes,
        n_units=len(trained.filters),
        lam=trained.lam.tolist(),
    )


def first_units(
    simulation: PaperSimulation, seed: int, n_clusters: int | None
) -> tuple[np.ndarray, FirstUnits, CurationSettings]:
    """The windows end to end, in units of the noise, their first templates, and the settings of a sort.

    Nothing is known but the noise. n_clusters: that many by k-means on two principal components, as in Sec. VII-B; else the
    program's own clusters, whose number it finds.
    """
    found = {} if n_clusters is None else {"units": n_clusters, "n_components": 2}
    config = Config().with_settings(seed=seed, **found)
    initial, window = config.initialise, TemplateWindow.from_config(config.initialise, FS)
    signal = np.ascontiguousarray(simulation.windows.transpose(1, 0, 2)).reshape(1, -1) / np.float32(simulation.sigma)
    settings = CurationSettings(
        threshold=initial.detection_threshold,
        dead_time=ms_to_samples(initial.dead_time_ms, FS),
        refractory=ms_to_samples(initial.refractory_ms, FS),
        burst=ms_to_samples(BURST_MS, FS),
        fixed_number=False,
        seed=seed,
        train=config.train,
    )
    subspace = SpikeSubspace.learn(signal, settings.threshold, ms_to_samples(1.0, FS), settings.dead_time, backend=NUMBA)
    events, templates, members = first_templates(signal, subspace, window, initial, settings.dead_time, seed)
    model = CRsAE(templates, SpikeSlab.first(len(templates)), 1.0, settings.refractory)
    return signal, FirstUnits(events, model, members, subspace, window), settings


def in_data_units(simulation: PaperSimulation, model: CRsAE) -> CRsAE:
    """A model that was learned in units of the noise."""
    return replace(model, templates=model.templates * simulation.sigma, sigma=simulation.sigma)


def oracle_units(simulation: PaperSimulation, start: CRsAE, seed: int) -> tuple[np.ndarray, FirstUnits, CurationSettings]:
    """As first_units, with the templates of a start, and the spikes that it finds as their members."""
    signal, first, settings = first_units(simulation, seed, None)
    model = CRsAE(start.templates / simulation.sigma, SpikeSlab.first(start.n_units), 1.0, settings.refractory)
    window = TemplateWindow(start.n_times, int(np.abs(simulation.templates).sum(axis=(0, 1)).argmax()))
    spikes = model.encode(signal, E_STEP)
    members = [spikes.sample[spikes.unit == unit] for unit in range(model.n_units)]
    events = first.events + first.window.before - window.before
    return signal, FirstUnits(events, model, members, first.subspace, window), settings


def by_curation(
    simulation: PaperSimulation, seed: int, signal: np.ndarray, first: FirstUnits, settings: CurationSettings
) -> Trial:
    """The units that a sort would report after curation of the first ones, trained; their number is not given. Satellites are left
    out: they may hold a part of a neuron's template."""
    found = curate(signal, first, settings, Observer())
    templates = found.model.templates[~found.satellites] * simulation.sigma
    return judged(simulation, annealed_then_slab(simulation, model_of(simulation, templates), seed))


def by_clusters(simulation: PaperSimulation, seed: int, is_trained: bool) -> Trial:
    """Principal components and k-means with C = 4, then trained or not; the number of units stays."""
    first = first_units(simulation, seed, 4)[1].model
    start = model_of(simulation, first.templates * simulation.sigma)
    return judged(simulation, annealed_then_slab(simulation, start, seed) if is_trained else start)


WAYS = {
    "l1": Way("CRsAE, annealed l1", lambda s, m, seed: judged(s, annealed(s, m, seed).model)),
    "slab": Way("CRsAE, annealed l1, then the slab", lambda s, m, seed: judged(s, annealed_then_slab(s, m, seed))),
    "slab-alone": Way(
        f"{ROUNDS} rounds with the slab alone",
        lambda s, m, seed: judged(s, rounds_of_em(s, with_slab(m), ROUNDS)),
    ),
    "unrolled-l1": Way(
        "back-propagation, Laplace",
        lambda s, m, seed: judged(s, back_propagated(s, m, seed, UNROLLED_EPOCHS).model),
        slowness=20,
        n_windows=UNROLLED_WINDOWS,
    ),
    "unrolled-slab": Way(
        "back-propagation, slab",
        lambda s, m, seed: judged(s, back_propagated(s, with_slab(m), seed).model),
    ),
    "lcsc": Way("LCSC, as published", by_lcsc),
    "lcsc-positive": Way("LCSC, codes never negative", lambda s, m, seed: by_lcsc(s, m, seed, False), slowness=20),
}
#: Without the oracle.
FROM_CLUSTERS = {
    "k-means": Way("k-means, C = 4", lambda s, m, seed: by_clusters(s, seed, False)),
    "k-means-trained": Way("k-means, C = 4, then trained", lambda s, m, seed: by_clusters(s, seed, True)),
    "k-means-curated": Way(
        "k-means, C = 4, then curated", lambda s, m, seed: by_curation(s, seed, *first_units(s, seed, 4))
    ),
    "oracle-curated": Way(
        f"oracle's start at {START_DB:g} dB, then curated",
        lambda s, m, seed: by_curation(s, seed, *oracle_units(s, m, seed)),
    ),
    "curated": Way(
        "clusters of unknown number, then curated", lambda s, m, seed: by_curation(s, seed, *first_units(s, seed, None))
    ),
}


@cache
def source() -> str:
    """What a kept trial depends on."""
    package, here = Path(spikecrsae.__file__).parent, Path(__file__).parent
    rooms = ("crsae", "csc", "curate", "data", "detect", "simulate")
    files = sorted(path for room in rooms for path in (package / room).rglob("*.py"))
    return checksum(*files, here / "paper_ways.py", here / "lcsc.py")


def trial(key: str, snr_db: float, seed: int, n_windows: int, folder: Path | None) -> Trial:
    """One trial of the way of this key, out of the folder where it was kept there by the same source."""
    way = (WAYS | FROM_CLUSTERS)[key]
    n_windows = min(n_windows, way.n_windows or n_windows)
    path = folder and folder / f"{key}_{snr_db:g}dB_{n_windows}_{seed}.json"
    if path and path.exists():
        kept = json.loads(path.read_text())
        if kept.pop("source") == source():
            return Trial(**kept)
    torch.backends.mkldnn.enabled = False  # four times as fast without, for so few channels
    simulation = paper_windows(n_windows, snr_db, seed)
    start = oracle_start(simulation, seed)
    began = time.perf_counter()
    found = way.learn(simulation, start, seed)
    found = replace(found, seconds=time.perf_counter() - began)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found) | {"source": source()}))
    return found
