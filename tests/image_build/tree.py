"""What the files of a built image are: packages, libraries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

VENV = "opt/crosstie/venv"

PACKAGES = f"{VENV}/lib/python3.11/site-packages"

OF_DEBIAN = {
    "ld-linux-x86-64.so.2": "libc6",
    "ld-linux-aarch64.so.1": "libc6",
    "libc.so.6": "libc6",
    "libm.so.6": "libc6",
    "libdl.so.2": "libc6",
    "libpthread.so.0": "libc6",
    "librt.so.1": "libc6",
    "libutil.so.1": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
    "libexpat.so.1": "libexpat1",
}
"""Libraries of packages that every Debian has (apt needs them), and of those that the Dockerfile installs."""

EVERYWHERE = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}


def files(folder: Path) -> Iterator[Path]:
    """Files and links at or below a folder."""
    for path in folder.rglob("*"):
        if path.is_symlink() or path.is_file():
            yield path


def distributions(root: Path) -> dict[str, str]:
    """Version of each Python package, by its normal name."""
    found = metadata.distributions(path=[str(root / PACKAGES)])
    return {normal(package.metadata["Name"]): package.version for package in found}


def pinned(constraints: Path) -> dict[str, str]:
    lines = [line.partition("==") for line in constraints.read_text().splitlines() if "==" in line[:80]]
    return {normal(name): version for name, _, version in lines if not name.startswith("#")}


def normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def inventory(path: Path) -> dict[str, str]:
    """Version of each component of an SBOM, and of what it is the SBOM of."""
    listed = json.loads(path.read_text())
    parts = [*listed["components"], listed["metadata"]["component"]]
    return {normal(part["name"]): part.get("version", "") for part in parts}


def libraries_of_the_system(root: Path) -> set[str]:
    """Names of shared libraries that the packages need and do not bring."""
    brought = {path.name for path in files(root / PACKAGES) if ".so" in path.name}
    listed = [str(path) for path in files(root / PACKAGES) if ".so" in path.name and not path.is_symlink()]
    shown = subprocess.run(["readelf", "--dynamic", "--wide", *listed], capture_output=True, text=True).stdout
    needed = {line.partition("[")[2].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line}
    return needed - brought
