"""Options that several commands share, each declared once, and the settings that they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, get_type_hints

import typer

from crosstie.cli.app import P, R
from crosstie.codes import Orbit, Slices
from crosstie.errors import SettingsError

if TYPE_CHECKING:
    from crosstie.config import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="YAML file of settings; `crosstie config` prints them all.", show_default=False
    ),
]
TrainConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file of training settings; `crosstie train --show-config` prints them all.",
        show_default=False,
    ),
]
CatalogOption = Annotated[
    str, typer.Option("--catalog", help="STAC catalog: path or URL of a static catalog, or URL of an API.")
]
OutOption = Annotated[
    str,
    typer.Option(
        "--out", "-o", help="Product root: where all products lie; a folder, file://… or s3://bucket/prefix."
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show the messages of Prefect as well.")]
LimitOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Maximum number of pairs, done ones included.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; start no server and write nothing.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Weights of the matcher, instead of those that come with it.", show_default=False),
]
HostOption = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")]


CHOICE_PANEL = "Scenes and pairs"
"""Title of the options that choose what is done, in the help."""


def _chooses(*names: str, **how: Any) -> Any:
    """Declare an option that chooses scenes or pairs; its default is in the settings."""
    return typer.Option(*names, rich_help_panel=CHOICE_PANEL, show_default=False, **how)


@dataclass(frozen=True, slots=True)
class Search:
    """Options of every command that searches a catalog."""

    config: ConfigOption = None
    weights: WeightsOption = None
    start: Annotated[
        str | None, _chooses(help="Earliest acquisition: 2025-06-01, or with a time.", metavar="TIME")
    ] = None
    end: Annotated[
        str | None, _chooses(help="Latest acquisition; a date includes the whole day.", metavar="TIME")
    ] = None
    bbox: Annotated[
        str | None, _chooses(help="Area: WEST,SOUTH,EAST,NORTH in degrees.", metavar="W,S,E,N")
    ] = None
    area: Annotated[Path | None, _chooses("--area", help="Area: GeoJSON file, instead of --bbox.")] = None
    orbit: Annotated[
        Orbit | None,
        _chooses(help="Orbit direction of the SAR scenes: any, ascending or descending.", metavar="ORBIT"),
    ] = None
    track: Annotated[
        list[int] | None,
        _chooses(help="Relative orbit of the SAR scenes; repeat for several.", metavar="NUMBER"),
    ] = None
    platform: Annotated[
        list[str] | None, _chooses(help="S1A, S1C, S2B, ...; repeat for several.", metavar="NAME")
    ] = None
    product: Annotated[
        list[str] | None, _chooses(help="GRD, RTC, L1C, L2A; repeat for several.", metavar="NAME")
    ] = None
    max_days: Annotated[
        float | None, _chooses(help="Longest time between the two acquisitions, days.", metavar="DAYS")
    ] = None
    max_cloud: Annotated[
        float | None,
        _chooses(help="Leave out optical scenes with more cloud than this, per cent.", metavar="PCT"),
    ] = None
    best: Annotated[
        int | None,
        _chooses(min=1, help="Maximum number of secondaries for one reference.", metavar="N"),
    ] = None
    best_per_tile: Annotated[
        int | None, _chooses(min=1, help="Maximum number of pairs for one Sentinel-2 tile.", metavar="N")
    ] = None
    slices: Annotated[
        Slices | None,
        _chooses(help="Slices of one SAR pass: pair the largest only, or each.", metavar="largest|each"),
    ] = None

    def settings(self, more: Mapping[str, object] | None = None) -> Settings:
        """Settings with these options and `more`, by dotted name; None is skipped.

        Raises
        ------
        SettingsError
            An option, the file or the environment has a value that is not allowed.
        """
        from crosstie.config import load_settings
        from crosstie.io.catalog.area import read_area

        own = {
            "catalog.start_utc": _read_time("--start", self.start),
            "catalog.end_utc": _read_time("--end", self.end),
            "catalog.bbox": _read_bbox(self.bbox),
            "catalog.intersects": None if self.area is None else read_area(self.area),
            "catalog.max_cloud_pct": self.max_cloud,
            "catalog.orbit": self.orbit,
            "catalog.tracks": tuple(self.track or ()) or None,
            "catalog.platforms": tuple(self.platform or ()) or None,
            "catalog.product_types": tuple(self.product or ()) or None,
            "pairing.max_days": self.max_days,
            "pairing.best_n": self.best,
            "pairing.best_n_per_tile": self.best_per_tile,
            "pairing.slices": self.slices,
            "weights": self.weights,
        }
        return load_settings(self.config, options=own | dict(more or {}))


def search_options(
    *, but: Collection[str] = ()
) -> Callable[[Callable[Concatenate[Search, P], R]], Callable[..., R]]:
    """Give a command the options of `Search`, except those of some names, for its first parameter.

    Typer reads options off a signature, so the options are written into it.
    """
    hints = get_type_hints(Search, include_extras=True)
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(Search)
        if f.name not in but
    ]

    def with_search_options(command: Callable[Concatenate[Search, P], R]) -> Callable[..., R]:
        @functools.wraps(command)
        def run(**given: Any) -> R:
            search = Search(**{option.name: given.pop(option.name) for option in shared})
            return command(search, **given)  # type: ignore[call-arg]

        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        first = [parameter for parameter in own if parameter.default is parameter.empty]
        rest = [parameter for parameter in own if parameter.default is not parameter.empty]
        run.__signature__ = inspect.Signature([*first, *shared, *rest])  # type: ignore[attr-defined]
        return run

    return with_search_options


def read_time(option: str, text: str | None) -> datetime | None:
    """Read a moment: a date is its beginning; without a zone it is UTC.

    Raises
    ------
    SettingsError
        The text is no date.
    """
    time = _read_time(option, text)
    if time is None or isinstance(time, datetime):
        return time
    return datetime(time.year, time.month, time.day, tzinfo=UTC)


def _read_time(option: str, text: str | None) -> datetime | date | None:
    if text is None:
        return None
    try:
        if len(text) <= len("2025-06-01"):
            return date.fromisoformat(text)
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text}: not a date; write 2025-06-01 or 2025-06-01T10:30:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _read_bbox(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--bbox {text}: must be four numbers, WEST,SOUTH,EAST,NORTH") from None
    return west, south, east, north
