"""One picture of a registration that a stranger can judge: images, overlays, arrows, errors, verdict."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from crosstie.ground import ground_frame
from crosstie.io.plots.overlay import red_cyan_edges, resampled, stretched
from crosstie.io.plots.style import FAINT, INK, plain_ticks
from crosstie.io.products.stages import stages
from crosstie.io.products.text import colour, figures, headline, verdict_sentences
from crosstie.io.raster.resample import apply

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.quiver import Quiver
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from crosstie.io.products.stages import Stage
    from crosstie.types import FloatArray, Plane, Registration


WIDTH_IN, DPI = 16.0, 100
HEAD_IN, IMAGES_IN, FOOT_IN = 0.94, 5.5, 0.85
"""Heights of the headline without its lines, of a row of images, and of the foot without its lines."""
HEAD_LINE_IN, FOOT_LINE_IN = 0.21, 0.28
COLUMN_IN, COLUMN_DPI = 4.2, 190
"""Width of a small figure, and its pixels per inch: its text can be read at 360 px across."""
HISTOGRAM_COLOURS = ("#c2410c", "#0f766e", "#4338ca")
"""Before, after the first stage, after the second."""
_BY = {"before": "", "affine": "the affine", "field": "the field, fitted to them"}
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
RELIEF_PX = 160
"""Side of the map of a displacement field, px."""
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
    margin_px: int = 0
    """Rows and columns all round that are there to be moved in; they are not shown."""

    @property
    def shown(self) -> tuple[slice, slice]:
        """(rows, cols) to show."""
        rows, cols = self.reference.shape
        return slice(self.margin_px, rows - self.margin_px), slice(self.margin_px, cols - self.margin_px)

    @property
    def window(self) -> GeoBox:
        """Grid of what is shown."""
        return self.grid[self.shown]

    def after(self, stage: Stage) -> Plane:
        """Secondary as a stage lays it on the reference: what is shown of it, NaN where invalid."""
        if stage.name == "before":
            return self.secondary[self.shown]
        return resampled(self.secondary, self.grid, stage.mapping.secondary_xy)[self.shown]

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
    thumbnails : Thumbnails or None
        Both images over the whole common grid; None where there is none.
    registration : Registration
    detail : Thumbnails, optional
        A window of full resolution for the overlays, where an offset of a few pixels shows; without it they
        are drawn from the thumbnails.

    Returns
    -------
    bytes
    """
    said, rows = _headline_lines(registration), _figure_rows(registration)
    lines = sum(value.count("\n") + 1 for _, value in rows)
    heights = [HEAD_IN + HEAD_LINE_IN * len(said), max(3.65, FOOT_IN + FOOT_LINE_IN * lines)]
    if thumbnails is not None:
        heights.insert(1, IMAGES_IN * _rows_of_images(registration))
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), dpi=DPI, facecolor="white")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0)
    _draw_headline(parts[0], registration, said, heights[0])
    if thumbnails is not None:
        _draw_images(parts[1], thumbnails, registration, detail)
    ax = parts[-1].add_axes((0.045, 0.17, 0.38, 0.68))
    title = "How far the used tie points are off"
    ax.set_title(title, loc="left", y=1.0, size=12.5, weight="bold", color=INK, pad=8)
    _draw_histogram(ax, registration)
    _draw_figures(parts[-1], rows, heights[-1])
    return _png(figure)


def arrows_map(thumbnails: Thumbnails, registration: Registration, stage: Stage) -> Image.Image:
    """Draw what a stage leaves of the offsets, small; all stages of a pair are drawn to one scale.

    Raises
    ------
    ValueError
        There is no tie point.
    """
    figure = Figure(figsize=(COLUMN_IN, COLUMN_IN * 1.16), dpi=COLUMN_DPI, facecolor="white")
    ax, bar = figure.add_axes((0.09, 0.2, 0.89, 0.79)), figure.add_axes((0.09, 0.105, 0.89, 0.022))
    scale = _Scale.of(registration, thumbnails.grid)
    arrows, _ = _draw_arrows(ax, thumbnails, registration, stage.left_m(registration.points), scale)
    plain_ticks(ax)
    ax.set_aspect("equal")
    _draw_bar(bar, arrows, "horizontal")
    return Image.fromarray(_pixels(figure))


def histogram(registration: Registration) -> Image.Image:
    """Draw how far the used tie points are off at each stage, small."""
    figure = Figure(figsize=(COLUMN_IN, COLUMN_IN * 0.8), dpi=COLUMN_DPI, facecolor="white")
    _draw_histogram(figure.add_axes((0.14, 0.16, 0.84, 0.81)), registration)
    return Image.fromarray(_pixels(figure))


