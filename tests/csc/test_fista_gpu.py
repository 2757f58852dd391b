"""The GPU kernel of FISTA against FISTA in torch, on a GPU where there is one, else by Triton's interpreter on the CPU."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc import fista_gpu as fused
from spikecrsae.csc.fista import fista
from spikecrsae.csc.fista_gpu import Tiling, fused_fista, obstacle
from spikecrsae.csc.objective import kkt_violation
from spikecrsae.csc.operator import synthesis
from spikecrsae.csc.step_size import lipschitz_bound

KERNEL = "spikecrsae.csc.fista_kernel"
LAM, SIGMA = 2.0, 0.7


@pytest.fixture
def device(monkeypatch):
    """Where the kernel runs. The interpreter is chosen when the kernel's module is imported, hence anew."""
    pytest.importorskip(
        "triton", reason="Triton is not installed: there is no wheel for this platform", exc_type=ImportError
    )
    if torch.cuda.is_available():
        yield "cuda"
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)
    yield "cpu"
    sys.modules.pop(KERNEL, None)


def problem(n_units: int, n_channels: int, n_times: int, n_samples: int, one_sided: bool, n_windows: int = 1, seed: int = 0):
    """Signal, atoms and a bound: sparse codes of amplitude 8 in unit noise, float32."""
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((n_units, n_channels, n_times))
    atoms /= np.sqrt((atoms**2).sum((1, 2), keepdims=True))
    shape = n_windows, n_units, n_samples - n_times + 1
    codes = rng.normal(0, 8, shape) * (rng.random(shape) < 0.3)
    signal = synthesis(torch.from_numpy(abs(codes) if one_sided else codes), torch.from_numpy(atoms)).numpy()
    signal = signal + rng.standard_normal(signal.shape)
    return torch.from_numpy(signal).float(), torch.from_numpy(atoms).float(), lipschitz_bound(atoms)


@pytest.fixture(autouse=True)
def warnings_only(caplog):
    """Whatever an earlier run has asked the log to tell."""
    caplog.set_level(logging.WARNING, logger="spikecrsae")


