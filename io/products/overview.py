"""One picture of a registration that a stranger can judge: images, overlays, arrows, errors, verdict."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from crosstie.io.plots.overlay import red_cyan_edges, resampled, stretched
from crosstie.io.plots.style import FAINT, INK
from crosstie.io.products.text import VERDICT_COLOURS, figures, headline, verdict_sentences
from crosstie.types import IDENTITY_AFFINE, VerdictCode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from crosstie.types import FloatArray, Registration

    Plane = NDArray[np.float32]

WIDTH_IN, DPI = 16.0, 100
HEAD_IN, IMAGES_IN, FOOT_IN = 1.35, 11.0, 3.65
BEFORE, AFTER = "#c2410c", "#0f766e"
_LENGTHS = colormaps["plasma"].resampled(10)
"""Ten steps, so that a picture of few colours shows them even."""
_ARROW: dict[str, Any] = {
    "angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "headwidth": 3.6, "headlength": 4.2,
    "zorder": 6,
}  # fmt: skip
PALETTE_STEP = 3
"""Every third pixel of every third row tells the colours: whatever is drawn is longer than three pixels."""
NEARLY_WHITE = 248
"""Of 255: what is brighter in red, green and blue is taken for paper."""
ARROW_CELLS = 22
"""Arrows are drawn for the surest point in each of this many cells across: more hide one another."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnails:
    """Both images on one small grid."""

    reference: Plane
    """(rows, cols), NaN where invalid."""
    secondary: Plane
    """(rows, cols) as delivered, NaN where invalid."""
    grid: GeoBox
    """In the CRS of the common grid."""

    def __post_init__(self) -> None:
        for name, plane in (("reference", self.reference), ("secondary", self.secondary)):
            if plane.shape != tuple(self.grid.shape):
                raise ValueError(f"{name} is {plane.shape}, its grid {tuple(self.grid.shape)}")


