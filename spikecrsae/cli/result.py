"""What sort and apply share: a run that fills a result folder, and what is shown of it."""

from __future__ import annotations

import contextlib
import importlib
import io
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from spikecrsae.cli import console
from spikecrsae.config import Config
from spikecrsae.errors import EXIT_NO_UNITS, SpikeCRsAEError
from spikecrsae.intervals import seconds

_LOG, _MODEL, _MANIFEST, _COMPONENTS = "run.log", "model.pt", "manifest.json", "components.h5"
_LIBRARIES = ("torch", "numpy", "scipy", "h5py", "neo", "scikit-learn", "numba", "isosplit6", "matplotlib")
#: Columns of the unit table that are shown, with their headings; units.csv has them all.
_SHOWN = {
    "label": "label",
    "group": "group",
    "n_spikes": "spikes",
    "firing_rate": "rate Hz",
    "peak_channel": "channel",
    "amplitude": "amplitude {unit}",
    "snr": "SNR",
    "isi_violations": "ISI violations %",
    "hybrid_recall": "hybrid recall",
    "hybrid_precision": "hybrid precision",
    "hybrid_injected": "injected",
}


def run_into_folder(
    run: Callable[[Path | None], Any],
    recording,
    folder: Path,
    overwrite: bool,
    config: Config,
    narrator,
    components: bool = False,
):
    """Call run(components_path) and write its Outcome, the pictures and the records into `folder`; returns the Outcome.

    Raises OutputError where the folder cannot be used. A run that ends early leaves nothing behind, and an earlier result
    as it was: the new one is made beside it and takes its place at the end. After an internal error run.log stays, with the
    traceback.
    """
    from spikecrsae.checkpoint import save_checkpoint
    from spikecrsae.results import add_to_manifest, check_folder, prepare_folder, replace_result, write_result

    check_folder(folder, overwrite)
    work = folder.with_name(folder.name + ".new") if folder.exists() else folder
    prepare_folder(work, overwrite=True)
    threading.Thread(target=_load_libraries, daemon=True).start()
    with _discarded_on_failure(work), console.logging_to_file(work / _LOG):
        began = datetime.now(UTC)
        outcome = run(work / _COMPONENTS if components else None)
        narrator.start("write")
        record = _record(recording, config, outcome, began)
        write_result(work, outcome.sorting, record, files=_pictures(outcome.sorting, record))
        save_checkpoint(outcome.checkpoint, work / _MODEL)
        narrator.finish(str(folder))
    add_to_manifest(work, [_MODEL, _LOG, *([_COMPONENTS] if components else [])])
    if work != folder:
        replace_result(folder, work)
    return outcome


def _load_libraries() -> None:
    """Load what is needed later beside the computation: it takes seconds. What is missing is told where it is used."""
    for name in ("matplotlib.backends.backend_agg", "torch"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)


@contextlib.contextmanager
def _discarded_on_failure(folder: Path) -> Iterator[None]:
    """Take back what the run has put into the folder when it does not end well; what was there before stays."""
    before = {path.name for path in folder.iterdir()} - {_MANIFEST}
    try:
        yield
    except BaseException as error:
        foreseen = isinstance(error, SpikeCRsAEError) or not isinstance(error, Exception)
        for path in folder.iterdir():
            if path.name not in before and (foreseen or path.name not in (_LOG, _MANIFEST)):
                path.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _record(recording, config: Config, outcome, began: datetime) -> dict[str, Any]:
    """What run.json holds."""
    return console.plain(
        {
            "spikecrsae": version("spikecrsae"),
            "command": sys.argv,
            "began": began.isoformat(timespec="seconds"),
            "seconds": (datetime.now(UTC) - began).total_seconds(),
            "recording": {
                "path": recording.source,
                "format": recording.format,
                "n_samples": recording.n_samples,
                "sampling_frequency": recording.sampling_frequency,
                "channels": recording.channel_ids,
                "groups": {name: [recording.channel_ids[c] for c in members] for name, members in recording.groups.items()},
                "time_range": recording.time_range,
                "files": [asdict(part) for part in recording.parts],
                "checksum": outcome.input_checksum,
                "notes": recording.notes,
            },
            "config": outcome.config.to_dict(),
            "seed": outcome.config.runtime.seed,
            "device": outcome.device,
            "stage_seconds": outcome.stage_seconds,
            "warnings": outcome.warnings,
            "excluded_s": _excluded(outcome.sorting),
            "libraries": _library_versions(),
        }
    )


def _excluded(sorting) -> list[list[float]]:
    return seconds(sorting.excluded, sorting.sampling_frequency, sorting.start_time_s)


def _library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _pictures(sorting, record: dict[str, Any]) -> dict[str, bytes]:
    """The figures of a sorting as PNG, and the page with all of them, by file name."""
    from spikecrsae.report.figures import plot_templates, plot_traces, plot_training
    from spikecrsae.report.html import report_html

    start, traces = sorting.example_start, sorting.example
    reconstruction = sorting.reconstruction(start, start + len(traces))
    drawings = {
        "templates.png": lambda file: plot_templates(sorting, file),
        "traces.png": lambda file: plot_traces(traces, start, sorting, file, reconstruction),
        "training.png": lambda file: plot_training(sorting.model, file),
    }
    pictures = {"report.html": report_html(sorting, record).encode()}
    for name, draw in drawings.items():
        file = io.BytesIO()
        draw(file)
        pictures[name] = file.getvalue()
    return pictures


def show_outcome(outcome, folder: Path, as_json: bool, narrator: console.Narrator) -> int:
    """Print the unit table, or the JSON document; returns the exit code."""
    sorting = outcome.sorting
    if as_json:
        console.print_json(_document(outcome, folder))
    elif sorting.n_units:
        names = [name for name in _SHOWN if name in sorting.units]
        headings = ["unit", *(_SHOWN[name].format(unit=sorting.amplitude_unit) for name in names)]
        rows = [[unit, *(sorting.units[name][row] for name in names)] for row, unit in enumerate(sorting.unit_ids)]
        console.print_table(headings, rows)
    for warning in outcome.warnings:
        narrator.say(f"Warning: {warning}")
    if sorting.n_units:
        narrator.say(
            f"{len(sorting.spikes)} spikes of {sorting.n_units} units in {sorting.duration_s:.1f} s; the result is in {folder}"
        )
        return 0
    click.echo(
        f"No unit was found in {sorting.duration_s:.1f} s of {sorting.n_channels} channels; the result in {folder} is valid and "
        "empty. A lower --detection-threshold or another --highpass-hz may help.",
        err=True,
    )
    return EXIT_NO_UNITS


def _document(outcome, folder: Path) -> dict[str, Any]:
    sorting = outcome.sorting
    return {
        "result": folder,
        "n_units": sorting.n_units,
        "n_spikes": len(sorting.spikes),
        "duration_s": sorting.duration_s,
        "amplitude_unit": sorting.amplitude_unit,
        "device": outcome.device,
        "stage_seconds": outcome.stage_seconds,
        "warnings": outcome.warnings,
        "excluded_s": _excluded(sorting),
        "units": [
            {"unit": unit, **{name: values[row] for name, values in sorting.units.items() if name != "unit"}}
            for row, unit in enumerate(sorting.unit_ids)
        ],
    }
