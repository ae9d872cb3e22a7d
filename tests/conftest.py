from __future__ import annotations

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scenes, pairs and chips, beside the checkout."""
    if not (REAL_DATA / "scenes" / "catalog.json").is_file():
        pytest.skip(f"needs the real scenes in {REAL_DATA}")
    return REAL_DATA
