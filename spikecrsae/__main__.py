"""python -m spikecrsae, and the console script."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded ends it as it does later."""
    try:
        from spikecrsae.cli.main import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
