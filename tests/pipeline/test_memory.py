"""--memory-limit: less signal at once, and a peak below the limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spikecrsae.config import Config
from spikecrsae.errors import UsageError
from spikecrsae.pipeline.memory import LEAST_LEARNING_S, within_limit

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "sample_data" / "tetrode.h5"


def limited(limit: float | None) -> Config:
    return Config().with_values({"runtime": {"memory_limit": limit}})


def test_less_memory_is_less_signal_at_once():
    assert within_limit(limited(None), 4, 30000.0) == limited(None)
    learnt = [within_limit(limited(limit), 4, 30000.0).initialise.max_signal_s for limit in (700, 900, 1e5)]
    assert LEAST_LEARNING_S < learnt[0] < learnt[1] < learnt[2] == Config().initialise.max_signal_s
    assert within_limit(limited(700), 4, 30000.0).infer.chunk_s <= Config().infer.chunk_s


def test_a_limit_that_leaves_no_room_is_refused_with_what_is_needed():
    with pytest.raises(
        UsageError, match=r"600 MB is too small for 16 channels at 30000 Hz; it takes at least (\d+) MB"
    ) as error:
        within_limit(limited(600), 16, 30000.0)
    least = float(str(error.value).split("at least ")[1].split()[0])
    assert within_limit(limited(least + 1), 16, 30000.0).initialise.max_signal_s >= LEAST_LEARNING_S


#: A small program of its own: what the tests hold would count as the peak of a process that they start.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read as Linux tells it")
def test_a_sort_stays_below_its_limit(tmp_path):
    words = [sys.executable, "-m", "spikecrsae", "sort", SAMPLE, "-o", tmp_path / "out", "--quiet", "--memory-limit", "620"]
    result = subprocess.run([sys.executable, "-c", MEASURE, *map(str, words)], capture_output=True, text=True, check=True)
    code, peak = result.stdout.split()
    assert int(code) == 0, result.stderr
    assert float(peak) < 620
