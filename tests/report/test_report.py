"""report.html: what is counted is right, what is drawn is the data, and the page is whole, safe and readable."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import FS, HOSTILE, RUN, make_full_sorting, make_model, make_sorting, make_truth, write_result
from spikeinterface.core import NumpySorting
from spikeinterface.postprocessing import compute_correlograms

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab
from spikecrsae.decode.confidence import thresholds
from spikecrsae.decode.quality import refractory_violations
from spikecrsae.report.correlograms import correlograms, interval_counts, template_similarity
from spikecrsae.report.html import Truth, report_html
from spikecrsae.report.pictures import MOST_NAMED, color_class, training_pictures
from spikecrsae.report.svg import Drawing, Group, Text, axes, escape, tick_labels, ticks, with_minus
from spikecrsae.report.tables import UNKNOWN, number, percent
from spikecrsae.report.unit_pictures import AmplitudeModel, amplitude_picture, template_picture
from spikecrsae.results.folder import read_sorting
from spikecrsae.score import best_match_curves, compare

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page: (tag, attributes) in order, text outside scripts, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(attributes) == len(dict(attributes)), f"an attribute stands twice in <{tag}>"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def drawings(page: str) -> list[ElementTree.Element]:
    """Every <svg> of a page, read as XML."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, flags=re.S)]


def path_points(path: str) -> np.ndarray:
    """Points (n, 2) of the path data of a line."""
    return np.array([[float(v) for v in pair.split()] for pair in re.findall(r"[ML](-?[\d.]+ -?[\d.]+)", path)])


def paths(svg: str, classes: str) -> list[str]:
    return [p.get("d") for p in ElementTree.fromstring(svg).iter() if p.tag.endswith("path") and p.get("class") == classes]


# ---- counts


@pytest.mark.parametrize(("window_ms", "bin_ms"), [(50.0, 1.0), (20.0, 0.35), (100.0, 5.0)])
def test_correlograms_are_those_of_spikeinterface(window_ms, bin_ms):
    rng = np.random.default_rng(1)
    samples = np.sort(rng.integers(0, 40_000, 1500))
    # lags that are whole bins, spikes at once, bursts
    samples = np.sort(np.r_[samples, np.arange(0, 20_000, 100), np.arange(0, 20_000, 100), 30_000 + np.arange(0, 60, 7)])
    rows = rng.integers(0, 3, len(samples))
    theirs = NumpySorting.from_samples_and_labels([samples], [rows], FS)
    expected, bins = compute_correlograms(theirs, window_ms=window_ms, bin_ms=bin_ms, method="numpy")
    bin_size = round(bin_ms * FS / 1000)
    np.testing.assert_array_equal(correlograms(samples, rows, 3, bin_size, len(bins) // 2), expected)


def test_correlograms_of_few_spikes():
    for n in (0, 1):
        counts = correlograms(np.arange(n), np.zeros(n, np.int64), 1, 10, 5)
        assert counts.shape == (1, 1, 10) and not counts.any()
    counts = correlograms(np.array([100, 125]), np.array([0, 1]), 2, 10, 5)
    assert np.argwhere(counts).tolist() == [[0, 1, 2], [1, 0, 7]], "25 samples: bin 20 to 30 one way, -30 to -20 the other"


@pytest.mark.parametrize("fs", [10_000.0, 24_414.0625, 30_000.0])
def test_interval_counts_agree_with_the_quality_columns(fs):
    samples = np.cumsum(np.random.default_rng(0).integers(1, 200, 3000))
    counts = interval_counts(samples, fs, 0.5, 8)
    intervals = np.diff(samples)
    assert counts.sum() == np.sum(intervals < 0.004 * fs)
    assert counts[:3].sum() == refractory_violations(samples, fs, samples[-1] + 1, 0)["isi_violations_count"]
    assert interval_counts(samples[:1], fs, 0.5, 8).tolist() == [0] * 8


def test_template_similarity_looks_at_all_lags():
    rng = np.random.default_rng(0)
    first = np.zeros((2, 40))
    first[:, 5:20] = rng.normal(size=(2, 15))
    late, other = np.roll(3 * first, 12, axis=1), np.zeros((2, 40))
    other[0, 30] = 1.0
    similarity = template_similarity(np.stack([first, late, np.zeros((2, 40)), -other, other]))
    assert similarity[0, 1] == pytest.approx(1.0)
    np.testing.assert_allclose(similarity, similarity.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(similarity), [1, 1, 0, 1, 1])
    assert similarity[3, 4] == pytest.approx(0.0, abs=1e-12)


# ---- primitives


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 10.0, ["0", "2", "4", "6", "8", "10"]),
        (-0.3, 0.21, ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2"]),
        (0, 51_000, ["0", "10,000", "20,000", "30,000", "40,000", "50,000"]),
        (7.0, 7.0, ["7"]),
    ],
)
def test_ticks_are_round(low, high, labels):
    assert tick_labels(ticks(low, high)) == [with_minus(label) for label in labels]


