"""The first training of a sort: an annealed l1 stage from the first templates, taken where held-out windows say so."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.em import E_STEP
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace
from spikecrsae.crsae.train import anneal
from spikecrsae.progress import Observer

log = logging.getLogger(__name__)

#: Length of a drawn window, in templates.
WINDOW_TEMPLATES = 10
#: Epochs of the l1 stage at most: the penalty has fallen by then, and EM goes on.
EPOCHS = 15
#: The l1 stage is taken where the held-out log posterior gains more than this many standard errors over windows.
SURE = 2.0


@dataclass(frozen=True)
class FirstTraining:
    """model: what the sort goes on with. gain: what the l1 stage adds to the log posterior of a held-out window, mean and
    standard error (0 where nothing was trained). taken: whether its templates are those of the model."""

    model: CRsAE
    gain: float = 0.0
    error: float = 0.0
    taken: bool = False


def train_first(
    signal: np.ndarray,
    model: CRsAE,
    members: list[np.ndarray],
    config: TrainConfig,
    seed: int,
    observer: Observer | None = None,
    level: np.ndarray | None = None,
) -> FirstTraining:
    """Train the templates of a model on windows of whitened signal (n_channels, n_samples) drawn about their events.

    members: of every unit, the first samples of the events that its template is the mean of. The model's prior stays: the
    l1 stage only gives templates, by EM whatever config.method is. It is robust where these are far off; where they are good it
    gains nothing. level (n_samples,) uint8: of the noise, see data.loudness; windows with louder noise are left out.
    """
    members = away_from_loud(members, level, WINDOW_TEMPLATES * model.n_times)
    rng = np.random.default_rng(seed)
    windows = draw_windows(signal, members, model.n_times, config.max_windows, rng)
    if len(windows) < 4:
        return FirstTraining(model)
    windows = windows[rng.permutation(len(windows))]
    learned_from, held_out = windows[::2], windows[1::2]
    relaxed = replace(model, prior=Laplace.first(model.n_units))
    short = replace(config, method="em", epochs=min(config.epochs, EPOCHS))
    trained = anneal(np.ascontiguousarray(learned_from, np.float32), relaxed, short, observer or Observer()).model
    candidates = [model, replace(model, templates=trained.templates)]
    apart = joined(learned_from, model.n_times)
    before, after = (posterior_by_window(c.maximise(apart, c.encode(apart, E_STEP)), held_out) for c in candidates)
    gain, error = float((after - before).mean()), float((after - before).std() / np.sqrt(len(held_out)))
    taken = gain > SURE * error
    log.info(
        "annealed l1: held-out log posterior %+.3g +- %.2g per window, %s", gain, error, "taken" if taken else "not taken"
    )
    return FirstTraining(candidates[taken], gain, error, taken)


def away_from_loud(members: list[np.ndarray], level: np.ndarray | None, reach: int) -> list[np.ndarray]:
    """Of each unit's events those with no louder noise within `reach` samples. level (n_samples,): None for steady noise."""
    if level is None:
        return members
    loud = np.r_[0, np.cumsum(level > 0)]
    return [m[loud[np.minimum(m + reach, len(level))] == loud[np.maximum(m - reach, 0)]] for m in members]


def draw_windows(
    signal: np.ndarray, members: list[np.ndarray], n_times: int, n_windows: int, rng: np.random.Generator
) -> np.ndarray:
    """Windows (n, n_channels, WINDOW_TEMPLATES n_times) of a signal about events, at most n_windows, none twice.

    Stratified: every unit gives as many events, one from each of as many parts of its events in order of time. Where there are
    more units than windows, the units are drawn at random.
    """
    length, share = WINDOW_TEMPLATES * n_times, max(1, n_windows // max(1, len(members)))
    if signal.shape[1] < length or not any(map(len, members)):
        return np.zeros((0, len(signal), length), signal.dtype)
    parts = [part for m in members if len(m) for part in np.array_split(np.sort(m), min(share, len(m)))]
    chosen = np.array([rng.choice(part) for part in parts], np.int64)
    if len(chosen) > n_windows:  # more units than windows
        chosen = rng.choice(chosen, n_windows, replace=False)
    starts = np.sort(chosen - rng.integers(n_times, length - 2 * n_times, len(chosen)))
    kept: list[int] = []
    for start in np.clip(starts, 0, signal.shape[1] - length):
        if not kept or start - kept[-1] >= length:
            kept.append(int(start))
    windows = [signal[:, start : start + length] for start in kept]
    return np.array(windows, signal.dtype).reshape(-1, len(signal), length)


def joined(windows: np.ndarray, n_times: int) -> np.ndarray:
    """Windows (n, n_channels, n_samples) end to end, (n_channels, n (n_samples + n_times)), with silence between them over which
    no spike reaches."""
    apart = np.pad(windows, ((0, 0), (0, 0), (0, n_times)))
    return np.ascontiguousarray(apart.transpose(1, 0, 2)).reshape(windows.shape[1], -1)


def posterior_by_window(model: CRsAE, windows: np.ndarray) -> np.ndarray:
    """Log posterior odds (n_windows,) of the spikes that the model finds in each of the windows against none."""
    signal = joined(windows, model.n_times)
    spikes = model.encode(signal, E_STEP)
    length = windows.shape[2] + model.n_times
    energy = [
        (x**2).reshape(len(signal), len(windows), length).sum(axis=(0, 2)) for x in (signal, model.residual(signal, spikes))
    ]
    prior = model.log_prior(spikes)
    return 0.5 * (energy[0] - energy[1]) / model.sigma**2 + np.bincount(spikes.sample // length, prior, len(windows))
