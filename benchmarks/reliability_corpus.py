"""How the program meets broken recordings: tried, refused, sorted with a warning, sorted in silence, crashed, hung.

    python benchmarks/reliability_corpus.py

Each case of tests/helpers/corpus_files.py is sorted from the command line, in this process. Exit code 0 where every one was refused
with the right exit code in a line that names the file and the trouble, or sorted with a warning that names the trouble; 1
otherwise.
"""

from __future__ import annotations

import argparse
import faulthandler
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.corpus import LIMIT_S, Verdict
from helpers.corpus import run as run_case
from helpers.corpus_files import cases

#: What a case can come to, in the order of the table.
KINDS = {
    "refused": "refused, the line names file and trouble",
    "warned": "sorted, a warning names the trouble",
    "silent": "sorted in silence",
    "unclear": "refused, line or exit code wrong",
    "crashed": "crashed",
    "hung": "hung",
}


def run(argv: Sequence[str] | None = None) -> int:
    """Run the corpus, print the figures; 0 where all went well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name this finds")
    parser.add_argument("--verbose", action="store_true", help="print what was said of every case")
    options = parser.parse_args(argv)
    chosen = [case for case in cases() if re.search(options.only, case.name)]
    began, verdicts = time.perf_counter(), []
    for case in chosen:
        # beside the limit of the case itself, which compiled code would not see
        faulthandler.dump_traceback_later(3 * LIMIT_S, exit=True)
        with tempfile.TemporaryDirectory() as folder:
            verdicts.append(run_case(case, Path(folder)))
        if options.verbose or not verdicts[-1].well:
            _tell(verdicts[-1])
    faulthandler.cancel_dump_traceback_later()
    counts = Counter(verdict.kind for verdict in verdicts)
    other = sum(not verdict.well and verdict.kind in ("refused", "warned") for verdict in verdicts)
    print(f"inputs tried: {len(verdicts)} in {time.perf_counter() - began:.0f} s, the longest {_longest(verdicts)}")
    for kind, words in KINDS.items():
        print(f"{counts[kind]:5d}  {words}")
    print(f"{other:5d}  of the first two, otherwise than expected")
    return int(not all(verdict.well for verdict in verdicts))


def _tell(verdict: Verdict) -> None:
    said = [line for line in verdict.said.splitlines() if line.startswith(("Error", "Warning", "Note"))]
    print(f"{verdict.case.name}: {verdict.kind}, expected {verdict.case.how}", *said, sep="\n    ", flush=True)


def _longest(verdicts: Sequence[Verdict]) -> str:
    longest = max(verdicts, key=lambda verdict: verdict.seconds, default=None)
    return f"{longest.seconds:.1f} s ({longest.case.name})" if longest else "none"


if __name__ == "__main__":
    sys.exit(run())
