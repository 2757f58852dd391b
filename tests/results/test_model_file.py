"""A model.safetensors is held against what belongs there, entry by entry, before anything is computed with it."""

from __future__ import annotations

import copy
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import PRIORS
from spikecrsae.errors import InputError
from spikecrsae.results.model_file import (
    _LAYOUT,
    check_groups,
    check_model,
    load_checkpoint,
    save_checkpoint,
)

CRSAE, PARAMETERS = ("crsae",), ("crsae", "prior", "parameters")


def places(layout, above=()):
    """The path of every entry of a layout, groups of entries before what they hold."""
    for name, wanted in layout.items():
        yield (*above, name)
        if isinstance(wanted, dict):
            yield from places(wanted, (*above, name))


#: The parameters are those of the prior that the recording was sorted with.
PLACES = [*places(_LAYOUT), *((*PARAMETERS, name) for name in PRIORS["spike-slab"].first(0).parameters())]


@pytest.fixture(scope="module")
def saved(short_sort):
    return load_checkpoint(short_sort.folder / "model.safetensors")


def changed(saved, place, change):
    """A copy in which the entry at a place is what `change` makes of it, or gone where that gives None."""
    model = copy.deepcopy(saved)
    holder = model
    for name in place[:-1]:
        holder = holder[name]
    value = change(holder.pop(place[-1]))
    if value is not None:
        holder[place[-1]] = value
    return model


def test_a_model_of_ours_passes(saved):
    check_model(saved, "model.safetensors")


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_an_entry_that_is_missing_or_of_another_kind_is_named(saved, place):
    for change in (lambda value: None, lambda value: [value], lambda value: object()):
        with pytest.raises(InputError, match=rf"model\.safetensors is damaged: .*{place[-1]}"):
            check_model(changed(saved, place, change), "model.safetensors")


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_arrays_that_do_not_fit_each_other_and_numbers_that_are_none_are_refused(saved, place):
    def spoilt(value):
        if isinstance(value, np.ndarray):
            yield value[:-1]
            yield np.stack([value, value])
            yield np.repeat(value, 2, axis=-1)
            if value.dtype.kind == "f":
                yield np.full_like(value, np.nan)
        elif isinstance(value, int | float):
            if isinstance(value, bool):
                yield from (0, 1, "true", np.array(True))
                return
            yield from (float("nan"), -1, float("inf"), True)

    entry = saved
    for name in place:
        entry = entry[name]
    for value in spoilt(entry):
        # the number of filters' taps and of sections are free
        if (
            place in {("preprocessor", "whitening_filter"), ("preprocessor", "sos")}
            and value.ndim == 2
            and np.isfinite(value).all()
        ):
            continue
        with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
            check_model(changed(saved, place, lambda _, value=value: value), "model.safetensors")


def test_numbers_that_would_take_all_memory_are_refused(saved):
    with pytest.raises(InputError, match="n_shifts is 1000000000, no whole number of 1 to 64"):
        check_model(changed(saved, (*CRSAE, "n_shifts"), lambda _: 10**9), "model.safetensors")


def of_kind(kind):
    return lambda value: value.astype(kind)


def first(number):
    return lambda value: np.concatenate([np.full_like(value[:1], number), value[1:]])


def unstable(sos):
    sos = sos.copy()
    sos[0, 3:] = 1, -2.5, 1.2
    return sos