def test_numbers_for_reading():
    words = [
        number(v) for v in (12345, np.int64(-3), 0.012345, 1234567.8, float("nan"), None, np.float32(0), True, np.inf, "ab")
    ]
    assert words == ["12,345", with_minus("-3"), "0.0123", "1.23e+06", UNKNOWN, UNKNOWN, "0", "yes", "∞", "ab"]
    assert [percent(v) for v in (0.0, 1e-7, 0.0123, 0.5, 1.0, float("nan"))] == [
        "0.00",
        "< 0.01",
        "1.23",
        "50",
        "100",
        UNKNOWN,
    ]


def test_what_a_panel_draws_is_the_data():
    drawing, panel = axes(200, 100, (0, 10), (0, 4), (10, 10, 10, 40))
    panel.line([0, 5, 10], [0, np.nan, 4], "line")
    panel.bars([0, 5, 10], [0, 2], "bars")
    panel.points([5], [2], "dots")
    svg = drawing.render("a < b")
    assert paths(svg, "line") == ["M40.0 90.0M190.0 10.0"], "the pen is lifted at NaN"
    assert paths(svg, "bars") == ["M115.0 90.0V50.0H190.0V90.0z"], "an empty bar is not drawn"
    assert paths(svg, "dots") == ["M115.0 50.0h0"]
    assert ElementTree.fromstring(svg).get("aria-label") == "a < b"


def test_escaped_text_is_xml():
    drawing = Drawing(10, 10)
    drawing.text(0, 0, HOSTILE)
    root = ElementTree.fromstring(drawing.render(HOSTILE))
    assert root.get("aria-label") == root[0].text == HOSTILE.replace("\x00", "\ufffd").replace("\udcff", "\ufffd")
    assert "<" not in escape(HOSTILE)


def test_the_template_is_drawn_at_scale():
    sorting = make_sorting(2)
    picture = template_picture(sorting, 1)
    lines = [path_points(path) for path in paths(picture.svg, "line")]
    assert len(lines) == len(paths(picture.svg, "band")) == 4
    drawn, true = np.stack([line[:, 1] for line in lines]), sorting.templates[1].astype(float)
    for wave, template in zip(drawn, true, strict=True):
        slope, _ = np.polyfit(template, wave, 1)
        assert slope == pytest.approx(np.polyfit(true[0], drawn[0], 1)[0], rel=0.02), "all channels at one scale"
        np.testing.assert_allclose(wave - wave.mean(), slope * (template - template.mean()), atol=0.11)
    many = template_picture(make_sorting(1, n_channels=40), 0)
    assert len(paths(many.svg, "line")) == 16 and "16 of 40 channels" in many.note


def test_many_amplitudes_are_drawn_in_part():
    sorting = make_full_sorting(1, 1, spikes_per_unit=5000)
    picture = amplitude_picture(sorting.spikes["sample"], sorting.spikes["amplitude"], sorting, 40.0, 2000)
    assert paths(picture.svg, "dots")[0].count("h0") == 2000
    assert "2,000 of 5,000 spikes" in picture.note


