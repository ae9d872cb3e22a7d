"""Settings: one YAML file, overridden by the environment, checked at the door. Read by cli and flows only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from crosstie.errors import SettingsError
from crosstie.estimation.settings import EstimationSettings
from crosstie.io.catalog.search import SceneQuery
from crosstie.io.pairing.pair_scenes import PairingRules
from crosstie.io.storage.s3 import S3Options

ENV_PREFIX = "CROSSTIE_"

RENAMED_GROUPS = {"catalogue": "catalog"}
"""Old names of groups, which settings files and deployments may still hold."""

FOLLOWERS = {"estimation.search_radius_px": "tiles.search_px", "learner.search_px": "plan.search_px"}
"""Settings of a part that are taken from another setting: one number, one home."""

LARGE_GRID_PX = 1024
"""From this side on a scene has room for large tiles, which are matched more surely than small ones."""

HUGE_GRID_PX = 4096
"""From this side on a scene has tie points enough at twice the stride, in a quarter of the time."""

AnySettings = TypeVar("AnySettings", bound=BaseModel)


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"{text!r} is no regular expression ({problem})") from None
    return text


RegularExpression = Annotated[str, AfterValidator(_regular_expression)]


class Group(BaseModel):
    """Settings that stand together; none can be misspelt, none can be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class GridSettings(Group):
    resolution_m: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        description="Pixel of the common grid, metres. The reference's own pixels are kept where they are "
        "within 20 % of it.",
    )


class TileSettings(Group):
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
        default=25,
        ge=4,
        le=400,
        description="Places over which the coarse step takes its vote (4..400); a third where that is clear.",
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


class ComputeSettings(Group):
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the matcher runs: auto takes CUDA where there is one."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto",
        description="Threads of the matcher on a CPU (1..256). auto: as many as there are cores.",
    )
    readers: int = Field(
        default=1, ge=1, le=256, description="Processes of a local cluster, or pods, that read (1..256)."
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
    cluster: str = Field(
        default="local",
        pattern=r"^(local|kubernetes|(tcp|tls)://\S+:\d+)$",
        description="Where the work is done: local (processes of this machine), the address of a Dask "
        "scheduler (tcp://host:8786, tls://…; one of its workers must offer the resource GPU), or kubernetes "
        "(pods that the Dask operator starts).",
    )
    matchers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes of a local cluster, or pods, that hold the network (1..64): one a GPU. On a "
        "CPU their `threads` share the cores.",
    )
    adaptive_max: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Readers that may be started where work waits (1..1024); null keeps `readers` fixed.",
    )
    worker_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long to wait at the start for a worker with the resource GPU, seconds.",
    )
    gpu_wait_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="How long a pair waits for a matching worker once none is left, seconds; it fails then.",
    )
    image: str | None = Field(
        default=None,
        description="Container image with this version of crosstie; kubernetes alone needs it.",
    )
    env_secret: str | None = Field(
        default=None,
        description="Name of a Kubernetes secret whose entries become the readers' environment: credentials "
        "of the object store. null where the pods have a role of their own.",
    )


class RunSettings(Group):
    retries: int = Field(
        default=2, ge=0, le=20, description="How often a pair is tried again after an I/O error (0..20)."
    )
    retry_delay_s: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Wait before the first retry, seconds; it doubles with each further one.",
    )
    pair_timeout_s: float = Field(
        default=3600.0, gt=0, le=86_400, description="Longest time for one pair, seconds; it fails then."
    )
    claim_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="How long a run's claim on a pair holds without a sign of life, seconds.",
    )
    scene_wait_s: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="How long a new scene may be missing from the catalog before its run fails, seconds: "
        "an object store may tell of a scene before the catalog does.",
    )


class NightlySettings(Group):
    look_back_days: float | None = Field(
        default=None,
        ge=0,
        le=3650,
        description="Look at scenes acquired since the last successful run less so many days, for those that "
        "arrive late; null looks at the whole catalog each time.",
    )