def _png(figure: Figure) -> bytes:
    """Encode in 256 colours: an archive keeps one picture a pair, and speckle in true colour fills 2 MB."""
    pixels = _pixels(figure)
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


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure as (rows, cols, 3)."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _headline_lines(registration: Registration) -> list[str]:
    return [line for said in verdict_sentences(registration) for line in textwrap.wrap(said, 165)][:6]


def _draw_headline(part: SubFigure, registration: Registration, said: list[str], height_in: float) -> None:
    def y(down_in: float) -> float:
        return 1 - down_in / height_in

    band = FancyBboxPatch(
        (0.018, y(height_in - 0.13)), 0.964, 1 - 0.29 / height_in,
        boxstyle="round,pad=0,rounding_size=0.008", mutation_aspect=WIDTH_IN / height_in,
        transform=part.transSubfigure, facecolor=colour(registration), edgecolor="none",
    )  # fmt: skip
    part.add_artist(band)
    _write(part, 0.033, y(0.3), headline(registration), size=21, color="white", weight="bold")
    _write(part, 0.033, y(0.73), "\n".join(said), size=11.5, color="white", linespacing=1.35)
    ids = f"reference  {_short(registration.reference_id)}\nsecondary  {_short(registration.secondary_id)}"
    _write(part, 0.967, y(0.27), ids, size=9.5, color="white", ha="right", alpha=0.9, linespacing=1.4)


def _rows_of_images(registration: Registration) -> int:
    return max(2, len(stages(registration)))


def _draw_images(
    part: SubFigure, thumbnails: Thumbnails, registration: Registration, detail: Thumbnails | None
) -> None:
    rows = _rows_of_images(registration)
    edge = 0.11 / rows
    columns = part.add_gridspec(
        rows, 4, left=0.045, right=0.955, top=1 - 1.18 * edge, bottom=0.82 * edge, wspace=0.17, hspace=0.19,
        width_ratios=(1, 1, 1, 0.045),
    )  # fmt: skip
    axes = [[part.add_subplot(columns[row, col]) for col in range(3)] for row in range(rows)]
    extent = _extent_km(thumbnails.grid, thumbnails.grid)
    images = [
        (thumbnails.reference, "Reference", "the image that stays"),
        (thumbnails.secondary, "Secondary, as delivered", "the image to be corrected"),
    ]
    for n, (plane, title, text) in enumerate(images):
        _draw_image(axes[n][0], plane, extent, title, text)
        if detail is not None:
            _mark(axes[n][0], detail.window, thumbnails.grid)
    if rows > len(images):
        _, without, with_field = stages(registration)
        _draw_relief(axes[2][0], without, with_field, thumbnails.grid)
    _draw_overlays([row[1] for row in axes], thumbnails, registration, detail)
    _draw_all_arrows([row[2] for row in axes], part.add_subplot(columns[:, 3]), thumbnails, registration)


