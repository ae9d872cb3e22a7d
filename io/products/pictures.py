"""The pictures of a report: each small enough for a phone, and each showing one thing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from crosstie.io.plots.overlay import red_cyan_edges, stretched
from crosstie.io.products.overview import arrows_map, histogram
from crosstie.io.products.stages import stages
from crosstie.io.raster.resample import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.io.products.overview import Thumbnails
    from crosstie.types import Registration

SCENE_PX = 448
"""Longer side of the images of a whole scene."""

QUALITY = 80
"""Of WebP, 0..100."""

UNKNOWN = 0.5
"""Grey where an image has no valid pixel."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image and what it shows."""

    name: str
    """Letters only."""
    title: str
    alt: str
    """For those who do not see it."""
    kind: str
    """Media type of `body`."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a report shows of a pair; empty where there is nothing to show."""

    frames: tuple[Picture, ...] = ()
    """The reference, then the secondary at each stage; to be shown in one place."""
    overlays: tuple[Picture, ...] = ()
    """Edges of both, at each stage."""
    arrows: tuple[Picture, ...] = ()
    """Offsets at each stage, and a histogram of their lengths."""
    scenes: tuple[Picture, ...] = ()
    """Both images as a whole."""


def draw_pictures(
    thumbnails: Thumbnails | None, registration: Registration, *, detail: Thumbnails | None = None
) -> Pictures:
    """Draw the pictures of a report.

    Parameters
    ----------
    thumbnails : Thumbnails or None
        Both images over the whole common grid; None where there is none.
    registration : Registration
    detail : Thumbnails, optional
        A window of full resolution; without it, frames and overlays show the thumbnails.

    Returns
    -------
    Pictures
        The same registration gives the same bytes.
    """
    if thumbnails is None:
        return Pictures()
    window = thumbnails if detail is None else detail
    reference, shown = window.reference[window.shown], stages(registration)
    frames = [Picture("reference", "Reference", "The reference", *_webp(stretched(reference)))]
    overlays, arrows = [], []
    for stage in shown:
        secondary = window.after(stage)
        when = stage.title[0].lower() + stage.title[1:]
        frames.append(
            Picture(stage.name, f"Secondary {when}", f"The secondary {when}", *_webp(stretched(secondary)))
        )
        overlays.append(
            Picture(
                stage.name,
                stage.title,
                f"Edges of the reference in red and of the secondary {when} in cyan",
                *_webp(red_cyan_edges(reference, secondary)),
            )
        )
        if len(registration.points):
            alt = f"Map of the tie points with arrows: what is left {when}"
            picture = arrows_map(thumbnails, registration, stage)
            arrows.append(Picture(stage.name, stage.title, alt, *_encoded(picture)))
    if registration.estimate.used.any():
        alt = "Histogram of the distances at the tie points, one colour a stage"
        arrows.append(Picture("lengths", "How far off", alt, *_encoded(histogram(registration))))
    return Pictures(tuple(frames), tuple(overlays), tuple(arrows), _scenes(thumbnails, detail))


def _scenes(thumbnails: Thumbnails, detail: Thumbnails | None) -> tuple[Picture, ...]:
    found = []
    for name, plane in (("reference", thumbnails.reference), ("secondary", thumbnails.secondary)):
        image = _image(stretched(plane)).convert("RGB")
        if detail is not None:
            box = detail.window.boundingbox
            corners = np.array([box.left, box.right]), np.array([box.top, box.bottom])
            (left, right), (top, bottom) = apply(~thumbnails.grid.affine, *corners)
            outline = max(2, round(max(image.size) / 200))
            ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline="#facc15", width=outline)
        image.thumbnail((SCENE_PX, SCENE_PX))
        found.append(
            Picture(name, name.capitalize(), f"The whole {name}; the window is outlined", *_encoded(image))
        )
    return tuple(found)


def _webp(plane: NDArray[np.float32]) -> tuple[str, bytes]:
    return _encoded(_image(plane))


def _image(plane: NDArray[np.float32]) -> Image.Image:
    """Image of (rows, cols) or (rows, cols, 3) of 0..1, grey where it is NaN."""
    return Image.fromarray(np.rint(255 * np.nan_to_num(plane, nan=UNKNOWN)).astype(np.uint8))


def _encoded(image: Image.Image) -> tuple[str, bytes]:
    body = io.BytesIO()
    image.save(body, "WEBP", quality=QUALITY)
    return "image/webp", body.getvalue()
