"""The published data of the paper's comparison are read from the user's copy, and nothing in a file there is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from spikecrsae.errors import InputError


@pytest.fixture
def source(monkeypatch):
    """benchmarks/paper_source.py"""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import paper_source

    return paper_source


def cells(arrays) -> np.ndarray:
    """As MATLAB's cell array."""
    column = np.empty((len(arrays), 1), object)
    column[:, 0] = arrays
    return column


@pytest.fixture
def copy(source, tmp_path) -> Path:
    """A folder in the layout of the repository: three pieces, two of which overlap, and two methods."""
    for name in (source.PIECES, source.TRUTH):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(-3, 3, 60)
    pieces = [ramp[:41], ramp[30:], ramp[::-1]]
    places = [np.arange(1, 42, dtype=np.uint8), np.arange(31, 61, dtype=np.uint8), np.arange(1_491_941, 1_492_001)]
    scipy.io.savemat(tmp_path / source.PIECES, {"signal": cells(pieces), "idx": cells(places)})
    scipy.io.savemat(tmp_path / source.TRUTH, {"true_ts": np.array([[30, 50]], np.int32)})
    of_units = np.asfortranarray([[90.0, 95, 99], [1, 2, 8]])
    document = {
        "keys": {"cbp": "CBP", "COMP": "COMP"},
        "tm": {"cbp": np.array([3, 4, 300], np.uint16), "COMP": of_units},
        "fa": {"cbp": np.array([9, 5, 0], np.uint8), "COMP": of_units[:, ::-1]},
    }
    (tmp_path / source.COMPARISON).write_bytes(pickle.dumps(document, protocol=3))
    return tmp_path


def test_the_recording_is_rebuilt_of_its_pieces(source, copy):
    published = source.read_published(copy)
    traces = published.traces[:, 0]
    assert traces.dtype == np.int16 and len(traces) == 1_492_000
    np.testing.assert_array_equal(traces[:60], np.round(500 * np.linspace(-3, 3, 60)))
    np.testing.assert_array_equal(traces[-60:], traces[:60][::-1])
    assert np.std(traces[60:-60] / 500.0) == pytest.approx(0.985, rel=0.005)
    assert published.truth.tolist() == [29, 49]
    np.testing.assert_array_equal(published.traces, source.read_published(copy).traces, "the noise is the same each time")


def test_the_curve_of_a_method_is_that_of_its_best_unit(source, copy):
    curves = source.read_published(copy).curves
    assert curves["CBP"].tolist() == [[3, 9], [4, 5], [300, 0]]
    assert curves["COMP"].tolist() == [[1, 8], [2, 2], [8, 1]]


class _Runs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_would_run_something_is_refused(source, copy):
    trap = copy / "made"
    (copy / source.COMPARISON).write_bytes(pickle.dumps({"keys": {}, "tm": _Runs(trap)}))
    with pytest.raises(InputError, match=r"arrays only \(it names posix.mkdir|arrays only \(it names nt.mkdir"):
        source.read_published(copy)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(np.array([{}, None], object), protocol=3), "numbers of kind 'O8'"),
        (pickle.dumps(np.loadtxt), "it names numpy"),
        (pickle.dumps([1, 2])[:-1], "arrays only"),
        (b"no pickle", "arrays only"),
        # attributes for what stands for a function of numpy, which then is the kind of the numbers
        (b"\x80\x02cnumpy\n_reconstruct\n" + pickle.dumps({"order": "", "name": "S8"}, 2)[2:-1] + b"b.", "arrays only"),
        (pickle.dumps({"keys": {"cbp": "CBP"}, "tm": {}}), "does not hold the published curves"),
        (bytes(1_000_001), "larger than"),
    ],
    ids=["objects", "a function of numpy", "cut short", "text", "attributes", "other content", "too large"],
)
def test_other_pickles_are_refused(source, copy, content, said):
    (copy / source.COMPARISON).write_bytes(content)
    with pytest.raises(InputError, match=said):
        source.read_published(copy)


def test_what_is_no_copy_of_the_published_data_is_said(source, copy, tmp_path_factory):
    with pytest.raises(InputError, match=r"holds neither .* clone that repository"):
        source.read_published(tmp_path_factory.mktemp("empty"))
    scipy.io.savemat(copy / source.TRUTH, {"times": np.arange(3)})
    with pytest.raises(InputError, match="no variable true_ts"):
        source.read_published(copy)
    (copy / source.PIECES).write_bytes(b"no MATLAB file")
    with pytest.raises(InputError, match="cannot be read as a MATLAB file"):
        source.read_published(copy)


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (np.array([-5, 40]), "true spikes, or some outside"),
        (np.zeros(0), "true spikes, or some outside"),
        (np.array(["hello"]), "where numbers must be"),
    ],
)
def test_a_truth_that_cannot_be_is_refused(source, copy, truth, said):
    scipy.io.savemat(copy / source.TRUTH, {"true_ts": truth})
    with pytest.raises(InputError, match=said):
        source.read_published(copy)


def test_a_piece_outside_of_the_recording_is_refused(source):
    with pytest.raises(InputError, match="outside of samples 1 to 1492000"):
        source.rebuilt([np.array([-1, 0])], [np.zeros(2)])
    with pytest.raises(InputError, match="value beyond 65"):
        source.rebuilt([np.arange(2)], [np.array([0, 1e9])])
    with pytest.raises(InputError, match="no piece"):
        source.rebuilt([], [])
    with pytest.raises(InputError, match="differ in number"):
        source.rebuilt([np.arange(3)], [np.zeros(2)])
