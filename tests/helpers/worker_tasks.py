"""What the processes of test_workers do, apart from it, so that they start without loading all that it needs."""

from __future__ import annotations

import os


def work(common: str, item: str, observer) -> str:
    if item == "die":
        os._exit(9)
    if item == "fail":
        raise ValueError(common)
    observer.advance()  # outside of a stage
    observer.start("count")
    observer.finish()
    return os.environ["SPIKECRSAE_CORES"]
