"""SAFE folders of Sentinel-1 GRD and Sentinel-2: which of their images is registered."""

from __future__ import annotations

import logging
from pathlib import Path

from crosstie.errors import UnreadableRasterError
from crosstie.io.storage.href_policy import is_url

LOG = logging.getLogger(__name__)

MOST_FILES_SHOWN = 3
"""Files that a message names."""

IN_SAFE = {
    "Sentinel-1": ("measurement/*-vh-*.tif*", "measurement/*-hv-*.tif*", "measurement/*.tif*"),
    "Sentinel-2": (
        "GRANULE/*/IMG_DATA/R10m/*_TCI_10m.jp2",
        "GRANULE/*/IMG_DATA/*_TCI.jp2",
        "GRANULE/*/IMG_DATA/**/*_B04*.jp2",
    ),
}
"""Where the images of a SAFE folder lie, the best first."""


def images_in_safe(folder: Path) -> tuple[str, list[Path]] | None:
    """Mission of a SAFE folder, and its images of the best sort; None where there is none."""
    for mission, patterns in IN_SAFE.items():
        found = next((files for one in patterns if (files := sorted(folder.glob(one)))), [])
        if found:
            return mission, found
    return None


def image_of(href: str) -> str:
    """Give the image of a SAFE folder, and any other address as it is.

    Parameters
    ----------
    href : str
        Checked address that the user gave.

    Raises
    ------
    UnreadableRasterError
        The folder holds several images of one sort, or its image lies elsewhere.
    """
    if is_url(href) or not Path(href).is_dir():
        return href
    found = images_in_safe(Path(href))
    if found is None:
        return href
    mission, files = found
    if len(files) > 1:
        shown = " or ".join(map(str, files[:MOST_FILES_SHOWN]))
        raise UnreadableRasterError(
            f"{href}: is a folder, the SAFE of a {mission} scene with {len(files)} images of one sort; give"
            f" one of them instead: {shown}"
        )
    # A link may lead anywhere, and what is read is shown in the report.
    if not files[0].resolve().is_relative_to(Path(href).resolve()):
        raise UnreadableRasterError(
            f"{files[0]}: leads out of the SAFE folder {href}; give the image itself, by its own path"
        )
    LOG.info("%s: of this SAFE folder of a %s scene, %s is read", href, mission, files[0].name)
    return str(files[0])
