"""Processes that work for us: they share the cores, hand back results and errors, and are missed when they die."""

from __future__ import annotations

import os
import re

from helpers.worker_tasks import work

from spikecrsae.errors import OutOfMemoryError
from spikecrsae.system import processes


def test_a_process_that_dies_is_told():
    results = dict(processes.Processes(2).each(work, "", ["die", "count cores", "count cores"]))
    assert isinstance(results[0], OutOfMemoryError)
    assert re.search("exit code 9.*--jobs", str(results[0]))
    assert results[1] == results[2], "the others go on"


def test_processes_share_the_cores_and_return_results_and_errors(monkeypatch):
    monkeypatch.setattr(processes, "n_cores", lambda: 6)
    ended = []
    tell = lambda *told: ended.append(told)  # noqa: E731
    results = dict(processes.Processes(2).each(work, "broken", ["count cores", "fail"], tell))
    assert results[0] == "3" and ended == [(0, "count", False), (0, "count", True)]
    assert "SPIKECRSAE_CORES" not in os.environ
    assert isinstance(results[1], ValueError) and str(results[1]) == "broken"
