"""The Sorting that users get: times in seconds, tables with and without pandas, other packages' objects."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace

import numpy as np
import pytest

import spikecrsae
from spikecrsae.errors import UsageError
from spikecrsae.results.tables import spikes_csv, units_csv


def sorting_with_gap():
    """True spikes of a simulation that starts at 100 s on its own clock, of which the second second was left out."""
    data = spikecrsae.simulate(duration_s=4.0, n_units=3, seed=2)[1].data
    kept = (data.spikes["sample"] < 20_000) | (data.spikes["sample"] >= 40_000)
    excluded = np.array([[20_000, 40_000]])
    return spikecrsae.Sorting(replace(data, spikes=data.spikes[kept], start_time_s=100.0, excluded=excluded))


def csv_column(content: bytes, name: str) -> list[str]:
    return [row[name] for row in csv.DictReader(io.StringIO(content.decode()))]


def test_times_are_those_of_spikes_csv():
    sorting = sorting_with_gap()
    content = b"".join(spikes_csv(sorting.data))
    units, times = np.array(csv_column(content, "unit"), int), np.array(csv_column(content, "time_s"), float)
    for unit in sorting.unit_ids:
        np.testing.assert_allclose(sorting.spike_times(unit), times[units == unit], atol=1e-9)
        assert sorting.spike_times(unit).min() >= 100.0
    with pytest.raises(UsageError, match="unit 9 does not exist; the units are 0, 1, 2"):
        sorting.spike_times(9)


@pytest.mark.parametrize("installed", [True, False])
def test_tables_have_the_columns_of_the_files(installed, monkeypatch):
    if installed:
        pytest.importorskip("pandas")
    else:
        monkeypatch.setitem(sys.modules, "pandas", None)
    sorting = sorting_with_gap()
    spikes, units = sorting.spikes, sorting.units
    headings = [
        line.split(b"\n")[0].decode().split(",") for line in (next(spikes_csv(sorting.data)), units_csv(sorting.data))
    ]
    if installed:
        assert [list(spikes.columns), [units.index.name, *units.columns]] == headings
        assert units.loc[1, "snr"] == sorting.data.units["snr"][1]
    else:
        assert [list(spikes.dtype.names), list(units.dtype.names)] == headings
        assert units["snr"][1] == sorting.data.units["snr"][1]
    np.testing.assert_array_equal(spikes["sample"], sorting.data.spikes["sample"])
    np.testing.assert_array_equal(spikes["time_s"][spikes["unit"] == 2], sorting.spike_times(2))


def test_the_repr_is_one_short_line():
    sorting = sorting_with_gap()
    assert repr(sorting) == f"<Sorting: 3 units, {len(sorting.data.spikes)} spikes in 3 s on 4 channels>"


def test_neo_has_a_train_for_each_unit():
    sorting = sorting_with_gap()
    (segment,) = sorting.to_neo().segments
    for unit, train in zip(sorting.unit_ids, segment.spiketrains, strict=True):
        np.testing.assert_allclose(train.rescale("s").magnitude, sorting.spike_times(unit))
        assert train.annotations["snr"] == sorting.data.units["snr"][unit]


def test_pynapple_has_rates_of_the_time_that_was_sorted():
    pytest.importorskip("pynapple")
    sorting = sorting_with_gap()
    group = sorting.to_pynapple()
    np.testing.assert_allclose(group.time_support.values, [[100.0, 101.0], [102.0, 104.0]])
    for unit in sorting.unit_ids:
        np.testing.assert_allclose(group[unit].times(), sorting.spike_times(unit))
        assert group["rate"][unit] == pytest.approx(len(sorting.spike_times(unit)) / 3.0)
    np.testing.assert_array_equal(group["snr"], sorting.data.units["snr"])


def test_a_missing_pynapple_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynapple", None)
    with pytest.raises(UsageError, match="pip install pynapple"):
        sorting_with_gap().to_pynapple()
