"""The sorter on a GPU: a whole sort, the encoder alone, an hour of 16 tetrodes; and what the encoder must compute and move.

    python benchmarks/gpu.py [--device auto] [--seconds 10] [--repeats 3] [--folder DIR] [--minutes 60] FILE ...

Without a CUDA device torch runs on the CPU, the hour is left out, and the output says that no GPU was measured.

Work      operations and bytes of the encoder (csc.layered_search, and FISTA for the laplace prior) per second of signal, counted
          while it encodes the beginning of each FILE (--seconds) with the model learned from the whole FILE. Bytes: each step
          reads its operands once and writes its results once; temporaries within a step are not counted. Steps:
          - correlation: K templates with C channels, in the time domain, once per encoding.
          - gain of a layer: peaks of K correlations at the positions looked at, and for each promising peak its value between the
            samples. The first layer looks at every loud position, the others near the spikes of the layer before.
          - selection of a layer: the sliding maximum of the gain over the whole stretch, and the candidates.
          - subtraction of a layer: every spike's overlap with K templates, and the mask of what to look at next.
          - FISTA, one of its iterations: a convolution of K codes with K x K Gram functions near loud positions; 180 iterations.
          The last column is the least time at the data sheet of an H100 SXM, whatever the device is.
Encoder   seconds to encode the same signal, with either prior: numba on the CPU against torch on the device, by the layers
          alone (infer.local_search = false) and whole; the local search runs on the CPU for both. The first call is shown
          apart. Spikes agree where they are of the same unit and at most one sample apart; the share is of all spikes of both.
Sort      seconds of sort_group on the FILE, default configuration: backend numba on the CPU against torch on the device, and the
          encodings and layers that it asks for. The l1 stage, part of curate, is FISTA with torch and coordinate descent with
          numba. Without a GPU, the first --seconds only.
Hour      `spikecrsae sort` of 64 channels in 16 groups at 30 kHz (14 GB in DIR, written if missing): for each tetrode six simulated
          neurons of 15 Hz, one minute, repeated. Only with a GPU and with --folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import torch
from gpu_work import Counts, counted
from runs import Trains
from trials import markdown

from spikecrsae.config import Config
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.backends import Backend, backend_of
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.csc.subsample import SINC_REACH
from spikecrsae.curate import curate
from spikecrsae.data.spikes import Spikes
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor
from spikecrsae.readers import ReadOptions, open_recording
from spikecrsae.score import agreement, match_counts, match_units_one_to_one
from spikecrsae.simulate import preset_config, simulate
from spikecrsae.units import s_to_samples

PRIORS = ("spike-slab", "laplace")
#: Data sheet of the H100 SXM: float32 outside of the tensor cores, and its memory.
H100_FLOPS, H100_BYTES = 67e12, 3.35e12
#: Operations per correlation that is looked at (comparisons with its neighbours and its threshold), and per promising peak,
#: besides the interpolation. Operations of one code in an iteration of FISTA, besides the convolution.
PER_POSITION, PER_PEAK, PER_CODE = 5, 20, 8
#: Layers that are shown each for itself.
SHOWN = 3
GROUPS, GROUP_CHANNELS, HOUR_FS = 16, 4, 30_000.0


@dataclass(frozen=True)
class Excerpt:
    """Whitened signal (n_channels, n_samples) of the beginning of a recording, and the model of the whole one."""

    name: str
    signal: np.ndarray
    fs: float
    model: CRsAE

    @property
    def seconds(self) -> float:
        return self.signal.shape[1] / self.fs


def learned(path: Path, prior: str, seconds: float) -> Excerpt:
    """Sort a recording with numba; what `Excerpt` says."""
    with open_recording(path, ReadOptions()) as recording:
        saved = sort_group(recording, configured(prior)).checkpoint
        used = recording.select(np.flatnonzero(saved["usable"]).tolist())
        view = PreprocessedRecording(used, Preprocessor(**saved["preprocessor"]))
        stop = min(used.n_samples, s_to_samples(seconds, used.sampling_frequency))
        signal = np.ascontiguousarray(view.both(0, stop)[1])
        return Excerpt(path.stem, signal, used.sampling_frequency, CRsAE.of_dict(saved["crsae"]))


def configured(prior: str = PRIORS[0], backend: str = "numba", device: str = "cpu") -> Config:
    return Config().with_settings(prior=prior, backend=backend, device=device)


def work_table(excerpt: Excerpt, device: str) -> list[str]:
    """Counts of one excerpt, per second of signal."""
    model = replace(excerpt.model, backend=backend_of("torch", device), local_search=False)
    with counted() as counts:
        model.encode(excerpt.signal)
    n_units, n_channels, n_times = model.templates.shape
    n_layers = len(counts.layers)
    rows = [["correlation", counts.positions, *correlation_work(counts, *model.templates.shape)]]
    for number in range(min(SHOWN, n_layers)):
        rows += layer_rows(f"layer {number + 1}", [counts.layers[number]], model)
    if n_layers > SHOWN:
        rows += layer_rows(f"further layers, {n_layers - SHOWN}", counts.layers[SHOWN:], model)
    if counts.iterations:
        work = fista_work(counts.near, n_units, n_times)
        rows.append(["FISTA, one iteration", counts.near, *work])
        rows.append([f"FISTA, {counts.iterations} iterations", counts.near, *(counts.iterations * value for value in work)])
    single = [r for r in rows if "one iteration" not in r[0]]
    rows.append(["**sum**", "", *(sum(r[i] for r in single) for i in (2, 3))])
    heads = ["step", "places / s", "operations / s (M)", "bytes / s (MB)", "least time on an H100, us per s"]
    said = (
        f"{excerpt.name}, {excerpt.model.prior.name}: {excerpt.seconds:.1f} s at {excerpt.fs / 1000:g} kHz, C = {n_channels}, "
        f"K = {n_units}, templates of {n_times} samples, {n_layers} layers, "
        f"{sum(layer['spikes'] for layer in counts.layers) / excerpt.seconds:.0f} spikes per s."
    )
    return [said, "", *markdown(heads, [shown(r, excerpt.seconds) for r in rows]), ""]


def shown(cells: list, seconds: float) -> list[str]:
    name, places, operations, n_bytes = cells
    least = 1e6 * max(operations / H100_FLOPS, n_bytes / H100_BYTES) / seconds
    per_second = [f"{value / 1e6 / seconds:.3g}" for value in (operations, n_bytes)]
    return [name, f"{places / seconds:.0f}" if places != "" else "", *per_second, f"{least:.2f}"]


def correlation_work(counts: Counts, n_units: int, n_channels: int, n_times: int) -> tuple[float, float]:
    """Operations and bytes: H^T y in the time domain, float32."""
    return 2.0 * n_units * n_channels * n_times * counts.positions, 4.0 * (n_channels + n_units) * counts.positions


def layer_rows(name: str, layers: list[Counter], model: CRsAE) -> list[list]:
    """Gain, selection and subtraction of some layers: name, places, operations, bytes."""
    n_units, lags, window = model.n_units, 2 * model.n_times - 1, 2 * SINC_REACH + 1
    looked = sum(layers, Counter())
    positions, peaks, candidates, dense, spikes = (
        looked[of] for of in ("positions", "peaks", "candidates", "dense", "spikes")
    )
    # values of float64; a sliding maximum takes about log2 of its width passes
    passes = int(np.ceil(np.log2(max(model.n_times, model.refractory)))) + 1
    gain = PER_POSITION * n_units * positions + peaks * (2 * window * model.n_shifts + PER_PEAK)
    gain_bytes = 5 * n_units * positions + 4 * window * peaks
    selection = passes * dense + 5 * candidates
    selection_bytes = 8 * (2 + 3 * passes) * dense + 40 * candidates
    subtraction = spikes * (2 * n_units * lags + 2 * model.refractory + 1)
    subtraction_bytes = spikes * (12 * n_units * lags + 2 * (2 * model.refractory + 1)) + dense
    return [
        [f"{name}: gain", positions, gain, gain_bytes],
        [f"{name}: selection", candidates, selection, selection_bytes],
        [f"{name}: subtraction", spikes, subtraction, subtraction_bytes],
    ]


def fista_work(near: int, n_units: int, n_times: int) -> tuple[float, float]:
    """Operations and bytes of one iteration: H^T H of the codes, the step, the shrinkage and the momentum."""
    return near * n_units * (2.0 * n_units * (2 * n_times - 1) + PER_CODE), 4.0 * 8 * n_units * near


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Seconds of the first call, median seconds of the repeats, and the result. An encoding ends on the CPU."""
    seconds, result = [], None
    for _ in range(1 + repeats):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return seconds[0], statistics.median(seconds[1:]), result


