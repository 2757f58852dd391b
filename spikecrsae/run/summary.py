"""What became of the recordings of a batch: batch.json, batch.csv and index.html, which grow with every batch into a folder."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, OutputError, described
from spikecrsae.report.index import index_html
from spikecrsae.results.folder import read_result
from spikecrsae.run.job import Job
from spikecrsae.system.files import write_atomic, writing
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import cell_text, read_text

_JSON, _CSV, _INDEX = "batch.json", "batch.csv", "index.html"
_FORMAT = "spikecrsae batch"
_MAX_SUMMARY_MB = 256
_COLUMNS = (
    "recording", "folder", "state", "n_units", "n_single", "n_multi", "n_noise", "n_spikes", "snr", "false_alarm",
    "miss", "duration_s", "seconds", "exit_code", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What became of one recording.

    state: sorted; kept, an earlier result with the same settings; failed, for the reason in `error`, with the exit code that
    `sort` would have; stopped, when the batch ended before it. seconds: of computing, also of a result that was kept. n_single,
    n_multi, n_noise: units with these labels (artefacts are noise). snr, false_alarm, miss: median of the
    units that are single or multi.
    """

    recording: Path
    folder: Path
    state: str = "stopped"
    n_units: int | None = None
    n_single: int | None = None
    n_multi: int | None = None
    n_noise: int | None = None
    n_spikes: int | None = None
    snr: float | None = None
    false_alarm: float | None = None
    miss: float | None = None
    duration_s: float | None = None
    seconds: float | None = None
    exit_code: int | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def done(cls, job: Job, sorting: SortingData, **values: Any) -> Result:
        """Return the result of a job that has ended well."""
        numbers: dict[str, Any] = {
            "n_units": sorting.n_units,
            "n_spikes": len(sorting.spikes),
            "duration_s": sorting.duration_s,
            **_quality(sorting),
        }
        return cls(job.recording, job.folder, exit_code=0, **numbers, **values)

    @classmethod
    def failed(cls, job: Job, error: Exception, seconds: float | None = None) -> Result:
        """Return the result of a job that an error has ended."""
        line, code = described(error)
        return cls(job.recording, job.folder, state="failed", seconds=seconds, exit_code=code, error=line)

    @classmethod
    def kept(cls, job: Job) -> Result:
        """Return that of an earlier run, from its folder."""
        sorting, run = read_result(job.folder)
        facts = {"seconds": run["seconds"], "warnings": tuple(run["warnings"])}
        return cls.done(job, sorting, state="kept", **facts)


def _quality(sorting: SortingData) -> dict[str, int | float | None]:
    """Count the labels, and take the median quality of the units that are single or multi."""
    labels = sorting.units.get("label", np.zeros(0, str))
    neurons = np.isin(labels, ("single", "multi"))
    counts = {
        "n_single": labels == "single",
        "n_multi": labels == "multi",
        "n_noise": np.isin(labels, ("noise", "artefact")),
    }
    medians: dict[str, float | None] = {}
    for name in ("snr", "false_alarm", "miss"):
        values = sorting.units[name][neurons] if name in sorting.units and len(labels) else np.zeros(0)
        values = values[np.isfinite(values)]
        medians[name] = float(np.median(values)) if len(values) else None
    return {name: int(mask.sum()) for name, mask in counts.items()} | medians


def make_folder(out: Path) -> None:
    """Make the folder for all results where it is not there yet. Raises OutputError where that is impossible, and where the
    summary's names are taken by files of other origin."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    own = _stored(out).get("files", ())
    if taken := [name for name in (_JSON, _CSV, _INDEX) if os.path.lexists(out / name) and name not in own]:
        raise OutputError(
            f"{out} holds {', '.join(taken)}, not written by a batch, and they are not overwritten; choose another -o."
        )


def _stored(out: Path) -> dict[str, Any]:
    """Return the document in batch.json; an empty one where there is none of ours."""
    try:
        document = json.loads(read_text(out / _JSON, _MAX_SUMMARY_MB))
        if document["format"] != _FORMAT or not all(isinstance(row["recording"], str) for row in document["recordings"]):
            return {}
    except (InputError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    # version 0.1 had no index and did not list its files
    return {"files": [_JSON, _CSV], **document}


def write_summary(out: Path, results: Iterable[Result], facts: dict[str, Any]) -> None:
    """Write batch.json, with `facts` about this batch, batch.csv and index.html, with a row per recording, into the folder
    `out`.

    Rows of earlier batches stay, and a recording's new row takes the place of its earlier one, unless this batch ended before
    it. The caller holds the lock of the folder.
    """
    rows = {os.path.abspath(row["recording"]): row for row in _stored(out).get("recordings", ())}
    for result in results:
        full = {
            name: to_json(Path(os.path.abspath(path)))
            for name, path in (("recording", result.recording), ("folder", result.folder))
        }
        if result.state != "stopped" or full["recording"] not in rows:
            rows[full["recording"]] = to_json(asdict(result)) | full
    document = {"format": _FORMAT, "format_version": 1, "files": [_JSON, _CSV, _INDEX], **to_json(facts)}
    document["recordings"] = list(rows.values())
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows.values():
        writer.writerow({name: cell_text(v) if isinstance(v, str) else v for name, v in row.items()})
    # the one that says whose all are comes first: a batch that ends between them can continue
    write_atomic(out / _JSON, [(json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()])
    write_atomic(out / _CSV, [table.getvalue().encode()])
    write_atomic(out / _INDEX, [index_html(out, list(rows.values())).encode()])
