"""Wrong usage in plain words: what was given, what is allowed, what to do."""

from __future__ import annotations

import click

#: click's words for a value of the wrong kind, and ours.
_KINDS = {"is not a valid integer": "is not a whole number", "is not a valid float": "is not a number"}


def plain_words(error: click.UsageError) -> str:
    """Return the error of click as a sentence or two that name the value, the rule and the remedy."""
    if isinstance(error, click.MissingParameter):
        return _missing(error)
    if isinstance(error, click.BadParameter):
        return f"{_name(error.param)}: {_value(error)}" if error.param else error.message
    if isinstance(error, click.NoSuchOption):
        return f"there is no option {error.option_name}{_alternatives(error.possibilities)}"
    if isinstance(error, click.BadOptionUsage):
        return _option(error)
    if error.message.startswith("No such command "):
        name = error.message.removeprefix("No such command ").split("'")[1]
        return f"there is no command {name}{_alternatives(getattr(error, 'possibilities', None))}"
    if error.message.startswith("Got unexpected extra argument"):
        return f"too many arguments: {error.message.partition('(')[2].rstrip(')')}. The form is {_form(error.ctx)}."
    return error.message


def _missing(error: click.MissingParameter) -> str:
    if isinstance(error.param, click.Option):
        return f"{_name(error.param)} is missing; give {error.param.opts[-1]} {error.param.make_metavar(error.ctx)}."  # type: ignore[arg-type]
    return f"{error.param and error.param.human_readable_name} is missing. The form is {_form(error.ctx)}."


def _value(error: click.BadParameter) -> str:
    """Return what is wrong with a value."""
    text = error.message
    for theirs, ours in _KINDS.items():
        text = text.replace(theirs, ours)
    return text


def _option(error: click.BadOptionUsage) -> str:
    """Return what is wrong with an option that has too few words after it, or too many."""
    parameters = error.ctx.command.params if error.ctx else []
    option = next((p for p in parameters if error.option_name in (*p.opts, *p.secondary_opts)), None)
    if "requires" in error.message and option is not None:
        return f"{error.option_name} needs a value after it: {error.option_name} {option.make_metavar(error.ctx)}."  # type: ignore[arg-type]
    return f"{error.option_name} takes no value; write {error.option_name} alone."


def _name(parameter: click.Parameter | None) -> str:
    """Return an option or argument as a user writes it."""
    if parameter is None:
        return "an argument"
    return parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.human_readable_name


def _form(ctx: click.Context | None) -> str:
    """Return how the command is written."""
    return ctx.get_usage().removeprefix("Usage: ") if ctx else "spikecrsae COMMAND"


def _alternatives(names: object) -> str:
    """Return what was probably meant, and the end of the sentence."""
    return f"; did you mean {' or '.join(sorted(names))}?" if isinstance(names, (list, tuple)) and names else "."
