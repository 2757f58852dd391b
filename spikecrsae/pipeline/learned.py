"""What is learned of a recording before its spikes are decoded, and its cache, from which a stopped run goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from spikecrsae.crsae.drift import DriftingSlab
from spikecrsae.csc.pursuit import SpikeSlab
from spikecrsae.data.dictionary import Dictionary
from spikecrsae.decode.blocks import Laplace
from spikecrsae.errors import InputError, OutputError
from spikecrsae.preprocess.preprocessor import Preprocessor
from spikecrsae.preprocess.survey import Survey
from spikecrsae.results.model_file import from_bytes, load_checkpoint, save_checkpoint, to_bytes


@dataclass(frozen=True)
class LearnedModel:
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
    model: LearnedModel
    seconds: dict[str, float]

    def to_bytes(self) -> bytes:
        """Return the content of a cache file without its key."""
        return to_bytes(asdict(self))

    @classmethod
    def from_bytes(cls, content: bytes) -> Learned:
        """Return what `to_bytes` was called on, to the last bit, as from a cache file."""
        return cls.from_dict(from_bytes(content))

    @classmethod
    def from_dict(cls, values: dict) -> Learned:
        """Build from a nest of the fields' values, as model_file reads it."""
        model, survey = values["model"], values["survey"]
        drifting = model["drifting"]
        return cls(
            survey=Survey(**survey | {"problems": tuple(survey["problems"])}),
            gaps=values["gaps"],
            preprocessor=Preprocessor(**values["preprocessor"]),
            model=LearnedModel(
                **model
                | {
                    "drifting": DriftingSlab(**drifting | {"slab": SpikeSlab(**drifting["slab"])}),
                    "dictionary": Dictionary(**model["dictionary"]),
                    "curation": tuple(model["curation"]),
                }
            ),
            seconds=values["seconds"],
        )


@dataclass(frozen=True)
class LearnedCache:
    """A file in `folder` for what is learned of a recording, or of one group of it. key: a hash of all that it depends on."""

    folder: Path
    key: str
    name: str = "all"

    def part(self, name: str) -> LearnedCache:
        """Return the cache for a part of the work, with a file of its own."""
        return replace(self, name=f"{self.name}-{name}")

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def load(self, checksum: str) -> Learned | None:
        """Return the stored entry, None if there is none with this key.

        Raises OutputError if it was learned from a recording with another checksum (that of Survey).
        """
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
        """Store an entry. Raises OutputError if it cannot be written."""
        save_checkpoint({"key": self.key, "learned": asdict(learned)}, self._file)
