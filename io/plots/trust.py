"""One picture of how far results can be trusted: power, ellipses and confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from crosstie.io.plots.style import FAINT, INK, LINE, figure_png, plain_ticks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

PARTS = {
    "tie_points": ("drawn tie points", "#0f766e"),
    "pixels": ("pixels", "#b45309"),
    "crops": ("real crops", "#1d4ed8"),
}
"""Name and colour of each kind of scene."""

MARKERS = {"ground": "o", "sensor": "x"}
"""Marker of each truth."""


def trust_png(parts: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Draw the figures of `benchmarks/trust.py` as PNG.

    Parameters
    ----------
    parts : mapping
        Figures by kind of scene: `tie_points`, `pixels` or `crops`.
    """
    figure = Figure(figsize=(14, 4.6), dpi=100, layout="constrained")
    for ax, draw in zip(figure.subplots(1, 3), (_power, _ellipses, _confidence), strict=True):
        draw(ax, parts)
        plain_ticks(ax)
    return figure_png(figure)


def _power(ax: Axes, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Share that is corrected, by how far scenes are off, and by their size."""
    part = parts.get("tie_points") or next(iter(parts.values()))
    shades = np.linspace(0.25, 1, len(part["power"]))
    for shade, (size, rows) in zip(shades, part["power"].items(), strict=True):
        x = [max(row["true_px"], 0.05) for row in rows]
        ax.plot(
            x,
            [100 * row["corrected"] for row in rows],
            color="#0f766e",
            alpha=shade,
            marker=".",
            label=f"{size} px",
        )
    ax.set(xscale="log", ylim=(-3, 103))
    _label_axes(ax, "Power", "error of the scene at its worst corner, px", "corrected, %")


def _ellipses(ax: Axes, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Share of corners in the 95 % ellipses of the fitted model, by hazard."""
    ax.axhspan(92, 98, color=LINE, alpha=0.5)
    ax.axhline(95, color=FAINT, linewidth=0.8)
    names: list[str] = []
    for kind, part in parts.items():
        names = list(part["hazard"])
        label, colour = PARTS[kind]
        for truth, marker in MARKERS.items():
            held = [part["hazard"][name][f"ellipse_fitted_{truth}"] for name in names]
            y = [np.nan if value is None else 100 * value for value in held]
            ax.plot(names, y, marker, color=colour, label=f"{label}, {truth}")
    ax.set(ylim=(min(60, ax.get_ylim()[0]), 101))
    _label_axes(ax, "Corners in the 95 % ellipse", "", "%")


def _confidence(ax: Axes, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Share of tie points within 1 px, by what their confidence promises."""
    ax.plot([0.3, 1], [30, 100], color=LINE)
    for kind, part in parts.items():
        bins = part.get("confidence", [])
        label, colour = PARTS[kind]
        if bins:
            y = [100 * row["within_1px"] for row in bins]
            ax.plot([row["said"] for row in bins], y, marker="o", color=colour, label=label)
    _label_axes(ax, "Confidence of tie points", "confidence", "within 1 px, %")


def _label_axes(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=11, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=9, color=FAINT)
    ax.set_ylabel(y, fontsize=9, color=FAINT)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False)