def encoder_rows(excerpt: Excerpt, device: str, repeats: int) -> list[list]:
    """Layers alone and whole, numba and torch."""
    rows = []
    for local in (False, True):
        model, reference = replace(excerpt.model, local_search=local), None
        for backend in (NUMBA, backend_of("torch", device)):
            encode = replace(model, backend=backend).encode
            first, median, spikes = timed(partial(encode, excerpt.signal), repeats)
            reference = reference or spikes
            same = "-" if backend is NUMBA else f"{100 * shared(trains_of(reference), trains_of(spikes)):.3f} %"
            facts = [
                excerpt.name,
                excerpt.model.prior.name,
                "whole" if local else "layers alone",
                backend_name(backend, device),
            ]
            times = [f"{first:.3f}", f"{median:.3f}", f"{excerpt.seconds / median:.0f}"]
            rows.append([*facts, *times, len(spikes), same])
            print(f"{' '.join(rows[-1][:4])}: {median:.3f} s", file=sys.stderr, flush=True)
    return rows


def backend_name(backend: Backend, device: str) -> str:
    return "numba, CPU" if backend is NUMBA else f"torch, {device}"


def trains_of(spikes: Spikes) -> Trains:
    return {str(unit): np.sort(spikes.sample[spikes.unit == unit]) for unit in np.unique(spikes.unit)}


