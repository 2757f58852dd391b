"""python -m spikecrsae, and the console script."""

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded ends it as it does later."""
    _open_what_is_closed()
    try:
        from spikecrsae.cli.main import main as run
    except KeyboardInterrupt:
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
