"""Numbers and times as the pages write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from crosstie.ground import GroundFrame, ground_frame_below
from crosstie.io.archive.run_log import RunLog
from crosstie.io.products.text import metres
from crosstie.types import Reason, VerdictCode

VERDICTS = {
    VerdictCode.CORRECTED: "corrected",
    VerdictCode.ALREADY_ALIGNED: "already aligned",
    VerdictCode.UNRELIABLE: "unreliable",
}


def moment(value: datetime | str | None) -> str:
    """`2026-01-02 03:04`, UTC; a dash if there is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return "–"
    if value is None:
        return "–"
    return f"{value.astimezone(UTC) if value.tzinfo else value:%Y-%m-%d %H:%M}"


def ago(value: datetime) -> str:
    """How long ago, in one unit."""
    seconds = max(0.0, (datetime.now(UTC) - value).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def took(log: RunLog) -> str:
    """How long a finished run took, `0:05:10`."""
    try:
        length = datetime.fromisoformat(log.ended_utc or "") - datetime.fromisoformat(log.started_utc)
    except (TypeError, ValueError):
        return "–"
    return str(timedelta(seconds=round(length.total_seconds())))


def rms_error(row: dict[str, Any], name: str) -> str:
    """`12.3 m` on the ground, or a dash."""
    length_m = _ground(row).length(row[name])
    return metres(math.nan if length_m is None else length_m)


def offset(row: dict[str, Any]) -> str:
    """`11.4 m E, 8.25 m S`: median offset of the secondary on the ground."""
    x_m, y_m = row["offset_x_m"], row["offset_y_m"]
    if x_m is None or y_m is None:
        return "–"
    east, north = _ground(row).east_north(x_m, y_m)
    return (
        f"{metres(abs(east))} {'E' if east >= 0 else 'W'}, {metres(abs(north))} {'N' if north >= 0 else 'S'}"
    )


def _ground(row: dict[str, Any]) -> GroundFrame:
    crs, box = row["crs"], row["bbox"]
    if crs is None or box is None:
        return GroundFrame()
    return ground_frame_below(crs, (box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2)


def verdict(code: str) -> str:
    return VERDICTS[VerdictCode(code)] if code in list(VerdictCode) else code


def sentence(code: str) -> str:
    """What a reason means; its code if this version does not know it."""
    return Reason(code).sentence if code in list(Reason) else code


def day(value: object) -> str:
    """`2026-01-02`; a dash where there is none."""
    return f"{value:%Y-%m-%d}" if isinstance(value, datetime) and value == value else "–"


FILTERS: dict[str, Callable[..., str]] = {
    "moment": moment, "ago": ago, "error": rms_error, "offset": offset, "verdict": verdict,
    "sentence": sentence, "took": took, "metres": metres, "day": day, "count": lambda value: f"{value:,}",
}  # fmt: skip
