"""A continuous recording from the generative model: templates at the spikes of every unit, plus noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.data.recording import Recording, recording_from_array
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.simulate.firing import Train, draw_trains
from spikecrsae.simulate.settings import PAPER_AMPLITUDE, SimulationConfig
from spikecrsae.simulate.shapes import (
    PAPER_SPAN_MS,
    TETRODE_SPAN_MS,
    add_spikes,
    evaluate,
    paper_components,
    template_bank,
    tetrode_components,
)
from spikecrsae.units import ms_to_samples, s_to_samples

#: Distance between neighbouring contacts in um.
CONTACT_SPACING_UM = 25.0


@dataclass(frozen=True)
class Simulation:
    """A simulated recording and the truth behind it.

    traces (n_samples, n_channels) int16; uV = traces * gain + offset. channel_positions (n_channels, 2) in um.
    truth: every spike (sample of the template's largest deflection, sub-sample shift, amplitude in uV at the peak
    channel), the templates (n_units, n_channels, n_times) in uV, and the unit columns rate_hz and snr (peak over
    noise_uv). noise_uv: standard deviation of the noise. intracellular (n_samples,) in mV, or None.
    """

    traces: np.ndarray
    gain: float
    offset: float
    channel_positions: np.ndarray
    truth: SortingData
    noise_uv: float
    intracellular: np.ndarray | None
    config: SimulationConfig

    @property
    def sampling_frequency(self) -> float:
        return self.truth.sampling_frequency

    def recording(self) -> Recording:
        """The traces as a Recording in uV."""
        recording = recording_from_array(
            self.traces, self.sampling_frequency, name="simulation", channel_positions=self.channel_positions
        )
        n = recording.n_channels
        return replace(recording, gain=np.full(n, self.gain), offset=np.full(n, self.offset))


def simulate(config: SimulationConfig) -> Simulation:
    """A continuous recording of `config`; the same configuration gives the same recording.

    Waveforms, spike times and noise have random streams of their own: another duration keeps the cells.
    Raises UsageError where a firing rate cannot be reached with the refractory period and the bursts.
    """
    cells_rng, trains_rng, noise_rng, membrane_rng = np.random.default_rng(config.seed).spawn(4)
    n_samples = s_to_samples(config.duration_s, config.sampling_frequency)
    positions = _contacts(config.n_channels)
    bank, peak_index, rates = _cells(config, positions, cells_rng)
    templates = bank[len(bank) // 2]
    traces = np.zeros((n_samples, config.n_channels), np.float32)
    trains = draw_trains(config, rates, trains_rng)
    spikes = np.concatenate(
        [_fire(traces, bank[:, unit], peak_index, unit, train, config) for unit, train in enumerate(trains)]
    )
    noise_uv = config.noise_uv
    if config.preset == "paper":
        noise_uv = float(np.sqrt(traces.var(dtype=np.float64)) / 10 ** (config.snr_db / 20))
    _add_noise(traces, noise_uv, config, positions, noise_rng)

    truth = SortingData(
        spikes=spikes[np.lexsort((spikes["unit"], spikes["sample"]))],
        unit_ids=np.arange(config.n_units, dtype=np.int32),
        sampling_frequency=config.sampling_frequency,
        n_samples=n_samples,
        n_channels=config.n_channels,
        amplitude_unit="uV",
        units={
            "rate_hz": np.bincount(spikes["unit"], minlength=config.n_units) / config.duration_s,
            "snr": np.abs(templates).max(axis=(1, 2)) / noise_uv if noise_uv else np.full(config.n_units, np.inf),
        },
        templates=templates.astype(np.float32),
        peak_index=np.full(config.n_units, peak_index),
    )
    intracellular = None
    if config.intracellular_unit is not None:
        samples = truth.spike_samples(config.intracellular_unit)
        intracellular = _membrane_potential(samples, n_samples, config.sampling_frequency, membrane_rng)
    traces /= np.float32(config.gain_uv)
    stored = np.clip(np.rint(traces, out=traces), -32768, 32767, out=traces).astype(np.int16)
    return Simulation(stored, config.gain_uv, 0.0, positions, truth, noise_uv, intracellular, config)


def _contacts(n_channels: int) -> np.ndarray:
    """Positions (n_channels, 2) in um of contacts in two columns; four are the square of a tetrode."""
    index = np.arange(n_channels)
    return CONTACT_SPACING_UM * np.stack([index % 2, index // 2], axis=1)


def _cells(config: SimulationConfig, positions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int, np.ndarray]:
    """Templates in uV at fractional shifts (n_shifts, n_units, n_channels, n_times), their peak's index, firing rates."""
    n_shifts = 17 if config.subsample else 1
    if config.preset == "paper":
        components, span = paper_components()[: config.n_units], PAPER_SPAN_MS
    else:
        components, span = tetrode_components(positions, config.n_units, rng), TETRODE_SPAN_MS
    bank, before = template_bank(components, span, config.sampling_frequency, n_shifts)
    if config.preset == "paper":
        scale = PAPER_AMPLITUDE[0] / np.linalg.norm(bank[n_shifts // 2], axis=(1, 2))
    else:
        # Strongest first: attenuated burst spikes, which the first units fire, stay above the noise.
        drawn = np.sort(_spread(config.snr_low, config.snr_high, config.n_units, rng))[::-1]
        scale = config.noise_uv * np.array(config.snrs or drawn)
    low, high = np.log([config.rate_low_hz, config.rate_high_hz])
    rates = np.array(config.rates_hz or np.exp(_spread(low, high, config.n_units, rng)))
    return bank * scale[:, None, None], before, rates


def _spread(low: float, high: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """n values, uniform between low and high, one in each of n equal parts, in random order."""
    return low + (high - low) * (rng.permutation(n) + rng.random(n)) / n


def _fire(
    traces: np.ndarray, bank: np.ndarray, peak_index: int, unit: int, train: Train, config: SimulationConfig
) -> np.ndarray:
    """Add one unit's spikes to the traces in place; bank (n_shifts, n_channels, n_times) in uV. Returns SPIKE_DTYPE rows.

    Spikes whose template would be cut by an end of the recording are left out: they would be no example of the model.
    """
    time = train.times_s * config.sampling_frequency
    sample = np.rint(time).astype(np.int64)
    whole = (sample >= peak_index) & (sample <= len(traces) - bank.shape[-1] + peak_index)
    rows = np.zeros(int(whole.sum()), SPIKE_DTYPE)
    rows["sample"], rows["unit"], rows["probability"] = sample[whole], unit, 1.0
    rows["shift"] = (time - sample)[whole] if config.subsample else 0.0
    rows["amplitude"] = train.amplitudes[whole] * np.abs(bank[len(bank) // 2]).max()
    nearest = np.rint((rows["shift"] + 0.5) * (len(bank) - 1)).astype(np.int64)
    add_spikes(traces, bank, rows["sample"] - peak_index, nearest, train.amplitudes[whole])
    return rows


def _add_noise(
    traces: np.ndarray, std: float, config: SimulationConfig, positions: np.ndarray, rng: np.random.Generator
) -> None:
    """Add Gaussian noise of standard deviation std to every channel in place, correlated over channels, and hum."""
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    mixing = std * np.linalg.cholesky(np.exp(-distance / max(config.noise_correlation_um, 1e-6)))
    for source in range(traces.shape[1]):
        noise = rng.standard_normal(len(traces), np.float32)
        if config.noise == "neural":
            noise = _coloured(noise, config.sampling_frequency)
        for channel in np.flatnonzero(mixing[:, source]):
            traces[:, channel] += np.float32(mixing[channel, source]) * noise
    if config.hum_uv:
        phase = 2 * np.pi * (rng.random() + np.arange(len(traces)) * 50.0 / config.sampling_frequency)
        traces += (config.hum_uv * np.sin(phase)).astype(np.float32)[:, None]


def _coloured(white: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """White noise (n_samples,) given the spectrum of neural background, standard deviation kept.

    Distant spikes fall off above 1 kHz over a floor of thermal noise; the amplifier cuts below 150 Hz.
    """
    from scipy import fft

    n = fft.next_fast_len(len(white), real=True)
    frequency = fft.rfftfreq(n, 1 / sampling_frequency).astype(np.float32)
    power = (frequency**2 / (frequency**2 + 150.0**2)) ** 2 * (0.12 + 1 / (1 + (frequency / 1000.0) ** 2))
    return fft.irfft(fft.rfft(white, n) * np.sqrt(power / power.mean()), n)[: len(white)]


def _membrane_potential(samples: np.ndarray, n_samples: int, fs: float, rng: np.random.Generator) -> np.ndarray:
    """Intracellular potential (n_samples,) float32 in mV: action potentials on a slowly drifting resting potential.

    The potential peaks 0.2 ms after the extracellular trough, which goes with its fastest rise.
    """
    time = np.arange(n_samples) / fs
    offsets = np.arange(-ms_to_samples(1.0, fs), ms_to_samples(8.0, fs))
    # Wider than the recording, so that action potentials at its ends are cut, not lost.
    before, after = -int(offsets[0]), len(offsets)
    spikes = np.zeros((before + n_samples + after, 1), np.float32)
    shape = evaluate(np.array([[75.0, 0.2, 0.13, 0.35], [-5.0, 1.8, 0.5, 1.6]]), offsets * 1000 / fs)
    add_spikes(spikes, shape[None, None], samples, np.zeros(len(samples), np.int64), np.ones(len(samples)))
    potential = -65.0 + 0.3 * rng.standard_normal(n_samples, np.float32) + spikes[before : before + n_samples, 0]
    for period_s in (120.0, 31.0, 7.0):
        potential += (1.5 * np.sin(2 * np.pi * (time / period_s + rng.random()))).astype(np.float32)
    return potential