#: Of the right shape and finite, and no sorting gives it.
IMPOSSIBLE = {
    "whole templates": ((*CRSAE, "templates"), of_kind(np.int64), "templates is no array of real numbers"),
    "Boolean filter": (("preprocessor", "whitening_filter"), of_kind(bool), "whitening_filter is no array of real numbers"),
    "whole sections": (("preprocessor", "sos"), of_kind(np.int32), "sos is no array of real numbers"),
    "whole noise": (("preprocessor", "noise_level"), of_kind(np.int16), "noise_level is no array of real numbers"),
    "real usable": (("usable",), of_kind(np.float32), "usable is no array of truth values"),
    "whole reported": (("reported",), of_kind(np.int64), "reported is no array of truth values"),
    "unstable": (("preprocessor", "sos"), unstable, "does not settle"),
    "other sections": (("preprocessor", "sos"), lambda sos: sos * 2, "sos is not normalised"),
    "no sections": (("preprocessor", "sos"), lambda sos: sos[:0], "it has no sections"),
    "long templates": ((*CRSAE, "templates"), lambda t: np.repeat(t, 2, axis=2), "has 80 samples, initialise.template_ms gives 40"),
    "huge": ((*CRSAE, "templates"), first(1e13), "templates holds a number beyond 1e"),
    "huge matrix": (("preprocessor", "whitening_matrix"), first(-1e13), "whitening_matrix holds a number beyond"),
    "margin": (("preprocessor", "margin"), lambda n: 2 * n, "margin is .* the filter settles in"),
    "settling": (("preprocessor", "settling"), lambda _: 10**6, "settling is"),
    "taps": (("preprocessor", "whitening_filter"), lambda w: np.tile(w, (1, 100)), "whitening_filter has .* taps"),
    "noise level": (("preprocessor", "noise_level"), first(0), "noise_level must be above 0"),
    "reference": (("preprocessor", "common_reference"), lambda _: "mode", "common_reference is 'mode', none of none, median"),
    "refractory": ((*CRSAE, "refractory"), lambda _: 10**4, "crsae.refractory is 10000 samples"),
    "penalty": ((*PARAMETERS, "penalty"), first(-3), "crsae.prior.parameters.penalty must be above 0"),
    "spread": ((*PARAMETERS, "spread"), first(0), "crsae.prior.parameters.spread must be above 0"),
    "no sigma": ((*CRSAE, "sigma"), lambda _: 0.0, "crsae.sigma is 0.0, no number of 0.001 to"),
    "a sigma whose square is 0": ((*CRSAE, "sigma"), lambda _: 1e-200, "crsae.sigma is 1e-200, no number of 0.001 to"),
    "whole support": ((*CRSAE, "support"), of_kind(np.int64), "crsae.support is no array of truth values"),
    "number for truth": ((*CRSAE, "local_search"), lambda _: 1, "crsae.local_search is no true or false"),
    "prior": ((*CRSAE, "prior", "name"), lambda _: "cauchy", "crsae.prior.name is 'cauchy', none of spike-slab"),
    "two priors": ((*CRSAE, "prior", "name"), lambda name: [name], "crsae.prior.name is .*, none of spike-slab"),
    "prior's parameters": (PARAMETERS, lambda p: p | {"lam": p["spread"]}, "unexpected entries: crsae.prior.parameters.lam"),
    "stage": (("config",), lambda config: config | {"nonsense": 1}, "config: table nonsense does not exist"),
    "setting": (("config",), lambda config: config | {"train": {"kappa": np.ones(3)}}, "config: train.kappa"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_no_sorting_gives_is_named(saved, case):
    place, change, told = IMPOSSIBLE[case]
    with pytest.raises(
        InputError, match=rf"model\.safetensors is damaged: .*{told}.*; give the model\.safetensors of a result folder"
    ):
        check_model(changed(saved, place, change), "model.safetensors")


def test_a_model_without_units_passes(saved):
    empty = CRsAE.of_dict(saved["crsae"]).select([]).to_dict()
    check_model(saved | {"crsae": empty, "reported": saved["reported"][:0]}, "model.safetensors")


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_is_written_and_read(saved, tmp_path, name):
    """Parameters are checked by the class of the prior; those of another do not pass."""
    model = CRsAE.of_dict(saved["crsae"])
    crsae = CRsAE(model.templates, PRIORS[name].first(model.n_units), refractory=model.refractory)
    save_checkpoint(saved | {"crsae": crsae.to_dict()}, tmp_path / "model.safetensors")
    read = load_checkpoint(tmp_path / "model.safetensors")
    check_model(read, "model.safetensors")
    again = CRsAE.of_dict(read["crsae"])
    assert again.prior.name == name
    for parameter, values in crsae.prior.parameters().items():
        np.testing.assert_array_equal(again.prior.parameters()[parameter], values)
    np.testing.assert_array_equal(again.templates, model.templates)
    with pytest.raises(InputError, match=r"missing or unexpected entries: .*crsae\.prior\.parameters\.other"):
        check_model(changed(read, PARAMETERS, lambda p: {"other": next(iter(p.values()))}), "model.safetensors")


@pytest.mark.parametrize("version", [np.array([3, 3]), 1, 2, 4, True, None, "3"])
def test_another_format_version_is_refused(saved, tmp_path, version):
    save_checkpoint({**saved, "format_version": version}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"has model format .*, this program reads 3; sort the recording again"):
        load_checkpoint(tmp_path / "model.safetensors")


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "arrays": [
            rng.normal(size=(3, 4)),
            rng.normal(size=(2, 5)).astype(np.float32).T,
            np.zeros((0, 2), bool),
            np.array(2.5),
        ],
        "numbers": [0.1, np.float32(0.1), np.int64(7), np.nan, -np.inf, True, None],
        "tensor": {"a.b": ("text", "\udcff \u00b5"), "tensor": np.arange(3)},
    }
    save_checkpoint(values, tmp_path / "a.safetensors")
    read = load_checkpoint(tmp_path / "a.safetensors")
    for found, array in zip(read["arrays"], values["arrays"], strict=True):
        assert found.dtype == array.dtype and found.flags.c_contiguous and found.flags.writeable
        np.testing.assert_array_equal(found, array)
    assert repr(read["numbers"]) == repr([0.1, float(np.float32(0.1)), 7, np.nan, -np.inf, True, None])
    assert read["tensor"]["a.b"] == ["text", "\udcff \u00b5"] and read["tensor"]["tensor"].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes_in_every_process(saved, tmp_path):
    save_checkpoint(saved, tmp_path / "here.safetensors")
    code = (
        "import sys; from pathlib import Path; from spikecrsae.results.model_file import load_checkpoint, save_checkpoint\n"
        "save_checkpoint(load_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "print(*{'torch', 'pickle'} & set(sys.modules))"
    )
    for name in ("one", "two"):
        words = [sys.executable, "-c", code, tmp_path / "here.safetensors", tmp_path / f"{name}.safetensors"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert "torch" not in done.stdout
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()


def test_a_damaged_file_is_refused_or_differs_in_numbers_alone(saved, tmp_path):
    """Cut anywhere, or with a byte changed anywhere: InputError, or arrays of the same shapes."""
    save_checkpoint(saved, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in (0, 7, 8, 9, header, len(whole) - 1, *rng.integers(len(whole), size=20))]
    for place in (*range(9), *rng.integers(header, size=300)):
        damaged.append(whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :])
    n_refused = 0
    for content in damaged:
        (tmp_path / "model.safetensors").write_bytes(content)
        try:
            check_model(load_checkpoint(tmp_path / "model.safetensors"), "model.safetensors")
        except InputError as error:
            n_refused += 1
            assert len(str(error).splitlines()) == 1
    assert n_refused > 100


def test_the_model_of_an_earlier_version_is_to_be_sorted_again(short_sort, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as former:
        former.writestr("archive/data.pkl", b"")
    for model in (tmp_path, tmp_path / "model.pt"):
        result = spikecrsae("apply", str(model), str(short_sort.recording), "-o", str(tmp_path / "out"))
        assert result.exit_code == InputError.exit_code
        assert (
            "model.pt is a model of an earlier version, which is no longer read; sort the recording again." in result.stderr
        )


def test_a_large_file_of_another_kind_is_not_read(tmp_path):
    with (tmp_path / "recording.dat").open("wb") as file:
        file.write(b"\x01\x02" * 100)
        file.truncate(2**42)
    with pytest.raises(InputError, match="is not a model of this program"):
        load_checkpoint(tmp_path / "recording.dat")


def test_channels_of_groups_must_be_there(saved):
    channels = np.arange(saved["n_channels"])
    honest = {"format_version": 1, "n_channels": len(channels), "groups": {"a": {"channels": channels, "model": saved}}}
    check_groups(honest, "model.safetensors")
    for place, change, told in (
        (("groups", "a", "channels"), lambda c: c + 1, "channels that are none of"),
        (("groups", "a", "channels"), lambda c: c[1:], "its model another number"),
        (("groups", "a", "model", "crsae"), lambda _: None, "group a, is damaged: missing or unexpected entries: crsae"),
        (("groups", "a", "model"), lambda _: None, "group a: model"),
        (("groups",), lambda _: [], "groups"),
        (("groups",), lambda _: {}, "groups is empty"),
        (("groups", "a", "channels"), lambda c: c * 0, "or one twice"),
        (("n_channels",), lambda _: None, "n_channels is None"),
    ):
        with pytest.raises(InputError, match=told):
            check_groups(changed(honest, place, change), "model.safetensors")


def test_the_command_line_refuses_it(saved, short_sort, tmp_path):
    save_checkpoint(changed(saved, (*PARAMETERS, "penalty"), lambda p: p[:0]), tmp_path / "model.safetensors")
    words = ["apply", str(tmp_path / "model.safetensors"), str(short_sort.recording), "-o", str(tmp_path / "out")]
    result = spikecrsae(*words)
    assert result.exit_code == InputError.exit_code
    assert "crsae.prior.parameters.penalty has the shape (0,)" in result.stderr
    assert not (tmp_path / "out").exists()
