"""The paper's real recording (Sec. VII-B, Figs. 9 and 10): misses against false alarms, beside the published curves.

    SPIKECRSAE_DATA=<folder> python benchmarks/paper_recording.py [--source DIR] [--seeds 6] [--unrolled] [--figures docs/figures] [--docs]

--source names a folder with the published data (benchmarks/paper_source.py says which); that of SPIKECRSAE_DATA is taken
without it. The ways: the default, the paper's prior, and the paper's setting of this experiment (two templates of 35 samples,
its lambda, l1 codes, no curation); with --unrolled also with its training, one seed, some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paper_source import Published, read_published
from scipy.signal import find_peaks
from trials import markdown, publish

from spikecrsae.config import Config, TrainConfig
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace
from spikecrsae.crsae.train import train
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.detect.clustering import cluster, principal_components, templates_from_labels
from spikecrsae.detect.windows import windows_at
from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.readers.array import read_array
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.score import CURVES, Tradeoff, compare, component_spikes, label_spikes, tradeoff_curve

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
RATE, TOLERANCE_MS, LOOSE_MS, BURST_MS = 10_000.0, 0.4, 2.0, 5.0
#: Table III of the paper: templates, their samples, windows and their samples; lambda sigma^2 after training, of a signal
#: divided by its maximum (lambda = 219.25, sigma = 0.03).
N_UNITS, N_TIMES, N_WINDOWS, N_WINDOW, PENALTY = 2, 35, 24, 60_000, 219.25 * 0.03**2
#: Training by closed forms; by back-propagation on a third of the signal in windows of 1 s, with fewer iterations than the
#: paper's 600: an epoch of the paper's would take 20 minutes.
CLOSED = TrainConfig()
UNROLLED = TrainConfig(method="unrolled", n_iterations=180, epochs=10, batch_size=4)
#: Noise levels beyond which the published comparison looks for spikes to initialise with.
THRESHOLD = 4.0
#: False alarms at which misses are listed, and the end of the figure's axes.
FALSE_ALARMS, SHOWN = (5, 10, 20, 30, 50), 80


@dataclass(frozen=True)
class Learned:
    """Templates (n_units, n_times) in units of noise and lambda (n_units,) before and after training."""

    before: CRsAE
    after: CRsAE


@dataclass(frozen=True)
class Way:
    """A way to sort. sort: of traces (n_samples, 1) int16 and a seed. reports: the kind of curve whose first point it reports."""

    name: str
    sort: Callable[[np.ndarray, int], SortingData]
    reports: str = "amplitude"
    is_slow: bool = False


@dataclass(frozen=True)
class Found:
    """curves (n_points, 2): misses and false alarms by kind, at TOLERANCE_MS. Of the component: `loose`, the fewest errors at LOOSE_MS,
    and `false`, the samples of the false alarms at the best threshold. seconds: of sorting."""

    reported: np.ndarray
    curves: dict[str, np.ndarray]
    loose: int
    false: np.ndarray
    seconds: float


def sorted_by(**values: dict) -> Callable[[np.ndarray, int], SortingData]:
    """Sort with these values of the configuration, {stage: {field: value}}."""

    def sort(traces: np.ndarray, seed: int) -> SortingData:
        recording = read_array(traces, ReadOptions(sampling_frequency=RATE))
        return sort_group(recording, Config().with_values({**values, "runtime": {"seed": seed}})).sorting

    return sort


def whitened(traces: np.ndarray) -> np.ndarray:
    """The signal (n_samples,) in units of its noise, from its quiet samples: the published signal is whitened."""
    signal = traces[:, 0].astype(np.float32)
    return np.asarray(signal / (np.median(np.abs(signal)) / 0.6745), np.float32)


def learned(signal: np.ndarray, seed: int, config: TrainConfig = CLOSED) -> Learned:
    """Threshold, windows, two principal components, k-means with C = 2, then training on windows of 6 s (Sec. VII-B)."""
    starts = find_peaks(-signal, height=THRESHOLD, distance=N_TIMES // 2)[0] - N_TIMES // 2
    starts = starts[(starts >= 0) & (starts + N_TIMES <= len(signal))]
    spikes = windows_at(signal[:, None], starts, N_TIMES)
    labels = cluster(principal_components(spikes, 2, seed), N_UNITS, seed)
    before = CRsAE(templates_from_labels(spikes, labels, 1), Laplace.first(N_UNITS), n_shifts=1)
    windows = signal[: N_WINDOWS * N_WINDOW].reshape(N_WINDOWS, 1, N_WINDOW)
    if config.method == "unrolled":
        windows = windows.reshape(-1, 1, int(RATE))[::3]
    return Learned(before, train(windows, before, config, seed=seed).model)


def paper_setting(config: TrainConfig = CLOSED, learns_lambda: bool = False) -> Callable[[np.ndarray, int], SortingData]:
    """Sort as the paper does: l1 codes of two trained templates, under the paper's lambda or under the learned ones."""

    def sort(traces: np.ndarray, seed: int) -> SortingData:
        signal = whitened(traces)
        model = learned(signal, seed, config).after
        atoms = (model.templates / np.linalg.norm(model.templates, axis=2, keepdims=True)).astype(np.float32)
        bias = model.prior.lam * model.sigma if learns_lambda else np.full(N_UNITS, PENALTY * np.abs(signal).max())
        codes = model.backend.l1_codes(signal[None, None], atoms, bias.astype(np.float32), True)[0]
        unit, first = np.nonzero(codes > 0)
        peak = np.abs(atoms[:, 0]).argmax(axis=1)
        spikes = np.zeros(len(unit), SPIKE_DTYPE)
        spikes["unit"], spikes["sample"] = unit, first + peak[unit]
        spikes["amplitude"] = codes[unit, first] * np.abs(atoms[unit, 0, peak[unit]])
        spikes = spikes[np.argsort(spikes["sample"], kind="stable")]
        units = np.arange(N_UNITS, dtype=np.int32)
        return SortingData(spikes, units, RATE, len(signal), 1, "noise", templates=atoms, peak_index=peak)

    return sort


