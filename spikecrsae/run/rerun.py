"""A run repeated from its run.json: the same recording, options and settings, which give the same spikes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spikecrsae.config import Config
from spikecrsae.errors import InputError
from spikecrsae.progress import Observer
from spikecrsae.run.job import Job
from spikecrsae.run.record import check_record, library_versions, recording_facts
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import read_text

_MAX_MB = 256
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
        """Read a run.json, or the one in a result folder. Raises InputError where there is none, it is damaged, or it says too
        little to be repeated."""
        path = Path(path)
        file = path / "run.json" if path.is_dir() else path
        try:
            values = json.loads(read_text(file, _MAX_MB))
            check_record(values)
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror}); give the run.json of a result.") from error
        except InputError as error:
            raise InputError(f"{error} Give the run.json of a result.") from error
        except json.JSONDecodeError as error:
            raise InputError(f"{file} is not JSON ({error}); give the run.json of a result.") from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{file} is not a complete run.json ({error or 'nested too deep'}); sort the recording anew."
            ) from error
        return cls(file, values)

    def job(self, folder: Path, recordings: Sequence[Path] = (), overwrite: bool = False) -> Job:
        """Return the same job for another folder; recordings: where its files lie now, if they have moved."""
        facts, options = self.values["recording"], self.values["options"]
        metadata = options.get("metadata")
        return Job(
            recordings=tuple(recordings) or tuple(map(Path, facts["paths"])),
            folder=folder,
            config=Config().with_values(self.values["config"], origin=str(self.path)),
            reader=facts["read_options"],
            task=self.values["task"],
            model=Path(self.values["model"]["path"]) if self.values["task"] == "apply" else None,
            overwrite=overwrite,
            keep_learned=False,
            metadata=None if metadata is None else Path(metadata),
            columns=options.get("columns"),
            **{name: options[name] for name in ("estimate_errors", "save_components", "exports")},
        )

    def check_input(self, job: Job, observer: Observer) -> None:
        """Raise InputError where the recording or the model is not that of the first run: its facts, then its checksum."""
        from spikecrsae.pipeline import groups

        for path in job.recordings:
            if not path.exists():
                raise InputError(
                    f"{path}, the recording of {self.path}, does not exist; give its present place with --recording."
                )
        model = None
        if job.task == "apply":
            model = job.model_file
            self._compare(str(model), "SHA-256", job.request["model"]["sha256"], self.values["model"]["sha256"])
        before = self.values["recording"]
        with closing(job.open()) as opened:
            now = to_json(recording_facts(opened, job.recordings, job.reader))
            for name in _DECISIVE:
                self._compare(str(job.recording), name, now[name], before[name])
            checksum = groups.input_checksum(opened, job.config, observer, model)
        self._compare(str(job.recording), "checksum", checksum, before["checksum"])

    def _compare(self, file: str, name: str, now: Any, before: Any) -> None:
        if now != before:
            raise InputError(
                f"{file} has the {name} {now}, that of {self.path} had {before}; it has changed, so the run cannot be repeated. "
                "Sort the recording anew."
            )

    def version_differences(self) -> list[str]:
        """Return one line for each program or library whose version differs from the first run's."""
        then = {"spikecrsae": self.values.get("spikecrsae"), **self.values["libraries"]}
        now = {"spikecrsae": version("spikecrsae"), **library_versions()}
        return [f"{name} was {then[name]}, is {now.get(name, 'not there')}" for name in then if then[name] != now.get(name)]
