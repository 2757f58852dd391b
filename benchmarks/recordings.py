"""The recordings of the accuracy benchmark, made with SpikeInterface 0.105's generator: thirteen simulated, two hybrid.

    SPIKECRSAE_DATA=<folder of the recordings> python benchmarks/recordings.py --folder DIR [--set first|second|third] [NAME ...]

writes DIR/<name>.h5, generic HDF5 with the truth inside, and prints one line for each; a file that exists is kept. The
sets are the same specifications with different seeds: development may look at the first, the second and third are for final
checks.

What is drawn, per neuron and always stratified so that a range is covered: SNR from 5 to 15, the peak of the template on
its largest channel over the standard deviation of that channel's noise above 300 Hz; rates from 1 to 50 Hz (or as the
specification says) on a logarithmic scale. Neurons stand 5 to 30 um off the contacts; their waveforms are
SpikeInterface's three exponentials, narrow and broad, with an ellipsoidal decay over distance and a propagation delay,
made at eight or more times the sampling rate, low-passed at 0.4 of it as an amplifier would, and injected between
samples. Every spike's amplitude varies by 5 %. Refractory periods are 4 ms (3 ms in bursts).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy.signal import butter, sosfiltfilt
from spikeinterface.core import NumpyRecording, NumpySorting
from spikeinterface.core.generate import (
    InjectTemplatesRecording,
    generate_sorting,
    generate_templates,
    generate_unit_locations,
)
from spikeinterface.generation import NoiseGeneratorRecording

MS_BEFORE, MS_AFTER = 1.0, 3.0
NOISE_UV, GAIN_UV = 10.0, 0.195
SETS = {"first": 1, "second": 2, "third": 3}
LOCUST, LOCUST_FS, LOCUST_CHANNELS = "locust_trial_01.raw", 15000.0, 4


@dataclass(frozen=True)
class Specification:
    """One recording. noise: "white", "coloured" (1/f-like above 300 Hz, correlated over space), "broadband" (the same with
    the slow potentials below 300 Hz), "hash" (white, and thirty distant neurons below the noise) or "locust" (real).
    pattern: "poisson", "synchrony" or "bursts".
    """

    name: str
    n_channels: int
    sampling_frequency: float
    duration_s: float
    n_units: int
    pitch_um: float = 20.0
    columns: int = 1
    noise: str = "white"
    pattern: str = "poisson"
    rates_hz: tuple[float, float] = (1.0, 50.0)
    dtype: str = "float32"


SPECIFICATIONS = (
    Specification("wire_1_10k", 1, 10e3, 120, 1, rates_hz=(5, 20)),
    Specification("wire_3", 1, 30e3, 90, 3),
    Specification("wire_2_coloured", 1, 24e3, 120, 2, noise="coloured"),
    Specification("stereotrode_4", 2, 20e3, 90, 4, pitch_um=25),
    Specification("tetrode_6", 4, 30e3, 90, 6, columns=2),
    Specification("tetrode_12", 4, 24e3, 120, 12, columns=2),
    Specification("tetrode_8_synchrony", 4, 20e3, 90, 8, columns=2, pattern="synchrony", rates_hz=(1, 20)),
    Specification("tetrode_4_bursts", 4, 30e3, 90, 4, columns=2, pattern="bursts", rates_hz=(2, 15)),
    Specification("tetrode_5_10k_broadband", 4, 10e3, 120, 5, pitch_um=15, columns=2, noise="broadband", dtype="int16"),
    Specification("tetrode_7_coloured", 4, 24e3, 90, 7, pitch_um=12, columns=2, noise="coloured"),
    Specification("tetrode_5_hash", 4, 20e3, 90, 5, pitch_um=25, columns=2, noise="hash"),
    Specification("linear8_9", 8, 20e3, 60, 9, pitch_um=25, dtype="int16"),
    Specification("columns16_12_coloured", 16, 30e3, 60, 12, columns=2, noise="coloured", dtype="int16"),
    Specification("hybrid_locust_3", 4, LOCUST_FS, 28.77, 3, columns=2, noise="locust", rates_hz=(3, 50), dtype="int16"),
    Specification("hybrid_locust_5", 4, LOCUST_FS, 28.77, 5, columns=2, noise="locust", rates_hz=(3, 30), dtype="int16"),
)


def make(specification: Specification, which: str, path: Path) -> None:
    """The recording of a specification in the set `which`, written whole or not at all. Deterministic."""
    rng = np.random.default_rng([SETS[which], SPECIFICATIONS.index(specification)])
    fs = specification.sampling_frequency
    positions = channel_positions(specification)
    noise = make_noise(specification, positions, rng)
    level = above_300_hz(noise, fs)
    trains, factors = make_trains(specification, len(noise), rng)
    templates, snrs = make_templates(specification, positions, level, rng)
    traces = inject(noise, fs, templates, trains, factors, rng)
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        known = specification.noise != "locust"
        stored = (
            np.round(traces / (GAIN_UV if known else 1.0)).astype(np.int16) if specification.dtype == "int16" else traces
        )
        dataset = file.create_dataset("traces", data=stored)
        dataset.attrs.update(sampling_frequency=fs, units="uV" if known else "ADC")
        if specification.dtype == "int16" and known:
            dataset.attrs["gain"] = GAIN_UV
        file["channel_positions"] = positions
        for unit, (train, snr) in enumerate(zip(trains, snrs, strict=True)):
            group = file.create_group(f"truth/neuron{unit}")
            group["spike_samples"] = train
            group.attrs["snr"] = snr
    partial.rename(path)


def channel_positions(specification: Specification) -> np.ndarray:
    """(n_channels, 2) in um: one or two columns, row by row; two columns of 8 and more are staggered by half a pitch."""
    contact = np.arange(specification.n_channels)
    row, column = np.divmod(contact, specification.columns)
    stagger = 0.5 * column if specification.n_channels > 4 else 0.0
    return np.stack([column, row + stagger], axis=1) * specification.pitch_um


def make_noise(specification: Specification, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n_samples, n_channels) float32 without the neurons."""
    if specification.noise == "locust":
        return read_locust()
    fs, n_channels = specification.sampling_frequency, specification.n_channels
    coloured = specification.noise in ("coloured", "broadband")
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    noise = NoiseGeneratorRecording(
        n_channels,
        fs,
        [specification.duration_s],
        noise_levels=NOISE_UV * rng.uniform(0.8, 1.25, n_channels),
        cov_matrix=np.exp(-apart / 40.0) if coloured else None,
        seed=int(rng.integers(2**31)),
        strategy="on_the_fly",
        noise_block_size=int(fs),
    ).get_traces()
    if coloured:
        noise = shape_spectrum(noise, fs, lowest=1.0 if specification.noise == "broadband" else 300.0)
    if specification.noise == "hash":
        noise = add_hash(specification, positions, noise, rng)
    return noise


