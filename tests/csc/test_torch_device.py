"""What the torch backend does with the memory of a device, and that it calls no compiled code but the local search."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.worlds import assert_same_spikes, on_torch, world

import spikecrsae.csc
import spikecrsae.detect
from spikecrsae.csc import layered_search, local_search
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.csc.operator import gram
from spikecrsae.csc.pursuit import L1, Effort, Tables
from spikecrsae.csc.torch_backend import TorchBackend


def test_a_part_that_the_memory_cannot_hold_is_halved(monkeypatch, caplog):
    model, signal = world(3, 0.01, 20_000)
    expected = on_torch(model).encode(signal)
    residual = on_torch(model).residual(signal, expected)
    for module, function in ((layered_search.LayeredSearch, "run"), (TorchBackend, "_rest")):
        backend, original, sizes = TorchBackend("cpu", at_once=8192), getattr(module, function), []

        def fails_once(self, *arguments, original=original, sizes=sizes):
            sizes.append(self)
            if len(sizes) == 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return original(self, *arguments)

        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(module, function, fails_once)
            found = on_torch(model, backend).encode(signal)
            rest = on_torch(model, backend).residual(signal, expected)
        assert_same_spikes(found, expected)
        np.testing.assert_allclose(rest, residual, atol=1e-4)
        assert backend.at_once == 4096
        assert [record.getMessage() for record in caplog.records] == [
            "the memory of cpu is full; going on with parts of 4096 samples"
        ]


def test_what_no_memory_can_hold_is_an_error(monkeypatch):
    """Parts get shorter, but not for ever; and a stretch that has no quiet place cannot be shorter."""
    model, signal = world(3, 0.01, 20_000)

    def full(self, *arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(layered_search.LayeredSearch, "run", full)
    for at_once in (8192, 60):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            on_torch(model, TorchBackend("cpu", at_once=at_once)).encode(signal)


def compiled_functions():
    """Module or class, name: of all that numba compiles in csc and detect but for the local search."""
    kept = {value.py_func.__name__ for value in vars(local_search).values() if hasattr(value, "py_func")} - {
        "search",
        "_is_largest",
    }
    for package in (spikecrsae.csc, spikecrsae.detect):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for holder in (module, *(value for value in vars(module).values() if isinstance(value, type))):
                for name, value in list(vars(holder).items()):
                    function = getattr(value, "__func__", value)
                    if hasattr(function, "py_func") and not (
                        function.py_func.__module__ == local_search.__name__ and function.py_func.__name__ in kept
                    ):
                        yield holder, name


def test_besides_the_local_search_nothing_that_is_compiled_is_called(monkeypatch):
    model, signal = world(5)
    model = on_torch(model)
    model.encode(signal)  # the local search is compiled before anything that it calls is replaced

    def refuse(*arguments):
        raise AssertionError("compiled code is called")

    replaced = list(compiled_functions())
    for holder, name in replaced:
        monkeypatch.setattr(holder, name, refuse)
    assert {"search", "_energy", "misfits", "code_statistics", "above_any", "cuts", "_encode_windows"} <= {
        n for _, n in replaced
    }
    with pytest.raises(AssertionError, match="compiled code"):
        replace(model, backend=NUMBA).encode(signal)
    seen = model.seen(signal)
    spikes = model.encode(seen)
    assert len(spikes) > 10
    assert_same_spikes(model.encode(model.view(signal)), spikes)
    again = model.maximise(seen.signal, spikes)
    assert again.residual(signal, spikes).std() < signal.std()
    assert len(model.misfit(signal, spikes)) == len(spikes) and model.active(signal)[0].any()
    subspace = spikecrsae.detect.detection.SpikeSubspace.learn(signal, 4.5, 12, 10, backend=model.backend)
    assert len(subspace.detect(signal, 4.5, 10))
    tables = Tables.of(model.overlaps, model.prior.shrinkage, model.refractory, model.shifts())
    l1, gap = L1(np.full(model.n_units, 4.0), True, gram(model.templates)), 3 * model.n_times + model.refractory
    enough = 4 * np.sqrt(model.energy)
    assert len(model.backend.pursue(seen, model.templates, tables, enough, gap, Effort(), model._doubtful, l1))
