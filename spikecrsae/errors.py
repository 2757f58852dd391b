"""Every error a user can meet, each with the exit code of the command line.

A message names the value, the rule it breaks and the remedy, in one sentence or two.
"""


class SpikeCRsAEError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class UsageError(SpikeCRsAEError):
    """An argument or a configuration value is wrong."""

    exit_code = 2


class InputError(SpikeCRsAEError):
    """The recording, the truth or a result folder cannot be used."""

    exit_code = 3


class OutOfMemoryError(SpikeCRsAEError):
    """The work does not fit into memory."""

    exit_code = 4


class OutputError(SpikeCRsAEError):
    """The result cannot be written where it was asked for."""

    exit_code = 6


#: Exit code of a run that finished and found no unit (a valid, empty result).
EXIT_NO_UNITS = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
