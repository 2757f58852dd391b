"""What is no neuron in a recording: pulses, movement, clicks and stuck values, found by what they are."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.artefacts import ARTEFACT_DTYPE, KINDS, Pulses, period_of
from spikecrsae.data.intervals import NONE, in_any, widened
from spikecrsae.data.recording import Recording
from spikecrsae.preprocess.events import EDGE, Events
from spikecrsae.preprocess.filters import design_filter
from spikecrsae.preprocess.pulses import joined, take_out
from spikecrsae.preprocess.recognition import LEAST_EVENTS, Group, extended, groups_of, movements
from spikecrsae.preprocess.stretches import STRETCH_BINS, Look, bin_width, look_through
from spikecrsae.progress import Observer
from spikecrsae.system.text import counted
from spikecrsae.units import ms_to_samples

log = logging.getLogger(__name__)

#: Looks for pulses at most; each one is without those found before.
LOOKS = 4
#: Where there are pulses, events of their shape are looked for that exceed so many noise levels.
LESS_LOUD = 6.0
#: Signal left out on both sides of a single event, from where it is louder than noise.
BESIDE_MS = 0.5
#: An event with so few phases has a tail, whose time constant is that of its fall to EDGE: so many of these more are left out.
TAIL_PHASES, TAIL_TIMES = 3, 3.0


@dataclass(frozen=True)
class Artefacts:
    """What is no neuron's: gaps (n, 2), intervals in samples that are left out; pulses, which are subtracted from the traces; and a
    table (n,) of ARTEFACT_DTYPE, in order of time. reasons: why pulses that were found are no neuron's, not stored."""

    gaps: np.ndarray
    pulses: tuple[Pulses, ...]
    table: np.ndarray
    reasons: tuple[str, ...] = ()

    @classmethod
    def none(cls) -> Artefacts:
        return cls(NONE, (), np.zeros(0, ARTEFACT_DTYPE))

    @classmethod
    def given(cls, gaps: np.ndarray, table: np.ndarray) -> Artefacts:
        """Gaps (n, 2), and a table of what they are."""
        return cls(gaps, (), table)

    def joined(self, found: Artefacts, n_samples: int) -> Artefacts:
        """These and what was found beside them in a recording of n_samples."""
        table = np.concatenate([self.table, found.table])
        gaps = widened(np.concatenate([self.gaps, found.gaps]), 0, n_samples)
        return Artefacts(gaps, (*self.pulses, *found.pulses), table[np.argsort(table["start"], kind="stable")])

    def without_pulses(self, recording: Recording) -> Recording:
        """The recording that was looked through, whose traces are without the pulses."""
        return replace(recording, pulses=self.pulses)

    def to_dict(self) -> dict[str, Any]:
        """A nest of the fields' values, as model_file writes it."""
        table = {name: np.ascontiguousarray(self.table[name]) for name in ARTEFACT_DTYPE.names or ()}
        return {"gaps": self.gaps, "pulses": [asdict(one) for one in self.pulses], "table": table}

    @classmethod
    def of_dict(cls, values: dict[str, Any]) -> Artefacts:
        """What `to_dict` was called on."""
        table = np.zeros(len(values["table"]["start"]), ARTEFACT_DTYPE)
        for name, column in values["table"].items():
            table[name] = column
        return cls(values["gaps"], tuple(Pulses(**one) for one in values["pulses"]), table)