WAYS = (
    Way("default", sorted_by()),
    Way("`--prior laplace`", sorted_by(infer={"prior": "laplace"})),
    Way("the paper's setting", paper_setting(), "component"),
    Way("the same, lambda learned", paper_setting(learns_lambda=True), "component"),
    Way("the same, back-propagation", paper_setting(UNROLLED), "component", is_slow=True),
)


def measured(way: Way, published: Published, seed: int) -> Found:
    """Sort, and score the unit that agrees with the truth best."""
    began = time.perf_counter()
    sorting = way.sort(published.traces, seed)
    seconds = time.perf_counter() - began
    comparison = compare({"neuron": published.truth}, sorting.trains(), RATE, TOLERANCE_MS)
    unit = int(comparison.best_match["neuron"])
    mine = sorting.spikes[sorting.spikes["unit"] == unit]
    samples, heights = component_spikes(sorting, unit)
    spikes = {"amplitude": (mine["sample"], mine["amplitude"]), "component": (samples, heights)}
    every = len(mine)
    curves = {kind: tradeoff_curve(published.truth, *spikes[kind], comparison.tolerance, every, kind) for kind in CURVES}
    counts = {kind: points(curve) for kind, curve in curves.items()}
    loose = points(tradeoff_curve(published.truth, samples, heights, round(LOOSE_MS * RATE / 1000), every))
    kept = samples[heights >= curves["component"].threshold[total(counts["component"]).argmin()]]
    false = kept[~label_spikes(published.truth, kept, comparison.tolerance).test_right]
    return Found(counts[way.reports][0], counts, int(total(loose).min()), false, seconds)


def points(curve: Tradeoff) -> np.ndarray:
    """Misses and false alarms (n_points, 2)."""
    return np.column_stack([curve.misses, curve.false_alarms])


def total(curve: np.ndarray) -> np.ndarray:
    return np.asarray(curve.sum(axis=1))


def best(curve: np.ndarray) -> np.ndarray:
    """The point (misses, false alarms) with the fewest of both."""
    return np.asarray(curve[total(curve).argmin()])


def fewest_misses(curve: np.ndarray, most: int) -> float:
    """Misses at the best threshold with at most so many false alarms; NaN where every threshold has more."""
    return float(min(curve[curve[:, 1] <= most, 0], default=np.nan))


def spread(values: list[float] | np.ndarray, form: str = "g") -> str:
    """Mean and range."""
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{np.mean(values):{form}} ({low:{form}} to {high:{form}})"


def results_table(found: dict[str, list[Found]], published: Published) -> list[str]:
    """Of each way: what it reports, and the best totals over the threshold; then the published best totals."""
    rows = []
    for name, seeds in found.items():
        first = np.array([one.reported for one in seeds])
        accuracy = [1 - errors.sum() / (len(published.truth) + errors[1]) for errors in first]
        totals = [spread([int(total(one.curves[kind]).min()) for one in seeds], ".3g") for kind in CURVES]
        reported = [spread(accuracy, ".3f"), *(spread(column, ".3g") for column in first.T)]
        seconds = f"{np.median([one.seconds for one in seeds]):.1f}"
        rows.append([name, *reported, *totals, spread([one.loose for one in seeds], ".3g"), seconds])
    for method, curve in published.curves.items():
        misses, false_alarms = best(curve)
        rows.append([f"{method}, published", "", "", "", "", f"{misses + false_alarms} ({misses} + {false_alarms})", "", ""])
    heads = "way", "reported: accuracy", "misses", "false alarms", "best total, amplitude", "component", "at 2 ms", "s"
    return markdown(heads, rows)


def course_table(found: dict[str, list[Found]], published: Published) -> list[str]:
    """Misses at the best threshold with at most so many false alarms, by component: mean of the seeds."""
    rows = []
    for name, seeds in found.items():
        curves = [one.curves["component"] for one in seeds]
        rows.append([name, *(f"{np.mean([fewest_misses(curve, most) for curve in curves]):.3g}" for most in FALSE_ALARMS)])
    for method, curve in published.curves.items():
        rows.append([f"{method}, published", *(f"{fewest_misses(curve, most):.3g}" for most in FALSE_ALARMS)])
    return markdown(["misses with false alarms of at most", *FALSE_ALARMS], rows)


