"""Promise 6 of benchmarks/notebook/reliability.md: the same seed, the same result, on the development recordings.

    SPIKECRSAE_DATA=<folder of the recordings> python benchmarks/reliability_determinism.py [--only NAME,...] [--seconds S]

sorts each recording once as it is, and once for every variation (VARIATIONS): another run, other numbers of threads and
lengths of chunks, a Dask cluster of two workers on this machine, and what the program would use on other processors:
compiled loops without AVX and FMA (numba's `generic`), the kernels of OpenBLAS for older and newer processors, numpy without
its vector code. Prints one row for each: whether spikes.csv and units.csv are the same to the byte, and the part of all
spikes that both results share (units matched one to one, spikes within 0.4 ms). Returns 1 where a result of this machine is
not identical, or one of another processor shares less than 99.9 %.

What this cannot show: processors of other makers and architectures, other operating systems, GPUs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from development import RUNS

from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare

#: Part of the spikes that results of other processors share, at least.
SHARED = 0.999
_OLD_NUMPY = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"


@dataclass(frozen=True)
class Variation:
    """name; words for the command line; environment; identical: whether the result must be the same to the byte."""

    name: str
    words: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    identical: bool = True
    cluster: bool = False


VARIATIONS = (
    Variation("another run"),
    Variation("1 thread", (), (("SPIKECRSAE_CORES", "1"), ("OMP_NUM_THREADS", "1"), ("NUMBA_NUM_THREADS", "1"))),
    Variation("8 threads for libraries", (), (("OMP_NUM_THREADS", "8"), ("OPENBLAS_NUM_THREADS", "8"))),
    Variation("chunks of 0.5 s", ("--chunk-s", "0.5")),
    Variation("chunks of 60 s", ("--chunk-s", "60")),
    Variation("Dask cluster, 2 workers", cluster=True),
    Variation("numba without AVX", (), (("NUMBA_CPU_NAME", "generic"), ("NUMBA_CPU_FEATURES", "")), False),
    Variation("OpenBLAS for Prescott", (), (("OPENBLAS_CORETYPE", "Prescott"),), False),
    Variation("OpenBLAS for Haswell", (), (("OPENBLAS_CORETYPE", "Haswell"),), False),
    Variation("numpy without AVX", (), (("NPY_DISABLE_CPU_FEATURES", _OLD_NUMPY),), False),
)


def sort(path: Path, words: Sequence[str], folder: Path, environment: Sequence[tuple[str, str]] = ()) -> Path:
    """The result of sorting a recording in a process of its own. Raises CalledProcessError where that fails."""
    command = [sys.executable, "-m", "spikecrsae", "sort", str(path), "-o", str(folder), "--quiet", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | dict(environment))
    return folder


def shared(first: Path, second: Path) -> float:
    """Part of all spikes of two results that both have."""
    one, other = read_sorting(first), read_sorting(second)
    matched = sum(row.tp for row in compare(one.trains(), other.trains(), one.sampling_frequency).rows)
    total = len(one.spikes) + len(other.spikes) - matched
    return matched / total if total else 1.0


def same_bytes(first: Path, second: Path) -> bool:
    """Whether the tables of two results are the same to the byte."""
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in ("spikes.csv", "units.csv"))


def local_cluster():
    """A Dask cluster of two workers that listens on the loopback interface only, without a dashboard."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        # where no address is given a server for metrics listens on all interfaces
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
    )


def kept(name: str, path: Path, words: Sequence[str], folder: Path) -> bool:
    """Print the rows of a recording; whether all of them keep the promise."""
    first = sort(path, words, folder / "first")
    good = True
    for number, variation in enumerate(VARIATIONS):
        # compiled code for another processor must not be mixed with that of this one
        cache = [("NUMBA_CACHE_DIR", str(folder.parent / "cache"))] if variation.name.startswith("numba") else []
        with local_cluster() if variation.cluster else nullcontext() as cluster:
            more = ["--scheduler", cluster.scheduler_address] if cluster else []
            environment = [*variation.environment, *cache]
            second = sort(path, [*words, *variation.words, *more], folder / str(number), environment)
        identical, part = same_bytes(first, second), shared(first, second)
        good &= identical if variation.identical else part >= SHARED
        print(f"| {name} | {variation.name} | {'yes' if identical else 'no'} | {100 * part:.3f} % |", flush=True)
    return good


def run(argv: Sequence[str] | None = None) -> int:
    """The command; 0 where every result keeps the promise, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="recordings whose names contain one of these, with commas")
    parser.add_argument("--seconds", type=float, help="sort no more than so many seconds of each")
    arguments = parser.parse_args(argv)
    if "SPIKECRSAE_DATA" not in os.environ:
        parser.error("SPIKECRSAE_DATA is not set; it names the folder with the development recordings")
    cut = [] if arguments.seconds is None else ["--stop-s", str(arguments.seconds)]
    print("| recording | variation | tables identical | spikes shared |\n| --- | --- | --- | --- |", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, words, *_) in RUNS.items():
            if any(part in name for part in arguments.only.split(",")):
                place = Path(folder) / name
                place.mkdir()
                good &= kept(name, Path(os.environ["SPIKECRSAE_DATA"]) / file, [*words, *cut], place)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run())
