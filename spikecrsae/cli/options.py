"""Options that several commands share, and the configuration's fields as options."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from spikecrsae.cli import console
from spikecrsae.config import Config, load_config
from spikecrsae.errors import UsageError

#: Configuration fields that are options of `sort`; the others are reached through --config.
SORT_FIELDS = (
    "preprocess.highpass_hz",
    "preprocess.lowpass_hz",
    "preprocess.common_reference",
    "preprocess.exclude_s",
    "preprocess.triggers",
    "preprocess.blank_ms",
    "preprocess.find_artefacts",
    "initialise.units",
    "initialise.detection_threshold",
    "initialise.template_ms",
    "initialise.complex_spikes",
    "train.method",
    "train.shrinkage",
    "train.epochs",
    "train.max_windows",
    "infer.prior",
    "infer.local_search",
    "infer.chunk_s",
    "runtime.seed",
    "runtime.device",
    "runtime.backend",
    "runtime.memory_limit",
)
#: What is left to choose once the templates are known.
APPLY_FIELDS = (
    "preprocess.exclude_s", "preprocess.triggers", "preprocess.blank_ms", "preprocess.find_artefacts", "infer.adapt", "infer.chunk_s",
    "runtime.device", "runtime.backend",
)  # fmt: skip

#: Formats of other programs, as spikecrsae.exports.export.FORMATS has them; known here without loading what writes them.
EXPORT_FORMATS = ("phy", "nwb", "csv", "mat", "neo", "klusters")

#: Options that say how a recording is read, by the names that readers.open_recording knows them under.
READER_NAMES = (
    "sampling_frequency", "n_channels", "dtype", "gain", "offset", "dataset", "axis", "series", "stream", "segment",
    "channels", "probe", "groups", "files", "start_s", "stop_s",
)  # fmt: skip


class Option(click.Option):
    """An option with the heading under which the help page shows it."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


#: In a context's `meta`: whether the help page shows every option.
ALL_OPTIONS = "spikecrsae.all_options"


class Command(click.Command):
    """A command whose help page shows its options under their headings.

    everyday: the options that most users need, of a command with many. --help shows these, --help-all shows every one.
    """

    def __init__(self, *args: Any, everyday: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.everyday = everyday
        if everyday:
            self.params.append(help_all)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:  # click's parser leaves it out for some
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.everyday and ALL_OPTIONS not in ctx.meta:
            by_name = {p.opts[-1]: p for p in self.get_params(ctx)}
            shown = [by_name[name].get_help_record(ctx) for name in (*self.everyday, "--help", "--help-all")]
            with formatter.section("Options that most people need"):
                formatter.write_dl([record for record in shown if record])
            return
        sections: dict[str, list] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option):
                section = sections.setdefault(getattr(parameter, "section", "Options"), [])
                section.append(parameter.get_help_record(ctx))
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


class WholeNumber(click.IntRange):
    """A whole number within bounds; refused in the words of a configuration file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _within(self, click.INT.convert(value, param, ctx), param, ctx)


class Number(click.FloatRange):
    """A number within bounds; refused in the words of a configuration file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _within(self, click.FLOAT.convert(value, param, ctx), param, ctx)