def by_kernel(device, caplog, signal, atoms, *arguments, start=None) -> torch.Tensor:
    """fused_fista on the device, and a proof that it did not turn to plain torch."""
    signal, atoms = signal.to(device), atoms.to(device)
    start = None if start is None else start.to(device)
    assert obstacle(signal, atoms, LAM, start) is None
    codes = fused_fista(signal, atoms, LAM, SIGMA, *arguments, start)
    assert not caplog.records, caplog.text
    return codes.cpu()


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The promise of `fused_fista`: 1e-5 of the largest code."""
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("shape", "n_samples", "one_sided", "n_iterations", "warm", "per_lane"),
    [
        ((1, 1, 1), 9, True, 1, False, 4),
        ((1, 1, 2), 3, False, 3, True, 4),
        ((2, 3, 6), 61, True, 5, False, 4),
        ((3, 2, 7), 128, False, 2, True, 4),
        ((5, 4, 4), 50, True, 2, False, 4),
        ((4, 5, 3), 133, False, 1, True, 4),
        ((2, 1, 4), 63, True, 50, True, 2),
        ((1, 3, 5), 40, False, 50, False, 1),
    ],
)
def test_the_kernel_is_fista(device, caplog, monkeypatch, shape, n_samples, one_sided, n_iterations, warm, per_lane):
    """shape: units, channels, samples of an atom. Odd sizes, atoms as long as the window, more rows than a group holds."""
    monkeypatch.setattr(fused, "PER_LANE", per_lane)
    signal, atoms, bound = problem(*shape, n_samples, one_sided, n_windows=2 if n_iterations < 5 else 1)
    start = np.random.default_rng(1).normal(0, 4, (len(signal), shape[0], n_samples - shape[2] + 1))
    start = torch.from_numpy(start).float() if warm else None
    expected = fista(signal, atoms, LAM, SIGMA, bound, n_iterations, one_sided, start)
    assert_same(by_kernel(device, caplog, signal, atoms, bound, n_iterations, one_sided, start=start), expected)


@pytest.mark.parametrize("start", [None, 3.0], ids=["zero", "warm"])
def test_tiles_and_parts_give_the_whole(device, caplog, monkeypatch, start):
    """Windows coded one at a time, each cut into overlapping tiles that exchange codes between launches."""
    monkeypatch.setattr(fused, "PER_LANE", 1)
    monkeypatch.setattr(fused, "MOST_LANES", 32)
    monkeypatch.setattr(fused, "SCRATCH_BYTES", 1)
    tiling = Tiling.of(75, 3, 3)
    assert tiling.n_tiles == 4 and tiling.depth == 2
    signal, atoms, bound = problem(2, 1, 3, 75, True, n_windows=2)
    start = None if start is None else torch.full((2, 2, 73), start)
    expected = fista(signal, atoms, LAM, SIGMA, bound, 3, True, start)
    assert_same(by_kernel(device, caplog, signal, atoms, bound, 3, True, start=start), expected)


@pytest.mark.parametrize("n_times", [1, 2, 18, 61, 300, 512])
@pytest.mark.parametrize("n_samples", [600, 2048, 2049, 30_000])
@pytest.mark.parametrize("n_iterations", [1, 180])
def test_every_position_belongs_to_one_tile_which_an_error_at_the_edge_does_not_reach(n_times, n_samples, n_iterations):
    tiling, n_positions = Tiling.of(n_samples, n_times, n_iterations), n_samples - n_times + 1
    assert tiling.n_tiles * tiling.stride >= n_positions > (tiling.n_tiles - 1) * tiling.stride
    size = tiling.lanes * fused.PER_LANE
    if tiling.n_tiles > 1:
        assert tiling.halo >= tiling.depth * (n_times - 1) and 2 * tiling.halo + tiling.stride <= size
    else:
        assert size >= n_samples and tiling.depth == n_iterations


@pytest.mark.parametrize("one_sided", [True, False])
def test_the_kernel_ends_at_the_optimum(device, caplog, monkeypatch, one_sided):
    monkeypatch.setattr(fused, "PER_LANE", 1)
    signal, atoms, bound = problem(1, 2, 2, 30, one_sided, seed=3)
    codes = by_kernel(device, caplog, signal, atoms, bound, 80, one_sided)
    assert 0 < int((codes != 0).sum()) < codes.numel()
    assert kkt_violation(signal, codes, atoms, LAM, SIGMA, one_sided).max() < 1e-4


def test_the_model_encodes_with_the_kernel_where_no_gradient_is_needed(device, monkeypatch):
    signal, atoms, _ = problem(2, 1, 3, 30, True)
    model = CRsAE(atoms, LAM, SIGMA, 3).to(device)
    calls = []
    encode = fused._encode
    monkeypatch.setattr(fused, "_encode", lambda *arguments: calls.append(1) or encode(*arguments))
    with_gradient = model.encode(signal.to(device))
    assert not calls and with_gradient.requires_grad
    with torch.no_grad():
        without = model.encode(signal.to(device))
    assert calls and not without.requires_grad
    assert_same(without.cpu(), with_gradient.detach().cpu())


def test_what_the_kernel_cannot_do_is_done_by_plain_torch(device, caplog, monkeypatch):
    signal, atoms, bound = (value if isinstance(value, float) else value.to(device) for value in problem(2, 2, 5, 40, True))
    double, graded = (signal.double(), atoms.double()), (signal, atoms.clone().requires_grad_())
    long = signal.new_ones(1, 2, 2049), atoms.new_ones(1, 2, 513)
    for arrays, lam, reason in (
        (double, LAM, "not float32"),
        (graded, LAM, "gradient"),
        ((signal, atoms), torch.tensor(LAM, requires_grad=True), "gradient"),
        (long, LAM, "2049 samples with atoms of 513 cannot be cut"),
    ):
        assert reason in obstacle(*arrays, lam, None)
        expected = fista(*arrays, lam, SIGMA, 1000.0, 2, True)
        assert torch.equal(fused_fista(*arrays, lam, SIGMA, 1000.0, 2, True), expected)
    assert not caplog.records

    def failing(*_):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(fused, "_encode", failing)
    monkeypatch.setattr(fused, "FAILED", set())
    found = [fused_fista(signal, atoms, LAM, SIGMA, bound, 2, True) for _ in range(2)]
    expected = fista(signal, atoms, LAM, SIGMA, bound, 2, True)
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)
    assert len(caplog.records) == 1 and "no C compiler" in caplog.text
    assert "failed before" in obstacle(signal, atoms, LAM, None)


def test_without_triton_or_a_gpu_plain_torch_computes(monkeypatch):
    signal, atoms, bound = problem(2, 2, 5, 40, True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "device cpu" in obstacle(signal, atoms, LAM, None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton cannot be used" in obstacle(signal, atoms, LAM, None)
    expected = fista(signal, atoms, LAM, SIGMA, bound, 4, True)
    assert torch.equal(fused_fista(signal, atoms, LAM, SIGMA, bound, 4, True), expected)


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikecrsae.csc import fista_gpu as fused
from spikecrsae.csc.fista_kernel import SIZES, iterate
constants = {"CHANNELS": 4, "UNITS": 4, "PER_LANE": fused.PER_LANE, "LANES": 256, "ONE_SIDED": True}
types = {name: "constexpr" if name in constants else "i32" if name in SIZES else "*fp32" for name in iterate.arg_names}
aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(iterate.arg_names)
           if types[name] == "*fp32" and name != "scratch"}
source = ASTSource(iterate, types | {"bias": "fp32"}, constants, aligned)
options = {"num_warps": 256 // fused.LANES_PER_WARP, "num_stages": 1}
kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
open(sys.argv[1], "wb").write(kernel.asm["cubin"])
print(kernel.metadata.shared, kernel.asm["ttgir"])
"""


def test_the_kernel_compiles_for_an_h100_without_spilled_registers(tmp_path):
    """The paper's size, 4 channels, 4 units, 1000 samples, by the compiler alone: no GPU is needed.

    One layout: no value is re-ordered over the threads through shared memory. No stack: all sums stay in registers.
    """
    triton = pytest.importorskip("triton", reason="Triton is not installed: there is no wheel for this platform")
    tools = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    cubin = tmp_path / "kernel.cubin"
    words = [sys.executable, "-c", COMPILE, str(cubin)]
    shared, ttgir = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert shared == "0" and "convert_layout" not in ttgir
    assert len(re.findall(r"^#blocked.* = ", ttgir, re.MULTILINE)) == 1
    usage = subprocess.run(
        [os.path.join(tools, "cuobjdump"), "--dump-resource-usage", cubin], capture_output=True, text=True
    )
    assert re.search(r"REG:\d+ STACK:0 ", usage.stdout), usage
