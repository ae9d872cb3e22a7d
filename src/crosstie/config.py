"""Settings: one YAML file, overridden by the environment, checked at the door. Read by cli and flows only."""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crosstie.errors import SettingsError

ENV_PREFIX = "CROSSTIE_"

LARGE_GRID_PX = 1024
"""From this side on a scene has room for large tiles, which are matched more surely than small ones."""

HUGE_GRID_PX = 4096
"""From this side on a scene has tie points enough at twice the stride, in a quarter of the time."""

PositivePx = Annotated[int, Field(gt=0)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GridSettings(_Group):
    resolution_m: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        description="Pixel of the common grid, metres. The reference's own pixels are kept where they are "
        "within 20 % of it.",
    )


class TileSettings(_Group):
    size_px: Literal["auto"] | Annotated[int, Field(ge=32, le=1024)] = Field(
        default="auto",
        description="Side of a tile, px (32..1024). auto: 192 where both sides of the grid have 1024 px or "
        "more, else 128.",
    )
    stride_px: Literal["auto"] | Annotated[int, Field(ge=4, le=4096)] = Field(
        default="auto",
        description="Step from tile to tile, px (4..4096). auto: 64; 128 where the grid has a side of more "
        "than 4096 px, 32 where it has one of less than 1024 px.",
    )
    search_px: int = Field(
        default=32,
        ge=4,
        le=128,
        description="How far the fine step searches round the coarse offset, px (4..128).",
    )
    coarse_max_offset_m: float = Field(
        default=600.0,
        ge=0,
        le=2000,
        description="Largest initial error that is looked for, metres (0..2000; 0 skips the coarse step).",
    )
    coarse_spots: int = Field(
        default=25, ge=4, le=400, description="Places over which the coarse step takes its vote (4..400)."
    )

    def resolved(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Size and stride (px) of the tiles of a grid of `shape` (rows, cols), px."""
        large = min(shape) >= LARGE_GRID_PX
        size = (192 if large else 128) if self.size_px == "auto" else self.size_px
        if self.stride_px != "auto":
            return size, self.stride_px
        if not large:
            return size, 32
        return size, 128 if max(shape) > HUGE_GRID_PX else 64


class PairingSettings(_Group):
    max_days: float = Field(
        default=15.0, ge=0, le=3660, description="Longest time between the two acquisitions, days (0..3660)."
    )
    min_overlap: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Smallest share of the smaller footprint that both must cover (0..1).",
    )
    max_cloud_cover_pct: float = Field(
        default=60.0,
        ge=0,
        le=100,
        description="Optical scenes with more cloud are left out, per cent (0..100).",
    )


class EstimationSettings(_Group):
    """Placeholder until the estimation part lands."""


class ComputeSettings(_Group):
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the matcher runs: auto takes CUDA where there is one."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto",
        description="Threads of the matcher on a CPU (1..256). auto: as many as there are cores.",
    )
    readers: int = Field(
        default=1, ge=1, le=256, description="Processes of the local cluster that read rasters (1..256)."
    )
    chunk_px: int = Field(
        default=768,
        ge=64,
        le=4096,
        description="Side of the window that one task reads at once, px (64..4096).",
    )
    pairs_at_once: int = Field(
        default=2, ge=1, le=64, description="Scene pairs under way at the same time (1..64)."
    )
    scheduler: str | None = Field(
        default=None,
        description="Address of a running Dask scheduler, tcp://host:8786; null starts a local cluster. "
        "One of its workers must offer the resource GPU.",
    )
    worker_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long to wait for a worker with the resource GPU, seconds.",
    )


class Settings(_Group):
    """All settings. Later wins: defaults, the YAML file, the environment, options of the command."""

    grid: GridSettings = Field(
        default=GridSettings(), description="The grid on which two images are compared."
    )
    tiles: TileSettings = Field(
        default=TileSettings(), description="What is matched, and how far it is searched."
    )
    pairing: PairingSettings = Field(default=PairingSettings(), description="Which scenes make a pair.")
    estimation: EstimationSettings = Field(
        default=EstimationSettings(), description="From tie points to a verdict."
    )
    compute: ComputeSettings = Field(default=ComputeSettings(), description="Where the work is done.")
    weights: Path | None = Field(
        default=None,
        description="Weights of the matcher (.safetensors); null takes those that crosstie ships with.",
    )

    @property
    def hash(self) -> str:
        """16 hex digits over the settings that change results; where the work is done does not."""
        relevant = self.model_dump(mode="json", include={"grid", "tiles", "estimation"})
        text = json.dumps(relevant, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_settings(path: Path | None = None, *, options: Mapping[str, object] | None = None) -> Settings:
    """Read the settings: defaults, then the YAML file, then `CROSSTIE_…`, then the options of a command.

    `CROSSTIE_TILES__SIZE_PX=128` sets `tiles.size_px`; the value is read as YAML, like one in the file.

    Parameters
    ----------
    path : YAML file, or None for the defaults
    options : values that win over everything, by dotted name: `{"pairing.max_days": 3}`; None is skipped

    Raises
    ------
    SettingsError : one line that names the key, the value and what is allowed
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, given in (
        (f"settings {path}", _leaves(_read_yaml(path)) if path else {}),
        ("environment", _environment()),
        ("option", {name: value for name, value in (options or {}).items() if value is not None}),
    ):
        for dotted, value in given.items():
            _put(tree, dotted, value)
            origin[dotted] = source
    try:
        return Settings.model_validate(tree)
    except ValidationError as problem:
        raise SettingsError(_one_line(problem, origin)) from None


def commented_yaml(settings: Settings) -> str:
    """All settings as YAML that `load_settings` reads back, each with what it means above it."""
    lines: list[str] = []
    for dotted, description, value in walk(settings):
        depth = dotted.count(".")
        if depth == 0 and lines:
            lines.append("")
        indent = "  " * depth
        lines += textwrap.wrap(
            description, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        name = dotted.rpartition(".")[2]
        lines.append(
            f"{indent}{name}:" if isinstance(value, BaseModel) else f"{indent}{name}: {_scalar(value)}"
        )
    return "\n".join(lines) + "\n"


def walk(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, object]]:
    """Every setting of `model`: dotted name, description, value (groups before what they hold)."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        yield f"{prefix}{name}", field.description or "", value
        if isinstance(value, BaseModel):
            yield from walk(value, f"{prefix}{name}.")


def _scalar(value: object) -> str:
    plain = str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


def _read_yaml(path: Path) -> dict[str, Any]:
    hint = "`crosstie config` prints a complete one"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(f"settings {path}: cannot be read ({problem}); {hint}") from None
    except yaml.YAMLError as problem:
        raise SettingsError(f"settings {path}: no YAML ({' '.join(str(problem).split())}); {hint}") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise SettingsError(f"settings {path}: must hold `name: value` lines, got {given!r}; {hint}")
    return given


def _environment() -> dict[str, Any]:
    """Settings among the environment's variables: those of a known name, and all with a `__` in them."""
    found = {}
    for variable, text in sorted(os.environ.items()):
        name = variable.removeprefix(ENV_PREFIX).lower()
        if variable.startswith(ENV_PREFIX) and ("__" in name or name in Settings.model_fields):
            try:
                found[name.replace("__", ".")] = yaml.safe_load(text)
            except yaml.YAMLError:
                raise SettingsError(f"environment {variable}: cannot be read: {text!r}") from None
    return found


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _leaves(value, f"{prefix}{name}.")
        elif not (isinstance(value, dict) or (value is None and not prefix)):
            flat[f"{prefix}{name}"] = value  # `tiles:` with nothing below it sets nothing
    return flat


def _put(tree: dict[str, Any], dotted: str, value: object) -> None:
    *groups, leaf = dotted.split(".")
    branch = tree
    for group in groups:
        branch = branch.setdefault(group, {})
        if not isinstance(branch, dict):
            raise SettingsError(f"setting {dotted}: {group} is given a value and settings below it; keep one")
    branch[leaf] = value


def _one_line(problem: ValidationError, origin: Mapping[str, str]) -> str:
    known = {dotted: description for dotted, description, _ in walk(Settings())}
    error = problem.errors(include_url=False)[0]
    place = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        dotted = ".".join(place)
        group = dotted.rpartition(".")[0]
        names = [name for name in known if name.rpartition(".")[0] == group]
        source = next((o for d, o in origin.items() if d == dotted or d.startswith(f"{dotted}.")), "settings")
        return f"{source}: there is no {dotted!r}; known there: {', '.join(names)}"
    # The members of a union add their own names to the place: keep what a user would write.
    dotted = next(d for n in range(len(place), 0, -1) if (d := ".".join(place[:n])) in known)
    return f"{origin.get(dotted, 'settings')}: {dotted} = {error['input']!r} is not allowed. {known[dotted]}"