class BackfillSettings(Group):
    partition_days: float = Field(
        default=30.0,
        gt=0,
        le=3660,
        description="Length of the periods that a backfill plans and registers one after another, days.",
    )


class ListenSettings(Group):
    token_env: str | None = Field(
        default="CROSSTIE_LISTEN_TOKEN",
        description="Name of the environment variable that holds the token of callers; null asks for none.",
    )
    signature_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the key of signatures; null: unused.",
    )
    deployment: str = Field(
        default="crosstie-new-scene/new-scene",
        pattern="^[^/]+/[^/]+$",
        description="What is started for a scene, FLOW/DEPLOYMENT of Prefect.",
    )
    dedupe_s: float = Field(
        default=86_400.0,
        ge=60,
        le=31_622_400,
        description="How long further notices of a scene start nothing more, unless its run failed, seconds "
        "(60..31622400). A reprocessed product has another id, and is started at once.",
    )
    also_ids: RegularExpression | None = Field(
        default=None,
        description="Regular expression of scene ids besides those of Sentinel-1 and Sentinel-2, of an "
        "archive of your own; it must match the whole id. null: none.",
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=67_108_864,
        description="Longest message that is read, bytes (1024..67108864).",
    )
    max_requests: int = Field(
        default=32, ge=1, le=1024, description="Requests under way at once; further ones are sent back (503)."
    )
    body_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="Longest time for a message to come in, seconds."
    )
    prefect_timeout_s: float = Field(
        default=8.0,
        gt=0,
        le=300,
        description="Longest time for Prefect to answer, seconds; senders of notices wait 10 to 15.",
    )
    sns_topics: tuple[str, ...] = Field(
        default=(),
        description="ARNs of Amazon SNS topics whose messages are taken on Amazon's signature, without a "
        "token.",
    )
    confirm_sns: bool = Field(
        default=False,
        description="Confirm subscriptions of Amazon SNS topics; switch it off again once that is done.",
    )


class ObserveSettings(Group):
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_526,
        description="Port at which a run serves its figures (/metrics) to Prometheus while it lasts, or the "
        "first free one of the nine after it (1..65526); null serves none.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        pattern=r"^\S+$",
        description="Address that they are served on; 0.0.0.0 is every one, as a container needs it.",
    )
    linger_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="How long the process of a run that has ended waits for Prometheus to fetch its last "
        "figures, seconds; it goes as soon as they are fetched.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How runs, workers and services write their log: text for a reader, json for a "
        "collector of logs (one object a line, with pair_key; from INFO on).",
    )


class Settings(Group):
    """All settings. Later wins: defaults, the YAML file, the environment, options of the command.

    Some groups are the very values that the parts below take: limits and descriptions have one home.
    """

    grid: GridSettings = Field(
        default=GridSettings(), description="The grid on which two images are compared."
    )
    tiles: TileSettings = Field(
        default=TileSettings(), description="What is matched, and how far it is searched."
    )
    catalog: SceneQuery = Field(default=SceneQuery(), description="Which scenes of a catalog are wanted.")
    pairing: PairingRules = Field(default=PairingRules(), description="Which scenes make a pair.")
    estimation: EstimationSettings = Field(
        default=EstimationSettings(), description="From tie points to a verdict."
    )
    storage: S3Options = Field(
        default=S3Options(), description="Where S3 is; keys and tokens stay in the environment or in ~/.aws."
    )
    compute: ComputeSettings = Field(default=ComputeSettings(), description="Where the work is done.")
    runs: RunSettings = Field(default=RunSettings(), description="How a run deals with what goes wrong.")
    nightly: NightlySettings = Field(default=NightlySettings(), description="What a nightly run looks at.")
    backfill: BackfillSettings = Field(default=BackfillSettings(), description="How a backfill is parted.")
    listen: ListenSettings = Field(
        default=ListenSettings(), description="The service that takes notices of scenes."
    )
    observe: ObserveSettings = Field(
        default=ObserveSettings(), description="What a run and the services say of themselves."
    )
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
    return validated(
        Settings,
        (f"settings {path}", read_yaml(path, hint="`crosstie config` prints a complete one") if path else {}),
        ("environment", _environment()),
        ("option", given_options(options)),
    )


