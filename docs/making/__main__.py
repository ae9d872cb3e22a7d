"""Build the site: `python docs/making FOLDER` makes FOLDER/pages, its sources, and FOLDER/site.

The sources are gathered first, for pages of other folders (the run-book, the model card) and pages that the
program itself tells (its options, its settings) belong to it, too. A warning of the build is an error.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pages import ROOT, gather


def main(folder: Path) -> int:
    """Build into a folder; the exit code of the build."""
    for made in ("pages", "site", ".cache"):
        shutil.rmtree(folder / made, ignore_errors=True)
    gather(folder / "pages")
    shutil.copy(ROOT / "docs" / "zensical.toml", folder / "zensical.toml")
    repository = folder / "repository"  # where the configuration looks for docstrings
    repository.unlink(missing_ok=True)
    repository.symlink_to(ROOT)
    build = [Path(sys.executable).with_name("zensical"), "build", "--strict"]
    return subprocess.run(build, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
