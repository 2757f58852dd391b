"""Where the contacts are: probeinterface JSON, .prb files, and positions that stand in a recording."""

from __future__ import annotations

import ast
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.text import read_text

#: Probes of several thousand contacts have files of one or two.
_MOST_MB = 16
_TO_UM = {"um": 1.0, "mm": 1e3, "m": 1e6}


@dataclass(frozen=True)
class Probe:
    """positions: (x, y) in um by stored channel, empty where the file holds none; groups: stored channels by group name."""

    positions: dict[int, tuple[float, float]]
    groups: dict[str, tuple[int, ...]]


def read_probe(path: str | Path) -> Probe:
    """A probeinterface JSON or a .prb file; the content of a .prb is parsed, never executed.

    Raises InputError where the file is missing, is neither, or names a channel twice.
    """
    path = Path(path)
    refuse_unreadable(path, "a probe file")
    try:
        text = read_text(path, _MOST_MB)
    except OSError as error:
        raise InputError(f"probe file {path} cannot be read ({error.strerror}); check its name and rights.") from error
    except InputError as error:
        raise InputError(f"{error} Give a probe as probeinterface JSON or .prb.") from error
    try:
        return _from_json(json.loads(text)) if text.lstrip().startswith("{") else _from_prb(text)
    except InputError as error:
        raise InputError(f"probe file {path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, SyntaxError, RecursionError, MemoryError) as error:
        raise InputError(
            f"probe file {path} is neither probeinterface JSON nor a .prb with a literal channel_groups{_where(error)}. Write it as one of these."
        ) from error


def _where(error: Exception) -> str:
    """What a probe file lacks, or the line at which it cannot be read, as far as the error tells."""
    if isinstance(error, KeyError):
        return f"; it lacks {error.args[0]!r}"
    if isinstance(error, json.JSONDecodeError | SyntaxError):
        return f"; it cannot be read from line {error.lineno} on"
    return ""


def _from_json(document: dict[str, Any]) -> Probe:
    """probeinterface: each probe's contacts with the device channel that each is wired to (-1: not connected)."""
    probes = document["probes"]
    if len({p.get("ndim", 2) for p in probes}) > 1:
        raise InputError("its probes mix two and three dimensions; give one plane.")
    channels: list[int] = []
    points: list[list[float]] = []
    groups: dict[str, list[int]] = {}
    for number, probe in enumerate(probes):
        unit = str(probe.get("si_units", "um"))
        if unit not in _TO_UM:
            raise InputError(f"its positions are in {unit!r}; they must be in one of {', '.join(_TO_UM)}.")
        contacts = np.asarray(probe["contact_positions"], np.float64) * _TO_UM[unit]
        wiring = probe.get("device_channel_indices")
        if wiring is None:
            if len(probes) > 1:
                raise InputError("it has several probes and no device_channel_indices; wire each contact to a channel.")
            wiring = range(len(contacts))
        if len(wiring) != len(contacts):
            raise InputError(
                f"probe {number} has {len(contacts)} contacts and {len(wiring)} device_channel_indices; give one for each contact."
            )
        shanks = probe.get("shank_ids") or [""] * len(contacts)
        for channel, contact, shank in zip(wiring, contacts, shanks, strict=True):
            if channel >= 0:
                channels.append(int(channel))
                points.append(contact.tolist())
                name = f"{number}:{shank}" if shank != "" else str(number)
                groups.setdefault(name, []).append(int(channel))
    _refuse_twice(channels)
    flat, _ = flatten_positions(np.array(points))
    positions = {} if flat is None else {c: (float(x), float(y)) for c, (x, y) in zip(channels, flat, strict=True)}
    return Probe(positions, {name: tuple(members) for name, members in groups.items()})


def _from_prb(text: str) -> Probe:
    """channel_groups = {name: {'channels': [...], 'geometry': {channel: (x, y)} or [(x, y), ...]}}"""
    values = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = statement.value
    table = _literal(values["channel_groups"])
    positions: dict[int, tuple[float, float]] = {}
    groups: dict[str, tuple[int, ...]] = {}
    for name, group in table.items():
        channels = tuple(int(c) for c in group["channels"])
        groups[str(name)] = channels
        geometry = group.get("geometry") or {}
        if not isinstance(geometry, dict):
            geometry = dict(zip(channels, geometry, strict=True))
        for channel, (x, y) in geometry.items():
            positions[int(channel)] = (float(x), float(y))
    _refuse_twice([c for group in groups.values() for c in group])
    if not np.all(np.isfinite(list(positions.values()))):
        raise InputError("a contact position is not finite; correct the file.")
    return Probe(positions, groups)


def _literal(node: ast.AST) -> Any:
    """ast.literal_eval, and list(range(...)), which many .prb files write."""

    class Ranges(ast.NodeTransformer):
        def visit_Call(self, call: ast.Call) -> ast.AST:
            name = getattr(call.func, "id", None)
            if call.keywords or name not in ("list", "range", "dict"):
                raise InputError(
                    f"it calls {ast.unparse(call)}; only literal values and range() are read, nothing is run; write the values."
                )
            arguments = [ast.literal_eval(self.visit(a)) for a in call.args]
            if name == "range" and not (1 <= len(arguments) <= 3 and all(abs(int(a)) < 100_000 for a in arguments)):
                raise InputError(f"{ast.unparse(call)} is no range of channels; write range(first, first after the last).")
            value = list(range(*arguments)) if name == "range" else {"list": list, "dict": dict}[name](*arguments)
            return ast.parse(repr(value), mode="eval").body

    return ast.literal_eval(Ranges().visit(node))


def _refuse_twice(channels: list[int]) -> None:
    twice = sorted(channel for channel, count in Counter(channels).items() if count > 1)
    if twice:
        raise InputError(f"channels {twice} stand there more than once; name each once.")


def flatten_positions(positions: np.ndarray | None) -> tuple[np.ndarray | None, str]:
    """(n, 2) positions out of (n, 2) or (n, 3), and a remark (empty where nothing needs saying).

    A column that does not vary carries no geometry: of three columns the two with the largest spread stay in their
    order, and one that varies alone stands beside zeros. Positions that are not finite, or all the same for several
    channels, are none.
    """
    if positions is None:
        return None, ""
    points = np.asarray(positions)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or points.dtype.kind not in "iuf":
        return None, f"channel positions of shape {points.shape} are not used: they must be (n_channels, 2 or 3)"
    points = points.astype(np.float64)
    if not np.all(np.isfinite(points)):
        return None, "channel positions are not used: some are not finite"
    spread = np.ptp(points, axis=0)
    if len(points) > 1 and not np.any(spread > 0):
        return None, "channel positions are not used: all channels stand in one place"
    if points.shape[1] == 2:
        return points, ""
    varying = sorted(np.argsort(-spread, kind="stable")[:2])
    if len(points) == 1 or np.count_nonzero(spread) > 1:
        remark = "the third dimension of the channel positions is left out" if np.all(spread > 0) else ""
        return points[:, varying], remark
    line = points[:, int(np.argmax(spread))]
    return np.stack([np.zeros_like(line), line], axis=1), ""
