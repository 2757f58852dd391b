"""python -m spikecrsae, and the console script."""

import os
import signal
import sys
import threading
from types import FrameType


class _Interrupted(KeyboardInterrupt):
    """A class of its own, because after a bare KeyboardInterrupt in an import Python ends by the signal, not by 130."""


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded ends it as it does later."""
    came = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise _Interrupted

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    _open_what_is_closed()
    try:
        from spikecrsae.cli.main import main as run

        if came:  # while loading, in a callback of the import system: Python drops an exception there, and says so
            raise _Interrupted
    except BaseException:
        if not came:
            raise
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


def _open_what_is_closed() -> None:
    """The null device for a standard stream that is closed (>&-): no write fails, and no file that is opened later gets the
    number of one, into which libraries would print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 - for as long as the program runs
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


if __name__ == "__main__":
    main()
