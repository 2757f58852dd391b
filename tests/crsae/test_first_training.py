"""The windows that the first training draws."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.crsae.first_training import WINDOW_TEMPLATES, draw_windows

N_TIMES, N_UNITS = 20, 6


@pytest.mark.parametrize("n_windows", [0, 1, 4, 6, 24])
def test_no_more_windows_are_drawn_than_asked_for(n_windows):
    signal = np.arange(2 * 50_000, dtype=np.float32).reshape(2, -1)
    members = [np.arange(500 + 40 * unit, 45_000, 700) for unit in range(N_UNITS)]
    windows = draw_windows(signal, members, N_TIMES, n_windows, np.random.default_rng(0))
    assert windows.shape[1:] == (2, WINDOW_TEMPLATES * N_TIMES)
    assert (len(windows) > 0) == (n_windows > 0)
    assert len(windows) <= n_windows
    starts = windows[:, 0, 0]
    assert (np.diff(starts) >= WINDOW_TEMPLATES * N_TIMES).all()