def _draw_image(
    ax: Axes, plane: Plane, extent: tuple[float, float, float, float], title: str, text: str
) -> None:
    ax.set_facecolor("#e5e7eb")
    ax.imshow(stretched(plane), cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    _caption(ax, title, text)


def _draw_relief(ax: Axes, without: Stage, with_field: Stage, grid: GeoBox) -> None:
    """Draw by how much a displacement field moves more than the affine does."""
    rows, cols = grid.shape
    col, row = np.meshgrid(np.linspace(0.5, cols - 0.5, RELIEF_PX), np.linspace(0.5, rows - 0.5, RELIEF_PX))
    x, y = apply(grid.affine, col, row)
    beyond_m = np.subtract(with_field.mapping.secondary_xy(x, y), without.mapping.secondary_xy(x, y))
    image = ax.imshow(
        np.hypot(*beyond_m) * ground_frame(grid).scale,
        cmap=_LENGTHS,
        extent=_extent_km(grid, grid),
        interpolation="nearest",
    )
    _caption(ax, "Displacement field", "length of what it moves beyond the affine, m")
    bar = ax.inset_axes((0.62, 0.05, 0.34, 0.025))
    ax.add_patch(
        Rectangle(
            (0.59, 0.015), 0.4, 0.13, transform=ax.transAxes, facecolor="white", alpha=0.88, edgecolor="none"
        )
    )
    colours: Any = bar.figure.colorbar(image, cax=bar, orientation="horizontal")
    colours.outline.set_visible(False)
    bar.tick_params(
        labelsize=8.5, colors=INK, length=2, top=True, labeltop=True, bottom=False, labelbottom=False
    )


def _draw_overlays(
    axes: list[Axes], thumbnails: Thumbnails, registration: Registration, detail: Thumbnails | None
) -> None:
    window = thumbnails if detail is None else detail
    extent = _extent_km(window.window, thumbnails.grid)
    where = "the outlined window, " if detail is not None else ""
    pixel_m = abs(window.grid.resolution.x) * ground_frame(thumbnails.grid).scale
    pixel = f"1 pixel = {pixel_m:.3g} m"
    shown = stages(registration)
    for ax, stage in zip(axes, shown, strict=False):
        secondary = window.after(stage)
        ax.imshow(
            red_cyan_edges(window.reference[window.shown], secondary), extent=extent, interpolation="nearest"
        )
        if stage.name == "before":
            red_cyan = "edges of the reference red, of the secondary cyan;\nwhere they coincide, white"
            _caption(ax, "Overlay before", f"{red_cyan} ({where}{pixel})")
        else:
            text = "the secondary resampled through it:\nwhite where both have an edge"
            _caption(ax, f"Overlay {stage.title[0].lower()}{stage.title[1:]}", f"{text} ({pixel})")
    for ax in axes[len(shown) :]:
        ax.imshow(
            red_cyan_edges(window.reference[window.shown], window.secondary[window.shown]),
            extent=extent, interpolation="nearest",
        )  # fmt: skip
        _caption(ax, "Overlay after", "the same as before: no correction is applied")


@dataclass(frozen=True, slots=True)
class _Scale:
    """How long and in which colour an arrow is drawn, for all stages of a pair."""

    longest_m: float
    """Length on the ground that is drawn as an eleventh of the width."""
    km_per_m: float
    """Kilometres on the map for a metre of an arrow."""

    @classmethod
    def of(cls, registration: Registration, grid: GeoBox) -> Self:
        used = registration.estimate.used
        offset_m = registration.points.offset_m
        lengths = np.hypot(*(offset_m[used] if used.any() else offset_m).T)
        lengths = lengths * ground_frame(registration.grid).scale
        longest_m = max(float(np.percentile(lengths, 95)), 1e-3)
        west, east, *_ = _extent_km(grid, grid)
        return cls(longest_m, (east - west) / 11 / longest_m)


def _draw_all_arrows(axes: list[Axes], bar: Axes, thumbnails: Thumbnails, registration: Registration) -> None:
    """Draw the offsets before and what is left after each stage, to one scale."""
    used, panels = registration.estimate.used, _lefts(registration)
    scale = _Scale.of(registration, thumbnails.grid) if len(registration.points) else None
    bar.set_visible(scale is not None)
    for ax, (by, vectors_m) in zip(axes, panels, strict=True):
        title = "Residuals after" if by else "Offsets before"
        if scale is None:
            _draw_faint(ax, thumbnails)
            _caption(ax, title, "no tie point was found")
            continue
        arrows, drawn = _draw_arrows(ax, thumbnails, registration, vectors_m, scale)
        said = (
            f"left by {by}; same scale"
            if by
            else "arrow = from a feature in the reference to it in the secondary"
        )
        _caption(
            ax, title, f"{said}\n{drawn} of {int(used.sum())} used tie points drawn; × = tie point not used"
        )
        if ax is axes[0]:
            _draw_bar(bar, arrows, "vertical")


def _lefts(registration: Registration) -> list[tuple[str, FloatArray]]:
    """What leaves which offsets, metres on the ground (N, 2): nothing, each stage, or a fit not applied."""
    points, estimate = registration.points, registration.estimate
    scale = ground_frame(registration.grid).scale
    found = [(_BY[stage.name], stage.left_m(points)) for stage in stages(registration)]
    if len(found) < 2:
        left_m = estimate.fitted.apply(points.xy_m + points.offset_m) - points.xy_m
        found = [("", points.offset_m), (f"the fit ({estimate.fitted.model}, not applied)", left_m)]
    return [(by, left_m * scale) for by, left_m in found]


def _draw_faint(ax: Axes, thumbnails: Thumbnails) -> None:
    ax.set_facecolor("#e5e7eb")
    faint = 0.62 + 0.38 * stretched(thumbnails.reference)
    ax.imshow(faint, cmap="gray", vmin=0, vmax=1, extent=_extent_km(thumbnails.grid, thumbnails.grid))


def _draw_arrows(
    ax: Axes, thumbnails: Thumbnails, registration: Registration, vectors_m: FloatArray, scale: _Scale
) -> tuple[Quiver, int]:
    """Draw vectors at the surest used points, and return the arrows and how many they are."""
    points, used = registration.points, registration.estimate.used
    _draw_faint(ax, thumbnails)
    xy_km = _km(points.xy_m, thumbnails.grid)
    extent = _extent_km(thumbnails.grid, thumbnails.grid)
    shown = _surest_per_cell(xy_km, points.confidence, used, extent)
    (x_km, y_km), shown_m = xy_km.T, vectors_m[shown]
    ax.scatter(x_km[~used], y_km[~used], s=11, c="#475569", marker="x", linewidths=0.9, alpha=0.6)
    ax.scatter(x_km[shown], y_km[shown], s=5, color=INK, linewidths=0, zorder=3)
    arrows = ax.quiver(
        *xy_km[shown].T, *(shown_m * scale.km_per_m).T, np.hypot(*shown_m.T),
        cmap=_LENGTHS, norm=Normalize(0, _round_up(scale.longest_m)), **_ARROW,
    )  # fmt: skip
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(extent[2], extent[3])
    _scale_arrow(ax, _round_up(scale.longest_m), scale.km_per_m)
    return arrows, int(shown.sum())


def _draw_bar(bar: Axes, arrows: Quiver, orientation: Literal["horizontal", "vertical"]) -> None:
    colours = bar.figure.colorbar(arrows, cax=bar, extend="max", orientation=orientation)
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


def _draw_histogram(ax: Axes, registration: Registration) -> None:
    used = registration.estimate.used
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    plain_ticks(ax)
    if not used.any():
        ax.text(0.5, 0.5, "no tie point was used", transform=ax.transAxes, ha="center", color=FAINT, size=12)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    lengths_m = {by: np.hypot(*left_m[used].T) for by, left_m in _lefts(registration)}
    top_m = max(1.1 * float(np.percentile(np.concatenate(list(lengths_m.values())), 99)), 1e-3)
    bins = np.linspace(0, top_m, 41)
    for (by, lengths), colour_of in zip(lengths_m.items(), HISTOGRAM_COLOURS, strict=False):
        counts, _ = np.histogram(np.minimum(lengths, top_m), bins)
        # One patch for all bars: one each took a tenth of the whole picture's time.
        label = f"after {by}" if by else "before"
        ax.stairs(counts, bins, fill=True, color=colour_of, alpha=0.5, label=label)
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, top_m)
    ax.set_xlabel("distance at a tie point, m (last bar: and more)", size=9.5, color=FAINT)
    ax.set_ylabel("tie points", size=9.5, color=FAINT)
    ax.legend(frameon=False, fontsize=10, loc="upper right")


