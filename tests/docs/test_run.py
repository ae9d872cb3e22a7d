"""Every block marked as runnable runs, in order, in a fresh folder, and prints what the page shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from docs_blocks import PAGES, ROOT, Block, blocks, continued
from docs_output import differs

pytestmark = pytest.mark.slow

RUNNABLE = [page for page in PAGES if any(block.what == "run" for block in blocks(page))]

TIME_LIMIT_S = 300

Runner = Callable[[Path], None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs a page, once; all in one folder, as a reader would, for products hold absolute addresses."""
    root = tmp_path_factory.mktemp("pages")
    work = root / "data"
    left: dict[Path, Path | None] = {}
    """Copy of the folder as a page left it; None where the page failed."""

    def run_page(page: Path) -> None:
        if page in left:
            assert left[page] is not None, f"{page.relative_to(ROOT)} has failed already"
            return
        left[page] = None
        before = continued(page)
        if before is not None:
            run_page(before)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(left[before], work) if before else work.mkdir()
        _run_blocks(page, work, root / "prefect")
        left[page] = shutil.copytree(work, root / f"left-by-{page.stem}")

    return run_page


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_does_what_it_shows(page: Path, run: Runner) -> None:
    run(page)


def _run_blocks(page: Path, folder: Path, prefect: Path) -> None:
    printed: str | None = None
    ran: Block | None = None
    for block in blocks(page):
        if block.what == "run":
            ran, printed = block, _run(block, folder, prefect)
        elif block.what == "output":
            assert printed is not None, f"{block}: no block before it was run"
            problem = differs(block.text, printed, folder)
            assert problem is None, f"{block}: {ran} prints other than what is shown\n{problem}\n\n{printed}"


def _run(block: Block, folder: Path, prefect: Path) -> str:
    """What a block prints."""
    binaries = Path(sys.executable).parent
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("CROSSTIE_", "PREFECT_"))
    }
    environment = own | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(prefect),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONWARNINGS": "",
    }
    interpreter = {"bash": ["bash", "-euo", "pipefail", "-s"], "python": [sys.executable, "-"]}
    done = subprocess.run(
        interpreter[block.language],
        input=block.text,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    said = f"{block}: ended with {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
    assert done.returncode == block.exit_code, said
    return done.stdout
