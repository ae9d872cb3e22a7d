"""A correction in a few lines, for a Python prompt and a notebook."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

from crosstie.ground import GroundFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rows(correction: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what one wants to see first.

    Parameters
    ----------
    correction : dict
        Content of `correction.json`.
    """
    field = correction.get("field") or {}
    ground = GroundFrame.of(correction.get("ground"))
    reasons = correction["reasons"]
    offset, ties = correction["offset_m"], correction["tie_points"]
    before, after = correction["error_before_m"]["rmse"], correction["error_after_m"]["rmse"]
    return [
        ("reference", str(correction["pair"]["reference"]["id"])),
        ("secondary", str(correction["pair"]["secondary"]["id"])),
        ("verdict", str(correction["verdict"]) + (f" ({', '.join(map(str, reasons))})" if reasons else "")),
        ("model", f"{correction['model']}{', and a displacement field' if field.get('offered') else ''}"),
        ("offset", _offset_on_ground(ground, offset["median_x"], offset["median_y"])),
        ("RMSE", _errors_left(ground, before, after, field)),
        ("tie points", f"{ties['used']} used of {ties['matched']}"),
    ]


def as_text(title: str, correction: dict[str, Any], *more: tuple[str, str]) -> str:
    """Write the rows below each other."""
    lines = [f"  {name + ':':<11} {value}" for name, value in [*_safe_rows(correction), *more]]
    return "\n".join([f"<crosstie.{title}>", *lines])


def as_html(title: str, correction: dict[str, Any], *more: tuple[str, str]) -> str:
    """Write the rows as a table.

    Parameters
    ----------
    more : tuple of str
        (name, value) of further rows; the value is HTML already.
    """
    cells = [(name, html.escape(value)) for name, value in _safe_rows(correction)]
    body = "".join(
        f'<tr style="text-align:left"><th>{html.escape(name)}</th><td>{value}</td></tr>'
        for name, value in [*cells, *more]
    )
    return f"<table><caption>crosstie.{html.escape(title)}</caption>{body}</table>"


def figure_axes(png: bytes, ax: Axes | None) -> Axes:
    """Show a picture in axes, or in a new figure of its size."""
    import matplotlib.pyplot as plt

    picture = Image.open(io.BytesIO(png), formats=["PNG"])
    if ax is None:
        figure = plt.figure(figsize=(picture.width / 100, picture.height / 100), dpi=100)
        ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(picture.convert("RGB"))
    ax.set_axis_off()
    return ax


def _safe_rows(correction: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        return rows(correction)
    except (KeyError, TypeError, ValueError, OverflowError):  # what others wrote: a repr does not raise
        return [("record", "incomplete")]


def _offset_on_ground(ground: GroundFrame, x_m: float | None, y_m: float | None) -> str:
    if x_m is None or y_m is None:
        return "–"
    east, north = ground.east_north(x_m, y_m)
    return f"{_metres(east)} east, {_metres(north)} north (median)"


def _errors_left(
    ground: GroundFrame, before: float | None, after: float | None, field: dict[str, Any]
) -> str:
    left = [(before, "before"), (after, "after the affine")]
    if field.get("offered"):
        left.append((field["error_after_m"]["rmse"], "after the field"))
    return ", ".join(f"{_metres(ground.length(value))} {when}" for value, when in left)


def _metres(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} m"
