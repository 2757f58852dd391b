"""Names in a Phy folder that both its reader and its writer know."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikecrsae.data.sorting import LARGEST_UNIT
from spikecrsae.errors import InputError

#: The sorting before anybody curated it; a curated folder is read with its help.
ORIGINAL = "original_sorting.h5"
#: The file that Phy is started with.
PARAMS = "params.py"
#: Phy's names for our labels; unsorted is what a person has left so.
GROUP_OF_LABEL = {
    "single": "good",
    "multi": "mua",
    "noise": "noise",
    "artefact": "noise",
    "unsure": "unsorted",
    "unsorted": "unsorted",
}


def phy_folder(path: str | Path) -> Path:
    """The folder of a params.py; any other path as it is."""
    path = Path(path)
    return path.parent if path.name == PARAMS else path


def is_phy_folder(path: str | Path) -> bool:
    """Say whether `path` is a Phy folder that this program wrote, or its params.py."""
    return (phy_folder(path) / ORIGINAL).is_file()


def check_clusters(clusters: np.ndarray, file: Path) -> None:
    """Raise InputError where the clusters of spikes, from a Phy folder's file, are no numbers that units can have."""
    if clusters.dtype.kind not in "iu" or (len(clusters) and not 0 <= clusters.min() <= clusters.max() <= LARGEST_UNIT):
        held = f"{clusters.min()} to {clusters.max()}" if clusters.dtype.kind in "iu" else clusters.dtype
        raise InputError(f"{file} holds {held}; clusters are whole numbers from 0 to {LARGEST_UNIT}; put back the file.")
