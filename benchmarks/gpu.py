"""The encoder on a GPU: what must be computed, what half precision would lose, and how fast FISTA is.

    python benchmarks/gpu.py [--windows 10100] [--repeats 5]

The problem is the paper's: windows of 1000 samples, 4 channels, 4 units, atoms of 18 samples, T = 180. Inputs are drawn anew in every
run. The effect of half precision is shown on the CPU. Without a CUDA device nothing else is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from spikecrsae.csc.fista import fista
from spikecrsae.csc.objective import kkt_violation, objective
from spikecrsae.csc.operator import synthesis
from spikecrsae.csc.step_size import lipschitz_bound

CHANNELS, UNITS, TIMES, SAMPLES, ITERATIONS = 4, 4, 18, 1000, 180
LAM, SIGMA = 2.0, 1.0
#: Data sheet of the H100 SXM: float32 outside of the tensor cores, and its memory.
H100_FLOPS, H100_BYTES = 67e12, 3.35e12


def problem(n_units: int, n_channels: int, n_times: int, n_samples: int, n_windows: int, rng: np.random.Generator):
    """Signal and atoms, float32 on the CPU, and L."""
    atoms = rng.standard_normal((n_units, n_channels, n_times))
    atoms /= np.sqrt((atoms**2).sum((1, 2), keepdims=True))
    shape = n_windows, n_units, n_samples - n_times + 1
    codes = torch.from_numpy(np.where(rng.random(shape) < 0.01, 10, 0).astype(np.float32))
    signal = synthesis(codes, torch.from_numpy(atoms).float())
    signal += torch.from_numpy(rng.standard_normal(signal.shape, dtype=np.float32))
    return signal, torch.from_numpy(atoms).float(), lipschitz_bound(atoms)


def print_limits(n_windows: int) -> float:
    """Count the work, and return the seconds that an H100 would need at least."""
    n_positions = SAMPLES - TIMES + 1
    needed = n_windows * ITERATIONS * 4 * UNITS * CHANNELS * TIMES * n_positions
    least = n_windows * 4 * (CHANNELS * SAMPLES + UNITS * n_positions)
    print(
        f"{n_windows} windows of {SAMPLES} samples, {CHANNELS} channels, {UNITS} units, atoms of {TIMES}, T = {ITERATIONS}"
    )
    print("\n| | count | at an H100's data sheet |\n| --- | --- | --- |")
    print(f"| operations, 4 C U K positions T | {needed / 1e12:.2f} TFLOP | {1e3 * needed / H100_FLOPS:.1f} ms |")
    print(f"| bytes: signal in, codes out | {least / 1e9:.2f} GB | {1e3 * least / H100_BYTES:.2f} ms |\n")
    return needed / H100_FLOPS


def print_precisions(rng: np.random.Generator) -> None:
    """What FISTA loses where its products are of half precision and their sums of float32, as in a tensor core: on the CPU, with
    everything that enters a convolution rounded."""
    signal, atoms, bound = problem(UNITS, CHANNELS, TIMES, SAMPLES, 16, rng)
    settings = LAM, SIGMA, bound, ITERATIONS, True
    exact = fista(signal.double(), atoms.double(), *settings)

    def worst(codes: torch.Tensor) -> tuple[float, float, float]:
        here = signal.double(), codes.double(), atoms.double(), LAM, SIGMA
        return float(kkt_violation(*here, True).max()), float(objective(*here).mean()), float((codes - exact).abs().max())

    print("| products of | KKT violation, noise levels | objective over that of float64 | largest difference of a code |")
    print("| --- | --- | --- | --- |")
    least = worst(exact)[1]
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        module = sys.modules[fista.__module__]

        def rounded(convolution: Callable, kind: torch.dtype = kind) -> Callable:
            return lambda values, filters: convolution(values.to(kind).float(), filters.to(kind).float())

        kept = module.analysis, module.synthesis
        module.analysis, module.synthesis = map(rounded, kept)
        try:
            violation, value, difference = worst(fista(signal, atoms, *settings))
        finally:
            module.analysis, module.synthesis = kept
        print(
            f"| {str(kind).removeprefix('torch.')} | {violation:.3g} | {value - least:+.3g} of {least:.0f} | {difference:.2g} |"
        )
    print(f"| float64 | {worst(exact)[0]:.3g} | 0 | 0 |\n")


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Of the first call (with compilation), and median and spread of the repeats, by the GPU's own clock."""
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    first, times = time.perf_counter() - began, []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return first, statistics.median(times), max(times) - min(times)


def compare_times(n_windows: int, repeats: int, floor: float, rng: np.random.Generator) -> None:
    signal, atoms, bound = problem(UNITS, CHANNELS, TIMES, SAMPLES, n_windows, rng)
    arguments = signal.cuda(), atoms.cuda(), LAM, SIGMA, bound, ITERATIONS, True
    print("| encoder | first call | median | spread | floor / median |\n| --- | --- | --- | --- | --- |")
    for allowed, name in ((True, "convolutions in tf32 (torch's default)"), (False, "float32")):
        torch.backends.cudnn.allow_tf32 = allowed
        row(name, seconds(lambda: fista(*arguments), repeats), floor)


def row(name: str, times: tuple[float, float, float], floor: float) -> None:
    first, median, spread = times
    print(f"| {name} | {first:.1f} s | {1e3 * median:.1f} ms | {1e3 * spread:.1f} ms | {floor / median:.2f} |", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=10_100)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    floor = print_limits(options.windows)
    print_precisions(np.random.default_rng())
    if not torch.cuda.is_available():
        print("No CUDA device: nothing is timed.")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}. The floor is the H100's, whatever this GPU is.\n")
    compare_times(options.windows, options.repeats, floor, np.random.default_rng())


if __name__ == "__main__":
    main()
