"""What is learned of a recording before its spikes are decoded, and its cache, from which a stopped run goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.crsae.complex_spikes import ComplexSpikes
from spikecrsae.crsae.drift import Drifting
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.backends import Backend
from spikecrsae.curate.complex_spikes import Found
from spikecrsae.curate.links import Links
from spikecrsae.data.loudness import Loudness
from spikecrsae.errors import InputError, OutputError
from spikecrsae.preprocess.artefacts import Artefacts
from spikecrsae.preprocess.preprocessor import Preprocessor
from spikecrsae.preprocess.survey import Survey
from spikecrsae.results.model_file import from_bytes, load_checkpoint, save_checkpoint, to_bytes


@dataclass(frozen=True)
class LearnedModel:
    """What inference needs besides the preprocessor.

    history: the course of the prior's parameters, (n_rounds, n_units) by name. curation: its decisions; reported (n_units,)
    bool: satellites are not; ids (n_units,): the units' names in the decisions. links: of `apply`, how the units that
    were known before, which come first, have changed; None after `sort`.
    """

    drifting: Drifting
    history: dict[str, np.ndarray]
    curation: tuple[dict, ...]
    reported: np.ndarray
    ids: np.ndarray | None = None
    links: Links | None = None

    @property
    def crsae(self) -> CRsAE:
        """The mean model over the recording."""
        return self.drifting.model

    def with_complex_spikes(self, found: Found, left_out: np.ndarray) -> LearnedModel:
        """With the units of complex spikes that were found among its own, and without reporting those `left_out` (bool,
        n_units)."""
        n_new = found.model.n_units - self.crsae.n_units
        former = np.arange(self.crsae.n_units) if self.ids is None else self.ids
        ids = np.r_[former, former.max(initial=-1) + 1 + np.arange(n_new)]
        changes = np.pad(self.drifting.changes, ((0, 0), (0, n_new), (0, 0), (0, 0)))
        return replace(
            self,
            drifting=replace(self.drifting, model=found.model, changes=changes, complexes=found.complexes),
            history={k: np.pad(rows, ((0, 0), (0, n_new)), constant_values=np.nan) for k, rows in self.history.items()},
            curation=self.curation + tuple(row | {"units": ids[row["units"]].tolist()} for row in found.decisions),
            reported=np.r_[self.reported, np.ones(n_new, bool)] & ~left_out,
            ids=ids,
        )


@dataclass(frozen=True)
class Learned:
    """All that is learned: what the survey says, the artefacts with all gaps, the filters, the model, the seconds of each stage, and
    the noise over time."""

    survey: Survey
    artefacts: Artefacts
    preprocessor: Preprocessor
    model: LearnedModel
    seconds: dict[str, float]
    loudness: Loudness = field(default_factory=Loudness.steady)

    def to_dict(self) -> dict[str, Any]:
        """A nest of the fields' values, as model_file writes it."""
        model, drifting = self.model, self.model.drifting
        return {
            "survey": asdict(self.survey),
            "artefacts": self.artefacts.to_dict(),
            "preprocessor": asdict(self.preprocessor),
            "model": {
                "crsae": drifting.model.to_dict(),
                "changes": drifting.changes,
                "n_samples": drifting.n_samples,
                "steps": drifting.steps,
                "complexes": [asdict(told) for told in drifting.complexes],
                "history": model.history,
                "curation": model.curation,
                "reported": model.reported,
                "ids": model.ids,
            },
            "seconds": self.seconds,
            "loudness": asdict(self.loudness),
        }

    @classmethod
    def from_dict(cls, values: dict, backend: Backend) -> Learned:
        """What `to_dict` was called on."""
        model, survey = dict(values["model"]), values["survey"]
        crsae = CRsAE.of_dict(model.pop("crsae"), backend)
        complexes = tuple(ComplexSpikes(**told) for told in model.pop("complexes"))
        drifting = Drifting(crsae, model.pop("changes"), model.pop("n_samples"), model.pop("steps"), complexes)
        return cls(
            survey=Survey(**survey | {"problems": tuple(survey["problems"])}),
            artefacts=Artefacts.of_dict(values["artefacts"]),
            preprocessor=Preprocessor(**values["preprocessor"]),
            model=LearnedModel(drifting, **model | {"curation": tuple(model["curation"])}),
            seconds=values["seconds"],
            loudness=Loudness(**values["loudness"]),
        )

    def stored(self) -> Learned:
        """The same as it is read back from a cache: a run that was stopped gives the same to the last bit."""
        return Learned.from_dict(from_bytes(to_bytes(self.to_dict())), self.model.crsae.backend)


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

    def load(self, checksum: str, backend: Backend) -> Learned | None:
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
        learned = Learned.from_dict(stored["learned"], backend)
        if learned.survey.checksum != checksum:
            raise OutputError(
                f"--resume does not match: the samples have the checksum {checksum}, the unfinished run in {self.folder.parent} had "
                f"{learned.survey.checksum}; leave --resume out to sort from the beginning."
            )
        return learned

    def save(self, learned: Learned) -> None:
        """Store an entry. Raises OutputError if it cannot be written."""
        save_checkpoint({"key": self.key, "learned": learned.to_dict()}, self._file)
