"""What drift costs: recordings whose neurons change over their length, against stationary twins with the same spikes and noise.

    python benchmarks/drift.py --folder DIR [--seeds 3] [--seconds 120] [--long 300] [--move-um 10] [--docs]

Two kinds, each on a tetrode (five neurons of SNR 6 to 15, one fires bursts), on a single wire (two neurons, SNR 7 and 14)
and on a crowded wire (three, SNR 6.5 to 14, one fires bursts: there the twin itself is sorted badly, and a loss says
little), 20 kHz:

amplitude  spikecrsae.simulate with drift = 0.3: each neuron's amplitude changes linearly by 30 % of its mean, from 1.15 to 0.85
           of it or the other way, at random. The twin has drift = 0.
shape      the contacts move by 10 um along their column while the cells stay: each neuron's template turns linearly from the
one at
           the first place into the one at the last, amplitude moving between the channels. The twin has the mean of the two
           templates all the time.

Everything else, spike times, bursts, jitter of the amplitudes and the noise, is equal in both. The loss is the twin's mean
accuracy (one to one at 0.4 ms) less that of the drifting recording; 0.03 is what may be lost. `change` is how far neurons
change: the last peak over the first, smallest and largest, and the smallest cosine of a first and a last template.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from trials import Simulated, Task, Trial, arguments_of, markdown, publish, run_all

from spikecrsae.data.recording import recording_from_array
from spikecrsae.simulate import Simulation, SimulationConfig, simulate
from spikecrsae.simulate.shapes import TETRODE_SPAN_MS, add_spikes, template_bank, tetrode_components

ALLOWED, DRIFT, MOVE_UM, N_SHIFTS = 0.03, 0.3, 10.0, 17
FAINT = 1e-6
#: (n_channels, neurons that fire bursts, SNR of every neuron)
FORMATS = {
    "tetrode": (4, 1, (15.0, 12.0, 10.0, 8.0, 6.0)),
    "wire": (1, 0, (14.0, 7.0)),
    "crowded wire": (1, 1, (14.0, 10.0, 6.5)),
}
KINDS = ("amplitude", "shape")
INTRO = (
    "Mean accuracy (and number of units) on a recording whose neurons change linearly over its length, and on its twin with the same "
    "spikes and noise and no change. Amplitude: by 30 % of its mean, up or down. Shape: as when the contacts move along their "
    "column. Change: last peak over first, smallest and largest, and the smallest cosine of a first and a last template. "
    "A crowded wire's twin is itself sorted badly: there a loss says little."
)


@dataclass(frozen=True)
class Moving(Simulated):
    """A simulation whose contacts move by move_um over its length; not is_moving: its stationary twin."""

    move_um: float = MOVE_UM
    is_moving: bool = True

    def load(self):
        # the same configuration with neurons too faint to be seen gives the noise, and the spikes as truth
        faint = simulate(replace(self.config, snrs=(FAINT,) * self.config.n_units))
        traces = faint.recording().traces(0, faint.truth.n_samples)
        first, last, before = self.banks(faint.channel_positions)
        spikes = faint.truth.spikes
        step = np.rint((spikes["shift"] + 0.5) * (N_SHIFTS - 1)).astype(np.int64)
        amplitude = spikes["amplitude"] / (faint.truth.units["snr"] * faint.noise_uv)[spikes["unit"]]
        progress = spikes["sample"] / faint.truth.n_samples if self.is_moving else np.full(len(spikes), 0.5)
        for bank, weight in ((first, 1 - progress), (last, progress)):
            for unit in range(self.config.n_units):
                mine = spikes["unit"] == unit
                start = spikes["sample"][mine] - before
                add_spikes(traces, bank[:, unit], start, step[mine], (amplitude * weight)[mine])
        return self.recorded(traces, faint), faint.truth.trains()

    @staticmethod
    def recorded(traces: np.ndarray, simulation: Simulation):
        return recording_from_array(
            traces, simulation.sampling_frequency, name="moving", channel_positions=simulation.channel_positions
        )

    def banks(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Templates in uV (n_shifts, n_units, n_channels, n_times) at the first and the last place, and the index of time
        zero."""
        half = np.array([0.0, self.move_um / 2])
        places = np.concatenate([positions - half, positions + half])
        rng = np.random.default_rng([self.config.seed, 1])
        # both places at once: amplitudes, delays and widths then have one scale
        components = tetrode_components(places, self.config.n_units, rng)
        bank, before = template_bank(components, TETRODE_SPAN_MS, self.config.sampling_frequency, N_SHIFTS)
        first, last = bank[:, :, : len(positions)], bank[:, :, len(positions) :]
        peak = np.abs((first + last)[N_SHIFTS // 2] / 2).max(axis=(1, 2))
        scale = (np.array(self.config.snrs) * self.config.noise_uv / peak)[:, None, None]
        return first * scale, last * scale, before


def pair(kind: str, form: str, config: SimulationConfig, move_um: float) -> tuple[Simulated, Simulated]:
    """(drifting, stationary)."""
    name = f"{kind}, {form}, {config.duration_s:g} s, seed {config.seed}"
    if kind == "amplitude":
        return Simulated(name, replace(config, drift=DRIFT)), Simulated(f"{name}, twin", config)
    name = name.replace("shape", f"shape {move_um:g} um")
    return Moving(name, config, True, move_um), Moving(f"{name}, twin", config, True, move_um, is_moving=False)


def pairs(arguments: argparse.Namespace) -> list[tuple[Simulated, Simulated]]:
    lengths = [(seed, arguments.seconds) for seed in range(arguments.seeds)]
    lengths += [(arguments.seeds, arguments.long)] if arguments.long else []
    found = []
    for kind in KINDS:
        for form, (n_channels, n_bursting, snrs) in FORMATS.items():
            for seed, seconds in lengths:
                config = SimulationConfig(
                    n_channels=n_channels,
                    n_units=len(snrs),
                    snrs=snrs,
                    duration_s=seconds,
                    seed=seed,
                    n_bursting=n_bursting,
                    rate_high_hz=20.0,
                )
                found.append(pair(kind, form, config, arguments.move_um))
    return [p for p in found if not arguments.names or any(part in p[0].name for part in arguments.names)]


def described(case: Simulated) -> str:
    """How far the neurons of a drifting case change."""
    if not isinstance(case, Moving):
        drift = case.config.drift
        low, high = (1 - drift / 2) / (1 + drift / 2), (1 + drift / 2) / (1 - drift / 2)
        return f"{low:.2f} or {high:.2f}, 1"
    faint = simulate(replace(case.config, duration_s=1.0))  # for its positions only
    first, last, _ = (x[N_SHIFTS // 2] if np.ndim(x) else x for x in case.banks(faint.channel_positions))
    ratio = np.abs(last).max(axis=(1, 2)) / np.abs(first).max(axis=(1, 2))
    cosine = np.einsum("uct,uct->u", first, last) / np.linalg.norm(first, axis=(1, 2)) / np.linalg.norm(last, axis=(1, 2))
    return f"{ratio.min():.2f} to {ratio.max():.2f}, {cosine.min():.2f}"


def text(trial: Trial) -> str:
    if trial.error:
        return f"fails ({trial.error})"
    return f"{trial.mean_accuracy:.3f} ({len(trial.test)})"


def losses(drifting: Trial, twin: Trial) -> dict[str, float]:
    """Per neuron; a sorting that fails has accuracy 0."""
    names = twin.accuracy or drifting.accuracy
    return {name: twin.accuracy.get(name, 0.0) - drifting.accuracy.get(name, 0.0) for name in names}


def report(cases: list[tuple[Simulated, Simulated]], trials: list[Trial]) -> list[str]:
    rows, means = [], {}
    for (case, _), drifting, twin in zip(cases, trials[::2], trials[1::2], strict=True):
        lost = losses(drifting, twin)
        worst = max(lost, key=lost.get, default="-")
        means[case.name] = twin.mean_accuracy - drifting.mean_accuracy
        neuron = f"{lost.get(worst, 0.0):+.3f} (neuron {worst}, SNR {case.config.snrs[int(worst)]:g})" if lost else "-"
        rows.append([case.name, described(case), text(twin), text(drifting), f"{means[case.name]:+.3f}", neuron])
    heads = ["recording", "change", "stationary (units)", "drifting (units)", "loss", "largest loss of a neuron"]
    lines = [*markdown(heads, rows), ""]
    for kind, form in product(KINDS, FORMATS):
        of_group = {name: loss for name, loss in means.items() if name.startswith(kind) and f", {form}," in name}
        if of_group:
            worst = max(of_group, key=of_group.get)
            beyond = sum(loss > ALLOWED for loss in of_group.values())
            lines.append(
                f"- {kind}, {form}: mean loss {np.mean(list(of_group.values())):+.3f}, largest {of_group[worst]:+.3f} ({worst}); "
                f"{beyond} of {len(of_group)} lose more than {ALLOWED:g}."
            )
    return lines


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--long", type=float, default=300.0, help="length of one more of each; 0 for none")
    parser.add_argument("--move-um", type=float, default=MOVE_UM, help="how far the contacts move")


def main() -> None:
    arguments = arguments_of(__doc__, options)
    cases = pairs(arguments)
    tasks = [Task(case) for couple in cases for case in couple]
    trials = run_all(tasks, arguments.folder / "drift", arguments.processes)
    publish("drift", "Drift against a stationary twin", INTRO, report(cases, trials), arguments.docs)


if __name__ == "__main__":
    main()
