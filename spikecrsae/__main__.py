"""python -m spikecrsae"""

from spikecrsae.cli.main import main

if __name__ == "__main__":
    main()
