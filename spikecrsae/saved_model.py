"""What a model.pt holds: every name with its kind, and the sizes that must agree. A file from elsewhere is held against it
before a number of it is used: compiled loops do not look whether an index lies within an array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError

#: Of one group of channels. Arrays are given by their sizes: n channels of the recording, c used ones, k templates, w samples of
#: a template, t taps, s sections; a digit is a size of its own. Numbers are given by their least and largest value.
_LAYOUT: dict[str, Any] = {
    "n_channels": (1, 10**6),
    "amplitude_unit": str,
    "sampling_frequency": (1.0, 1e6),
    "usable": "n",
    "preprocessor": {
        "sos": "s6",
        "margin": (1, 10**8),
        "common_reference": str,
        "noise_level": "c",
        "whitening_matrix": "cc",
        "whitening_filter": "ct",
        "quiet_fraction": (0.0, 1.0),
        "settling": (0, 10**8),
    },
    "slab": {"templates": "kcw", "spread": "k", "penalty": "k", "refractory": (0, 10**6), "n_shifts": (1, 64)},
    "dictionary": {"atoms": "kcw", "scale": "k"},
    "reported": "k",
    "lambda": (0.0, np.inf),
    "sigma": (0.0, np.inf),
    "config": dict,
}


def check_model(saved: Mapping[str, Any], path: Path | str) -> None:
    """Raise InputError, naming the entry, where the model of one group of channels lacks one, or holds one of another kind or
    shape, or a number that is not finite."""
    try:
        sizes: dict[str, int] = {}
        _check({name: value for name, value in saved.items() if name != "format_version"}, _LAYOUT, "", sizes)
        if sizes["n"] != saved["n_channels"] or sizes["c"] != np.count_nonzero(saved["usable"]):
            raise ValueError("usable does not fit the channels")
        if np.any(saved["slab"]["spread"] <= 0):
            raise ValueError("slab.spread must be above 0")
    except ValueError as error:
        raise InputError(f"the model {path} is damaged: {error}; give the model.pt of a result folder.") from error


def check_groups(saved: Mapping[str, Any], path: Path | str) -> None:
    """The same for the model of several groups of channels, their channels and each one's own model."""
    try:
        n_channels, groups = saved.get("n_channels"), saved["groups"]
        _check({"n_channels": n_channels, "groups": groups}, {"n_channels": _LAYOUT["n_channels"], "groups": dict}, "", {})
        for name, group in groups.items():
            if not isinstance(group, dict):
                raise ValueError(f"group {name} is no group")
            _check(group, {"channels": "g", "model": dict}, f"group {name}: ", {})
            channels = group["channels"]
            if channels.dtype.kind not in "iu" or np.any((channels < 0) | (channels >= n_channels)):
                raise ValueError(f"group {name} has channels that are none of {n_channels}")
            if group["model"].get("n_channels") != len(channels):
                raise ValueError(f"group {name} has {len(channels)} channels, its model another number")
    except ValueError as error:
        raise InputError(f"the model {path} is damaged: {error}; give the model.pt of a result folder.") from error
    for name, group in groups.items():
        check_model(group["model"], f"{path}, group {name},")


def _check(saved: Mapping[str, Any], layout: Mapping[str, Any], place: str, sizes: dict[str, int]) -> None:
    if saved.keys() != layout.keys():
        wrong = ", ".join(f"{place}{name}" for name in sorted(saved.keys() ^ layout.keys(), key=str))
        raise ValueError(f"it lacks, or has beside what belongs there, {wrong}")
    for name, wanted in layout.items():
        value, where = saved[name], f"{place}{name}"
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                raise ValueError(f"{where} is no group of entries")
            _check(value, wanted, f"{where}.", sizes)
        elif isinstance(wanted, str):
            _check_array(value, wanted, where, sizes)
        elif isinstance(wanted, type):
            if not isinstance(value, wanted):
                raise ValueError(f"{where} is no {'text' if wanted is str else 'group of entries'}")
        else:
            _check_number(value, *wanted, where)


def _check_array(value: Any, wanted: str, where: str, sizes: dict[str, int]) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise ValueError(f"{where} is no array of numbers")
    fits = value.ndim == len(wanted) and all(
        (int(letter) if letter.isdigit() else sizes.setdefault(letter, n)) == n
        for letter, n in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{where} has the shape {value.shape}, which does not fit the others")
    if not np.isfinite(value).all():
        raise ValueError(f"{where} holds a number that is not finite")


def _check_number(value: Any, least: float, most: float, where: str) -> None:
    kinds = (int,) if isinstance(least, int) else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(
            f"{where} is {value!r:.40}, no {'whole ' if isinstance(least, int) else ''}number of {least} to {most}"
        )