def shared(a: Trains, b: Trains) -> float:
    """Share of the spikes of two sortings that have a partner in the other, in the unit matched one to one, within one sample."""
    n_a, n_b = (np.array([len(train) for train in trains.values()]) for trains in (a, b))
    total = int(n_a.sum() + n_b.sum())
    if not len(n_a) or not len(n_b):
        return float(not total)
    counts = match_counts(a, b, 1)
    n_same = sum(int(counts[i, j]) for i, j in match_units_one_to_one(agreement(counts, n_a, n_b)).items())
    return n_same / (total - n_same)


def sort_rows(path: Path, device: str, stop_s: float | None) -> list[list]:
    """A whole sort with numba and with torch, each after one of the first seconds that is not counted."""

    def sort(backend: str, where: str, stop_s: float | None) -> tuple[float, float, Outcome]:
        """Seconds, seconds of signal, and the outcome."""
        with open_recording(path, ReadOptions(stop_s=stop_s)) as recording:
            began = time.perf_counter()
            outcome = sort_group(recording, configured(backend=backend, device=where))
            return time.perf_counter() - began, recording.in_range().duration_s, outcome

    rows, reference, train_first = [], None, curate.train_first
    for backend, where in (("numba", "cpu"), ("torch", device)):
        in_l1: list[float] = []

        def timed_stage(*given: Any, in_l1: list[float] = in_l1) -> Any:
            began = time.perf_counter()
            trained = train_first(*given)
            in_l1.append(time.perf_counter() - began)
            return trained

        sort(backend, where, 3.0)
        with counted() as counts, patch.object(curate, "train_first", timed_stage):
            seconds, duration, outcome = sort(backend, where, stop_s)
        trains = outcome.sorting.trains()
        reference = reference or trains
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in outcome.stage_seconds.items())
        work = [counts.encodings, counts.rounds] if backend == "torch" else ["-", "-"]
        same = "-" if backend == "numba" else f"{100 * shared(reference, trains):.3f} %"
        facts = [path.stem, f"{duration:.0f}", f"{backend}, {where}", f"{seconds:.1f}", f"{sum(in_l1):.1f}", *work]
        rows.append([*facts, len(trains), sum(map(len, trains.values())), same, stages])
        print(f"{path.stem}, whole sort, {backend}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return rows


def hour_rows(folder: Path, minutes: int, device: str) -> list[list]:
    """`spikecrsae sort` of the 16 tetrodes, on the device and on the CPU."""
    path = folder / f"tetrodes_16_{minutes}_minutes.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_tetrodes(path, minutes)
    groups = ",".join(f"{GROUP_CHANNELS * g}-{GROUP_CHANNELS * (g + 1) - 1}" for g in range(GROUPS))
    rows = []
    for where in dict.fromkeys((device, "cpu")):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out"
            words = [sys.executable, "-m", "spikecrsae", "sort", str(path), "-o", str(out), "--groups", groups]
            began = time.perf_counter()
            subprocess.run([*words, "--device", where, "--quiet"], check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - began
            about = json.loads((out / "run.json").read_text())
        stages = ", ".join(f"{stage} {value:.0f}" for stage, value in about["stage_seconds"].items())
        rows.append([minutes, where, f"{seconds:.0f}", f"{60 * minutes / seconds:.1f}", stages])
    return rows


def write_tetrodes(path: Path, minutes: int) -> None:
    """One simulated minute of 16 tetrodes, `minutes` times."""
    config = preset_config("tetrode", n_units=6, rates_hz=(15.0,) * 6, sampling_frequency=HOUR_FS, duration_s=60.0)
    simulations = [simulate(replace(config, seed=group)) for group in range(GROUPS)]
    # one gain for all, so that the numbers of each must be scaled anew
    gain = max(simulation.gain for simulation in simulations)
    minute = np.concatenate([np.round(s.traces * (s.gain / gain)).astype(np.int16) for s in simulations], axis=1)
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        shape = minutes * len(minute), minute.shape[1]
        traces = file.create_dataset("traces", shape, np.int16, chunks=(int(HOUR_FS), minute.shape[1]))
        traces.attrs.update({"sampling_frequency": HOUR_FS, "units": "uV", "gain": gain})
        for k in range(minutes):
            traces[k * len(minute) : (k + 1) * len(minute)] = minute
    partial.rename(path)


def device_of(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="recordings that need no reading option")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="of torch")
    parser.add_argument("--seconds", type=float, default=10.0, help="signal that the encoder is measured on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the recording of 16 tetrodes is kept")
    parser.add_argument("--minutes", type=int, default=60, help="length of the 16 tetrodes")
    arguments = parser.parse_args()
    device = device_of(arguments.device)
    is_gpu = device != "cpu"
    where = torch.cuda.get_device_name() if is_gpu else "No GPU was measured: torch ran on the CPU"
    print(
        f"{where}. torch {torch.__version__}, {os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads of torch.\n"
    )
    excerpts = [learned(path, prior, arguments.seconds) for path in arguments.files for prior in PRIORS]
    print("**Work of the encoder per second of signal**\n")
    for excerpt in excerpts:
        print(*work_table(excerpt, device), sep="\n", flush=True)
    print("**The encoder alone**\n")
    rows = [r for excerpt in excerpts for r in encoder_rows(excerpt, device, arguments.repeats)]
    heads = [
        "recording",
        "prior",
        "encoder",
        "backend",
        "s, first call",
        "s, median",
        "times real time",
        "spikes",
        "same spikes",
    ]
    print(*markdown(heads, rows), "", sep="\n", flush=True)
    print("**A whole sort**\n")
    stop_s = None if is_gpu else arguments.seconds
    rows = [r for path in arguments.files for r in sort_rows(path, device, stop_s)]
    heads = [
        "recording",
        "s of signal",
        "backend",
        "s",
        "encodings",
        "layers",
        "units",
        "spikes",
        "same spikes",
        "stages, s",
    ]
    print(*markdown(heads, rows), "", sep="\n", flush=True)
    if is_gpu and arguments.folder:
        print(f"**{GROUPS} tetrodes**\n")
        rows = hour_rows(arguments.folder, arguments.minutes, device)
        print(*markdown(["minutes", "device", "s", "times real time", "stages, s"], rows), sep="\n")
    else:
        print(f"{GROUPS} tetrodes were not measured: that takes a GPU and --folder.")
    if not is_gpu:
        print("No GPU was measured.")


if __name__ == "__main__":
    main()
