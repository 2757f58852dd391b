"""Figures: what is drawn is the data, for any number of units and channels, and the file is a PNG of the drawing."""

import io
import struct
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from spikecrsae.data.sorting import SPIKE_DTYPE, Sorting
from spikecrsae.report.figures import (
    PALETTE,
    _round_length,
    plot_templates,
    plot_traces,
    plot_tradeoff,
    plot_training,
    png_files,
    unit_colors,
)
from spikecrsae.results.folder import read_sorting
from spikecrsae.score import Tradeoff

FS = 10000.0


def make_sorting(n_units, n_channels, n_times=20, seed=0):
    rng = np.random.default_rng(seed)
    unit_ids = np.arange(n_units, dtype=np.int32)
    spikes = np.zeros(6 * n_units, SPIKE_DTYPE)
    spikes["sample"] = np.sort(rng.choice(np.arange(100, 900), len(spikes), replace=False))
    spikes["unit"] = np.tile(unit_ids, 6)
    templates = rng.normal(0, 30, (n_units, n_channels, n_times)).astype(np.float32)
    return Sorting(
        spikes,
        unit_ids,
        FS,
        1000,
        n_channels,
        "uV",
        templates=templates,
        templates_std=np.ones_like(templates),
        peak_index=np.full(n_units, 8),
        channels={"ids": np.array([f"tet{c}" for c in range(n_channels)])},
        start_time_s=2.0,
    )


def png_size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", data[16:24])


def wave_lines(axes, n):
    return [line for line in axes.lines if len(line.get_xdata()) == n]


@pytest.mark.parametrize(("n_units", "n_channels"), [(1, 1), (2, 4), (5, 4), (17, 2), (2, 16)])
def test_templates_are_drawn_at_scale(tmp_path, n_units, n_channels):
    sorting = make_sorting(n_units, n_channels)
    figure = plot_templates(sorting, tmp_path / "t.png")
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == n_units
    for unit, axes in enumerate(panels):
        lines = wave_lines(axes, 20)
        assert len(lines) == len(axes.collections) == n_channels, "a curve and a band per channel"
        for channel, line in enumerate(lines):
            drawn, template = line.get_ydata(), sorting.templates[unit, channel]
            np.testing.assert_allclose(drawn - drawn.mean(), template - template.mean(), atol=1e-3)
            assert line.get_xdata()[8] == 0.0 and line.get_xdata()[9] == pytest.approx(0.1), "ms from the peak"
        bottoms = [line.get_ydata().min() for line in lines]
        tops = [line.get_ydata().max() for line in lines]
        assert all(low > high for low, high in zip(bottoms, tops[1:], strict=False)), "channels do not touch"
        assert [label.get_text() for label in axes.get_yticklabels()] == [f"tet{c}" for c in range(n_channels)]
        texts = [axes.get_title("left"), axes.get_title("right"), *(t.get_text() for t in axes.texts)]
        assert texts[:2] == [f"unit {unit}", "6 spikes, 60 Hz"] and texts[2].endswith("µV")
    assert png_size((tmp_path / "t.png").read_bytes()) == tuple(np.floor(figure.bbox.size).astype(int))


def test_no_units():
    figure = plot_templates(make_sorting(0, 4), io.BytesIO())
    assert [text.get_text() for text in figure.texts] == ["No units were found."]
    figure = plot_traces(np.zeros((50, 4)), 0, make_sorting(0, 4), io.BytesIO())
    assert figure.axes[0].get_title("left") == "0 spikes of 0 units"


@pytest.mark.parametrize(("n_units", "n_channels"), [(1, 1), (3, 4), (9, 16)])
def test_traces_show_signal_spikes_and_reconstruction(n_units, n_channels):
    sorting = make_sorting(n_units, n_channels)
    rng = np.random.default_rng(1)
    traces, reconstruction = rng.normal(0, 20, (600, n_channels)), np.zeros((600, n_channels))
    reconstruction[200:220] = 50.0
    file = io.BytesIO()
    figure = plot_traces(traces, 300, sorting, file, reconstruction)
    assert png_size(file.getvalue())[0] == 1300
    raster, signal = figure.axes
    inside = sorting.spikes[(sorting.spikes["sample"] >= 300) & (sorting.spikes["sample"] < 900)]
    marks = np.sort(np.concatenate([[path.vertices[0, 0] for path in c.get_paths()] for c in raster.collections]))
    np.testing.assert_allclose(marks, 2.0 + inside["sample"] / FS, err_msg="seconds of the recording's own clock")
    assert len(raster.collections) == len(np.unique(inside["unit"]))
    curves = wave_lines(signal, 600)
    assert len(curves) == n_channels * (2 + n_units), "signal, reconstruction, and the coloured part of each unit"
    levels = signal.get_yticks()
    for channel in range(n_channels):
        np.testing.assert_allclose(curves[channel].get_ydata() - levels[channel], traces[:, channel])
    colored = next(c for c in curves if to_hex(c.get_color()).upper() == PALETTE[0]).get_ydata()
    begins = sorting.spike_samples(0) - 8 - 300
    expected = np.unique((begins[:, None] + np.arange(20)).ravel())
    expected = expected[(expected >= 0) & (expected < 600)]
    drawn = np.flatnonzero(~np.isnan(colored))
    np.testing.assert_array_equal(drawn, expected, err_msg="coloured where the template lies, and only there")
    assert [text.get_text() for text in raster.get_legend().get_texts()] == ["reconstruction"]


