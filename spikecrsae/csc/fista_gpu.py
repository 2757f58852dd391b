"""FISTA without gradients on a GPU: all T iterations of a window in one Triton kernel, else plain torch.

Plain torch runs some ten kernels per iteration, and each sends every code to the memory of the GPU and back. Here one
program owns one window. Its sums are in registers; the codes, the residual and the signal lie in a scratch area in global
memory, because neighbouring threads need each other's values and Triton gives no access to shared memory. What is on the
chip is therefore up to the caches: a window of 1000 samples with 4 channels and 4 units takes 67 KB, of which a few per
multiprocessor are under way at a time, so that the area should stay in L1 and L2, and global memory see a window's signal
and codes once, not once per iteration. A window longer than a tile is cut into tiles that overlap by as many samples as an
error at the edge travels in `depth` iterations, n_times - 1 each; every `depth` iterations they exchange codes.

The arithmetic is that of `fista` in float32, in another order. Tensor cores would not help at this precision: written as
a matrix product, the banded H wastes at least every second multiplication, and float32 from tf32 takes three products.
One launch holds all iterations, so a CUDA graph would save nothing. benchmarks/gpu.py counts and times.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import torch

from spikecrsae.csc.fista import fista, momenta

log = logging.getLogger(__name__)

#: Samples of a row that one lane owns, and by which taps are taken; lanes that one warp serves, and lanes of a tile at most.
PER_LANE, LANES_PER_WARP, MOST_LANES = 4, 128, 512
#: Rows (channels, or units) that are summed side by side in registers.
MOST_ROWS = 4
#: Share of a tile, on either side, that may be computed twice so that tiles need not exchange codes in every iteration.
OVERLAP = 1 / 8
#: Bytes of scratch of one launch; more windows take several.
SCRATCH_BYTES = 1 << 30
#: NVIDIA GPUs that Triton supports, and devices on which the kernel failed, which are not tried again.
CAPABILITY = (8, 0)
FAILED: set[torch.device] = set()


def fused_fista(
    signal: torch.Tensor,
    atoms: torch.Tensor,
    lam: torch.Tensor | float,
    sigma: float,
    lipschitz: float,
    n_iterations: int,
    one_sided: bool,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `fista` computes from the same arguments, by the kernel where nothing stands against it (`obstacle`).

    Both agree to 1e-5 of the largest code. Where the kernel cannot be built (no C compiler, say), a warning is logged and
    plain torch computes.
    """
    reason = obstacle(signal, atoms, lam, start)
    if reason is None:
        try:
            with torch.no_grad(), torch.cuda.device_of(signal):
                return _encode(signal, atoms, float(lam), sigma, lipschitz, n_iterations, one_sided, start)
        except Exception as error:  # whatever a compiler may raise
            FAILED.add(signal.device)
            log.warning("The GPU kernel failed (%s: %s); plain torch computes.", type(error).__name__, error)
    else:
        log.debug("FISTA in plain torch: %s.", reason)
    return fista(signal, atoms, lam, sigma, lipschitz, n_iterations, one_sided, start)