def shape_spectrum(noise: np.ndarray, fs: float, lowest: float) -> np.ndarray:
    """White noise to power ~ (f / 1000 Hz)^-1.3 + 0.2, flat below `lowest` Hz, with the same power per channel above 300 Hz."""
    frequency = np.fft.rfftfreq(len(noise), 1 / fs)
    gain = np.sqrt((np.maximum(frequency, lowest) / 1000.0) ** -1.3 + 0.2)
    gain[0] = 0.0
    shaped = np.fft.irfft(np.fft.rfft(noise, axis=0) * gain[:, None], len(noise), axis=0)
    return (shaped * (noise.std(axis=0) / above_300_hz(shaped, fs))).astype(np.float32)


def add_hash(specification: Specification, positions: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thirty far neurons, 5 to 20 Hz each, peaks 0.5 to 2 times the noise."""
    fs, n_far = specification.sampling_frequency, 30
    locations = generate_unit_locations(n_far, positions, margin_um=60, minimum_z=60, maximum_z=120, seed=new_seed(rng))
    templates = waveforms(positions, locations, fs, rng, spatial_decay=(60.0, 100.0))
    templates *= (rng.uniform(0.5, 2.0, n_far) * noise.std() / np.abs(templates).max(axis=(1, 2, 3)))[:, None, None, None]
    sorting = generate_sorting(n_far, fs, [specification.duration_s], rng.uniform(5, 20, n_far), seed=new_seed(rng))
    trains = [sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids]
    return inject(noise, fs, templates, trains, [np.ones(len(train)) for train in trains], rng)


def read_locust() -> np.ndarray:
    if "SPIKECRSAE_DATA" not in os.environ:
        sys.exit(f"the hybrid recordings need {LOCUST}: set SPIKECRSAE_DATA to its folder")
    raw = np.fromfile(Path(os.environ["SPIKECRSAE_DATA"]) / LOCUST, dtype="<i2")
    return raw.reshape(-1, LOCUST_CHANNELS).astype(np.float32)


def above_300_hz(traces: np.ndarray, fs: float) -> np.ndarray:
    """(n_channels,) standard deviation above 300 Hz, from the median deviation: spikes of a real background count little."""
    high = sosfiltfilt(butter(2, 300.0, "highpass", fs=fs, output="sos"), traces, axis=0)
    return np.median(np.abs(high), axis=0) / 0.6745


def make_templates(specification, positions, level, rng) -> tuple[np.ndarray, np.ndarray]:
    """Templates (n_units, n_times, n_channels, n_upsampled), scaled to stratified SNRs (n_units,) on the peak channel."""
    n_units = specification.n_units
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many neurons on a wire cannot keep their distance; they may be near then
        locations = generate_unit_locations(
            n_units, positions, margin_um=15, minimum_z=5, maximum_z=30, minimum_distance=15, seed=new_seed(rng)
        )
    templates = waveforms(positions, locations, specification.sampling_frequency, rng, spatial_decay=(15.0, 45.0))
    snrs = stratified(5.0, 15.0, n_units, rng)
    peaks = np.abs(templates[..., 0]).max(axis=1)
    ratio = (peaks / level).max(axis=1)
    return templates * (snrs / ratio)[:, None, None, None].astype(np.float32), snrs


def waveforms(positions, locations, fs: float, rng: np.random.Generator, spatial_decay) -> np.ndarray:
    """generate_templates at 8 or more times fs, low-passed at 0.4 fs: (n_units, n_times, n_channels, n_upsampled)."""
    upsampled = int(np.ceil(160e3 / fs))
    cell = rng.random(len(locations)) < 0.3  # narrow waveforms, as of interneurons
    templates = generate_templates(
        positions,
        locations,
        fs,
        MS_BEFORE,
        MS_AFTER,
        seed=new_seed(rng),
        upsample_factor=upsampled,
        unit_params={
            "repolarization_ms": np.where(cell, rng.uniform(0.2, 0.35, len(cell)), rng.uniform(0.4, 0.8, len(cell))),
            "positive_amplitude": np.where(cell, rng.uniform(0.2, 0.4, len(cell)), rng.uniform(0.1, 0.25, len(cell))),
            "spatial_decay": spatial_decay,
        },
    )
    n_units, n_times, n_channels, _ = templates.shape
    fine = templates.transpose(0, 1, 3, 2).reshape(n_units, n_times * upsampled, n_channels)
    fine = sosfiltfilt(butter(2, 0.4 * fs, fs=fs * upsampled, output="sos"), fine, axis=1)
    return fine.reshape(n_units, n_times, upsampled, n_channels).transpose(0, 1, 3, 2).astype(np.float32)


def make_trains(specification, n_samples: int, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Spike samples of every neuron, at least 5 ms inside the recording, and the amplitude factor of every spike."""
    fs, bursts = specification.sampling_frequency, specification.pattern == "bursts"
    low, high = np.log(specification.rates_hz)
    rates = np.exp(stratified(low, high, specification.n_units, rng))
    sorting = generate_sorting(
        specification.n_units,
        fs,
        [n_samples / fs],
        rates / 2.5 if bursts else rates,
        refractory_period_ms=60.0 if bursts else 4.0,
        seed=new_seed(rng),
    )
    trains = [sorting.get_unit_spike_train(unit).astype(np.int64) for unit in sorting.unit_ids]
    factors = [np.ones(len(train)) for train in trains]
    if bursts:
        trains, factors = zip(*(burst(train, fs, rng) for train in trains), strict=True)
    if specification.pattern == "synchrony":
        trains = synchronise(trains, 0.3, fs, rng)
        factors = [np.ones(len(train)) for train in trains]
    margin = round(0.005 * fs)
    inside = [(train > margin) & (train < n_samples - margin) for train in trains]
    factors = [f[keep] * rng.normal(1.0, 0.05, keep.sum()) for f, keep in zip(factors, inside, strict=True)]
    return [train[keep] for train, keep in zip(trains, inside, strict=True)], factors


def burst(events: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Every event becomes 1 to 6 spikes 3 to 8 ms apart (2.5 on average), each 0.88 times its predecessor, at least 0.6."""
    lengths = np.minimum(rng.geometric(0.38, len(events)), 6)
    spikes, factors = [], []
    for event, length in zip(events, lengths, strict=True):
        steps = np.round(rng.uniform(3.0, 8.0, length - 1) * fs / 1000).astype(np.int64)
        spikes.append(event + np.concatenate([[0], np.cumsum(steps)]).astype(np.int64))
        factors.append(np.maximum(0.88 ** np.arange(length), 0.6))
    return np.concatenate(spikes), np.concatenate(factors)


def synchronise(trains: list[np.ndarray], share: float, fs: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Add partners, within 1 ms of another neuron's spikes, until `share` of all spikes have one; 4 ms periods are kept."""
    trains = [train.copy() for train in trains]
    reach, refractory = fs / 1000, 0.004 * fs
    while overlapping(trains, reach) < share:
        anchor, partner = rng.choice(len(trains), 2, replace=False)
        new = int(rng.choice(trains[anchor])) + round(rng.uniform(-reach, reach))
        if np.abs(trains[partner] - new).min() >= refractory:
            trains[partner] = np.sort(np.append(trains[partner], new))
    return trains


def overlapping(trains: list[np.ndarray], reach: float) -> float:
    """Share of the spikes that have a spike of another neuron within `reach` samples."""
    samples = np.concatenate(trains)
    unit = np.repeat(np.arange(len(trains)), [len(train) for train in trains])
    order = np.argsort(samples)
    samples, unit = samples[order], unit[order]
    close = (np.diff(samples) <= reach) & (np.diff(unit) != 0)
    return float(np.mean(np.append(close, False) | np.insert(close, 0, False)))


def inject(noise, fs: float, templates, trains, factors, rng: np.random.Generator) -> np.ndarray:
    """noise plus every train's template, between samples, times the spike's factor. (n_samples, n_channels) float32."""
    sorting = NumpySorting.from_unit_dict([{str(unit): train for unit, train in enumerate(trains)}], fs)
    spikes = sorting.to_spike_vector()
    amplitude = np.empty(len(spikes), np.float32)
    for unit, values in enumerate(factors):
        amplitude[spikes["unit_index"] == unit] = values
    return InjectTemplatesRecording(
        sorting,
        templates,
        nbefore=round(MS_BEFORE * fs / 1000),
        amplitude_factor=amplitude,
        parent_recording=NumpyRecording([noise], fs),
        upsample_vector=rng.integers(0, templates.shape[3], len(spikes)),
    ).get_traces()


def stratified(low: float, high: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """n numbers, one drawn in each n-th of [low, high], in random order."""
    return low + (high - low) * (rng.permutation(n) + rng.random(n)) / n


def new_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def describe(path: Path) -> str:
    """One line: name, channels, sampling rate, duration, neurons with their SNRs and rates."""
    with h5py.File(path) as file:
        traces, truth = file["traces"], file["truth"]
        fs = traces.attrs["sampling_frequency"]
        duration = len(traces) / fs
        neurons = ", ".join(f"{g.attrs['snr']:.1f} at {len(g['spike_samples']) / duration:.1f} Hz" for g in truth.values())
        return f"{path.stem}: {traces.shape[1]} ch, {fs / 1000:g} kHz, {duration:.1f} s, {len(truth)} neurons, SNR {neurons}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--set", choices=SETS, default="first")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for specification in SPECIFICATIONS:
        if arguments.names and not any(part in specification.name for part in arguments.names):
            continue
        path = arguments.folder / f"{specification.name}.h5"
        if not path.exists():
            make(specification, arguments.set, path)
        print(describe(path), flush=True)


if __name__ == "__main__":
    main()
