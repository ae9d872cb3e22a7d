"""The drawings of the concepts page: `python docs/making/figures.py FOLDER` writes the same bytes again."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

INK, FAINT, LAND, ROAD = "#263238", "#90a4ae", "#eceff1", "#b0bec5"
REFERENCE, SECONDARY, GOOD, BAD = "#1565c0", "#c62828", "#2e7d32", "#ad1457"
PANEL, GAP, TOP, EDGE = 200, 40, 50, 20
LEFTS = tuple(EDGE + n * (PANEL + GAP) for n in range(3))
WIDTH, BELOW = LEFTS[2] + PANEL + EDGE, TOP + PANEL + 26

Point = tuple[float, float]

HOME: Point = (115, 110)
"""Where the reference has the crossroads, px from the corner of its panel."""

QUESTIONS = (
    (("Is there anything to match?",), ("no_overlap, clouded,", "water, no_texture")),
    (("Do enough tie points agree?",), ("too_few_tie_points, inconsistent_offsets,", "offset_beyond_search")),
    (("Does a correction predict unseen", "tie points better than none?"), ()),
    (("Is it plausible, and is little left?",), ("implausible_correction,", "residual_too_large")),
)
"""What is asked on the way to a verdict, and the reasons where the answer is no."""


def tag(name: str, content: str = "", **attributes: str | float) -> str:
    """One element; `stroke_width` is the attribute `stroke-width`."""
    said = [
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(f'{v:g}' if isinstance(v, int | float) else v)}"
        for key, v in attributes.items()
    ]
    return f"<{name}{''.join(said)}>{content}</{name}>"


def drawing(width: float, height: float, *parts: str) -> str:
    """A drawing on white, so that it is read on a dark page as well."""
    heads = [
        tag(
            "marker",
            tag("path", d="M0 0L10 5L0 10z", fill=colour),
            id=f"head{colour[1:]}",
            viewBox="0 0 10 10",
            refX=8.5,
            refY=5,
            markerWidth=7,
            markerHeight=7,
            orient="auto",
        )
        for colour in (INK, SECONDARY, GOOD)
    ]
    ground = tag("rect", width=width, height=height, rx=8, fill="#fff")
    lines = "\n".join(["", tag("defs", "".join(heads)), ground, *parts, ""])
    space, box = "http://www.w3.org/2000/svg", f"0 0 {width:g} {height:g}"
    return tag("svg", lines, xmlns=space, viewBox=box, font_family="sans-serif") + "\n"


def words(at: Point, line: str, *, size: int = 14, colour: str = INK, weight: str = "normal") -> str:
    """One line, centred."""
    style = {"font_size": size, "font_weight": weight, "text_anchor": "middle", "fill": colour}
    return tag("text", escape(line), x=at[0], y=at[1], **style)


def arrow(start: Point, end: Point, colour: str = INK, *, short: float = 3) -> str:
    """A line with a head, which stops `short` px before its end."""
    share = 1 - short / math.dist(start, end)
    x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    ends = {"x1": start[0], "y1": start[1], "x2": x, "y2": y}
    return tag("line", **ends, stroke=colour, stroke_width=2.5, marker_end=f"url(#head{colour[1:]})")


def frame(centre: Point, width: float, height: float, **attributes: str | float) -> str:
    """A rectangle round a point."""
    corner = {"x": centre[0] - width / 2, "y": centre[1] - height / 2}
    return tag("rect", **corner, width=width, height=height, **attributes)


def in_panel(panel: int, at: Point) -> Point:
    """A point of a panel, px from its corner, in the drawing."""
    return LEFTS[panel] + at[0], TOP + at[1]


def crossroads(panel: int, at: Point, colour: str) -> Iterator[str]:
    """A panel of land with two roads, and a dot where they cross."""
    (x, y), left, right, bottom = in_panel(panel, at), LEFTS[panel], LEFTS[panel] + PANEL, TOP + PANEL
    yield frame(in_panel(panel, (PANEL / 2, PANEL / 2)), PANEL, PANEL, fill=LAND, stroke=FAINT)
    for ends in ((left, y + 42, right, y - 48), (x - 38, TOP, x + 30, bottom)):
        path = "M{:g} {:g}L{:g} {:g}L{:g} {:g}".format(*ends[:2], x, y, *ends[2:])
        yield tag("path", d=path, fill="none", stroke=ROAD, stroke_width=9)
    yield tag("circle", cx=x, cy=y, r=6, fill=colour)


def titles(*names: str) -> Iterator[str]:
    """What each panel shows."""
    for left, name in zip(LEFTS, names, strict=True):
        yield words((left + PANEL / 2, TOP - 16), name, weight="bold")


def caption(panel: int, line: str, colour: str = INK, *, second: bool = False) -> str:
    """A line below a panel."""
    return words(
        (LEFTS[panel] + PANEL / 2, BELOW + 20 * second), line, colour=colour, size=12 if second else 13
    )


def offset() -> str:
    """Which way an offset points, and which way a correction goes."""
    moved: Point = (70, 80)
    steps = ((1, HOME, moved, REFERENCE, SECONDARY), (2, moved, HOME, SECONDARY, GOOD))
    parts = [*titles("reference", "secondary, as delivered", "secondary, corrected")]
    parts += [
        *crossroads(0, HOME, REFERENCE),
        *crossroads(1, moved, SECONDARY),
        *crossroads(2, HOME, SECONDARY),
    ]
    for panel, start, end, ring, colour in steps:
        x, y = in_panel(panel, start)
        parts.append(tag("circle", cx=x, cy=y, r=6, fill="#fff", stroke=ring, stroke_width=2))
        parts.append(arrow((x, y), in_panel(panel, end), colour, short=9))
    parts += [
        caption(0, "a crossroads"),
        caption(1, "offset: 45 m west, 30 m north", SECONDARY),
        caption(1, "dx_m = -45, dy_m = +30", SECONDARY, second=True),
        caption(2, "correction: 45 m east, 30 m south", GOOD),
        caption(2, "x' = x + 45, y' = y - 30", GOOD, second=True),
    ]
    return drawing(WIDTH, BELOW + 36, *parts)


def tile() -> str:
    """How a tile becomes a tie point."""
    moved, side, reach = (95, 96), 76, 46
    parts = [*titles("a tile of the reference", "searched in the secondary", "likeness, place by place")]
    parts += [*crossroads(0, HOME, REFERENCE), *crossroads(1, moved, SECONDARY)]
    own, line = {"fill": "none", "stroke_width": 3}, side + 2 * reach
    parts += [
        frame(in_panel(0, HOME), side, side, stroke=REFERENCE, **own),
        frame(in_panel(1, HOME), line, line, fill="none", stroke=INK, stroke_dasharray="5 4"),
        frame(in_panel(1, moved), side, side, stroke=SECONDARY, **own),
        *likeness((moved[0] - HOME[0], moved[1] - HOME[1]), reach),
        caption(0, "something to hold on to"),
        caption(1, "dashed: how far is searched"),
        caption(2, "the arrow to the peak is the offset", SECONDARY),
        caption(2, "a sharp, lone peak: high confidence", second=True),
    ]
    return drawing(WIDTH, BELOW + 36, *parts)


def likeness(shift: Point, reach: float) -> Iterator[str]:
    """A map with a peak and a lesser one, and the arrow from no offset to the peak."""
    cells, middle = 20, PANEL / 2
    edge = PANEL / cells
    peak = middle + shift[0] * middle / reach, middle + shift[1] * middle / reach
    for cell in range(cells**2):
        centre = (cell % cells + 0.5) * edge, (cell // cells + 0.5) * edge
        alike = math.exp(-(math.dist(centre, peak) ** 2) / 500)
        alike += 0.35 * math.exp(-(math.dist(centre, (150, 145)) ** 2) / 900)
        shade = round(0.06 + 0.9 * min(1.0, alike), 2)
        yield frame(in_panel(2, centre), edge, edge, fill=REFERENCE, fill_opacity=shade)
    x, y = in_panel(2, (middle, middle))
    yield tag("circle", cx=x, cy=y, r=4, fill=INK)
    yield arrow((x, y), in_panel(2, peak), SECONDARY)


def verdict() -> str:
    """The way from tie points to a verdict."""
    down, high, wide, middle, left, right = 100, 62, 280, 490, 160, 820
    parts: list[str] = []

    def box(at: Point, *lines: str, colour: str = INK, title: str = "") -> None:
        said = [title, *lines] if title else lines
        parts.append(frame(at, wide, high, rx=8, fill="#fff", stroke=colour, stroke_width=2))
        for n, line in enumerate(said):
            weight, size = ("bold", 14) if title and n == 0 else ("normal", 13 if not title else 12)
            height = at[1] + 5 + 17 * (n - (len(said) - 1) / 2)
            parts.append(words((at[0], height), line, colour=colour, size=size, weight=weight))

    def way(start: Point, end: Point, answer: str) -> None:
        parts.append(arrow(start, end))
        beside = (18, 2) if start[0] == end[0] else (0, -8)
        at = (start[0] + end[0]) / 2 + beside[0], (start[1] + end[1]) / 2 + beside[1]
        parts.append(words(at, answer, size=12))

    heights = [EDGE + high / 2 + n * down for n in range(len(QUESTIONS) + 1)]
    for y, below, (question, reasons) in zip(heights, heights[1:], QUESTIONS, strict=False):
        box((middle, y), *question)
        way((middle, y + high / 2), (middle, below - high / 2), "yes")
        if reasons:
            way((middle + wide / 2, y), (right - wide / 2, y), "no")
            box((right, y), *reasons, colour=BAD, title="unreliable")
    box((middle, heights[4]), colour=GOOD, title="corrected")
    way((middle - wide / 2, heights[2]), (left + wide / 2, heights[2]), "no")
    box((left, heights[2]), "Is the error without any", "at most 2 px?")
    way((left, heights[2] + high / 2), (left, heights[3] - high / 2), "no")
    box((left, heights[3]), "terrain_not_affine,", "not_better_than_identity", colour=BAD, title="unreliable")
    way((left, heights[2] - high / 2), (left, heights[1] + high / 2), "yes")
    box((left, heights[1]), colour=GOOD, title="already_aligned")
    return drawing(right + wide / 2 + EDGE, heights[4] + high / 2 + EDGE, *parts)


DRAWINGS = {"offset": offset, "tile": tile, "verdict": verdict}


def main(folder: Path) -> None:
    """Write every drawing into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (folder / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