def obstacle(signal: torch.Tensor, atoms: torch.Tensor, lam: torch.Tensor | float, start: torch.Tensor | None) -> str | None:
    """Why the kernel cannot be used for these arguments of `fista`; None where it can."""
    arrays = [array for array in (signal, atoms, start) if array is not None]
    given = [value for value in (*arrays, lam) if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(value.requires_grad for value in given):
        return "a gradient is asked for"
    if any(array.dtype != torch.float32 or array.device != signal.device for array in arrays):
        return "an array is not float32, or on another device"
    if signal.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the signal is on the device {signal.device}"
    if signal.device.type == "cuda" and torch.cuda.get_device_capability(signal.device) < CAPABILITY:
        return f"the GPU is older than compute capability {CAPABILITY[0]}.{CAPABILITY[1]}"
    if signal.device in FAILED:
        return "the kernel failed before"
    if min(signal.shape[2], 4 * atoms.shape[2]) > PER_LANE * MOST_LANES:
        return f"windows of {signal.shape[2]} samples with atoms of {atoms.shape[2]} cannot be cut into tiles"
    try:
        import spikecrsae.csc.fista_kernel  # noqa: F401
    except Exception as error:  # no Triton, or one that does not know what the kernel asks for
        return f"Triton cannot be used ({error})"
    return None


@dataclass(frozen=True)
class Tiling:
    """How a window is cut: n_tiles that begin every `stride` positions, `halo` early, for `depth` iterations per launch."""

    lanes: int
    n_tiles: int
    stride: int
    halo: int
    depth: int

    @classmethod
    def of(cls, n_samples: int, n_times: int, n_iterations: int) -> Tiling:
        """The whole window as one tile where it fits; else tiles of MOST_LANES."""
        n_positions = n_samples - n_times + 1
        lanes = 32
        while lanes * PER_LANE < n_samples and lanes < MOST_LANES:
            lanes *= 2
        size = lanes * PER_LANE
        if size >= n_samples:
            return cls(lanes, 1, n_positions, 0, n_iterations)
        reach = max(n_times - 1, 1)
        depth = min(max(int(OVERLAP * size / reach), 1), n_iterations)
        stride = size - 2 * depth * reach
        return cls(lanes, -(-n_positions // stride), stride, depth * reach, depth)


def _encode(signal, atoms, lam, sigma, lipschitz, n_iterations, one_sided, start) -> torch.Tensor:
    """Codes by the kernel, as many windows at a time as SCRATCH_BYTES hold."""
    n_units, n_channels, n_times = atoms.shape
    tiling = Tiling.of(signal.shape[2], n_times, n_iterations)
    channels, units = _group(n_channels), _group(n_units)
    synthesis = _weights(-atoms.transpose(0, 1).flip(2), channels)
    analysis = _weights(atoms / lipschitz, units)
    n_taps = synthesis.shape[2]
    pitch = tiling.lanes + n_taps // PER_LANE + 1
    rows = 2 * (-(-n_channels // channels) * channels + -(-n_units // units) * units)
    floats = rows * PER_LANE * pitch  # of one program
    at_once = min(max(SCRATCH_BYTES // (4 * floats * tiling.n_tiles), 1), len(signal))
    scratch = signal.new_zeros(at_once * tiling.n_tiles * floats)
    sizes = {
        "n_channels": n_channels, "n_units": n_units, "n_times": n_times, "n_samples": signal.shape[2], "n_taps": n_taps,
        "n_tiles": tiling.n_tiles, "stride": tiling.stride, "halo": tiling.halo, "pitch": pitch,
        "CHANNELS": channels, "UNITS": units, "LANES": tiling.lanes,
    }  # fmt: skip
    constants = {"bias": lam * sigma**2 / lipschitz, "ONE_SIDED": one_sided, "PER_LANE": PER_LANE}
    codes = signal.new_zeros(len(signal), n_units, signal.shape[2] - n_times + 1)
    if start is not None:
        codes.copy_(start)
    weights = signal.new_tensor(momenta(n_iterations))
    for part in range(0, len(signal), at_once):
        windows = slice(part, part + at_once)
        arrays = (signal[windows].contiguous(), synthesis, analysis)
        codes[windows] = _iterate(arrays, weights, codes[windows], scratch, tiling, {**sizes, **constants})
    return codes


def _iterate(arrays, momenta, codes, scratch, tiling: Tiling, options: dict) -> torch.Tensor:
    """Codes of some windows after all iterations, tiling.depth of them per launch."""
    from spikecrsae.csc.fista_kernel import iterate

    point = previous = codes
    for first in range(0, len(momenta), tiling.depth):
        part = momenta[first : first + tiling.depth]
        # not in place: the tiles of a window read one another's codes of the launch before
        new_point, new_previous = torch.empty_like(codes), torch.empty_like(codes)
        iterate[(len(codes) * tiling.n_tiles,)](
            *arrays, part, point, previous, new_point, new_previous, scratch,
            n_iterations=len(part), **options, num_warps=max(tiling.lanes // LANES_PER_WARP, 1), num_stages=1,
        )  # fmt: skip
        point, previous = new_point, new_previous
    return previous


def _group(n_rows: int) -> int:
    """Rows per group, at most MOST_ROWS, such that the groups are of about equal size."""
    return -(-n_rows // -(-n_rows // MOST_ROWS))


def _weights(filters: torch.Tensor, group: int) -> torch.Tensor:
    """Filters (n_targets, n_sources, n_times) as the kernel reads them: (n_groups, n_sources, n_taps, group), zero-padded."""
    n_targets, n_sources, n_times = filters.shape
    padded = torch.nn.functional.pad(filters, (0, -n_times % PER_LANE, 0, 0, 0, -n_targets % group))
    return padded.reshape(-1, group, n_sources, padded.shape[2]).permute(0, 2, 3, 1).contiguous()
