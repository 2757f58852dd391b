"""Processes that work for us: they share the cores, hand back results, errors and logs, and are missed when they die."""

from __future__ import annotations

import logging
import os

import pytest
import worker_tasks as tasks

from spikecrsae import workers
from spikecrsae.errors import OutOfMemoryError


def test_a_process_that_dies_is_told():
    with pytest.raises(OutOfMemoryError, match=r"exit code 9.*--jobs"):
        workers.in_processes([tasks.die, tasks.count_cores], 2, lambda: None)


def test_processes_share_the_cores_and_return_errors_and_logs(monkeypatch, caplog):
    monkeypatch.setattr(workers, "n_cores", lambda: 6)
    ended = []
    with caplog.at_level(logging.WARNING, "spikecrsae"):
        results = workers.in_processes([tasks.count_cores, tasks.fail], 2, lambda: ended.append(1))
    assert results[0] == "3" and len(ended) == 1
    assert "SPIKECRSAE_CORES" not in os.environ
    assert isinstance(results[1], ValueError) and str(results[1]) == "broken"
    assert [(record.name, record.message) for record in caplog.records] == [("spikecrsae.tasks", "counting")]
