"""Processes that work for us: they share the cores, hand back results and errors, and are missed when they die."""

from __future__ import annotations

import os

import pytest
from helpers.worker_tasks import work

from spikecrsae.errors import OutOfMemoryError
from spikecrsae.system import processes


def test_a_process_that_dies_is_told():
    with pytest.raises(OutOfMemoryError, match=r"exit code 9.*--jobs"):
        dict(processes.Processes(2).each(work, "", ["die", "count cores"]))


def test_processes_share_the_cores_and_return_results_and_errors(monkeypatch):
    monkeypatch.setattr(processes, "n_cores", lambda: 6)
    ended = []
    results = dict(processes.Processes(2).each(work, "broken", ["count cores", "fail"], lambda: ended.append(1)))
    assert results[0] == "3" and len(ended) == 1
    assert "SPIKECRSAE_CORES" not in os.environ
    assert isinstance(results[1], ValueError) and str(results[1]) == "broken"
