"""Long and many: a stream that is sorted within bounded memory, and a batch that leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "reliability_load.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read as Linux tells it"),
]


@pytest.fixture(scope="module")
def load():
    """benchmarks/reliability_load.py, which measures the same on more."""
    spec = importlib.util.spec_from_file_location("reliability_load", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(*words: str) -> dict:
    """What the benchmark prints, in a process of its own: what the tests hold would count."""
    command = [sys.executable, str(BENCHMARK), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[: done.stdout.rindex("}") + 1])


def test_a_stream_is_the_same_however_it_is_cut_and_never_comes_again(load):
    stream = load.stream(2.0)
    minute = round(load.BLOCK_S * load.FS)
    whole = stream.raw(3 * minute - 1000, 5 * minute + 1000)
    pieces = [stream.raw(at, at + 700_001) for at in range(3 * minute - 1000, 5 * minute + 1000, 700_001)]
    assert np.array_equal(np.concatenate(pieces)[: len(whole)], whole)
    first, second = whole[1000 : 1000 + minute, 0], whole[1000 + minute : 1000 + 2 * minute, 0]
    spectra = np.fft.rfft(first - first.mean()), np.fft.rfft(second - second.mean())
    agreement = np.fft.irfft(spectra[0] * spectra[1].conj(), minute) / (minute * first.std() * second.std())
    assert agreement.max() < 0.9


def test_a_stream_is_sorted_within_bounded_memory():
    row = measured("stream", "--hours", "0.02")
    assert row["peak_mb"] < 1500
    assert row["units"] >= 4


def test_a_batch_leaves_nothing_behind():
    states = measured("batch", "--recordings", "4", "--early", "2", "--jobs", "2")
    assert states["last"]["workers"] == 2
    assert states["closed"]["workers"] == 0


def test_what_is_left_behind_is_told(load):
    clean = {"own": {"files": 5, "mb": 100.0}, "workers": 0, "files": 8, "mb": 200.0, "temporary": 0, "shared": 0}
    assert load.leaks({"early": clean, "last": clean, "closed": clean, "left": []}) == []
    for name, value in (("files", 9), ("mb", 300.0), ("own", {"files": 6, "mb": 100.0})):
        assert len(load.leaks({"early": clean, "last": clean | {name: value}, "closed": clean, "left": []})) == 1
    for name in ("workers", "temporary", "shared"):
        assert len(load.leaks({"early": clean, "last": clean, "closed": clean | {name: 1}, "left": []})) == 1
    assert len(load.leaks({"early": clean, "last": clean, "closed": clean, "left": ["x.partial"]})) == 1
