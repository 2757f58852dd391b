"""Configuration: one frozen dataclass per stage, checked when it is made, never mutated.

Command line beats TOML beats default. Durations end in _ms or _s. The metadata of
each field has its help text, which the command line shows.
"""

from __future__ import annotations

import math
import numbers
import os
import textwrap
import tomllib
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.text import MOST_TOML_MB, read_text, unknown_name

#: A band-pass filter's upper edge is at least so many times its lower one: a narrower band holds no spike.
OCTAVE = 2.0
#: Default upper bounds, chosen by the suffix of the option's name.
_MOST = {"_hz": 1e6, "_ms": 1e4, "_s": 1e9, "": 1e9}
_MOST_WHOLE = 2**63 - 1
#: Settings of preprocessing that belong to a recording, not to a model that is applied to it.
OF_RECORDING = ("exclude_s", "triggers", "blank_ms", "find_artefacts")
#: Where a user finds the names that are known; in Python the message must not name a command's option.
LISTED = "spikecrsae sort --dump-config lists all settings"
LISTED_IN_PYTHON = "print(Config().to_toml()) lists all settings"


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    kind: type | None = None,
    metavar: str = "",
) -> Any:
    """Return the field of a setting with its help text and the rule for its value. kind: its type, where the default does
    not show it.
    metavar: what a text is; the command line then takes the option once, else several times."""
    rules = {"help": help, "low": low, "high": high, "choices": choices, "kind": kind, "metavar": metavar}
    return field(default=default, metadata=rules)


@dataclass(frozen=True)
class Checked:
    """Base of every configuration: checks all values when an object is made. UsageError names the value and its rule."""

    #: Written before the name of a value in an error.
    _prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for rule in fields(self):
            object.__setattr__(self, rule.name, _check(rule, getattr(self, rule.name), self._prefix + rule.name))


@dataclass(frozen=True)
class PreprocessConfig(Checked):
    _prefix = "preprocess."

    highpass_hz: float = option(400.0, "lower edge of the zero-phase filter", low=0.1)
    lowpass_hz: float | None = option(
        None,
        "upper edge of that filter, at least twice the lower one and below the Nyquist frequency; none unless given",
        low=1.0,
        kind=float,
    )
    filter_order: int = option(3, "order of the Butterworth filter, each way", low=1, high=8)
    common_reference: str = option("none", "subtract the channels' median or mean", choices=("none", "median", "mean"))
    whitening_ms: float = option(3.0, "length of the noise-whitening filter", low=0.1, high=10.0)
    quiet_threshold: float = option(4.0, "a sample is quiet where no channel exceeds this many noise levels", low=1.0)
    quiet_margin_ms: float = option(1.5, "interval around a loud sample that is not quiet either", low=0.0)
    noise_sample_s: float = option(60.0, "length of signal from which the noise is learned", low=0.1)
    remove_hum: bool = option(True, "remove hum, such as that of the mains, by notch filters")
    exclude_s: str = option(
        "",
        "intervals to leave out, in seconds as time_s in spikes.csv: 12.5-13.1,40-41, or a CSV file with start,stop in "
        "each row",
    )
    triggers: str = option(
        "",
        "times of stimuli to blank: a CSV file with one column, of seconds, or with a column time_s or sample; or "
        "FILE:NAME, an event "
        "channel of a file that neo reads",
        metavar="FILE",
    )
    blank_ms: str = option("-0.5,6", "interval that is blanked around each trigger: from,to in ms", metavar="A,B")
    find_artefacts: bool = option(True, "find artefacts, such as pulses and movement, and subtract them or leave them out")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exclude_s:
            from spikecrsae.data.intervals import interval_words  # loads numpy, which the help page does without

            object.__setattr__(self, "exclude_s", ",".join(interval_words(self.exclude_s)))
        if self.triggers:
            object.__setattr__(self, "triggers", os.path.abspath(self.triggers))
        self.blank_bounds_ms  # noqa: B018 - raises

    @property
    def blank_bounds_ms(self) -> tuple[float, float]:
        """Begin and end of what is blanked, in ms from a trigger. Raises UsageError unless blank_ms is two ascending
        times."""
        try:
            low, high = (float(word) for word in self.blank_ms.split(","))
        except ValueError:
            low, high = math.nan, math.nan
        # a NaN makes the comparison false
        if not (-_MOST["_ms"] <= low < high <= _MOST["_ms"]):
            raise UsageError(
                f"preprocess.blank_ms = {self.blank_ms!r} must be two times in ms, the earlier first, between {-_MOST['_ms']:g} and "
                f"{_MOST['_ms']:g}, such as -0.5,6."
            )
        return low, high