def find_artefacts(
    recording: Recording,
    config: PreprocessConfig,
    observer: Observer,
    gaps: np.ndarray = NONE,
    triggers: np.ndarray = NONE[:, 0],
) -> Artefacts:
    """Find what no neuron can be in a recording outside the `gaps` (n, 2), each kind by what it is.

    given: what follows the triggers (n,), samples, in the same way each time is subtracted; the gaps hold what is blanked about them.
    pulse: loud events of one shape that keep time or look as no spike does (see recognition). They are subtracted, and blanked where
    what is left of them is louder than noise (see pulses); then all is looked through once more.
    movement: a long event of no repeated shape, or a stretch without pauses: movement shakes all channels and leaves no pause;
    spikes, however large and dense, leave pauses of a millisecond. In bins of BIN_MS the high-passed signal's RMS is divided by the
    channel's median bin, and the channel where that is least counts. The statistic of a stretch is the QUIET_PART quantile of its
    bins: dense spikes raise the upper quantiles, not this one. A stretch is an artefact above LEAST_LOUDNESS and above what chance
    gives (`_chance_level`), with its surroundings as long as they are above the latter, and one stretch more on both sides for what
    fades.
    stuck: values that do not change for STUCK_MS. click: at most MOST_CLICKS places each CLICK_LOUDNESS times as loud as the loudest
    elsewhere (a single one of a thousand noise levels pulls the templates of all units to itself).
    """
    fs, n_samples = recording.sampling_frequency, recording.n_samples
    observer.start("artefacts", n_samples)
    if n_samples // bin_width(fs) < 2 * STRETCH_BINS:
        observer.finish("too short to look for any")
        return Artefacts.none()
    blanks, rows = NONE, []
    reasons: dict[str, None] = {}
    if len(triggers) >= LEAST_EVENTS:
        recording, blanks = _without_given(recording, triggers, gaps, design_filter(config, fs))
    for _ in range(LOOKS):
        left_out = widened(np.concatenate([gaps, blanks]), 0, n_samples)
        look = look_through(recording, config, left_out, observer)
        groups, single = groups_of(look.events, recording.n_channels, fs, recording.amplitude_unit == "uV")
        before = len(recording.pulses)
        for samples, (events, why) in _pulses(look.events, groups, single, recording, config, left_out):
            if _are_within(samples, recording.pulses[before:]):
                continue
            pulses, offsets = take_out(recording, samples, *design_filter(config, fs))
            if pulses is None:
                continue
            said = np.round(offsets / fs * 1000, 2).tolist()
            log.info("%d pulses (%s) are subtracted; blanked %s ms", len(samples), ", ".join(why), said)
            reasons |= dict.fromkeys(why)
            blanks = np.concatenate([blanks, (pulses.samples[:, None, None] + offsets).reshape(-1, 2)])
            rows.append(_pulse_rows(pulses, events, len(recording.pulses)))
            recording = replace(recording, pulses=(*recording.pulses, pulses))
        if len(recording.pulses) == before:
            break
    moved = movements(look.events, groups, single, recording.n_channels, fs)
    table = np.concatenate([*rows, *_rows_of_look(look, moved, fs)])
    table["start"], table["stop"] = np.maximum(table["start"], 0), np.minimum(table["stop"], n_samples)
    table = table[np.argsort(table["start"], kind="stable")]
    others = table[table["kind"] != KINDS.index("pulse")]
    all_gaps = np.concatenate([blanks, np.stack([others["start"], others["stop"]], axis=1)])
    artefacts = Artefacts(widened(all_gaps, 0, n_samples), recording.pulses, table, tuple(reasons))
    said = [part.split(";")[0] for part in told(artefacts, recording)] or ["none"]
    observer.finish("; ".join([*said, f"{counted(len(triggers), 'trigger')} given"] if len(triggers) else said))
    return artefacts


def _pulses(
    events: Events,
    groups: list[Group],
    single: np.ndarray,
    recording: Recording,
    config: PreprocessConfig,
    left_out: np.ndarray,
) -> list[tuple[np.ndarray, tuple[Events, tuple[str, ...]]]]:
    """For each shape of pulses the samples of all of them, the events they were found by, and why they are no neuron's.

    Certain ones come first: without them the others are judged anew. Of their shape, quieter events are pulses too.
    """
    proven = [group for group in groups if group.is_certain] or [group for group in groups if group.reasons]
    if not proven:
        return []
    among, members = events, [group.members for group in proven]
    if proven[0].is_certain:
        among = look_through(recording, config, left_out, Observer(), LESS_LOUD).events
        members = extended(proven, events, among)
    found = [(among.select(own), group.reasons) for own, group in zip(members, proven, strict=True) if len(own)]
    least = min((np.median(own.size) for own, _ in found), default=np.inf) / 2
    alone = events.sample[single[events.size[single] > least]]
    return joined(recording, [(own.sample, (own, why)) for own, why in found], alone)


def _without_given(
    recording: Recording, triggers: np.ndarray, gaps: np.ndarray, high_pass: tuple[np.ndarray, int]
) -> tuple[Recording, np.ndarray]:
    """The recording without what follows triggers (n,), and blanks (n, 2) for what is left of it outside the gaps about them."""
    place = np.minimum(np.searchsorted(gaps[:, 1], triggers, "right"), max(0, len(gaps) - 1))
    about = gaps[place] - triggers[:, None] if len(gaps) else np.zeros((len(triggers), 2), np.int64)
    low, high = np.median(about, axis=0).astype(np.int64)
    pulses, offsets = take_out(recording, triggers, *high_pass, (int(low), int(high)))
    if pulses is None:
        log.warning(
            "nothing follows the %s in the same way each time; check that they are on the recording's clock, or leave --triggers out",
            counted(len(triggers), "trigger"),
        )
        return recording, NONE
    return replace(recording, pulses=(*recording.pulses, pulses)), (pulses.samples[:, None, None] + offsets).reshape(-1, 2)