def test_what_the_prior_does_to_amplitudes_is_undone():
    energy, spread, size = 49.0, 0.2, 60.0
    precision = 1 / spread**2
    template = np.zeros((1, 1, 30), np.float32)
    template[0, 0, 10] = np.sqrt(energy)
    slab = CRsAE(template, SpikeSlab(np.array([spread]), np.array([6.0])), refractory=10)
    sorting = make_full_sorting(1, 1, units={"whitened_norm": np.sqrt([energy]), "threshold": size * thresholds(slab)},
                           model={"spread": np.array([spread])}, templates=template * size / np.sqrt(energy))  # fmt: skip
    model = AmplitudeModel.of(sorting, 0, shrunk=True)
    found = np.array([0.5, 1.0, 1.3])
    posterior_mean = (found * energy + precision) / (energy + precision)
    np.testing.assert_allclose(model.found(size * posterior_mean), size * found)
    assert model.noise == pytest.approx(size / np.sqrt(energy))
    # at the threshold a spike adds nothing to the log posterior
    at = model.threshold / size
    gain = 0.5 * (at * energy + precision) ** 2 / (energy + precision) - 0.5 * precision
    assert gain == pytest.approx(0.5 * np.log1p(energy / precision) + slab.prior.penalty[0])
    np.testing.assert_array_equal(AmplitudeModel.of(sorting, 0, shrunk=False).found(found), found)


# ---- the page


@pytest.mark.parametrize(
    "sorting",
    [
        make_full_sorting(0, 4, curation=(), model={}),
        make_full_sorting(1, 1, excluded=np.zeros((0, 2), np.int64)),
        make_full_sorting(1, 16),
        make_full_sorting(3, 4, silent=[1]),
        make_full_sorting(2, 2, silent=[0, 1]),
        make_full_sorting(14, 4),
        make_full_sorting(2, 3, units={}, model={}, channels={}, example=np.zeros((0, 0), np.float32)),
        make_full_sorting(2, 1, templates=np.zeros((0, 0, 0), np.float32), templates_std=np.zeros((0, 0, 0), np.float32), example=np.zeros((0, 0), np.float32)),
    ],
    ids=["no-units", "one-channel", "16-channels", "silent-unit", "no-spikes", "many-units", "bare", "no-templates"],
)  # fmt: skip
@pytest.mark.parametrize("run", [RUN, {}], ids=["run", "no-run"])
def test_the_page_is_well_formed_and_whole(sorting, run):
    text = report_html(sorting, run, make_truth(sorting) if sorting.n_units and len(sorting.spikes) else None)
    page = Page(text)
    assert len(page.all("article")) == sorting.n_units
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["href"][1:] in ids for a in page.all("a")), "links lead to places on the page"
    found = drawings(text)
    assert len(found) == len(page.all("svg")) == len(page.all("figure"))
    assert all(svg.get("aria-label") and svg.get("role") == "img" for svg in found)
    per_unit = 5 if len(sorting.templates) else 3
    assert len(found) >= per_unit * sorting.n_units
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(re.findall(r' (?:d|x|y|width|height)="([^"]*)"', text)))
    for attributes in (a for _, a in page.elements):
        for name in ("src", "href", "data", "action", "srcset"):
            assert not re.match(r"\s*(?:\w+:)?//", attributes.get(name) or ""), "nothing from elsewhere"
    assert "url(" not in text and "@import" not in text