def _figure_rows(registration: Registration) -> list[tuple[str, str]]:
    return [(name, "\n".join(textwrap.wrap(value, 66))) for name, value in figures(registration)]


def _draw_figures(part: SubFigure, rows: list[tuple[str, str]], height_in: float) -> None:
    down_in = 0.44
    _write(
        part, 0.47, 1 - down_in / height_in, "In figures", size=12.5, color=INK, weight="bold", va="bottom"
    )
    down_in += 0.13
    for name, value in rows:
        y = 1 - down_in / height_in
        _write(part, 0.47, y, name, size=10.5, color=FAINT)
        _write(part, 0.645, y, value, size=10.5, color=INK)
        down_in += FOOT_LINE_IN * (1 + value.count("\n"))


def _caption(ax: Axes, title: str, text: str) -> None:
    # With its place given, matplotlib need not look for one: that took a quarter of the whole picture's time.
    ax.set_title(text, loc="left", y=1.0, size=9, color=FAINT, pad=5, parse_math=False, linespacing=1.25)
    lines = text.count("\n") + 1
    ax.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(0, 6 + 11.6 * lines), textcoords="offset points",
        size=12.5, weight="bold", color=INK, va="bottom",
    )  # fmt: skip
    plain_ticks(ax)
    ax.set_xlabel("kilometres from the south-west corner", size=8.5, color=FAINT, labelpad=2)
    ax.label_outer()
    ax.set_aspect("equal")
    ax.set_anchor("N")


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
    """Kilometres on the ground, along the grid's x and y, from its south-west corner."""
    box = grid.boundingbox
    moved: FloatArray = (xy_m - np.array([box.left, box.bottom])) * (ground_frame(grid).scale / 1000)
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
