"""What `score --calibration` prints and writes: whether probabilities and intervals are right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecrsae.cli import console
from spikecrsae.errors import InputError
from spikecrsae.system.json_values import to_json

if TYPE_CHECKING:
    from spikecrsae.data.sorting import SortingData

_TABLE, _FIGURE = "calibration.json", "calibration.png"
_WORDS = {
    "n_spikes": "spikes whose neuron is known",
    "n_false": "of them false",
    "expected_calibration_error": "expected calibration error",
    "expected_calibration_error_least_certain": "the same, least certain tenth",
    "false_in_least_certain": "part of the false spikes in that tenth",
    "brier_score": "Brier score",
    "log_loss": "log loss",
}


def calibration_of(
    truth: Mapping[str, np.ndarray], sorting: SortingData | None, tolerance_ms: float, exhaustive: bool
) -> dict[str, Any]:
    """Measure the calibration of a sorting against known spikes, for JSON. Raises InputError where there are no
    probabilities."""
    from spikecrsae.score.calibration import interval_coverage, judged_spikes

    if sorting is None or np.isnan(sorting.spikes["probability"]).any():
        raise InputError("the spikes have no probabilities; sort the recording with this version of spikecrsae.")
    judged = judged_spikes(truth, sorting, tolerance_ms, exhaustive)
    if not len(judged.right):
        raise InputError("no unit matches a known neuron, so no probability can be judged; check --truth.")
    return judged.to_dict() | {"intervals": interval_coverage(judged, sorting)}


def measured(
    truth: Mapping[str, np.ndarray], sorting: SortingData | None, tolerance_ms: float, exhaustive: bool
) -> tuple[dict[str, Any] | None, str]:
    """Return what `calibration_of` measures; or None, and the reason why there is no calibration."""
    try:
        return calibration_of(truth, sorting, tolerance_ms, exhaustive), ""
    except InputError as error:
        return None, str(error)


def show_calibration(measures: Mapping[str, Any]) -> None:
    """Print the table."""
    rows = [[words, console_number(measures[name])] for name, words in _WORDS.items()]
    for rate, found in measures["intervals"].items():
        for name, n, which in (
            ("coverage", found["n_units"], "with"),
            ("coverage_without_error", found["n_without_error"], "without"),
        ):
            held = f"{round(found[name] * n)} of {n}" if n else "-"
            rows.append([f"true {rate.replace('_', ' ')} within its interval, units {which} errors", held])
    console.print_table(["calibration", "value"], rows, "")


def console_number(value: float) -> str:
    """Write a whole number in full, any other with four decimals, NaN as a dash."""
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if np.isnan(value) else f"{value:.4f}"


def calibration_files(measures: Mapping[str, Any]) -> dict[str, bytes]:
    """calibration.json and calibration.png."""
    from spikecrsae.report.figures import figure_file, sheet
    from spikecrsae.report.pictures import calibration_picture

    picture = calibration_picture(measures["reliability"], measures["expected_calibration_error"])
    text = json.dumps(to_json(measures), indent=2, allow_nan=False) + "\n"
    return {_TABLE: text.encode(), _FIGURE: figure_file(sheet([[picture]]), "png", "calibration")}
