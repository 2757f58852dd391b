"""Which device a run takes, and that torch is imported only where a GPU may be there."""

from __future__ import annotations

import sys

import pytest

from spikecrsae.errors import UsageError
from spikecrsae.pipeline import device
from spikecrsae.pipeline.device import resolve_device


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a GPU's driver and a torch build for it; importing torch fails, so that it shows."""
    driver = tmp_path / "driver"
    driver.touch()
    monkeypatch.setattr(device, "_GPU_DRIVERS", {sys.platform: (str(driver),)})
    monkeypatch.setattr(device, "version", lambda name: "2.13.0+cu130")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    return driver


def test_torch_is_asked_where_a_gpu_may_be_there(machine):
    with pytest.raises(ImportError):
        resolve_device("auto")


def test_cpu_asks_nobody(machine):
    assert resolve_device("cpu") == "cpu"


def test_auto_is_the_cpu_without_a_driver(machine):
    machine.unlink()
    assert resolve_device("auto") == "cpu"


def test_auto_is_the_cpu_where_torch_is_built_for_it_alone(machine, monkeypatch):
    monkeypatch.setattr(device, "version", lambda name: "2.13.0+cpu")
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_auto_is_the_cpu_where_all_gpus_are_hidden(machine, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert resolve_device("auto") == "cpu"


def test_a_device_that_is_asked_for_and_missing_is_refused():
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(UsageError, match="device mps is not available here"):
        resolve_device("mps")
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