def overview_png(
    thumbnails: Thumbnails | None, registration: Registration, *, detail: Thumbnails | None = None
) -> bytes:
    """Draw the overview of one pair as PNG, 1600 px wide; the same registration gives the same bytes.

    Parameters
    ----------
    thumbnails : both images over the whole common grid; None where there is none
    detail : a window of full resolution for the overlays, where a shift of a few pixels shows; without it
        they are drawn from the thumbnails
    """
    heights = [HEAD_IN, FOOT_IN] if thumbnails is None else [HEAD_IN, IMAGES_IN, FOOT_IN]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), dpi=DPI, facecolor="white")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0)
    _draw_headline(parts[0], registration)
    if thumbnails is not None:
        _draw_images(parts[1], thumbnails, registration, detail)
    _draw_histogram(parts[-1], registration)
    _draw_figures(parts[-1], registration)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    """Encode in 256 colours: an archive keeps one picture a pair, and speckle in true colour fills 2 MB."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    # The colours are chosen on some of the pixels: the same colours, in a sixth of the time.
    some = Image.fromarray(np.ascontiguousarray(pixels[::PALETTE_STEP, ::PALETTE_STEP]))
    palette = some.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.min(axis=1) >= NEARLY_WHITE] = 255  # paper stays white
    palette.putpalette(colours.ravel().tolist())
    few = Image.fromarray(pixels).quantize(palette=palette, dither=Image.Dither.NONE)
    body = io.BytesIO()
    few.save(body, format="png", compress_level=6)  # writes no version and no date
    return body.getvalue()


def _draw_headline(part: SubFigure, registration: Registration) -> None:
    verdict = registration.estimate.verdict
    band = FancyBboxPatch(
        (0.018, 0.1), 0.964, 0.78, boxstyle="round,pad=0,rounding_size=0.008",
        mutation_aspect=WIDTH_IN / HEAD_IN, transform=part.transSubfigure,
        facecolor=VERDICT_COLOURS[verdict.code], edgecolor="none",
    )  # fmt: skip
    part.add_artist(band)
    _write(part, 0.033, 0.78, headline(verdict), size=21, color="white", weight="bold")
    body = "\n".join(textwrap.wrap(" ".join(verdict_sentences(registration)), 165)[:2])
    _write(part, 0.033, 0.46, body, size=11.5, color="white", linespacing=1.35)
    ids = f"reference  {_short(registration.reference_id)}\nsecondary  {_short(registration.secondary_id)}"
    _write(part, 0.967, 0.8, ids, size=9.5, color="white", ha="right", alpha=0.9, linespacing=1.4)


def _draw_images(
    part: SubFigure, thumbnails: Thumbnails, registration: Registration, detail: Thumbnails | None
) -> None:
    columns = part.add_gridspec(
        2, 4, left=0.045, right=0.955, top=0.935, bottom=0.045, wspace=0.17, hspace=0.19,
        width_ratios=(1, 1, 1, 0.045),
    )  # fmt: skip
    axes = [[part.add_subplot(columns[row, col]) for col in range(3)] for row in range(2)]
    extent = _extent_km(thumbnails.grid, thumbnails.grid)
    _draw_image(axes[0][0], thumbnails.reference, extent, "Reference", "the image that stays")
    _draw_image(
        axes[1][0], thumbnails.secondary, extent, "Secondary, as delivered", "the image to be corrected"
    )
    _draw_overlays(axes[0][1], axes[1][1], thumbnails, registration, detail)
    if detail is not None:
        _mark(axes[0][0], detail.grid, thumbnails.grid)
        _mark(axes[1][0], detail.grid, thumbnails.grid)
    _draw_arrows(axes[0][2], axes[1][2], part.add_subplot(columns[:, 3]), thumbnails, registration)


def _draw_image(
    ax: Axes, plane: Plane, extent: tuple[float, float, float, float], title: str, text: str
) -> None:
    ax.set_facecolor("#e5e7eb")
    ax.imshow(stretched(plane), cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    _caption(ax, title, text)


def _draw_overlays(
    before: Axes, after: Axes, thumbnails: Thumbnails, registration: Registration, detail: Thumbnails | None
) -> None:
    shown = thumbnails if detail is None else detail
    affine = registration.estimate.correction.affine
    extent = _extent_km(shown.grid, thumbnails.grid)
    where = "the outlined window, " if detail is not None else ""
    pixel = f"1 pixel = {abs(shown.grid.resolution.x):.3g} m"
    red_cyan = "edges of the reference red, of the secondary cyan;\nwhere they coincide, white"
    before.imshow(red_cyan_edges(shown.reference, shown.secondary), extent=extent, interpolation="nearest")
    _caption(before, "Overlay before", f"{red_cyan} ({where}{pixel})")
    moved = resampled(shown.secondary, shown.grid, affine)
    after.imshow(red_cyan_edges(shown.reference, moved), extent=extent, interpolation="nearest")
    if affine == IDENTITY_AFFINE:
        _caption(after, "Overlay after", "the same as before: no correction is applied")
    else:
        _caption(
            after,
            "Overlay after",
            f"the same with the corrected secondary:\nthe better the fit, the more white ({pixel})",
        )


def _draw_arrows(
    before: Axes, after: Axes, bar: Axes, thumbnails: Thumbnails, registration: Registration
) -> None:
    points, estimate = registration.points, registration.estimate
    left_m, left_by = _residuals(registration)
    extent = _extent_km(thumbnails.grid, thumbnails.grid)
    for ax in (before, after):
        ax.set_facecolor("#e5e7eb")
        ax.imshow(0.62 + 0.38 * stretched(thumbnails.reference), cmap="gray", vmin=0, vmax=1, extent=extent)
    if not len(points):
        _caption(before, "Offsets before", "no tie point was found")
        _caption(after, "Residuals after", "no tie point was found")
        bar.set_visible(False)
        return
    xy_km = _km(points.xy_m, thumbnails.grid)
    x_km, y_km = xy_km.T
    shown = _surest_per_cell(xy_km, points.confidence, estimate.used, extent)
    rejected = ~estimate.used
    lengths = np.hypot(*points.offset_m[estimate.used if estimate.used.any() else rejected].T)
    longest_m = max(float(np.percentile(lengths, 95)), 1e-3)
    width_km = extent[1] - extent[0]
    km_per_m = width_km / 11 / longest_m
    norm = Normalize(0, _round_up(longest_m))
    for ax, vectors in ((before, points.offset_m), (after, left_m)):
        ax.scatter(x_km[rejected], y_km[rejected], s=11, c="#475569", marker="x", linewidths=0.9, alpha=0.6)
        ax.scatter(x_km[shown], y_km[shown], s=5, color=INK, linewidths=0, zorder=3)
        drawn_m = vectors[shown]
        arrows = ax.quiver(
            *xy_km[shown].T, *(drawn_m * km_per_m).T, np.hypot(*drawn_m.T), cmap=_LENGTHS, norm=norm, **_ARROW
        )
        ax.set_xlim(extent[0], extent[1])
        ax.set_ylim(extent[2], extent[3])
        _scale_arrow(ax, _round_up(longest_m), km_per_m)
    drawn = f"{int(shown.sum())} of {int(estimate.used.sum())} used points; × = rejected point"
    _caption(
        before, "Offsets before", f"arrow = from a feature in the reference to it in the secondary\n{drawn}"
    )
    _caption(after, "Residuals after", f"left by {left_by}; same scale\n{drawn}")
    colours = bar.figure.colorbar(arrows, cax=bar, extend="max")
    colours.set_label("colour = length on the ground, m", size=9, color=FAINT)
    colours.outline.set_visible(False)
    bar.tick_params(labelsize=8.5, colors=FAINT, length=2)


def _surest_per_cell(
    xy_km: FloatArray,
    confidence: FloatArray,
    used: NDArray[np.bool_],
    extent: tuple[float, float, float, float],
) -> NDArray[np.bool_]:
    """(N,) which used points to draw: the most confident one per cell, so that arrows stay apart."""
    side = max(extent[1] - extent[0], extent[3] - extent[2]) / ARROW_CELLS
    best: dict[tuple[int, int], int] = {}
    for n in np.flatnonzero(used):
        cell = (int(xy_km[n, 0] // side), int(xy_km[n, 1] // side))
        if cell not in best or confidence[n] > confidence[best[cell]]:
            best[cell] = int(n)
    shown = np.zeros(len(xy_km), np.bool_)
    shown[list(best.values())] = True
    return shown


def _scale_arrow(ax: Axes, length_m: float, km_per_m: float) -> None:
    west, east = ax.get_xlim()
    south, north = ax.get_ylim()
    x, y = west + 0.04 * (east - west), south + 0.045 * (north - south)
    length_km = length_m * km_per_m
    box = Rectangle(
        (west + 0.015 * (east - west), south + 0.015 * (north - south)),
        length_km + 0.05 * (east - west), 0.1 * (north - south),
        facecolor="white", alpha=0.88, edgecolor="none", zorder=6,
    )  # fmt: skip
    ax.add_patch(box)
    ax.quiver(x, y, length_km, 0, color=INK, **_ARROW)
    ax.text(x, y + 0.022 * (north - south), f"{length_m:g} m", size=9.5, color=INK, zorder=7, weight="bold")


def _residuals(registration: Registration) -> tuple[FloatArray, str]:
    """(N, 2) metres left by the correction, or by what was fitted where none is applied, and its name."""
    points, estimate = registration.points, registration.estimate
    if estimate.verdict.code is VerdictCode.CORRECTED:
        return estimate.residual_m, "the correction"
    left_m = estimate.fitted.apply(points.xy_m + points.offset_m) - points.xy_m
    return left_m, f"the fit ({estimate.fitted.model}, not applied)"


def _draw_histogram(part: SubFigure, registration: Registration) -> None:
    ax = part.add_axes((0.045, 0.17, 0.38, 0.68))
    used = registration.estimate.used
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    _plain_ticks(ax)
    title = "How far the used tie points are off"
    ax.set_title(title, loc="left", y=1.0, size=12.5, weight="bold", color=INK, pad=8)
    if not used.any():
        ax.text(0.5, 0.5, "no tie point was used", transform=ax.transAxes, ha="center", color=FAINT, size=12)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    before = np.hypot(*registration.points.offset_m[used].T)
    left_m, left_by = _residuals(registration)
    after = np.hypot(*left_m[used].T)
    top_m = max(1.1 * float(np.percentile(np.concatenate([before, after]), 99)), 1e-3)
    bins = np.linspace(0, top_m, 41)
    for lengths_m, colour, label in ((before, BEFORE, "before"), (after, AFTER, f"after {left_by}")):
        counts, _ = np.histogram(np.minimum(lengths_m, top_m), bins)
        # One patch for all bars: one each took a tenth of the whole picture's time.
        ax.stairs(counts, bins, fill=True, color=colour, alpha=0.55, label=label)
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, top_m)
    ax.set_xlabel(
        "distance between the two images at a tie point, m (last bar: and more)", size=9.5, color=FAINT
    )
    ax.set_ylabel("tie points", size=9.5, color=FAINT)
    ax.legend(frameon=False, fontsize=10, loc="upper right")


def _draw_figures(part: SubFigure, registration: Registration) -> None:
    top, step = 0.88, 0.077
    _write(part, 0.47, top, "In figures", size=12.5, color=INK, weight="bold", va="bottom")
    for n, (name, value) in enumerate(figures(registration)):
        y = top - 0.035 - step * n
        _write(part, 0.47, y, name, size=10.5, color=FAINT)
        _write(part, 0.645, y, value, size=10.5, color=INK)


def _caption(ax: Axes, title: str, text: str) -> None:
    # With its place given, matplotlib need not look for one: that took a quarter of the whole picture's time.
    ax.set_title(text, loc="left", y=1.0, size=9, color=FAINT, pad=5, parse_math=False, linespacing=1.25)
    lines = text.count("\n") + 1
    ax.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(0, 6 + 11.6 * lines), textcoords="offset points",
        size=12.5, weight="bold", color=INK, va="bottom",
    )  # fmt: skip
    _plain_ticks(ax)
    ax.set_xlabel("kilometres from the south-west corner", size=8.5, color=FAINT, labelpad=2)
    ax.label_outer()
    ax.set_aspect("equal")
    ax.set_anchor("N")


def _plain_ticks(ax: Axes) -> None:
    ax.tick_params(labelsize=8.5, colors=FAINT, length=2.5)
    for spine in ax.spines.values():
        spine.set_color("#cbd5e1")


def _mark(ax: Axes, window: GeoBox, grid: GeoBox) -> None:
    west, east, south, north = _extent_km(window, grid)
    ax.add_patch(
        Rectangle((west, south), east - west, north - south, fill=False, edgecolor="#facc15", linewidth=1.8)
    )


def _write(part: SubFigure, x: float, y: float, text: str, **style: Any) -> None:
    style.setdefault("va", "top")
    part.text(x, y, text, parse_math=False, **style)


def _short(text: str) -> str:
    return text if len(text) <= 75 else f"{text[:50]}…{text[-24:]}"


def _km(xy_m: FloatArray, grid: GeoBox) -> FloatArray:
    """Kilometres east and north of the grid's south-west corner."""
    box = grid.boundingbox
    moved: FloatArray = (xy_m - np.array([box.left, box.bottom])) / 1000
    return moved


def _extent_km(window: GeoBox, grid: GeoBox) -> tuple[float, float, float, float]:
    """(west, east, south, north) of `window` in kilometres from the south-west corner of `grid`."""
    box = window.boundingbox
    (west, south), (east, north) = _km(np.array([(box.left, box.bottom), (box.right, box.top)]), grid)
    return float(west), float(east), float(south), float(north)


def _round_up(value: float) -> float:
    """Next of 1, 2, 5 times a power of ten: a length that a reader can remember."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-6)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))
