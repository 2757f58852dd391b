"""Sort recordings without a neuron: pure noise, mains hum, movement artefacts. Print how many units come out of each case.

    python benchmarks/noise.py [PART OF A NAME ...] [--seeds 2] [--seconds 20]

Every unit is wrong here. Everything goes through the command line, as a user would do it; `log odds` is that column of the
units; `excluded` is what the program itself left out, artefacts and ends where hum is filtered, beside the artefacts put in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from scipy import signal as sps

NOISE_UV = 10.0
FORMATS = [(n_channels, fs) for n_channels in (1, 4, 8) for fs in (10000.0, 30000.0)]


def white(rng: np.random.Generator, n: int, n_channels: int, fs: float) -> np.ndarray:
    return rng.standard_normal((n, n_channels))


def coloured(rng: np.random.Generator, n: int, n_channels: int, fs: float) -> np.ndarray:
    """Autoregressive of order 2, with a resonance at 700 Hz: the spectrum of distant spikes."""
    pole = 0.9 * np.exp(2j * np.pi * 700 / fs)
    noise = sps.lfilter([1.0], np.poly([pole, pole.conj()]).real, white(rng, n, n_channels, fs), axis=0)
    return noise / noise.std(axis=0)


def correlated(rng: np.random.Generator, n: int, n_channels: int, fs: float) -> np.ndarray:
    """Coloured, and 0.6 correlated between all channels."""
    return np.sqrt(0.4) * coloured(rng, n, n_channels, fs) + np.sqrt(0.6) * coloured(rng, n, 1, fs)


def heavy_tailed(rng: np.random.Generator, n: int, n_channels: int, fs: float) -> np.ndarray:
    """Student's t with 10 degrees of freedom."""
    return rng.standard_t(10, (n, n_channels)) / np.sqrt(10 / 8)


def pink(rng: np.random.Generator, n: int, n_channels: int, fs: float) -> np.ndarray:
    """Power falling with frequency, as of field potentials, over white noise; standard deviation 1 above 400 Hz."""
    spectrum = np.fft.rfft(white(rng, n, n_channels, fs), axis=0)
    frequency = np.fft.rfftfreq(n, 1 / fs)
    spectrum *= np.sqrt(1 + (1000 / np.maximum(frequency, 1.0)) ** 2)[:, None]
    audible = np.where(frequency[:, None] > 400, spectrum, 0)
    return np.fft.irfft(spectrum, n, axis=0) / np.fft.irfft(audible, n, axis=0).std()


NOISES = {f.__name__: f for f in (white, coloured, correlated, heavy_tailed, pink)}


def hum(rng: np.random.Generator, n: int, fs: float, mains: float, highest: float, wander: float = 0.0) -> np.ndarray:
    """(n, 1): every harmonic of the mains up to `highest` Hz, amplitude 1 at the first and 1/order beyond; the mains' frequency
    wanders by that standard deviation in Hz, over seconds."""
    drift = np.cumsum(rng.standard_normal(n)) / np.sqrt(fs * 5.0) * wander
    phase = 2 * np.pi * np.cumsum(mains + drift) / fs
    orders = range(1, int(highest / mains) + 1)
    return sum(np.sin(k * phase + 2 * np.pi * rng.random()) / k for k in orders)[:, None]


def movement(rng: np.random.Generator, n: int, fs: float, per_s: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1) artefacts in units of the noise, and where they are (bool, n). Half are jumps that decay over 50 ms with a
    ringing, half are rubbing: noise below 3 kHz, 30 times the recording's, for 0.1 to 0.5 s."""
    trace, there = np.zeros(n), np.zeros(n, bool)
    for start in np.sort(rng.integers(0, n, max(2, int(per_s * n / fs)))):
        length = min(int(rng.uniform(0.1, 0.5) * fs), n - start)
        time = np.arange(length) / fs
        if rng.random() < 0.5:
            shape = 300 * np.exp(-time / 0.05) * (1 + np.cos(2 * np.pi * rng.uniform(300, 900) * time))
        else:
            low = sps.butter(2, 3000, fs=fs, output="sos")
            shape = 30 * sps.sosfilt(low, rng.standard_normal(length)) * np.hanning(length) * np.sqrt(fs / 6000)
        trace[start : start + length] += shape * rng.choice([-1, 1])
        there[start : start + length] = True
    return trace[:, None], there


def cases(seconds: float, seeds: int) -> Iterator[tuple[str, np.ndarray, float, float]]:
    """(name, traces in uV, sampling frequency, seconds of artefacts put in)."""
    for n_channels, fs in FORMATS:
        n = int(seconds * fs)
        where = f"{n_channels} ch, {fs / 1000:g} kHz"
        for seed in range(seeds):
            for name, noise in NOISES.items():
                rng = np.random.default_rng([seed, n_channels, int(fs)])
                yield f"{name}, {where}, seed {seed}", NOISE_UV * noise(rng, n, n_channels, fs), fs, 0.0
            rng = np.random.default_rng([seed, n_channels, int(fs), 1])
            gains = rng.uniform(0.7, 1.3, n_channels)
            base = correlated(rng, n, n_channels, fs)
            for mains in (50.0, 60.0):
                for highest, size in ((mains, 100.0), (900.0, 10.0), (3000.0, 10.0)):
                    lines = size * hum(rng, n, fs, mains, highest, wander=0.02)
                    yield (
                        f"hum {mains:g} to {highest:g} Hz, {size:g}x, {where}, seed {seed}",
                        NOISE_UV * (base + lines * gains), fs, 0.0,
                    )  # fmt: skip
            moved, there = movement(rng, n, fs)
            yield f"movement, {where}, seed {seed}", NOISE_UV * (base + moved * gains), fs, there.sum() / fs
            clipped = np.clip(NOISE_UV * (base + moved * gains), -600, 600)
            yield f"movement, clipped, {where}, seed {seed}", clipped, fs, there.sum() / fs


def sort(traces: np.ndarray, fs: float, folder: Path) -> dict:
    path = folder / "noise.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = np.rint(traces / 0.195).clip(-32768, 32767).astype(np.int16)
        file["traces"].attrs.update({"sampling_frequency": fs, "units": "uV", "gain": 0.195})
    words = [sys.executable, "-m", "spikecrsae", "sort", str(path), "-o", str(folder / "out"), "--overwrite", "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode not in (0, 5):
        sys.exit(f"exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the cases' names; all by default")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    print("| case | units | spikes | log odds | excluded s (put in) |")
    print("|---|---|---|---|---|")
    wrong = n_cases = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, traces, fs, put_in in cases(arguments.seconds, arguments.seeds):
            if arguments.names and not any(part in name for part in arguments.names):
                continue
            result = sort(traces, fs, Path(folder))
            n_cases, wrong = n_cases + 1, wrong + (result["n_units"] > 0)
            excluded = sum(stop - start for start, stop in result.get("excluded_s", []))
            odds = ", ".join(f"{unit['log_odds']:.1f}" for unit in result["units"])
            print(
                f"| {name} | {result['n_units']} | {result['n_spikes']} | {odds} | {excluded:.2f} ({put_in:.2f}) |",
                flush=True,
            )
    print(f"\n{wrong} of {n_cases} recordings without a neuron gave units")


if __name__ == "__main__":
    main()
