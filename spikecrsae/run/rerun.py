"""A run once more, from its run.json: the same recording, options and settings, which give the same spikes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecrsae.config import Config
from spikecrsae.errors import InputError
from spikecrsae.progress import Observer
from spikecrsae.readers import open_session
from spikecrsae.run.job import Job
from spikecrsae.run.record import check_record, library_versions, recording_facts
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import read_text

_MOST_MB = 256
#: Facts of a recording that decide about its spikes; a rerun compares them before the checksum.
_DECISIVE = (
    "n_samples", "sampling_frequency", "start_time_s", "channels", "groups", "time_range", "gain", "offset", "amplitude_unit",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A run.json (path) and what it holds (values)."""

    path: Path
    values: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """The record in a run.json, or in the result folder that holds it. Raises InputError where there is none, it is
        damaged, or it says too little to be repeated."""
        path = Path(path)
        file = path / "run.json" if path.is_dir() else path
        try:
            values = json.loads(read_text(file, _MOST_MB))
            task = values.get("task", "sort") if isinstance(values, dict) else "sort"
            if task == "sort":
                check_record(values)
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror}); give the run.json of a result.") from error
        except (InputError, ValueError, RecursionError) as error:
            raise InputError(
                f"{file} is no complete run.json of spikecrsae ({error or 'nested too deep'}); sort the recording anew."
            ) from error
        if task != "sort":
            raise InputError(f"{file} is the record of spikecrsae {task!r:.40}; only a run of sort can be repeated.")
        return cls(file, values)

    def job(self, folder: Path, recordings: Sequence[Path] = (), overwrite: bool = False) -> Job:
        """The same job for another folder; recordings: where its files lie now, if they have moved."""
        facts = self.values["recording"]
        return Job(
            recordings=tuple(recordings) or tuple(map(Path, facts["paths"])),
            folder=folder,
            config=Config().with_values(self.values["config"], origin=str(self.path)),
            reader=facts["read_options"],
            overwrite=overwrite,
            stays=False,
            **{name: self.values["options"][name] for name in ("estimate_errors", "save_components", "exports")},
        )

    def check_input(self, job: Job, observer: Observer) -> None:
        """Raise InputError where the recording is not the one that was sorted: its facts, then its checksum."""
        from spikecrsae.pipeline import groups

        for path in job.recordings:
            if not path.exists():
                raise InputError(
                    f"{path}, the recording of {self.path}, is not there; say with --recording where it lies now."
                )
        before, opened = self.values["recording"], open_session(job.recordings, **job.reader)
        try:
            now = to_json(recording_facts(opened, job.recordings, job.reader))
            for name in _DECISIVE:
                if now[name] != before[name]:
                    raise InputError(
                        f"{job.recording} has {name} {now[name]}, the recording of {self.path} had {before[name]}; it has changed, "
                        "so the run cannot be repeated. Sort it anew."
                    )
            checksum = groups.input_checksum(opened, job.config, observer)
        finally:
            opened.close()
        if checksum != before["checksum"]:
            raise InputError(
                f"{job.recording} has the checksum {checksum}, the recording of {self.path} had {before['checksum']}; its samples "
                "have changed, so the run cannot be repeated. Sort it anew."
            )

    def version_differences(self) -> list[str]:
        """One line for each program or library whose version differs from the first run's."""
        from importlib.metadata import version

        then = {"spikecrsae": self.values.get("spikecrsae"), **self.values["libraries"]}
        now = {"spikecrsae": version("spikecrsae"), **library_versions()}
        return [f"{name} was {then[name]}, is {now.get(name, 'not there')}" for name in then if then[name] != now.get(name)]

    def device_differs(self, device: str) -> bool:
        """Whether the first run computed on another device."""
        return self.values.get("device") != device
