"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstie.errors import SettingsError

if TYPE_CHECKING:
    from crosstie.config import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings as YAML; `crosstie config` prints them all.", show_default=False
    ),
]
CatalogOption = Annotated[
    str, typer.Option("--catalog", help="STAC catalog: path or URL of a static one, or of an API.")
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", help="Where products go: a folder, file://… or s3://bucket/prefix.")
]
StartOption = Annotated[
    str | None, typer.Option(help="Earliest acquisition, 2025-06-01 or with a time.", show_default=False)
]
EndOption = Annotated[
    str | None, typer.Option(help="Latest acquisition; a date means its whole day.", show_default=False)
]
BboxOption = Annotated[
    str | None,
    typer.Option(help="WEST,SOUTH,EAST,NORTH in degrees.", metavar="W,S,E,N", show_default=False),
]
AreaOption = Annotated[
    Path | None,
    typer.Option("--area", help="GeoJSON file of the area, instead of --bbox.", show_default=False),
]
MaxDaysOption = Annotated[
    float | None,
    typer.Option(help="Longest time between the two acquisitions, days.", show_default=False),
]
MaxCloudOption = Annotated[
    float | None,
    typer.Option(help="Leave out optical scenes with more cloud, per cent.", show_default=False),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="So many pairs at most.", show_default=False)]


def search_settings(
    config: Path | None,
    start: str | None,
    end: str | None,
    bbox: str | None,
    max_days: float | None,
    max_cloud: float | None,
    *,
    area: Path | None = None,
    more: Mapping[str, object] | None = None,
) -> Settings:
    """Settings of a command that searches a catalog; `more` are options of this command alone."""
    from crosstie.config import load_settings
    from crosstie.io.catalog.area import read_area

    return load_settings(
        config,
        options={
            "catalog.start_utc": _moment("--start", start),
            "catalog.end_utc": _moment("--end", end),
            "catalog.bbox": _bbox(bbox),
            "catalog.intersects": None if area is None else read_area(area),
            "catalog.max_cloud_pct": max_cloud,
            "pairing.max_days": max_days,
        }
        | dict(more or {}),
    )


def _moment(option: str, text: str | None) -> datetime | date | None:
    if text is None:
        return None
    try:
        if len(text) <= len("2025-06-01"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text}: not a date; write 2025-06-01 or 2025-06-01T10:30:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _bbox(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--bbox {text}: must be four numbers, WEST,SOUTH,EAST,NORTH") from None
    return west, south, east, north