@pytest.mark.parametrize("n_units", [1, 2, 12, 13])
def test_the_course_of_training_has_a_line_per_unit_from_the_round_on_in_which_it_came(n_units):
    sorting = make_full_sorting(n_units, 4, model=make_model(n_units, n_rounds=6))
    pictures = training_pictures(sorting)
    assert [picture.title for picture in pictures] == ["Spread", "Penalty"]
    for picture, name in zip(pictures, ("spread", "penalty"), strict=True):
        course = sorting.model[f"{name}_history"]
        groups = [part for part in picture.drawing.parts if isinstance(part, Group)]
        assert [group.classes for group in groups] == [color_class(row) for row in range(n_units)]
        for group, values, unit in zip(groups, course.T, sorting.unit_ids, strict=True):
            line = next(part for part in group.parts if part.classes == "line")
            assert len(re.findall("[ML]", line.data)) == np.isfinite(values).sum()
            assert group.title.startswith(f"unit {unit}: ")
        names = [part for group in groups for part in group.parts if isinstance(part, Text)]
        assert [part.text for part in names] == [f"unit {unit}" for unit in sorting.unit_ids if n_units <= MOST_NAMED]
        places = np.sort([part.y for part in names])
        assert (np.diff(places) > 11).all() and ((places > 0) & (places < picture.drawing.height - 30)).all()


def test_the_training_of_a_laplace_prior_of_one_round_and_of_none():
    course = {"lambda": np.array([4.0, 5.0]), "lambda_history": np.array([[np.nan, 5.0]])}
    sorting = make_full_sorting(2, 4, model={"sigma": np.array([0.9, 1.1]), **course})
    (picture,) = training_pictures(sorting)
    assert picture.title == "Lambda"
    (group,) = (part for part in picture.drawing.parts if isinstance(part, Group))
    assert group.title == "unit 1: 5 at the end"
    text = Page(report_html(sorting, RUN)).text
    assert "Laplace prior" in text and "0.9, 1.1" in text
    # `apply` trains nothing; nor is there a course where no unit was found
    applied = make_full_sorting(2, 4, model={"sigma": np.array(1.0), "spread": np.full(2, 0.1), "penalty": np.full(2, 7.0)})
    assert training_pictures(applied) == training_pictures(make_full_sorting(0, 4)) == []
    text = Page(report_html(applied, RUN)).text
    assert "No training was recorded." in text and "Spike-and-slab prior" in text


def test_the_page_says_what_it_should():
    sorting = make_full_sorting(3, 4)
    page = Page(report_html(sorting, RUN, make_truth(sorting)))
    for words in (
        "one.h5", "units: 1 single, 1 multi, 1 noise", "a note", "channel 0 is flat", "flat or saturated", "Template", "Auto-correlogram",
        "Intervals between spikes", "Amplitude over time", "Threshold", "Cross-correlograms", "Similarity of templates", "Spread", "Penalty",
        "round of training", "Spike-and-slab prior", "sigma, noise of the whitened signal", "one mode; similarity 0.990", "false alarms 1.20 % (0.40 to 3.10)", "self-test recall 97 %", "Truth n0, unit 0",
        "spike-slab", "left out, in 1 place",
    ):  # fmt: skip
        assert words in page.text, words
    assert "no example" in Page(report_html(make_full_sorting(example=np.zeros((0, 0), np.float32)), {})).text
    assert "the 12 of 14 units with the most spikes" in Page(report_html(make_full_sorting(14), {})).text


def test_a_bound_on_the_contamination_that_says_nothing_is_not_a_number():
    """The second unit is contaminated beyond doubt; of the third nothing is known."""
    units = {
        "label": np.array(["single", "multi", "unsure"]),
        "contamination_low": np.array([0.0, 0.4, 0.0]),
        "contamination_high": np.array([0.08, 1.0, 1.0]),
    }
    text = report_html(make_full_sorting(3, 4, units=units), RUN)
    table = text[text.index("contaminated at most") :]
    table = table[: table.index("</table>")]
    assert [table.count(words) for words in (">8.00<", ">100<", ">unsure: too few spikes<")] == [1, 1, 1]
    assert 'title="Intervals below the refractory period allow a contamination from 0.00 to 100 %' in table


