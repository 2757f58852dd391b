"""The same seed gives the same result: over runs, numbers of threads, lengths of chunks and, but for a few spikes,
processors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.recordings import cut_recording

from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare

pytestmark = pytest.mark.slow

#: Two runs that must agree to the bit: many threads and one chunk, one thread and small chunks.
MANY = (("--chunk-s", "100"), {"OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "3"})
FEW = (("--chunk-s", "0.3"), {"SPIKECRSAE_CORES": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"})
#: What the matrix library and numpy use on an older processor; benchmarks/reliability_determinism.py varies compiled loops too.
ELSEWHERE = {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX"}
#: Part of the spikes that a result on another processor shares, at least.
SHARED = 0.999


def sort(recording: Path, folder: Path, words: tuple[str, ...] = (), surroundings: dict[str, str] | None = None) -> Path:
    command = [
        sys.executable,
        "-m",
        "spikecrsae",
        "sort",
        str(recording),
        "-o",
        str(folder),
        "--quiet",
        "--seed",
        "7",
        *words,
    ]
    subprocess.run([*command, "--epochs", "2"], check=True, stdout=subprocess.DEVNULL, env=os.environ | (surroundings or {}))
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Three blocks of the sample recording."""
    return cut_recording(tmp_path_factory.mktemp("cut") / "cut.h5", 0, 7)


@pytest.fixture(scope="module")
def first(recording, tmp_path_factory) -> Path:
    return sort(recording, tmp_path_factory.mktemp("first") / "out", *MANY)


def test_the_result_is_the_same_to_the_bit(recording, first, tmp_path):
    again = sort(recording, tmp_path / "out", *FEW)
    for name in ("spikes.csv", "units.csv"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    here, there = read_sorting(first), read_sorting(again)
    np.testing.assert_array_equal(here.templates, there.templates)
    assert len(here.spikes) > 100


def test_another_processor_shares_nearly_all_spikes(recording, first, tmp_path):
    there = sort(recording, tmp_path / "out", (), ELSEWHERE)
    comparison = compare(
        *(read_sorting(folder).trains() for folder in (first, there)), read_sorting(first).sampling_frequency
    )
    n_shared = sum(row.tp for row in comparison.rows)
    n_spikes = sum(len(read_sorting(folder).spikes) for folder in (first, there))
    assert n_shared / (n_spikes - n_shared) >= SHARED