def test_a_unit_has_one_colour_everywhere():
    sorting = make_sorting(3, 2)
    colors = unit_colors(sorting.unit_ids)
    assert len(set(colors.values())) == 3
    panels = plot_templates(sorting, io.BytesIO()).axes
    assert [wave_lines(axes, 20)[0].get_color() for axes in panels] == list(colors.values())
    raster = plot_traces(np.ones((1000, 2)), 0, sorting, io.BytesIO()).axes[0]
    assert [to_hex(c.get_color()[0]).upper() for c in raster.collections] == list(colors.values())
    history = {"lambda_history": np.ones((4, 3))}
    lines = plot_training(history, io.BytesIO(), sorting.unit_ids).axes[1].lines
    assert [line.get_color() for line in lines] == list(colors.values())


def test_tradeoff_is_in_per_cent_with_the_operating_point(tmp_path):
    curve = Tradeoff(np.array([10.0, 20.0]), np.array([0.05, 0.5]), np.array([0.2, 0.0]))
    figure = plot_tradeoff(curve, tmp_path / "c.png", operating_point=(0.05, 0.2), title="unit 3")
    axes = figure.axes[0]
    line, point = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[20, 5], [0, 50]])
    np.testing.assert_allclose(point.get_xydata(), [[20, 5]])
    assert "5.0 % missed, 20.0 % false" in axes.get_legend().get_texts()[0].get_text()
    assert axes.get_title("left") == "unit 3" and "%" in axes.get_xlabel() and "%" in axes.get_ylabel()
    assert axes.get_ylim()[1] == pytest.approx(15) and axes.get_xlim()[1] > 20
    png_size((tmp_path / "c.png").read_bytes())
    empty = Tradeoff(np.zeros(0), np.zeros(0), np.zeros(0))
    assert len(plot_tradeoff(empty, io.BytesIO()).axes[0].lines) == 1


def test_training_draws_each_history():
    model = {"objective_history": np.array([5.0, 3.0, 2.5]), "lambda_history": np.ones((3, 10)) * np.arange(10)}
    figure = plot_training(model, io.BytesIO())
    assert [len(axes.lines) for axes in figure.axes] == [1, 10, 0]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[1, 5], [2, 3], [3, 2.5]])
    assert [text.get_text() for text in figure.axes[2].texts] == ["not recorded"]
    single = plot_training({"sigma_history": np.array([1.0])}, io.BytesIO()).axes[2]
    assert [tick for tick in single.get_xticks() if 0.5 <= tick <= 1.5] == [1.0], "epochs are whole numbers"


def test_pictures_are_reproducible_and_leave_no_state():
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        plot_templates(make_sorting(2, 4), file)
    assert files[0].getvalue() == files[1].getvalue()
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_a_result_has_the_same_pictures_whatever_matplotlib_was_told(short_sort):
    sorting = read_sorting(short_sort.folder)
    pictures = png_files(sorting)
    assert pictures["templates.png"] == (short_sort.folder / "templates.png").read_bytes()
    with matplotlib.rc_context({"font.size": 20.0, "lines.linewidth": 5.0, "savefig.dpi": 40.0}):
        assert png_files(sorting) == pictures
        assert matplotlib.rcParams["font.size"] == 20.0


@pytest.mark.parametrize(("length", "rounded"), [(1.0, 1), (4.99, 2), (73, 50), (0.03, 0.02), (0.0, 1), (float("nan"), 1)])
def test_scale_bars_have_round_lengths(length, rounded):
    assert _round_length(length) == pytest.approx(rounded)