def shared_false_alarms(found: dict[str, list[Found]]) -> str:
    """Say how many false alarms every way and seed has at its best threshold, within TOLERANCE_MS."""
    first, *others = (one.false for seeds in found.values() for one in seeds)
    shared = np.array(
        [
            at
            for at in first
            if all(np.abs(other - at).min(initial=N_WINDOW) <= TOLERANCE_MS * RATE / 1000 for other in others)
        ]
    )
    gaps = np.diff(shared, prepend=-np.inf, append=np.inf) / RATE * 1000
    in_bursts = np.count_nonzero(np.minimum(gaps[:-1], gaps[1:]) <= BURST_MS)
    return (
        f"{len(shared)} false alarms are the same in every way and seed, each at its best threshold. {in_bursts} of them lie at most "
        f"{BURST_MS:g} ms from another."
    )


def draw(folder: Path, found: dict[str, list[Found]], published: Published, model: Learned) -> None:
    """Figures 9 and 10 of the paper, one PNG each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(5.4, 4), layout="constrained")
    at = np.arange(SHOWN + 1)
    for (method, curve), style in zip(published.curves.items(), ("-", "--", "-.", ":"), strict=False):
        axes.plot(at, [fewest_misses(curve, most) for most in at], style, color="0.35", linewidth=1.2, label=method)
    for k, (name, seeds) in enumerate(found.items()):
        courses = np.array([[fewest_misses(one.curves["component"], most) for most in at] for one in seeds])
        axes.plot(at, np.median(courses, axis=0), color=f"C{k}", linewidth=2, label=name.replace("`", ""))
        axes.fill_between(at, courses.min(axis=0), courses.max(axis=0), color=f"C{k}", alpha=0.2, linewidth=0)
    axes.set(xlabel="false alarms", ylabel=f"misses (of {len(published.truth)})", xlim=(0, SHOWN), ylim=(-1, SHOWN))
    axes.legend(frameon=False, title=f"lines: median, areas: range of {len(next(iter(found.values())))} seeds")
    figure.savefig(folder / "paper_recording_tradeoff.png", dpi=140)
    pyplot.close(figure)

    figure, panels = pyplot.subplots(1, N_UNITS, figsize=(6, 2.6), sharey=True, layout="constrained")
    for unit, axes in enumerate(panels):
        for name, crsae, color in (("start", model.before, "0.7"), ("learned", model.after, "tab:red")):
            axes.plot(np.arange(N_TIMES) / (RATE / 1000), crsae.templates[unit, 0], color=color, linewidth=1.6, label=name)
        axes.set(xlabel="time (ms)", title=f"template {unit + 1}")
    panels[0].set_ylabel("noise levels")
    panels[0].legend(frameon=False)
    figure.savefig(folder / "paper_recording_templates.png", dpi=140)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, metavar="DIR", help="folder with the published data")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--unrolled", action="store_true", help="also training by back-propagation, some minutes")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="folder for the figures")
    parser.add_argument("--docs", action="store_true", help="put what is printed into docs/paper.md")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds} must be at least 1.")
    folder = arguments.source or os.environ.get("SPIKECRSAE_DATA")
    if folder is None:
        parser.error(
            "no data: clone github.com/ds2p/srcdl, which holds the published pieces of hc-1, and name its folder after --source."
        )
    try:
        published = read_published(Path(folder))
    except SpikeCRsAEError as error:
        sys.exit(f"Error: {error}")
    found: dict[str, list[Found]] = {way.name: [] for way in WAYS if arguments.unrolled or not way.is_slow}
    for way in [way for way in WAYS if way.name in found]:
        for seed in range(1 if way.is_slow else arguments.seeds):
            found[way.name].append(measured(way, published, seed))
            counts = {kind: best(curve).tolist() for kind, curve in found[way.name][-1].curves.items()}
            print(f"{way.name}, seed {seed}: best misses and false alarms {counts}", file=sys.stderr, flush=True)
    signal = whitened(published.traces)
    model = learned(signal, 0)
    lam = ", ".join(f"{value:.2f}" for value in model.after.prior.parameters()["lambda"])
    said = (
        f"lambda sigma in noise levels: the paper {PENALTY * np.abs(signal).max():.2f} "
        f"({PENALTY:.4f} of the maximum, {np.abs(signal).max():.1f}); learned {lam}."
    )
    lines = [*results_table(found, published), "", *course_table(found, published), "", shared_false_alarms(found), "", said]
    intro = (
        f"{len(published.truth)} true spikes, {arguments.seeds} seeds: mean (range). Spikes match within {TOLERANCE_MS:g} ms, once each; "
        f"*at {LOOSE_MS:g} ms* is the best total of the component with the published tolerance."
    )
    publish("paper-recording", "The real recording: Figs. 9 and 10", intro, lines, arguments.docs, PAGE)
    if arguments.figures:
        draw(arguments.figures, found, published, model)


if __name__ == "__main__":
    main()