@dataclass(frozen=True)
class InitialiseConfig(Checked):
    _prefix = "initialise."

    units: int | None = option(None, "number of units; found from the data unless given ('auto')", low=1, kind=int)
    detection_threshold: float = option(
        4.5, "an event is detected where the whitened signal exceeds this many noise levels", low=1.0
    )
    template_ms: float = option(2.0, "length of a template", low=0.3, high=10.0)
    before_ms: float = option(0.9, "part of the template before its peak", low=0.1)
    dead_time_ms: float = option(0.5, "of two detected events closer than this, the larger one is kept", low=0.05)
    refractory_ms: float = option(0.7, "a unit fires at most once within this time", low=0.0, high=5.0)
    complex_spikes: bool = option(
        False, "report the complex spikes of Purkinje cells as units of their own, apart from the simple spikes"
    )
    n_components: int = option(10, "principal components for clustering", low=2, high=50)
    max_signal_s: float = option(
        120.0,
        "most signal in which units are looked for: half of it windows drawn at random, half around events of the whole "
        "recording",
        low=1.0,
    )
    max_events: int = option(
        20000, "most events that are clustered: half of them drawn at random, the others with rare ones first", low=100
    )


@dataclass(frozen=True)
class TrainConfig(Checked):
    _prefix = "train."

    method: str = option("em", "em: closed-form updates; unrolled: back-propagation (the paper)", choices=("em", "unrolled"))
    shrinkage: str = option(
        "one-sided",
        "codes of the training windows: one-sided, never negative; two-sided, as in the paper (Eq. 25)",
        choices=("one-sided", "two-sided"),
    )
    n_iterations: int = option(180, "FISTA iterations T, of back-propagation and of the torch backend", low=1)
    epochs: int = option(40, "most training epochs (unrolled; the l1 stage has at most 15)", low=1)
    max_windows: int = option(
        160,
        "most windows, each ten templates long, that training draws; the l1 stage holds out half of its own, and 0 skips "
        "that stage",
        low=0,
    )
    kappa: float = option(8.5, "weight of the prior that centres lambda on its start (unrolled)", low=0.01)
    annealing: float = option(0.8, "first penalty as a share of the units' median scale; it falls to twice lambda", low=0.0)
    learning_rate: float = option(1e-2, "Adam step for the templates (unrolled)", low=1e-6)
    learning_rate_lambda: float = option(0.1, "Adam step for lambda (unrolled)", low=1e-6)
    batch_size: int = option(32, "windows per step (unrolled)", low=1)
    tolerance: float = option(3e-3, "training ends when the relative change of templates and lambda is below this", low=1e-8)


@dataclass(frozen=True)
class InferConfig(Checked):
    _prefix = "infer."

    prior: str = option(
        "spike-slab",
        "prior of a spike's amplitude: spike-slab, near the unit's own; laplace, the paper's",
        choices=("spike-slab", "laplace"),
    )
    local_search: bool = option(
        True, "where spikes overlap, try other explanations after the encoder: two spikes for one, one for two"
    )
    adapt: bool = option(False, "apply only: adapt the templates of known units to this recording")
    chunk_s: float = option(
        10.0, "length of signal held at once, at least 65536 samples; the result does not depend on it", low=0.05
    )


@dataclass(frozen=True)
class RuntimeConfig(Checked):
    _prefix = "runtime."

    seed: int = option(0, "seed of every random draw", low=0)
    device: str = option("auto", "where torch computes: cpu, cuda or mps", choices=("auto", "cpu", "cuda", "mps"))
    backend: str = option(
        "auto",
        "what computes: numba (CPU) or torch (any device); auto takes numba on a CPU, torch on a GPU",
        choices=("auto", "numba", "torch"),
    )
    memory_limit: float | None = option(
        None,
        "most resident memory, in MB, kept by learning from less signal at once and by shorter chunks; no limit unless given",
        low=1.0,
        kind=float,
    )


