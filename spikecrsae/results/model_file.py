"""The model file (model.safetensors): what `apply` needs of a sorting, and what --resume needs of a stopped run.

Arrays are tensors under dotted names. Everything else is one JSON text in the header, since several header entries would be
written in varying order. A file from elsewhere is checked entry by entry: compiled loops do not check indices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from spikecrsae.config import Config, InitialiseConfig, PreprocessConfig
from spikecrsae.crsae.priors import PRIORS
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.errors import InputError, UsageError
from spikecrsae.preprocess.filters import settling_samples
from spikecrsae.results.folder import MODEL
from spikecrsae.system.array_layout import LARGEST, check_array
from spikecrsae.system.files import refuse_unreadable, write_atomic
from spikecrsae.units import ms_to_samples

FORMAT_VERSION = 3
#: Name of the JSON text in the header, and the model file of format 1 (a torch archive, which is a zip file).
_HEADER_ENTRY, _FORMER = "spikecrsae", "model.pt"
_ZIP = b"PK\x03\x04"
#: Bytes of the length field at the beginning, and of the largest header that the format allows.
_LENGTH, _MOST_HEADER = 8, 100_000_000

_PREPROCESS, _INITIALISE = ({f.name: f.metadata for f in fields(stage)} for stage in (PreprocessConfig, InitialiseConfig))
#: The model of one group of channels. Arrays: kind and sizes for array_layout.check_array (n channels of the recording, c used
#: ones, k templates, w samples of a template, t taps, s sections), + for positive. Numbers: least and largest value. Text: one of
#: a list. The parameters of the prior are those of the class in PRIORS, each "f:k+".
_LAYOUT: dict[str, Any] = {
    "n_channels": (1, 10**6),
    "amplitude_unit": str,
    "sampling_frequency": (1.0, 1e6),
    "usable": "b:n",
    "preprocessor": {
        "sos": "f:s6",
        "margin": (1, 10**9),
        "common_reference": list(_PREPROCESS["common_reference"]["choices"]),
        "noise_level": "f:c+",
        "whitening_matrix": "f:cc",
        "whitening_filter": "f:ct",
        "quiet_fraction": (0.0, 1.0),
        "settling": (0, 10**9),
    },
    "crsae": {
        "templates": "f:kcw",
        # of a whitened signal, about 1; a tiny one would overflow what is divided by its square
        "sigma": (1e-3, LARGEST),
        "refractory": (0, 10**4),
        "n_shifts": (1, 64),
        "support": "b:kc",
        "local_search": bool,
        "prior": {"name": list(PRIORS), "parameters": dict},
    },
    "reported": "b:k",
    "config": dict,
}
_KINDS = {str: "text", bool: "true or false", dict: "group of entries"}
_NAMES = {"c": "channels", "w": "samples of a template", "t": "taps of the whitening filter", "s": "sections of the filter"}


def save_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a nest of dicts and lists of arrays, numbers and text to a file, whole or not at all.

    The same values give the same bytes. Raises OutputError if the file cannot be written.
    """
    write_atomic(path, [to_bytes({"format_version": FORMAT_VERSION, **checkpoint})])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what save_checkpoint wrote; tuples come back as lists.

    Raises InputError for a missing or damaged file, another kind of file, or another version.
    """
    former = path.with_name(_FORMER)
    if not path.exists() and former.exists():
        raise _outdated(former)
    refuse_unreadable(path, f"the {MODEL} of a result folder")
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH + 1)
            if start.startswith(_ZIP):
                raise _outdated(path)
            # a large file of another kind is not read to its end
            if start[_LENGTH:] != b"{" or int.from_bytes(start[:_LENGTH], "little") > _MOST_HEADER:
                raise ValueError("no header of safetensors")
            values = from_bytes(start + file.read())
    except OSError as error:
        raise InputError(f"model {path} cannot be read ({error.strerror}); give the {MODEL} of a result folder.") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a foreign header can raise anything in the parser
        raise InputError(
            f"{path} is not a model of this program, or damaged; give the {MODEL} of a result folder."
        ) from error
    found = values.get("format_version")
    if type(found) is not int or found != FORMAT_VERSION:
        raise InputError(
            f"{path} has model format {found!r:.40}, this program reads {FORMAT_VERSION}; sort the recording again."
        )
    return values


def _outdated(path: Path) -> InputError:
    return InputError(f"{path} is a model of an earlier version, which is no longer read; sort the recording again.")


def to_bytes(values: Mapping[str, Any]) -> bytes:
    """The values as the content of a model file."""
    arrays: dict[str, np.ndarray] = {}
    told = json.dumps(_without_arrays(values, "", arrays), default=np.generic.item)
    return safetensors.numpy.save(arrays, {_HEADER_ENTRY: told})


def from_bytes(content: bytes) -> dict[str, Any]:
    """The values that to_bytes wrote, to the last bit; arrays in C order. Another content can raise any exception."""
    arrays = safetensors.numpy.load(content)
    header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
    values = _with_arrays(json.loads(header["__metadata__"][_HEADER_ENTRY]), arrays)
    if arrays or not isinstance(values, dict):
        raise ValueError("tensors and their names do not match")
    return values


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value with {"tensor": name} in place of each array; the arrays are put into `arrays`."""
    if isinstance(value, Mapping):
        return {key: _without_arrays(item, f"{name}.{key}" if name else key, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{name}.{index}", arrays) for index, item in enumerate(value)]
    if not isinstance(value, np.ndarray):
        return value
    arrays[name] = np.array(value, order="C")
    return {"tensor": name}


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tensor"} and isinstance(value["tensor"], str):
        return np.array(arrays.pop(value["tensor"]))  # writable, and aligned in memory
    return {key: _with_arrays(item, arrays) for key, item in value.items()}


def check_model(saved: Mapping[str, Any], path: Path | str) -> None:
    """Raise InputError, naming the entry, if the model of one group of channels is not one that a sorting writes.

    That is: an entry missing, unexpected, of another kind or shape; a number not finite, not positive or too large; a filter
    that does not settle or has too many taps; templates of another length than the settings say; a prior that is not known.
    """
    try:
        sizes: dict[str, int] = {}
        _check({name: value for name, value in saved.items() if name != "format_version"}, _LAYOUT, "", sizes)
        if sizes["n"] != saved["n_channels"] or sizes["c"] != np.count_nonzero(saved["usable"]):
            raise ValueError("usable does not fit the channels")
        if nothing := next((name for letter, name in _NAMES.items() if not sizes[letter]), ""):
            raise ValueError(f"it has no {nothing}")
        _check_filters(saved["preprocessor"], saved["sampling_frequency"])
        config = Config().with_values(saved["config"], origin="config")
        _check_crsae(saved["crsae"], config, saved["sampling_frequency"], sizes)
    except (ValueError, TypeError, OverflowError, UsageError) as error:
        raise _damaged(path, error) from error


def check_groups(saved: Mapping[str, Any], path: Path | str) -> None:
    """As check_model, for the model of several groups, or of the neighbourhoods of one: their channels, and each one's own
    model; a group may consist of neighbourhoods."""
    kind = "group" if "groups" in saved else "neighbourhood"
    try:
        n_channels, parts = saved.get("n_channels"), saved[f"{kind}s"]
        entries = {"n_channels": n_channels, f"{kind}s": parts}
        _check(entries, {"n_channels": _LAYOUT["n_channels"], f"{kind}s": dict}, "", {})
        if not parts:
            raise ValueError(f"{kind}s is empty")
        for name, part in parts.items():
            if not isinstance(part, dict):
                raise ValueError(f"{kind} {name} is no {kind}")
            _check(part, {"channels": "iu:g", "model": dict}, f"{kind} {name}: ", {})
            channels = part["channels"]
            if np.any((channels < 0) | (channels >= n_channels)) or len(np.unique(channels)) != len(channels):
                raise ValueError(f"{kind} {name} has channels that are none of {n_channels}, or one twice")
            if part["model"].get("n_channels") != len(channels):
                raise ValueError(f"{kind} {name} has {len(channels)} channels, its model another number")
    except ValueError as error:
        raise _damaged(path, error) from error
    for name, part in parts.items():
        check = check_groups if kind == "group" and "neighbourhoods" in part["model"] else check_model
        check(part["model"], f"{path}, {kind} {name},")


def _damaged(path: Path | str, error: Exception) -> InputError:
    return InputError(f"the model {path} is damaged: {error}; give the {MODEL} of a result folder.")


def _check_filters(saved: Mapping[str, Any], sampling_frequency: float) -> None:
    if np.any(saved["sos"][:, 3] != 1):
        raise ValueError("preprocessor.sos is not normalised")
    # the poles that another computer finds may differ in the last bit
    settled = settling_samples(saved["sos"].astype(np.float64)) + 1
    for name, most in ("margin", settled), ("settling", saved["margin"]):
        if saved[name] > most:
            raise ValueError(f"preprocessor.{name} is {saved[name]} samples, the filter settles in {most}")
    n_taps = saved["whitening_filter"].shape[1]
    most = ms_to_samples(_PREPROCESS["whitening_ms"]["high"], sampling_frequency) + 1
    if n_taps > most:
        raise ValueError(f"preprocessor.whitening_filter has {n_taps} taps, {most} are the most")


def _check_crsae(saved: Mapping[str, Any], config: Config, sampling_frequency: float, sizes: dict[str, int]) -> None:
    wanted = TemplateWindow.from_config(config.initialise, sampling_frequency).n_times
    if sizes["w"] != wanted:
        raise ValueError(f"crsae.templates has {sizes['w']} samples, initialise.template_ms gives {wanted}")
    most = ms_to_samples(_INITIALISE["refractory_ms"]["high"], sampling_frequency)
    if saved["refractory"] > most:
        raise ValueError(f"crsae.refractory is {saved['refractory']} samples, {most} are the most")
    prior = saved["prior"]
    parameters = PRIORS[prior["name"]].first(0).parameters()
    _check(prior["parameters"], dict.fromkeys(parameters, "f:k+"), "crsae.prior.parameters.", sizes)


def _check(saved: Mapping[str, Any], layout: Mapping[str, Any], place: str, sizes: dict[str, int]) -> None:
    if saved.keys() != layout.keys():
        wrong = ", ".join(f"{place}{name}" for name in sorted(saved.keys() ^ layout.keys(), key=str))
        raise ValueError(f"missing or unexpected entries: {wrong}")
    for name, wanted in layout.items():
        value, where = saved[name], f"{place}{name}"
        if isinstance(wanted, dict) and isinstance(value, dict):
            _check(value, wanted, f"{where}.", sizes)
        elif isinstance(wanted, str):
            kind, shape = wanted.split(":")
            check_array(value, kind, shape.rstrip("+"), where, sizes)
            if shape.endswith("+") and np.any(value <= 0):
                raise ValueError(f"{where} must be above 0")
        elif isinstance(wanted, list):
            if not isinstance(value, str) or value not in wanted:
                raise ValueError(f"{where} is {value!r:.40}, none of {', '.join(wanted)}")
        elif isinstance(wanted, tuple):
            least, most = wanted
            whole = isinstance(least, int)
            if not isinstance(value, int if whole else int | float) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{where} is {value!r:.40}, no {'whole ' if whole else ''}number of {least} to {most}")
        else:
            right = wanted if isinstance(wanted, type) else dict
            if not isinstance(value, right):
                raise ValueError(f"{where} is no {_KINDS[right]}")
