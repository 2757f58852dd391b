"""What is learned of a recording before its spikes are sought, and its file, from which a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.crsae.drift import DriftingSlab
from spikecrsae.csc.pursuit import SpikeSlab
from spikecrsae.data.dictionary import Dictionary
from spikecrsae.decode.blocks import Laplace
from spikecrsae.errors import InputError, OutputError
from spikecrsae.preprocess.preprocessor import Preprocessor
from spikecrsae.preprocess.survey import Survey
from spikecrsae.results.model_file import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Model:
    """What inference needs besides the preprocessor."""

    drifting: DriftingSlab
    dictionary: Dictionary
    lam: float
    sigma: float
    history: dict[str, np.ndarray]
    curation: tuple[dict, ...]
    reported: np.ndarray
    ids: np.ndarray | None = None

    @property
    def slab(self) -> SpikeSlab:
        return self.drifting.slab

    def decoder(self, prior: str, one_sided: bool) -> DriftingSlab | Laplace:
        if prior == "spike-slab":
            return self.drifting
        return Laplace(replace(self.slab, templates=self.dictionary.templates), self.lam, self.sigma, one_sided)


@dataclass(frozen=True)
class Learned:
    """All that is learned: what the survey says, the gaps (n, 2), the filters, the model, and the seconds of each stage."""

    survey: Survey
    gaps: np.ndarray
    preprocessor: Preprocessor
    model: Model
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The same as a nest of dicts, lists, text, Python's numbers, and arrays in the order of C."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Learned:
        """What `to_dict` gave, to the last bit."""
        model, survey = values["model"], values["survey"]
        drifting = model["drifting"]
        return cls(
            survey=Survey(**survey | {"problems": tuple(survey["problems"])}),
            gaps=values["gaps"],
            preprocessor=Preprocessor(**values["preprocessor"]),
            model=Model(
                **model
                | {
                    "drifting": DriftingSlab(**drifting | {"slab": SpikeSlab(**drifting["slab"])}),
                    "dictionary": Dictionary(**model["dictionary"]),
                    "curation": tuple(model["curation"]),
                }
            ),
            seconds=values["seconds"],
        )


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return np.array(value, order="C")
    # a number of numpy's and one of Python's have not the same arithmetic beside float32
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Shelf:
    """A file in `folder` for what is learned of one recording, or of one group of it; the key says of what run it is."""

    folder: Path
    key: str
    name: str = "all"

    def part(self, name: str) -> Shelf:
        """A file of its own for a part of the work."""
        return replace(self, name=f"{self.name}-{name}")

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.pt"

    def load(self, checksum: str) -> Learned | None:
        """What lies there; None where there is nothing of this run. Raises OutputError where it was learned from a recording
        with another checksum (that of Survey)."""
        # most runs begin with nothing: to see that does not take the seconds in which a checkpoint's library is loaded
        if not self._file.exists():
            return None
        try:
            stored = load_checkpoint(self._file)
        except InputError:
            return None
        if stored.get("key") != self.key:
            return None
        learned = Learned.from_dict(stored["learned"])
        if learned.survey.checksum != checksum:
            raise OutputError(
                f"--resume does not match: the samples have the checksum {checksum}, the unfinished run in {self.folder.parent} had "
                f"{learned.survey.checksum}; leave --resume out to sort from the beginning."
            )
        return learned

    def save(self, learned: Learned) -> None:
        """Put it there. Raises OutputError where that cannot be written."""
        save_checkpoint({"key": self.key, "learned": learned.to_dict()}, self._file)
