"""A fixed part of the corpus of broken recordings; benchmarks/reliability_corpus.py runs all of it."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.corpus import holding, run
from helpers.corpus_files import cases

from spikecrsae.readers import open_recording

pytestmark = pytest.mark.slow

CASES = cases()
#: Every so many of the cases that are refused; a recording that is sorted takes a second, so of these a chosen few.
EVERY = 7
SORTED = (
    "HDF5: one channel constant", "NWB: copies at scales far apart", "MEArec: a channel 3000 times as loud", "raw binary: half a second",
    "raw binary: int16 as uint16", "raw binary: one channel for four", "HDF5: gain 10000", "Open Ephys: dropped samples", "HDF5: traces written in part", "Plexon: the second half -0.3 s", )  # fmt: skip
CHOSEN = [case for case in CASES if case.name in SORTED] + [case for case in CASES if case.how == "refused"][::EVERY]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: re.sub(r"\W+", "-", case.name))
def test_a_broken_recording_is_refused_or_warned_of(case, tmp_path):
    verdict = run(case, tmp_path)
    assert verdict.well, f"{verdict.kind} where it should be {case.how} with {case.words!r}:\n{verdict.said}"


def test_the_corpus_is_large_and_its_names_are_distinct():
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.name for case in CHOSEN} >= set(SORTED)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipes_under_every_name_are_refused_at_once(tmp_path):
    for case in CASES:
        if case.name.startswith("a pipe"):
            folder = tmp_path / re.sub(r"\W+", "-", case.name)
            folder.mkdir()
            verdict = run(case, folder)
            assert verdict.well and verdict.seconds < 5, verdict


def test_plexon_blocks_of_unequal_length(tmp_path):
    """Every sample stands where it was, whatever the lengths of the data blocks; each range is that of the whole."""
    with holding(files.stored()[:5_123]):
        written = vendors.plexon(tmp_path)
    recording = open_recording(written.path)
    np.testing.assert_allclose(recording.traces(0, recording.n_samples), written.traces, rtol=1e-5)
    for start, stop in ((0, 100), (499, 501), (4_999, 5_001), (5_010, 5_011), (5_121, 5_122)):
        np.testing.assert_allclose(recording.traces(start, stop), written.traces[start:stop], rtol=1e-5)