def _within(bounds: WholeNumber | Number, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    if bounds.min is not None and value < bounds.min:
        bounds.fail(f"{value} must be at least {bounds.min}.", param, ctx)
    if bounds.max is not None and value > bounds.max:
        bounds.fail(f"{value} must be at most {bounds.max}.", param, ctx)
    return value


class OrAuto(click.ParamType):
    """A number, or `auto` for what the program finds by itself."""

    name = "number or auto"

    def __init__(self, number: click.ParamType) -> None:
        self.number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value == "auto" else self.number.convert(value, param, ctx)
        except click.BadParameter as error:
            raise click.BadParameter(f"{error.message.rstrip('.')}; give a number, or auto.", ctx, param) from None


class Name(click.Path):
    """The name of a file or folder, as a Path; an empty one, as an unset variable leaves it, would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value).strip():
            self.fail("the name is empty; give a file or folder, or . for the current one.", param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class Tolerance(Number):
    """A distance of two spikes that are taken for one, in ms: from 0 to a second."""

    def __init__(self) -> None:
        super().__init__(0, 1000)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if math.isnan(number := super().convert(value, param, ctx)):
            self.fail("nan is no number; give a distance in ms.", param, ctx)
        return number


option = functools.partial(click.option, cls=Option)


def _show_all(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        ctx.meta[ALL_OPTIONS] = True
        click.echo(ctx.get_help())
        ctx.exit()


help_all = Option(
    ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help="Show every option and exit."
)

output_option = option("-o", "--output", type=Name(), metavar="FOLDER", help="Where the result goes.")
overwrite_option = option(
    "--overwrite", is_flag=True, help="Replace an existing result; only files that its manifest lists are removed."
)
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
verbose_option = option("--verbose", is_flag=True, help="Print more narration, and the full traceback of an internal error.")


tolerance_option = option(
    "--tolerance-ms",
    type=Tolerance(),
    default=0.4,
    show_default=True,
    help="Largest distance of a match, at most 1000.",
)


def _stack(function: Callable, *decorators: Callable) -> Callable:
    """Apply decorators so that the first one comes first on the help page."""
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def reader_options(function: Callable) -> Callable:
    """Options that say how a recording is read; the command receives the given ones as the dict `reader`."""
    add = functools.partial(option, section="Reading the recording")

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        given = {name: values.pop(name) for name in READER_NAMES}
        return function(reader={name: value for name, value in given.items() if value is not None}, **values)

    return _stack(
        command,
        add(
            "--sampling-frequency",
            type=float,
            metavar="HZ",
            help="Samples per second, where the file does not say; raw binary needs it.",
        ),
        add("--n-channels", type=int, metavar="N", help="Channels in a raw binary file."),
        add("--dtype", metavar="TYPE", help="Number type of a raw binary file, such as int16 or >i2."),
        add("--gain", type=float, metavar="UV", help="Microvolts per stored number, in place of the file's own."),
        add("--offset", type=float, metavar="UV", help="Microvolts at a stored 0, in place of the file's own."),
        add("--dataset", metavar="PATH", help="Dataset of an HDF5 file that holds the traces, such as /data/raw."),
        add("--axis", type=int, metavar="N", help="Axis of that dataset along which time runs: 0 or 1."),
        add("--series", metavar="NAME", help="ElectricalSeries of an NWB file that holds several."),
        add("--stream", metavar="NAME", help="Signal stream of a file that holds several, by name or number."),
        add(
            "--segment",
            type=int,
            metavar="N",
            help="Only this segment of a file that holds several, counted from 0; by default all, one after the other.",
        ),
        add("--channels", metavar="LIST", help="Channels to use, counted from 0 or by name: 0,2-5 or CSC1,CSC3."),
        add("--probe", type=Name(), metavar="FILE", help="Geometry: probeinterface JSON or .prb."),
        add("--groups", metavar="LIST|FILE", help="Channels sorted on their own, such as 0-3,4-7; a probe file; or all."),
        add(
            "--files",
            type=click.Choice(["channels", "session"]),
            help="What several files are: channels of one recording, or one after the other. By default their start and length decide.",
        ),
        add("--start-s", type=float, metavar="S", help="Sort from this time on, in seconds on the recording's own clock."),
        add("--stop-s", type=float, metavar="S", help="Sort up to this time, in seconds on the same clock."),
    )


metadata_option = option(
    "--metadata",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of session, subject and electrodes, for NWB; it overrides what the recording says.",
)
columns_option = option(
    "--columns",
    type=click.Choice(("few", "all")),
    help="Columns of Phy's table: few (default) has group, KSLabel, snr, isi_violations, false_alarm and miss; all also has the other "
    "columns of units.csv.",
)
#: What can be asked of a job besides its configuration: options by the fields of run.job.Job that they set.
_JOB_OPTIONS = {
    "overwrite": overwrite_option,
    "resume": option(
        "--resume", is_flag=True, help="Go on where the same run was stopped; a finished result of it is kept."
    ),
    "save_components": option(
        "--save-components",
        is_flag=True,
        help="Also write every unit's own signal to components.h5, as large as the recording times the number of units.",
    ),
    "estimate_errors": option(
        "--estimate-errors",
        is_flag=True,
        help="Self-test: inject copies of every unit and sort again; this doubles the time.",
    ),
    "exports": option(
        "--export",
        "exports",
        type=click.Choice(EXPORT_FORMATS),
        multiple=True,
        help="Also write this format into the result, as the command export does. May be given several times.",
    ),
    "metadata": metadata_option,
    "columns": columns_option,
    "jobs": option(
        "--jobs",
        type=WholeNumber(1),
        metavar="N",
        help="Number of groups of channels, or neighbourhoods of a probe, at the same time; by default the number of cores.",
    ),
    "scheduler": option(
        "--scheduler",
        metavar="ADDRESS",
        help="Use the Dask cluster of this scheduler, tcp://host:port, in place of --jobs; needs pip install 'spikecrsae[dask]'.",
    ),
}


def job_options(*names: str) -> Callable:
    """Options for these fields of a Job; the command receives them as the dict `choices`."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            return function(choices={name: values.pop(name) for name in names}, **values)

        return _stack(command, *(_JOB_OPTIONS[name] for name in names))

    return decorate


def narrated(function: Callable) -> Callable:
    """Options for what is printed; the command receives `as_json`, and a Narrator as `narrator`."""
    quiet = option("--quiet", is_flag=True, help="Print no narration on standard error, only errors.")
    return _stack(console.narrated(function), json_option, quiet, verbose_option)


def config_options(names: tuple[str, ...], file: bool = True) -> Callable:
    """Options for these configuration fields and, with file, --config; the command receives the resulting Config as `config`.

    Command line beats the file, the file beats the defaults.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def command(*, config_file: Path | None = None, **values: Any) -> Any:
            config = load_config(config_file) if config_file else Config()
            given: dict[str, dict[str, Any]] = {}
            source = click.get_current_context().get_parameter_source
            for name in names:
                stage, field = name.split(".")
                value = values.pop(field)
                if source(field) is not ParameterSource.DEFAULT:
                    given.setdefault(stage, {})[field] = value
            config = config.with_values(given, origin="command line")
            config.refuse_contradictions()
            return function(config=config, **values)

        config_file = option(
            "--config",
            "config_file",
            type=Name(),
            metavar="FILE",
            help="Configuration in TOML; options override it.",
        )
        return _stack(command, *([config_file] if file else []), *(_field_option(name) for name in names))

    return decorate


def _refuse_empty(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value and context.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT:
        raise UsageError(f"{parameter.opts[0]} is empty; give a {parameter.metavar}, or leave the option out.")
    return value


def _field_option(name: str) -> Callable:
    """The option of one configuration field, from its default and metadata."""
    stage, field_name = name.split(".")
    field = next(f for f in fields(getattr(Config(), stage)) if f.name == field_name)
    rule = field.metadata
    kind = rule["kind"] or type(field.default)
    word = "--" + field_name.replace("_", "-")
    first_word, *rest = rule["help"].split(" ", 1)
    meaning = rule["help"] if first_word.endswith(":") else " ".join([first_word.capitalize(), *rest])
    shared: dict[str, Any] = {"help": meaning + ".", "section": stage.capitalize()}
    if kind is bool:
        switch = f"{word}/--no-{word.removeprefix('--')}"
        return option(switch, field_name, default=field.default, show_default=True, **shared)
    if rule["metavar"]:
        shared |= {"default": field.default, "show_default": bool(field.default), "callback": _refuse_empty}
        return option(word, field_name, metavar=rule["metavar"], **shared)
    if kind is str and not rule["choices"]:
        shared["help"] += " May be given several times."
        return option(word, field_name, multiple=True, metavar="LIST", callback=lambda _, __, v: ",".join(v), **shared)
    value_type: click.ParamType
    if rule["choices"]:
        value_type, metavar = click.Choice(rule["choices"]), None
    else:
        value_type = (WholeNumber if kind is int else Number)(rule["low"], rule["high"])
        metavar = next((unit.upper() for unit in ("hz", "ms", "s") if field_name.endswith(f"_{unit}")), "N")
    optional = field.default is None
    return option(
        word,
        field_name,
        type=OrAuto(value_type) if optional else value_type,
        metavar=f"{metavar}|auto" if optional else metavar,
        default="auto" if optional else field.default,
        show_default=True,
        **shared,
    )
