"""The Triton kernel behind `fused`; imported only where Triton is installed.

One program owns one window, or one tile of a long one. It keeps four arrays of rows in a scratch area of its own: the
signal y and the residual y - H z (one row per channel), the point z and the previous codes (one per unit). A row holds
PER_LANE * LANES samples in an order in which lane l owns the neighbouring samples PER_LANE * l ... PER_LANE * (l + 1) - 1,
and the i-th samples of all lanes lie side by side: sample p is element p % PER_LANE * pitch + p // PER_LANE. So each value
that a thread loads serves all its samples it reaches, and still the loads of a warp are contiguous.

Every helper unrolls over Python tuples of vectors (LANES,): one per row of a group of N rows, times PER_LANE.
"""
# ruff: noqa: RUF005 (Triton's compiler joins tuples with + and knows no unpacking)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _correlate(
    sums, source, weights, n_rows, row_size, n_taps, pitch, N: tl.constexpr, PER_LANE: tl.constexpr, LANES: tl.constexpr
):
    """sums[s](p) + sum over rows r and taps k of weights[r, k, s] * source[r](p + k); n_taps is a multiple of PER_LANE."""
    lane = tl.arange(0, LANES)
    for row in range(n_rows):
        for first in range(0, n_taps, PER_LANE):
            column = source + row * row_size + first // PER_LANE + lane
            taps = ()
            for j in tl.static_range(PER_LANE * N):
                taps = taps + (tl.load(weights + (row * n_taps + first) * N + j),)
            for shift in tl.static_range(2 * PER_LANE - 1):
                values = tl.load(column + shift % PER_LANE * pitch + shift // PER_LANE)
                updated = ()
                for s in tl.static_range(N):
                    for i in tl.static_range(PER_LANE):
                        total = sums[s * PER_LANE + i]
                        if shift >= i and shift - i < PER_LANE:
                            total = tl.fma(taps[(shift - i) * N + s], values, total)
                        updated = updated + (total,)
                sums = updated
    return sums


@triton.jit
def _read(rows, offset, row_size, pitch, N: tl.constexpr, PER_LANE: tl.constexpr, LANES: tl.constexpr):
    """The samples p + offset of N rows."""
    values = ()
    for row in tl.static_range(N):
        for i in tl.static_range(PER_LANE):
            at = (i + offset) % PER_LANE * pitch + (i + offset) // PER_LANE + tl.arange(0, LANES)
            values = values + (tl.load(rows + row * row_size + at),)
    return values


@triton.jit
def _write(values, rows, offset, row_size, pitch, N: tl.constexpr, PER_LANE: tl.constexpr, LANES: tl.constexpr):
    """values become the samples p + offset of N rows."""
    for row in tl.static_range(N):
        for i in tl.static_range(PER_LANE):
            at = (i + offset) % PER_LANE * pitch + (i + offset) // PER_LANE + tl.arange(0, LANES)
            tl.store(rows + row * row_size + at, values[row * PER_LANE + i])


@triton.jit
def _copy_in(array, first, length, rows, offset, n_rows, row_size, pitch, PER_LANE: tl.constexpr, LANES: tl.constexpr):
    """Samples first, first + 1, ... of array (n_rows, length) become the samples p + offset of the rows; zero outside."""
    lane = tl.arange(0, LANES)
    for row in range(n_rows):
        for i in tl.static_range(PER_LANE):
            sample = first + lane * PER_LANE + i
            values = tl.load(array + row * length + sample, mask=(sample >= 0) & (sample < length), other=0.0)
            tl.store(rows + row * row_size + (i + offset) % PER_LANE * pitch + (i + offset) // PER_LANE + lane, values)


@triton.jit
def _copy_out(
    rows, offset, array, first, length, halo, stride, n_rows, row_size, pitch, PER_LANE: tl.constexpr, LANES: tl.constexpr
):
    """The reverse of _copy_in for the samples halo ... halo + stride - 1 of the tile, which are exact."""
    lane = tl.arange(0, LANES)
    for row in range(n_rows):
        for i in tl.static_range(PER_LANE):
            sample = lane * PER_LANE + i
            values = tl.load(rows + row * row_size + (i + offset) % PER_LANE * pitch + (i + offset) // PER_LANE + lane)
            own = (sample >= halo) & (sample < halo + stride) & (first + sample < length)
            tl.store(array + row * length + first + sample, values, mask=own)


@triton.jit
def _update_residual(
    y, point, residual, synthesis, n_channels, n_units, n_taps, row_size, pitch,
    CHANNELS: tl.constexpr, PER_LANE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """residual = y - H z, CHANNELS rows at a time."""
    for first in range(0, n_channels, CHANNELS):
        sums = _read(y + first * row_size, 0, row_size, pitch, CHANNELS, PER_LANE, LANES)
        weights = synthesis + first * n_units * n_taps
        sums = _correlate(sums, point, weights, n_units, row_size, n_taps, pitch, CHANNELS, PER_LANE, LANES)
        _write(sums, residual + first * row_size, 0, row_size, pitch, CHANNELS, PER_LANE, LANES)
    tl.debug_barrier()


@triton.jit
def _update_codes(
    residual, point, previous, analysis, bias, momentum, lead, start, n_positions, n_channels, n_units, n_taps, row_size, pitch,
    UNITS: tl.constexpr, PER_LANE: tl.constexpr, LANES: tl.constexpr, ONE_SIDED: tl.constexpr,
):  # fmt: skip
    """codes = shrink(z + H^T residual / L, bias); z = codes + momentum (codes - previous); UNITS rows at a time."""
    lane = tl.arange(0, LANES)
    for first in range(0, n_units, UNITS):
        own_point, own_previous = point + first * row_size, previous + first * row_size
        sums = _read(own_point, lead, row_size, pitch, UNITS, PER_LANE, LANES)
        weights = analysis + first * n_channels * n_taps
        sums = _correlate(sums, residual, weights, n_channels, row_size, n_taps, pitch, UNITS, PER_LANE, LANES)
        for j in tl.static_range(UNITS * PER_LANE):
            i, row = j % PER_LANE, j // PER_LANE * row_size
            position = start + lane * PER_LANE + i
            code = tl.maximum(sums[j] - bias, 0.0)
            if not ONE_SIDED:
                code -= tl.maximum(-sums[j] - bias, 0.0)
            code = tl.where((position >= 0) & (position < n_positions), code, 0.0)
            before = own_previous + row + i * pitch + lane
            new_point = code + momentum * (code - tl.load(before))
            tl.store(before, code)
            tl.store(own_point + row + (i + lead) % PER_LANE * pitch + (i + lead) // PER_LANE + lane, new_point)
    tl.debug_barrier()


#: Values that vary from call to call: compiled once for all, not once for multiples of 16 and once for ones.
SIZES = ("n_iterations", "n_channels", "n_units", "n_times", "n_samples", "n_taps", "n_tiles", "stride", "halo", "pitch")


# scratch: were its alignment known, loads of different offsets would be laid out over the threads in different ways,
# and every value would pass through shared memory to be re-ordered
@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=("scratch",))
def iterate(
    signal, synthesis, analysis, momenta, point_in, previous_in, point_out, previous_out, scratch,
    bias, n_iterations, n_channels, n_units, n_times, n_samples, n_taps, n_tiles, stride, halo, pitch,
    CHANNELS: tl.constexpr, UNITS: tl.constexpr, PER_LANE: tl.constexpr, LANES: tl.constexpr, ONE_SIDED: tl.constexpr,
):  # fmt: skip
    """n_iterations of FISTA on tile program_id % n_tiles of window program_id // n_tiles.

    signal (n_windows, n_channels, n_samples), codes (n_windows, n_units, n_positions). synthesis (groups, n_units, n_taps,
    CHANNELS): -H; analysis (groups, n_channels, n_taps, UNITS): H^T / L; momenta (n_iterations,). A tile begins halo
    positions before the stride positions whose point and codes it writes; after n_iterations these are exact where
    halo >= n_iterations (n_times - 1), or where the tile is the whole window. scratch begins as zeros.
    """
    program = tl.program_id(0).to(tl.int64)
    window, start = program // n_tiles, (program % n_tiles).to(tl.int32) * stride - halo
    n_positions, lead = n_samples - n_times + 1, n_times - 1
    row_size = PER_LANE * pitch
    channel_rows = (n_channels + CHANNELS - 1) // CHANNELS * CHANNELS * row_size
    unit_rows = (n_units + UNITS - 1) // UNITS * UNITS * row_size
    y = scratch + program * 2 * (channel_rows + unit_rows)
    residual = y + channel_rows
    previous = residual + channel_rows
    point = previous + unit_rows  # led by n_times - 1 zeros, so that H z is a correlation, too
    codes = window * n_units * n_positions
    _copy_in(signal + window * n_channels * n_samples, start, n_samples, y, 0, n_channels, row_size, pitch, PER_LANE, LANES)
    _copy_in(previous_in + codes, start, n_positions, previous, 0, n_units, row_size, pitch, PER_LANE, LANES)
    _copy_in(point_in + codes, start, n_positions, point, lead, n_units, row_size, pitch, PER_LANE, LANES)
    tl.debug_barrier()
    for t in range(n_iterations):
        _update_residual(
            y, point, residual, synthesis, n_channels, n_units, n_taps, row_size, pitch, CHANNELS, PER_LANE, LANES
        )
        _update_codes(
            residual, point, previous, analysis, bias, tl.load(momenta + t), lead, start, n_positions,
            n_channels, n_units, n_taps, row_size, pitch, UNITS, PER_LANE, LANES, ONE_SIDED,
        )  # fmt: skip
    _copy_out(previous, 0, previous_out + codes, start, n_positions, halo, stride, n_units, row_size, pitch, PER_LANE, LANES)
    _copy_out(point, lead, point_out + codes, start, n_positions, halo, stride, n_units, row_size, pitch, PER_LANE, LANES)
