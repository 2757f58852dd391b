"""Training reaches the result: without its M-step on the templates, the spikes are others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.recordings import SAMPLE

from spikecrsae.config import Config
from spikecrsae.crsae.model import CRsAE
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.readers import ReadOptions, open_recording

pytestmark = pytest.mark.slow


def spikes() -> list[tuple[int, int]]:
    """(sample, unit) of every spike in the first seconds of the sample recording."""
    with open_recording(SAMPLE, ReadOptions(stop_s=7.0)) as recording:
        found = sort_group(recording, Config().with_values({"runtime": {"device": "cpu"}})).sorting.spikes
    return sorted(zip(found["sample"].tolist(), found["unit"].tolist(), strict=True))


def test_the_spikes_depend_on_the_training_of_templates(monkeypatch):
    trained, calls, maximise = spikes(), [], CRsAE.maximise

    def frozen(model, *given):
        learned = maximise(model, *given)
        calls.append(not np.array_equal(learned.templates, model.templates))
        return replace(learned, templates=model.templates)

    monkeypatch.setattr(CRsAE, "maximise", frozen)
    untrained = spikes()
    assert any(calls), "the M-step was not called, or left the templates as they were"
    assert len(trained) > 100
    assert untrained != trained
