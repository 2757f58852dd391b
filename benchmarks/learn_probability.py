"""Learn the numbers of the model of errors (spikecrsae.decode.probability.LEARNED) from simulated recordings with truth.

    python benchmarks/learn_probability.py --folder DIR [--processes 2]

prints the weights as Python, to be put into decode/probability.py by hand. Recordings: fifteen specifications of recordings.py with
the seeds 4 and 5, four of them with the seeds 11 to 14, and thirty of spikecrsae.simulate with the seeds 0 to 29, on 1, 2 or 4
channels, with weak and with strong neurons. No recording of another benchmark is among them.

A spike is true if it is matched with a spike of its unit's neuron (one to one at 0.4 ms), the neuron with which the unit shares most
spikes. Units labelled artefact or noise do not count, nor units in real tissue that match no known neuron. The weights maximise the
likelihood of what is true, with normal priors (PRIORS). A recording counts as much as 300 false spikes at most, so that a unit of
many neurons does not decide alone; of long recordings the first MOST_SPIKES spikes are used.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import recordings
from runs import Case
from scipy.optimize import minimize
from simulated import fresh
from trials import THREADS, Excerpt, Simulated, constants_set

from spikecrsae.config import Config
from spikecrsae.decode import probability
from spikecrsae.decode.probability import LEARNED, SpikeFacts, UnitFacts, Weights, judge
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.score.calibration import judged_spikes

MOST_FALSE, MOST_SPIKES = 300, 8000
SETS = {"learn4": 4, "learn5": 5}
SOME = {f"learn{seed}": seed for seed in range(11, 15)}
SOME_NAMES = ("wire_2_coloured", "tetrode_8_synchrony", "tetrode_5_10k_broadband", "tetrode_5_hash")
#: Mean and standard deviation of the normal prior of each weight.
PRIORS = {
    "crowd": (-7, 3), "crowd_near": (0.7, 1), "crowd_size": (1.5, 1),
    "crowd_misfit": (1.5, 1), "crowd_gap": (-6, 3), "crowd_gain": (-0.7, 1),
    "mixed": (-2, 2), "mixed_snr": (1, 1), "mixed_spread": (1, 1), "mixed_distance": (0, 0.5), "mixed_decay": (1, 0.3),
    "many": (-2, 2), "many_snr": (8, 4), "many_share": (3.4, 0.5), "clean": (-5.5, 0.5), "foreign_misfit": (0.1, 0.5),
    "foreign_amplitude": (0.2, 0.5), "foreign_violation": (1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A sorted recording: facts of its units and of those spikes of which it is known whether they are true, right (n,) bool."""

    name: str
    spikes: SpikeFacts
    units: UnitFacts
    right: np.ndarray

    @property
    def weight(self) -> float:
        return min(1.0, MOST_FALSE / max(np.count_nonzero(~self.right), 1))


def cases(folder: Path) -> list[Excerpt | Simulated]:
    """What is learned from; recordings are made where they are missing."""
    recordings.SETS.update(SETS | SOME)
    found: list[Excerpt | Simulated] = []
    for which in (*SETS, *SOME):
        for specification in recordings.SPECIFICATIONS:
            if which in SOME and specification.name not in SOME_NAMES:
                continue
            path = folder / which / f"{specification.name}.h5"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                recordings.make(specification, which, path)
            found.append(Excerpt(f"{which} {specification.name}", path, (), specification.noise != "locust"))
    return found + [fresh(seed) for seed in range(30)]


def example(case: Case | Simulated, folder: Path) -> Example:
    """Sort a recording and keep what the model of errors is told of it; kept in the folder."""
    path = folder / "examples" / f"{case.name.replace(' ', '_')}.pkl"
    if path.exists():
        return pickle.loads(path.read_bytes())
    recording, truth = case.load()
    told: list[tuple[SpikeFacts, UnitFacts]] = []

    def spy(spikes: SpikeFacts, units: UnitFacts) -> probability.Judgement:
        told.append((spikes, units))
        # the number of a spike in the facts, where its probability would be
        return replace(judge(spikes, units), probability=np.arange(len(spikes.unit), dtype=float))

    with constants_set({("spikecrsae.decode.probability", "judge"): spy}):
        sorting = sort_group(recording, Config()).sorting
    return kept_example(case.name, case.exhaustive, sorting, truth, *told[0], path)


def kept_example(name, exhaustive, sorting, truth, spikes: SpikeFacts, units: UnitFacts, path: Path) -> Example:
    """The example of a sorting whose probabilities are the numbers of its spikes in the facts."""
    judged = judged_spikes(truth, sorting, exhaustive=exhaustive)
    no_neuron = sorting.unit_ids[np.isin(sorting.units["label"], ("artefact", "noise"))]
    neurons = ~np.isin(judged.unit, no_neuron)
    rows = judged.probability[neurons].astype(np.int64)[:MOST_SPIKES]
    found = Example(name, spikes.select(rows), units, judged.right[neurons][:MOST_SPIKES])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(found))
    return found


def cost(values: np.ndarray, examples: list[Example]) -> float:
    """Minus the log posterior of weights (in the order of Weights)."""
    weights, total = Weights(*values), 0.0
    for one in examples:
        p = np.clip(judge(one.spikes, one.units, weights).probability, 1e-7, 1 - 1e-7)
        total -= one.weight * np.where(one.right, np.log(p), np.log1p(-p)).sum()
    means, deviations = np.array([PRIORS[f.name] for f in fields(Weights)]).T
    return float(total + 0.5 * (((values - means) / deviations) ** 2).sum())


def learned(examples: list[Example]) -> Weights:
    """The most probable weights."""
    found = minimize(cost, astuple(LEARNED), args=(examples,), method="L-BFGS-B", options={"maxiter": 80, "ftol": 1e-7})
    print(f"{len(examples)} recordings, cost {found.fun:.1f}, {found.nit} iterations", file=sys.stderr)
    return Weights(*(float(f"{value:.2f}") for value in found.x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="recordings and what was sorted are kept here")
    parser.add_argument("--processes", type=int, default=2, help="sortings at a time, one thread each")
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    chosen = cases(arguments.folder)
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        examples = list(pool.map(example, chosen, [arguments.folder] * len(chosen)))
    print(learned(examples))


if __name__ == "__main__":
    main()