def test_rates_are_those_of_the_time_that_was_sorted():
    """Half of the recording is left out."""
    sorting = make_full_sorting(1, 1)
    half = replace(sorting, excluded=np.array([[0, sorting.n_samples // 2]]))
    half = replace(half, spikes=half.spikes[half.spikes["sample"] >= sorting.n_samples // 2])
    rate = 2 * len(half.spikes) / sorting.duration_s
    assert f"{len(half.spikes)} spikes \N{MIDDLE DOT} {rate:.3g} Hz" in report_html(half, RUN)


def test_text_from_files_is_never_markup():
    sorting = make_full_sorting(2, 2)
    hostile = np.array([HOSTILE, HOSTILE], dtype=object)
    sorting = make_full_sorting(
        2, 2, channels={"ids": hostile}, units=sorting.units | {"label": hostile, HOSTILE: np.ones(2)}, amplitude_unit=HOSTILE,
        curation=({"decision": HOSTILE, "units": [4], "why": HOSTILE, HOSTILE: HOSTILE},),
    )  # fmt: skip
    run = {"spikecrsae": HOSTILE, "began": HOSTILE, "device": HOSTILE, "seconds": 1.0, "config": {HOSTILE: HOSTILE}, "warnings": [HOSTILE],
           "recording": {"path": HOSTILE, "format": HOSTILE, "notes": [HOSTILE]}}  # fmt: skip
    known = {HOSTILE: sorting.spike_samples(0)}
    comparison = compare(known, sorting.trains(), FS)
    text = report_html(sorting, run, Truth(HOSTILE, comparison, best_match_curves(comparison, known, sorting)))
    page = Page(text)
    assert len(page.all("script")) == 1 and not page.all("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)") > 10, "it is shown as it is"
    assert len(drawings(text)) == len(page.all("svg"))
    assert text.encode()


def test_the_page_may_run_its_own_script_only():
    text = report_html(make_full_sorting(), RUN)
    (policy,) = (a["content"] for a in Page(text).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "'unsafe-inline'" not in policy.split("script-src")[1]


def test_twelve_units_take_less_than_3_mb():
    sorting = make_full_sorting(12, 4, spikes_per_unit=4000)
    assert len(report_html(sorting, RUN).encode()) < 3e6


# ---- the command


@pytest.fixture
def result(tmp_path) -> Path:
    return write_result(tmp_path / "one.sorted", make_full_sorting(), RUN)


def test_the_example_survives_the_result_folder(result):
    sorting, back = make_full_sorting(), read_sorting(result)
    np.testing.assert_array_equal(back.example, sorting.example)
    assert back.example_start == sorting.example_start


@pytest.mark.slow
def test_report_goes_into_the_result_folder_and_its_manifest(result):
    for _ in range(2):
        run = spikecrsae("report", result)
        assert run.exit_code == 0, run.stderr
        assert run.stdout.strip() == str(result / "report.html")
    assert (result / "report.html").read_text(encoding="utf-8") == report_html(make_full_sorting(), RUN)
    assert "report.html" in json.loads((result / "manifest.json").read_text())["files"]


def test_report_with_truth_has_the_scores_and_curves(result, tmp_path):
    page = tmp_path / "page.html"
    run = spikecrsae("report", result / "sorting.h5", "-o", page, "--truth", result / "spikes.csv", "--json")
    assert run.exit_code == 0, run.stderr
    assert json.loads(run.stdout)["bytes"] == page.stat().st_size
    text = Page(page.read_text(encoding="utf-8")).text
    assert "Truth 0, unit 0" in text and "spikes.csv" in text
    assert not (result / "report.html").exists()


@pytest.mark.slow
def test_report_takes_the_place_of_nothing_else(result, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert spikecrsae("report", result, "-o", page).exit_code == 6
    assert spikecrsae("report", result, "-o", tmp_path).exit_code == 6
    assert page.read_text() == "mine"
    assert spikecrsae("report", result, "-o", page, "--overwrite").exit_code == 0
    assert spikecrsae("report", result / "sorting.h5").exit_code == 2, "no folder to go to"
    assert spikecrsae("report", tmp_path / "missing").exit_code == 3


def test_report_leaves_a_foreign_page_alone(result):
    (result / "report.html").write_text("mine")
    assert spikecrsae("report", result).exit_code == 6
    assert (result / "report.html").read_text() == "mine"
