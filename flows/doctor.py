"""Find what this machine lacks to run crosstie, and say how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import Version

from crosstie.errors import CrosstieError, WeightsError
from crosstie.flows.registration.load_matcher import available_cores, weights_sha256
from crosstie.flows.runs.in_words import counted

if TYPE_CHECKING:
    from crosstie.config import Settings

MIN_PYTHON = (3, 11)

MIN_FREE_BYTES = 1 << 30
"""Products of a pair take some megabytes; a gigabyte lasts for a night."""

ALWAYS_SHOWN = (
    "numpy",
    "rasterio",
    "torch",
    "onnxruntime",
    "prefect",
    "distributed",
    "fastapi",
    "sqlalchemy",
)
"""Packages that always have a line of their own; others have one only when something is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    subject: str
    state: str
    """State, in a few words."""
    remedy: str | None = None
    """How to fix it; None where all is well."""

    @property
    def ok(self) -> bool:
        return self.remedy is None


def examine(settings: Settings, *, catalog: str | None = None, out: str | None = None) -> Iterator[Finding]:
    """Check the machine and, where given, a catalog and a product root; changes nothing."""
    yield _python()
    yield from _packages()
    yield _gdal()
    yield _weights(settings)
    yield _device(settings)
    yield _disk(out)
    if catalog is not None:
        yield _catalog(catalog, settings)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= MIN_PYTHON:
        return Finding("python", found)
    return Finding("python", found, "install Python 3.11 or newer and make the environment again")


def _packages() -> Iterator[Finding]:
    """Compare every declared dependency with what is installed; `pip check` knows no broken releases."""
    for line in importlib.metadata.requires("crosstie") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(wanted.name, "missing", f"pip install '{wanted}'")
            continue
        if not wanted.specifier.contains(Version(found), prereleases=True):
            yield Finding(wanted.name, f"{found} does not work here", f"pip install '{wanted}'")
        elif wanted.name in ALWAYS_SHOWN:
            yield Finding(wanted.name, found)


def _gdal() -> Finding:
    import rasterio
    from rasterio.drivers import raster_driver_extensions

    version = f"{rasterio.__gdal_version__} (in rasterio)"
    if "jp2" in raster_driver_extensions():
        return Finding("gdal", version)
    return Finding(
        "gdal",
        f"{version}, without JPEG 2000",
        "pip install --only-binary rasterio --force-reinstall rasterio",
    )


def _weights(settings: Settings) -> Finding:
    try:
        digest = weights_sha256(settings)
    except WeightsError as problem:
        return Finding(
            "weights", str(problem), "install crosstie again, or set `weights:` to a file that you trust"
        )
    name = "shipped" if settings.weights is None else str(settings.weights)
    return Finding("weights", f"{name}, sha256 {digest[:16]}…")


def _device(settings: Settings) -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", f"cuda: {torch.cuda.get_device_name()}")
    if settings.compute.device == "cuda":
        return Finding(
            "device",
            "compute.device is cuda, but torch sees no CUDA device",
            "install a CUDA build of torch and the driver, or set compute.device to auto",
        )
    return Finding("device", f"cpu, {available_cores()} cores")


def _disk(out: str | None) -> Finding:
    path = Path.cwd() if out is None or "://" in out else Path(out).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    state = f"{free / 2**30:.1f} GiB free in {path}"
    if not os.access(path, os.W_OK):
        return Finding("disk", f"{path} cannot be written", f"chmod u+w {path}, or choose another --out")
    if free < MIN_FREE_BYTES:
        return Finding("disk", state, "make room, or choose another --out")
    return Finding("disk", state)


def _catalog(catalog: str, settings: Settings) -> Finding:
    from crosstie.flows.discovery.pairs import wanted_scenes
    from crosstie.io.pairing.pair_scenes import pair_scenes
    from crosstie.io.storage.href import public_href
    from crosstie.io.storage.redaction import redacted

    shown = public_href(catalog)
    try:
        scenes = wanted_scenes(catalog, settings)
    except CrosstieError as problem:
        return Finding(
            "catalog", redacted(str(problem)), "check the path or the URL, and that it can be reached"
        )
    plan = pair_scenes(scenes, settings.pairing)
    state = f"{shown}: {counted(len(scenes), 'scene')}, {counted(len(plan.pairs), 'pair')}"
    if plan.pairs:
        return Finding("catalog", state)
    return Finding("catalog", state, f"`crosstie pairs --catalog {shown}` says why scenes are left out")
