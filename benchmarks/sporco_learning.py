"""Sporco's dictionary learning on windows that another process hands over; runs in an environment of its own (pip install
sporco).

    python benchmarks/sporco_learning.py IN.npz OUT.npz

IN: windows (n_windows, n_samples), atoms (n_units, n_times), the start; lmbda, rho, iterations, every. OUT: seconds and
atoms after every so many iterations; version.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version

import numpy as np
from sporco.dictlrn.cbpdndl import ConvBPDNDictLearn


def main(given: str, out: str) -> None:
    with np.load(given) as file:
        task = {name: file[name] for name in file.files}
    seconds, atoms = [], []

    def note(learner) -> None:
        if (learner.j + 1) % int(task["every"]) == 0:
            seconds.append(time.perf_counter() - began)
            atoms.append(learner.getdict().squeeze().T.copy())

    # Of Sporco's ways this is the one that gets there soonest; with its defaults (dmethod pgm, adaptive rho) it does not in 200.
    options = {
        "MaxMainIter": int(task["iterations"]),
        "Callback": note,
        "CBPDN": {"NonNegCoef": True, "rho": float(task["rho"]), "AutoRho": {"Enabled": False}},
    }
    windows, start = np.ascontiguousarray(task["windows"].T), np.ascontiguousarray(task["atoms"].T)
    began = time.perf_counter()
    ConvBPDNDictLearn(
        start,
        windows,
        float(task["lmbda"]),
        ConvBPDNDictLearn.Options(options, xmethod="admm", dmethod="cns"),
        xmethod="admm",
        dmethod="cns",
        dimK=1,
        dimN=1,
    ).solve()
    np.savez(out, seconds=seconds, atoms=atoms, version=version("sporco"))


if __name__ == "__main__":
    main(*sys.argv[1:])