@dataclass(frozen=True)
class Config:
    """All settings: one part for each stage, as in the TOML file."""

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    initialise: InitialiseConfig = field(default_factory=InitialiseConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    infer: InferConfig = field(default_factory=InferConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        for stage in fields(self):
            value = getattr(self, stage.name)
            kind: Any = stage.default_factory
            if not isinstance(value, kind):
                raise UsageError(
                    f"{stage.name} = {value!r} must be a {kind.__name__}; or give single values to Config().with_settings, such as "
                    "with_settings(highpass_hz=300.0)."
                )

    def with_values(self, values: dict[str, dict[str, Any]], origin: str = "configuration") -> Config:
        """Return a copy with the values {stage: {name: value}} replaced. Raises UsageError for an unknown name or a bad
        value."""
        stages = {f.name for f in fields(self)}
        changed = {}
        for stage, table in values.items():
            if stage not in stages:
                raise UsageError(f"{origin}: table {unknown_name(stage, stages, 'there are ' + ', '.join(sorted(stages)))}")
            if not isinstance(table, dict):
                raise UsageError(f"{origin}: {stage} = {table!r} must be a table, such as [{stage}].")
            section = getattr(self, stage)
            known = {f.name for f in fields(section)}
            for name in table:
                if name not in known:
                    raise UsageError(f"{origin}: {stage}.{unknown_name(name, known, LISTED)}")
            try:
                changed[stage] = replace(section, **table)
            except UsageError as error:
                raise UsageError(f"{origin}: {error}") from error
        return replace(self, **changed)

    def with_settings(self, **settings: Any) -> Config:
        """Return a copy with some values replaced, named without their stage: with_settings(highpass_hz=300.0, seed=1)."""
        stages = self.stages()
        values: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            if name not in stages:
                raise UsageError(unknown_name(name, stages, LISTED_IN_PYTHON))
            values.setdefault(stages[name], {})[name] = value
        return self.with_values(values)

    @classmethod
    def stages(cls) -> dict[str, str]:
        """Stage of every value, by the value's name."""
        return {rule.name: stage.name for stage in fields(cls) for rule in fields(getattr(cls(), stage.name))}

    def refuse_contradictions(self) -> None:
        """Raise UsageError where two values contradict each other. Call it when all values are set."""
        filter_, start = self.preprocess, self.initialise
        if filter_.lowpass_hz is not None and filter_.lowpass_hz < OCTAVE * filter_.highpass_hz:
            raise UsageError(
                f"preprocess.lowpass_hz = {filter_.lowpass_hz:g} must be at least {OCTAVE:g} times preprocess.highpass_hz = "
                f"{filter_.highpass_hz:g}, since a narrower band holds no spike; change --lowpass-hz or --highpass-hz."
            )
        if self.runtime.backend == "numba" and self.runtime.device in ("cuda", "mps"):
            raise UsageError(
                f"runtime.backend = numba computes on the CPU, not on {self.runtime.device}; leave out --backend or --device."
            )
        if not filter_.triggers and filter_.blank_ms != PreprocessConfig.blank_ms:
            raise UsageError(
                f"preprocess.blank_ms = {filter_.blank_ms} has no effect without triggers; give their times with --triggers FILE."
            )
        if start.before_ms >= start.template_ms:
            raise UsageError(
                f"initialise.before_ms = {start.before_ms:g} must be less than initialise.template_ms = {start.template_ms:g}: it is the "
                "part before the peak. Give a longer --template-ms, or a smaller initialise.before_ms."
            )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return a nested dict that `with_values` reads back. "auto" stands for None: the program finds that value."""
        return {s: {k: "auto" if v is None else v for k, v in table.items()} for s, table in asdict(self).items()}

    def to_toml(self) -> str:
        """Return the text of a TOML file with every setting, each under a comment with its meaning and default."""
        import tomli_w

        lines = []
        for stage, table in self.to_dict().items():
            lines.append(f"[{stage}]")
            for rule in fields(getattr(self, stage)):
                default = "auto" if rule.default is None else rule.default
                shown = tomli_w.dumps({"": default}).partition(" = ")[2].strip()
                meaning = f"{rule.metadata['help']} (default: {shown})"
                lines += textwrap.wrap(meaning, 78, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
                lines.append(tomli_w.dumps({rule.name: table[rule.name]}).rstrip())
            lines.append("")
        return "\n".join(lines)


def load_config(path: str | Path, base: Config | None = None) -> Config:
    """Return `base` with the values of a TOML file. Raises UsageError where it is missing, unreadable or has an unknown
    setting."""
    try:
        refuse_unreadable(path, "a TOML file")
        values = tomllib.loads(read_text(Path(path), MOST_TOML_MB))
    except OSError as error:
        raise UsageError(f"configuration {path} cannot be read ({error.strerror}); give an existing TOML file.") from error
    except InputError as error:
        raise UsageError(f"configuration: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"configuration {path} is not valid TOML: {error}. Correct it; sort --dump-config prints a valid one."
        ) from error
    return (base or Config()).with_values(values, origin=str(path))


def _check(option: Field[Any], value: Any, name: str) -> Any:
    """The value in its option's type, or UsageError with the rule it breaks."""
    rule = option.metadata
    if value is None or (isinstance(value, str) and value == "auto" and option.default is None):
        if option.default is None:
            return None
        raise UsageError(f"{name} needs a value; give one, or leave it out for the default.")
    kind: type = rule["kind"] or type(option.default)
    value = _in_kind(value, kind)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{name} = {value!r} must be of type {kind.__name__}.")
    if rule["choices"] and value not in rule["choices"]:
        raise UsageError(f"{name} = {value!r} must be one of {', '.join(rule['choices'])}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} = {value} must be a finite number.")
    if rule["low"] is not None and value < rule["low"]:
        raise UsageError(f"{name} = {value} must be at least {rule['low']}.")
    if (most := _most(option, kind)) is not None and value > most:
        raise UsageError(f"{name} = {value} must be at most {most:g}.")
    return value


def _in_kind(value: Any, kind: type) -> Any:
    """A number of NumPy or a whole number as a Python number of that kind, a list as a tuple, a path as text; else the value as it is."""
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    number = {int: numbers.Integral, float: numbers.Real}.get(kind)
    if number is None or not isinstance(value, number) or isinstance(value, bool):
        return value
    try:
        return kind(value)
    except OverflowError:  # a whole number that no float holds
        return math.inf


def _most(option: Field[Any], kind: type) -> Any:
    """Upper bound of a number: its own, else the default; None for what is no number."""
    if option.metadata["high"] is not None or kind not in (int, float):
        return option.metadata["high"]
    return _MOST_WHOLE if kind is int else next(most for end, most in _MOST.items() if option.name.endswith(end))