def told(found: Artefacts, recording: Recording) -> tuple[str, ...]:
    """What was found, a line for pulses and one for the rest; none where nothing was."""
    fs, pulse = recording.sampling_frequency, found.table["kind"] == KINDS.index("pulse")
    pulses, rest = found.table[pulse], found.table[~pulse]
    said = []
    if len(pulses):
        period = period_of(pulses["sample"], fs)
        every = f", every {1000 * period:.4g} ms," if period else ""
        said.append(
            f"{counted(len(pulses), 'pulse')}{every} found and subtracted; first at {_seconds(pulses, recording)} s; known by "
            f"{', '.join(found.reasons)}; if this is a neuron: --no-find-artefacts; if the times are known: --triggers FILE --blank-ms -0.5,6"
        )
    if len(rest):
        intervals = _intervals(rest, recording)
        several = f"{len(intervals)} stretches look like artefacts and are"
        what = several if len(intervals) > 1 else "1 stretch looks like an artefact and is"
        of_kind = {KINDS[kind]: _intervals(rest[rest["kind"] == kind], recording) for kind in np.unique(rest["kind"])}
        kinds = ", ".join(f"{len(theirs)} {kind}" for kind, theirs in of_kind.items())
        said.append(
            f"{what} left out, {np.diff(intervals).sum() / fs:.3g} s ({kinds}); first at {_seconds(rest, recording)} s"
        )
    return tuple(said)


def _intervals(rows: np.ndarray, recording: Recording) -> np.ndarray:
    """What rows of a table disturb, (n, 2), ascending and apart."""
    return widened(np.stack([rows["start"], rows["stop"]], axis=1), 0, recording.n_samples)


def _seconds(rows: np.ndarray, recording: Recording) -> str:
    return f"{recording.timeline.seconds(rows['start'].min()):.3f}"


def _are_within(samples: np.ndarray, pulses: tuple[Pulses, ...]) -> bool:
    """Whether most of the samples lie in the windows of one of these pulses: they are another part of the same ones."""
    windows = [one.samples[:, None] - one.before + [0, len(one.template)] for one in pulses]
    return any(np.mean(in_any(window, samples)) > 0.5 for window in windows)


def _pulse_rows(pulses: Pulses, events: Events, number: int) -> np.ndarray:
    """Rows of the pulses of one shape; each has its template's duration."""
    rows = np.zeros(len(pulses.samples), ARTEFACT_DTYPE)
    rows["start"], rows["sample"] = pulses.samples - pulses.before, pulses.samples
    rows["stop"] = rows["start"] + len(pulses.template)
    rows["kind"], rows["group"] = KINDS.index("pulse"), number
    rows["channel"] = np.bincount(events.channel).argmax()
    rows["amplitude"] = np.median(events.value) * pulses.gain
    return rows


def _event_rows(kind: str, events: Events, fs: float) -> np.ndarray:
    """Rows of single events, each with all that it disturbs."""
    rows, beside = _interval_rows(kind, np.stack([events.from_, events.to], axis=1)), ms_to_samples(BESIDE_MS, fs)
    # of a tail, which has no phases, the high-pass shows the beginning only
    fades = (events.to - events.sample) / np.log(np.maximum(events.size / EDGE, np.e))
    fades[events.phases > TAIL_PHASES] = 0
    rows["start"] -= beside
    rows["stop"] += np.maximum(beside, TAIL_TIMES * fades).astype(np.int64)
    rows["sample"], rows["channel"], rows["amplitude"] = events.sample, events.channel, events.value
    return rows


def _interval_rows(kind: str, intervals: np.ndarray) -> np.ndarray:
    """Rows of intervals (n, 2) in samples, on all channels."""
    rows = np.zeros(len(intervals), ARTEFACT_DTYPE)
    rows["start"], rows["stop"] = intervals.T
    rows["kind"], rows["sample"], rows["group"], rows["channel"] = KINDS.index(kind), -1, -1, -1
    rows["amplitude"] = np.nan
    return rows


def _rows_of_look(look: Look, moved: np.ndarray, fs: float) -> list[np.ndarray]:
    """Rows of what is no pulse: stretches without pauses, stuck values, and clicks and the events `moved` (indices) with all that they
    disturb."""
    clicks, rest = [], []
    for first, end in look.clicks:
        here = np.flatnonzero((look.events.sample >= first) & (look.events.sample < end))
        if len(here):
            clicks.append(here[np.argmax(look.events.size[here])])
        else:
            rest.append((first - 2 * (end - first), end + 2 * (end - first)))
    return [
        _event_rows("click", look.events.select(np.array(clicks, np.int64)), fs),
        _event_rows("movement", look.events.select(np.setdiff1d(moved, clicks)), fs),
        _interval_rows("click", np.array(rest, np.int64).reshape(-1, 2)),
        _interval_rows("movement", look.without_pauses),
        _interval_rows("stuck", look.stuck),
    ]
