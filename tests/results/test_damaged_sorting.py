"""A sorting.h5 is held against what belongs there, array by array, whatever its manifest says."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import make_sorting, write_result, write_sorted

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError
from spikecrsae.results.folder import MANIFEST, read_sorting


def with_one(value):
    """What puts a value in the first place of an array."""

    def change(array):
        array.reshape(-1)[0] = value
        return array

    return change


def with_spike(field, value):
    def change(spikes):
        spikes[field][0] = value
        return spikes

    return change


#: Dataset, what becomes of it, and what is said.
ARRAYS = {
    "amplitude NaN": ("spikes", with_spike("amplitude", np.nan), "spikes/amplitude holds a number that is not finite"),
    "amplitude inf": ("spikes", with_spike("amplitude", np.inf), "spikes/amplitude holds a number that is not finite"),
    "shift NaN": ("spikes", with_spike("shift", np.nan), "spikes/shift"),
    "spikes plain": ("spikes", lambda a: a["sample"], "spikes has the type int64"),
    "templates NaN": ("templates", with_one(np.nan), "templates holds a number that is not finite"),
    "templates huge": ("templates", with_one(1e30), "templates holds a number beyond"),
    "templates flat": ("templates", lambda a: a[0], "templates has the shape"),
    "templates few": ("templates", lambda a: a[:-1], "templates has the shape"),
    "templates on fewer channels": ("templates", lambda a: a[:, :-1], "templates has the shape"),
    "templates whole": ("templates", lambda a: a.astype(np.int64), "templates is no array of real numbers"),
    "templates text": ("templates", lambda a: a.astype("S8"), "templates is no array of real numbers"),
    "templates none": ("templates", lambda a: a[:0], "peak_index has"),
    "std short": ("templates_std", lambda a: np.ones((len(a), a.shape[1], 3), np.float32), "templates_std has the shape"),
    "whitened few": ("templates_whitened", lambda a: np.ones((1, 4, 40), np.float32), "templates_whitened has the shape"),
    "peak_index short": ("peak_index", lambda a: a[:-1], "peak_index has the shape"),
    "peak_index late": ("peak_index", with_one(40), "peak_index holds .* within 0 and 39"),
    "peak_index negative": ("peak_index", with_one(-1), "peak_index holds -1"),
    "peak_index real": ("peak_index", lambda a: a * 1.0, "peak_index is no array of whole numbers"),
    "unit twice": ("units/unit", lambda a: a * 0, "names a unit twice|lacks"),
    "unit negative": ("units/unit", lambda a: a.astype(np.int64) - 10, "lacks|units/unit"),
    "channel beyond": ("units/peak_channel", with_one(4), "units/peak_channel holds"),
    "channels short": ("channels/ids", lambda a: a[:-1], "channels/ids has 3 values for 4 channels"),
    "excluded beyond": ("excluded", lambda _: np.array([[0, 10**9]]), "excluded holds"),
    "excluded flat": ("excluded", lambda _: np.array([0, 1]), "excluded has the shape"),
    "example": ("example", lambda _: np.zeros((5, 1), np.float32), "example has the shape"),
}  # fmt: skip
FACTS = {
    "sampling_frequency": (0.0, -20000.0, np.nan, np.inf, "fast"),
    "n_channels": (3, 0, -1),
    "n_samples": (-1, 100, np.inf),
    "start_time_s": (np.nan,),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made = write_sorted(tmp_path_factory.mktemp("damaged"), make_sorting())
    (made.folder / MANIFEST).unlink()  # one that was put right has nothing against it either
    return made


@pytest.fixture
def file(made):
    path = made.folder / "sorting.h5"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def replaced(path, name, change):
    with h5py.File(path, "r+") as stored:
        attributes, value = dict(stored[name].attrs), change(stored[name][()])
        del stored[name]
        stored[name] = value
        stored[name].attrs.update(attributes)


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_that_is_damaged_is_named(file, case):
    name, change, told = ARRAYS[case]
    replaced(file, name, change)
    with pytest.raises(InputError, match=rf"sorting\.h5 cannot be read as a sorting: .*({told})"):
        read_sorting(file)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FACTS.items() for value in values])
def test_a_fact_that_cannot_be_is_refused(file, name, value):
    with h5py.File(file, "r+") as stored:
        stored.attrs[name] = value
    with pytest.raises(InputError, match=r"sorting\.h5 cannot be read as a sorting"):
        read_sorting(file)


@pytest.mark.parametrize("words", [("show",), ("report",), ("export", "--to", "phy"), ("score",)], ids=lambda w: w[0])
def test_every_command_refuses_it_in_one_line(made, file, words):
    replaced(file, "templates", with_one(np.nan))
    known = ["--truth", str(made.folder)] if words == ("score",) else []
    result = spikecrsae(words[0], made.folder, *known, *words[1:])
    assert result.exit_code == InputError.exit_code
    assert "templates holds a number that is not finite" in result.stderr and "again" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["phy", "nwb", "klusters", "csv"])
def test_a_sorting_without_templates_is_exported_where_none_are_needed(made, tmp_path, kind):
    whole = made.sorting
    bare = SortingData(whole.spikes, whole.unit_ids, whole.sampling_frequency, whole.n_samples, 4, "uV")
    folder = write_result(tmp_path / "bare", bare, {"recording": {"path": str(made.recording)}})
    result = spikecrsae("export", folder, "--to", kind)
    if kind == "csv":
        assert result.exit_code == 0, result.stderr
    else:
        assert result.exit_code == InputError.exit_code and "no templates" in result.stderr
