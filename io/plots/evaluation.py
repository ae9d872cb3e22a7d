"""One picture of an evaluation: the errors, the reliability of the confidence, and the worst pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from crosstie.io.plots.overlay import stretched
from crosstie.io.plots.style import FAINT, INK, LINE, figure_png, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crosstie.types import BoolArray, FloatArray, IntArray, Plane

GOOD, BAD = "#0f766e", "#c2410c"
SIZES = ("#0f766e", "#1d4ed8", "#b45309", "#7c3aed", "#be123c")
"""One colour per template size."""
LIMITS_PX = (1, 2, 5)
LONGEST_PX = 50.0
"""Right end of the error axis; larger errors are counted there."""
SHORTEST_PX = 0.05
"""Left end of the error axis."""
BINS = 10
"""Bins of confidence, as in the expected calibration error."""
DPI, WIDTH_IN, CURVES_IN, PAIR_IN = 100, 16.0, 5.2, 3.3
PAIRS_A_ROW = 2


@dataclass(frozen=True, slots=True, eq=False)
class WorstPair:
    """One of the pairs with the largest errors, as images."""

    name: str
    reference: Plane
    """(side, side), the template."""
    at_truth: Plane
    """(side, side), the secondary where the true offset says the template is."""
    at_answer: Plane
    """(side, side), the secondary where the matcher says it is."""
    true_px: tuple[float, float]
    measured_px: tuple[float, float]
    confidence: float


def evaluation_png(
    title: str,
    distance_px: FloatArray,
    confidence: FloatArray,
    sizes_px: Sequence[int],
    worst: Sequence[WorstPair],
) -> bytes:
    """Draw the errors, the reliability of the confidence and the worst pairs as PNG, 1600 px wide.

    Parameters
    ----------
    title : str
        Headline of the picture.
    distance_px : FloatArray
        (N,) length of the error of each pair, px.
    confidence : FloatArray
        (N,) confidence of each pair, 0..1.
    sizes_px : Sequence of int
        (N,) side of the template of each pair, px.
    worst : Sequence of WorstPair
        Pairs to show, largest error first.

    Returns
    -------
    bytes
        The PNG file.
    """
    rows = -(-len(worst) // PAIRS_A_ROW)
    heights = [CURVES_IN, *([PAIR_IN] * rows)]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), dpi=DPI, facecolor="white")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0)
    top, *below = np.atleast_1d(parts)
    top.text(0.045, 0.955, title, size=14, weight="bold", color=INK, va="center", parse_math=False)
    curve, histogram, reliability = top.subplots(
        1, 3, gridspec_kw={"left": 0.045, "right": 0.975, "top": 0.8, "bottom": 0.13, "wspace": 0.22}
    )
    sizes = np.asarray(sizes_px)
    _draw_curve(curve, distance_px, sizes)
    _draw_error_histogram(histogram, distance_px)
    _draw_reliability(reliability, confidence, distance_px <= 1)
    for n, part in enumerate(below):
        _draw_pairs(part, worst[n * PAIRS_A_ROW : (n + 1) * PAIRS_A_ROW], first=n * PAIRS_A_ROW)
    return figure_png(figure)


def _draw_curve(ax: Axes, distance_px: FloatArray, sizes: IntArray) -> None:
    for limit in LIMITS_PX:
        ax.axvline(limit, color=LINE, linewidth=1, zorder=0)
    for n, size in enumerate(sorted(set(sizes.tolist()), reverse=True)):
        error = np.sort(distance_px[sizes == size])
        share = np.arange(1, len(error) + 1) / len(error)
        cmr = ", ".join(f"{(error <= limit).mean():.1%}" for limit in LIMITS_PX)
        x = np.concatenate([[SHORTEST_PX], np.clip(error, SHORTEST_PX, LONGEST_PX), [LONGEST_PX]])
        ax.step(
            x, np.concatenate([[0], share, [1]]), where="post", color=SIZES[n % len(SIZES)], linewidth=2,
            label=f"{size} px: {cmr}",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(SHORTEST_PX, LONGEST_PX)
    ax.set_ylim(0, 1.01)
    _error_ticks(ax)
    ax.set_ylabel("share of the pairs", size=9.5, color=FAINT)
    ax.legend(frameon=False, fontsize=9.5, loc="lower right", title="template: within 1, 2, 5 px")
    _title_panel(ax, "Pairs within an error", "the farther up and left, the better")


def _draw_error_histogram(ax: Axes, distance_px: FloatArray) -> None:
    bins = np.geomspace(SHORTEST_PX, LONGEST_PX, 41).tolist()
    clipped = np.clip(distance_px, SHORTEST_PX, LONGEST_PX)
    ax.hist(clipped[distance_px <= 5], bins=bins, color=GOOD, alpha=0.75, label="found (within 5 px)")
    ax.hist(clipped[distance_px > 5], bins=bins, color=BAD, alpha=0.75, label="lost")
    ax.set_xscale("log")
    ax.set_xlim(SHORTEST_PX, LONGEST_PX)
    _error_ticks(ax)
    ax.set_ylabel("pairs", size=9.5, color=FAINT)
    ax.legend(frameon=False, fontsize=9.5, loc="upper right")
    _title_panel(ax, "How far off", f"{len(distance_px)} pairs, median {np.median(distance_px):.2f} px")


def _draw_reliability(ax: Axes, confidence: FloatArray, good: BoolArray) -> None:
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    ax.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, zorder=0)
    largest = max(int(np.bincount(which, minlength=BINS).max()), 1)
    for b in range(BINS):
        mine = which == b
        if not mine.any():
            continue
        x, y, n = float(confidence[mine].mean()), float(good[mine].mean()), int(mine.sum())
        ax.scatter(x, y, s=30 + 300 * n / largest, color=GOOD if y >= x else BAD, alpha=0.75, linewidths=0)
        ax.annotate(str(n), (x, y), size=8.5, color=INK, ha="center", va="center")
    ax.set_xlim(-0.04, 1.04)
    ax.set_ylim(-0.06, 1.06)
    ax.set_xlabel("confidence", size=9.5, color=FAINT)
    ax.set_ylabel("share within 1 px", size=9.5, color=FAINT)
    text = "on the line: as sure as it is right;\nbelow it (orange): too sure; number = pairs"
    _title_panel(ax, "Does it know when it is right?", text)


def _draw_pairs(part: Any, pairs: Sequence[WorstPair], *, first: int) -> None:
    axes = part.subplots(
        1, 3 * PAIRS_A_ROW,
        gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.82, "bottom": 0.02, "wspace": 0.06},
    )  # fmt: skip
    for ax in axes:
        ax.set_axis_off()
    for n, pair in enumerate(pairs):
        left = 0.02 + 0.485 * n
        error = float(np.hypot(*np.subtract(pair.measured_px, pair.true_px)))
        name = pair.name if len(pair.name) <= 70 else f"{pair.name[:45]}…{pair.name[-24:]}"
        head = f"{first + n + 1}. {name}: {error:.1f} px off, confidence {pair.confidence:.2f}"
        part.text(left, 0.96, head, size=10.5, weight="bold", color=INK, va="center", parse_math=False)
        shown = (
            ("template, of the reference", pair.reference),
            (f"secondary at the true offset\n({_signed(pair.true_px)}) px", pair.at_truth),
            (f"secondary where it was found\n({_signed(pair.measured_px)}) px", pair.at_answer),
        )
        for ax, (text, plane) in zip(axes[3 * n : 3 * n + 3], shown, strict=True):
            ax.imshow(stretched(plane), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set_title(text, size=8.5, color=FAINT, pad=3, loc="left", parse_math=False)


def _signed(offset_px: tuple[float, float]) -> str:
    return f"{offset_px[0]:+.1f}, {offset_px[1]:+.1f}"


def _error_ticks(ax: Axes) -> None:
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(f"error, px (at {LONGEST_PX:g}: and more)", size=9.5, color=FAINT)


def _title_panel(ax: Axes, title: str, text: str) -> None:
    ax.set_title(text, loc="left", size=9, color=FAINT, pad=5)
    ax.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(0, 18 + 10 * text.count("\n")),
        textcoords="offset points", size=12, weight="bold", color=INK, va="bottom",
    )  # fmt: skip
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    plain_ticks(ax)