def validated(model: type[AnySettings], *sources: tuple[str, Mapping[str, object]]) -> AnySettings:
    """Settings out of several sources, of which later ones win; a slip is one line that names the source.

    Parameters
    ----------
    sources : name of each, and its values by dotted name

    Raises
    ------
    SettingsError : one line that names the key, the value and what is allowed
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, given in sources:
        for name, value in given.items():
            group, dot, rest = name.partition(".")
            dotted = RENAMED_GROUPS.get(group, group) + dot + rest
            if dotted in FOLLOWERS:
                raise SettingsError(f"{source}: {dotted} follows {FOLLOWERS[dotted]}; set that instead")
            _put(tree, dotted, value)
            origin[dotted] = source
    try:
        return model.model_validate(tree)
    except ValidationError as problem:
        raise SettingsError(_one_line(problem, origin, model)) from None


def given_options(options: Mapping[str, object] | None) -> dict[str, object]:
    """Options of a command that were given: None was not."""
    return {name: value for name, value in (options or {}).items() if value is not None}


def commented_yaml(settings: BaseModel) -> str:
    """All settings as YAML that reads back as the same, each with what it means above it."""
    lines: list[str] = []
    for setting in walk(settings):
        *groups, name = setting.name.split(".")
        if not groups and lines:
            lines.append("")
        indent = "  " * len(groups)
        lines += textwrap.wrap(
            setting.description, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        lines.append(f"{indent}{name}:" if setting.is_group else f"{indent}{name}: {_scalar(setting.value)}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, or a group of them, as a person sees it."""

    name: str
    """Dotted: `tiles.size_px`."""
    description: str
    value: object
    """JSON-like; None for a group."""
    is_group: bool = False


def walk(settings: BaseModel) -> Iterator[Setting]:
    """Every setting, groups before what they hold; without those that follow others."""
    schema = settings.model_json_schema()
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        group = schema.get("$defs", {}).get(type(getattr(settings, name)).__name__)
        if group is None:
            yield Setting(name, field.description or "", values[name])
            continue
        yield Setting(name, field.description or "", None, is_group=True)
        for key, about in group["properties"].items():
            if f"{name}.{key}" not in FOLLOWERS:
                text = " ".join(about.get("description", "").split())
                yield Setting(f"{name}.{key}", text, values[name][key])


def _scalar(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def read_yaml(path: Path, *, hint: str) -> dict[str, Any]:
    """Values of a YAML file by dotted name; `hint` ends every message.

    Raises
    ------
    SettingsError : the file cannot be read, or holds no settings
    """
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
    return _leaves(given)


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


def _one_line(problem: ValidationError, origin: Mapping[str, str], model: type[BaseModel]) -> str:
    known = {setting.name: setting.description for setting in walk(model())}
    error = problem.errors(include_url=False)[0]
    place = [str(part) for part in error["loc"]]
    if error["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        dotted = ".".join(place)
        names = [name for name in known if name.rpartition(".")[0] == dotted.rpartition(".")[0]]
        return f"{_source(dotted, origin)}: there is no {dotted!r}; known there: {', '.join(names)}"
    # The members of a union add their own names to the place: keep what a user would write.
    dotted = next(d for n in range(len(place), 0, -1) if (d := ".".join(place[:n])) in known)
    if error["type"] == "value_error":
        return f"{_source(dotted, origin)}: {dotted}: {error['msg'].removeprefix('Value error, ')}"
    return f"{_source(dotted, origin)}: {dotted} = {error['input']!r} is not allowed. {known[dotted]}"


def _source(dotted: str, origin: Mapping[str, str]) -> str:
    return next((o for d, o in origin.items() if d == dotted or d.startswith(f"{dotted}.")), "settings")
