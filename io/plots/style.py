"""The look that all pictures share: colours, captions, and how a figure becomes a PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1b1f24", "#6b7480"
"""Colours of titles and of the text that explains them."""

LINE = "#cbd5e1"
"""Colour of frames and of lines to compare with."""


def figure_png(figure: Figure) -> bytes:
    """Draw a figure as PNG, without a note of the software that wrote it."""
    canvas: Any = FigureCanvasAgg(figure)
    body = io.BytesIO()
    canvas.print_png(body, metadata={"Software": None})
    return body.getvalue()


def plain_ticks(ax: Axes) -> None:
    """Draw ticks and frame so that they stay behind the data."""
    ax.tick_params(labelsize=8.5, colors=FAINT, length=2.5)
    for spine in ax.spines.values():
        spine.set_color(LINE)
