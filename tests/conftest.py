"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the development recordings, which are not part of the project."""
    folder = os.environ.get("SPIKECRSAE_DATA")
    if not folder:
        pytest.skip("SPIKECRSAE_DATA is not set; it names the folder with the development recordings")
    return Path(folder)
