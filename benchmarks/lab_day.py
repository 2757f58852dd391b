"""The steps of lab_day.sh that the field's own programs do.

    python benchmarks/lab_day.py read RESULT      # phy/ by phylib and SpikeInterface, sorting.nwb by pynwb and SpikeInterface
    python benchmarks/lab_day.py browse PAGE      # report.html in headless Chromium: every figure drawn, the console silent
    python benchmarks/lab_day.py curate PHY       # what Phy leaves after a merge of two units and a label

Needs the extra `test`; Chromium on the path, or named by the environment variable CHROMIUM. Ends with 1 where something is
not as it should be.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
#: Widths and heights of all figures of a page, and of what they hold.
BOXES = """[...document.querySelectorAll("svg")].map((svg) => {
  const inner = svg.getBBox(), outer = svg.getBoundingClientRect();
  return [inner.width, inner.height, outer.width, outer.height];
})"""


def check(right: bool, what: str) -> None:
    if not right:
        sys.exit(f"not as it should be: {what}")


def read(result: Path) -> None:
    """Every reader must give the spikes of spikes.csv."""
    import pynwb
    from phylib.io.model import load_model
    from spikeinterface.extractors import read_kilosort, read_nwb_sorting, read_phy

    with (result / "spikes.csv").open(encoding="utf-8") as file:
        spikes = [(int(row["unit"]), int(row["sample"])) for row in csv.DictReader(file)]
    units = np.unique([unit for unit, _ in spikes])
    run = json.loads((result / "run.json").read_text(encoding="utf-8"))["recording"]

    def same(sorting, name: str) -> None:
        for unit, found in zip(units, sorting.unit_ids, strict=True):
            train = [sample for u, sample in spikes if u == unit]
            check(np.array_equal(sorting.get_unit_spike_train(found), train), f"{name}, unit {unit} of {result}")
        print(f"{result.name}: {name} finds the {len(spikes)} spikes of {len(units)} units")

    model = load_model(result / "phy" / "params.py")
    check(model.n_spikes == len(spikes), f"number of spikes in phylib, {result}")
    check(model.get_template(int(units[0])) is not None, f"template in phylib, {result}")
    print(f"{result.name}: phylib opens {model.n_templates} templates, {model.n_spikes} spikes")
    model.close()
    same(read_phy(result / "phy"), "read_phy")
    same(read_kilosort(result / "phy"), "read_kilosort")
    start = run.get("start_time_s") or 0.0
    same(read_nwb_sorting(result / "sorting.nwb", t_start=start), "read_nwb_sorting")
    with pynwb.NWBHDF5IO(result / "sorting.nwb", "r") as io:
        problems = pynwb.validate(io=io)
        check(not problems, f"pynwb says {problems}")
        print(f"{result.name}: pynwb's validator is content with {len(io.read().units)} units")


def browse(page: Path) -> None:
    """Open the page and look at every figure."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers import browser

    program = browser.find_chromium()
    check(program is not None, "no Chromium on the path, and CHROMIUM names none")
    with tempfile.TemporaryDirectory() as folder, browser.Browser(program, Path(folder)) as opened:
        opened.open(page)
        boxes = opened.evaluate(BOXES)
        check(len(boxes) > 0 and min(min(box) for box in boxes) > 0, f"an empty figure in {page}")
        check(opened.errors == [], f"the console says {opened.errors}")
    print(f"{page.name}: {len(boxes)} figures are drawn, the console is silent")


def curate(folder: Path) -> None:
    """The two units with the fewest spikes become one, that with the third fewest noise."""
    clusters = np.load(folder / "spike_clusters.npy").ravel()
    units, counts = np.unique(clusters, return_counts=True)
    check(len(units) >= 3, f"three units to curate in {folder}")
    first, second, third = units[np.argsort(counts, kind="stable")][:3]
    merged = units.max() + 1
    clusters[np.isin(clusters, [first, second])] = merged
    np.save(folder / "spike_clusters.npy", clusters.astype(np.int32))
    (folder / "cluster_group.tsv").write_text(f"cluster_id\tgroup\n{third}\tnoise\n{merged}\tgood\n", encoding="utf-8")
    print(f"units {first} and {second} are {merged} now, unit {third} is noise")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("read", "browse", "curate"):
        sys.exit(__doc__)
    {"read": read, "browse": browse, "curate": curate}[sys.argv[1]](Path(sys.argv[2]))
