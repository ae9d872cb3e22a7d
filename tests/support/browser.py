"""Pages in a real browser, Chromium, without a window."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

PATIENCE_S = 300.0


def find_browser() -> str:
    """Find Chromium, or skip the test; on CI, fail."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        text = "needs Chromium: tests/servers/install-chromium.sh, or sudo apt-get install chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(text)
    return found


def looked_at(
    browser: str, url: str, folder: Path, *, width_px: int = 1280, height_px: int = 1400
) -> tuple[NDArray[np.uint8], str]:
    """Picture of a page, and what its browser complains of."""
    picture = folder / "page.png"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width_px},{height_px}",
            "--enable-logging=stderr", "--virtual-time-budget=20000", f"--screenshot={picture}", url,
        ],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    complaints = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    with Image.open(io.BytesIO(picture.read_bytes())) as image:
        return np.asarray(image.convert("RGB")), complaints
