"""What can be set: one frozen model a group, with limits and descriptions, and all groups as `Settings`."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crosstie.estimation.change_points import MonitorSettings
from crosstie.estimation.field.settings import FieldSettings
from crosstie.estimation.settings import EstimationSettings
from crosstie.io.catalog.search import SceneQuery
from crosstie.io.pairing.pair_scenes import PairingRules
from crosstie.io.storage.s3 import S3Options

FOLLOWERS = {"estimation.search_radius_px": "tiles.search_px", "learner.search_px": "plan.search_px"}
"""Settings that take their value from another one, so that a number is written down once."""

LARGE_GRID_PX = 1024
"""A grid of this side or more has room for large tiles, which match more reliably than small ones."""

SMALL_GRID_PX, SMALL_TILE_PX = 192, 64
"""Side below which a grid has too few tiles of 128 px to agree, and the tiles that it gets."""

HUGE_GRID_PX = 4096
"""A larger grid has enough tie points at twice the stride, which takes a quarter of the time."""


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"{text!r} is no regular expression ({problem})") from None
    return text


RegularExpression = Annotated[str, AfterValidator(_regular_expression)]


class Group(BaseModel):
    """Base of all groups: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class GridSettings(Group):
    resolution_m: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        description="Pixel size of the common grid, metres. The reference's own pixels are kept where their "
        "size is within 20 % of it.",
    )


class TileSettings(Group):
    size_px: Literal["auto"] | Annotated[int, Field(ge=32, le=1024)] = Field(
        default="auto",
        description="Side of a tile, px (32..1024). auto: 192 where both sides of the grid have 1024 px or "
        "more, 64 where one has less than 192 px, else 128.",
    )
    stride_px: Literal["auto"] | Annotated[int, Field(ge=4, le=4096)] = Field(
        default="auto",
        description="Step from tile to tile, px (4..4096). auto: 64; 128 where the grid has a side of more "
        "than 4096 px, 32 where it has one of less than 1024 px, 16 or less where of less than 192 px.",
    )
    search_px: int = Field(
        default=32,
        ge=4,
        le=128,
        description="How far the fine step searches around the coarse offset, px (4..128).",
    )
    coarse_max_offset_m: float = Field(
        default=600.0,
        ge=0,
        le=2000,
        description="Largest offset that the coarse step can find, metres (0..2000). 0 skips that step.",
    )
    coarse_spots: int = Field(
        default=25,
        ge=4,
        le=400,
        description="Number of places where the coarse step measures (4..400). It stops after a third of "
        "them if these agree.",
    )

    def resolved(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Size and stride (px) of the tiles of a grid of `shape` (rows, cols), px."""
        large, small = min(shape) >= LARGE_GRID_PX, min(shape) < SMALL_GRID_PX
        by_grid = 192 if large else SMALL_TILE_PX if small else 128
        size = by_grid if self.size_px == "auto" else self.size_px
        if self.stride_px != "auto":
            return size, self.stride_px
        if small:
            return size, min(max((min(shape) - size) // 3, 4), 16)  # four a side
        if not large:
            return size, 32
        return size, 128 if max(shape) > HUGE_GRID_PX else 64


class ComputeSettings(Group):
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where the matcher runs. auto: on a CUDA device if there is one, else on the CPU.",
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto",
        description="Threads of the matcher on a CPU (1..256). auto: one a core.",
    )
    readers: int = Field(
        default=1, ge=1, le=256, description="Processes of a local cluster, or pods, that read (1..256)."
    )
    chunk_px: int = Field(
        default=768,
        ge=64,
        le=4096,
        description="Side of the window that one task reads, px (64..4096).",
    )
    pairs_at_once: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Number of scene pairs that are processed at the same time (1..64).",
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
        description="Most readers that are started while work waits (1..1024); null keeps `readers` fixed.",
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
        default=2, ge=0, le=20, description="How many times a pair is retried after an I/O error (0..20)."
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
        description="How long a claim on a pair is valid when its run no longer renews it, seconds.",
    )
    scene_wait_s: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="How long a new scene may be missing from the catalog before its run fails, seconds: "
        "an object store may announce a scene before the catalog lists it.",
    )


class NightlySettings(Group):
    look_back_days: float | None = Field(
        default=None,
        ge=0,
        le=3650,
        description="Search scenes acquired since the last successful run, and this many days before it, for "
        "those that arrive late. null: search the whole catalog each time.",
    )


class BackfillSettings(Group):
    partition_days: float = Field(
        default=30.0,
        gt=0,
        le=3660,
        description="Length of the periods that a backfill works through one by one, days.",
    )


class ListenSettings(Group):
    token_env: str | None = Field(
        default="CROSSTIE_LISTEN_TOKEN",
        description="Name of the environment variable that holds the token of callers; null: no token.",
    )
    signature_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the signature key; null: no signatures.",
    )
    signature_window_s: float = Field(
        default=300.0,
        ge=1,
        le=3600,
        description="How far X-Crosstie-Timestamp of a signed message may be from the time here, seconds "
        "(1..3600). Each signature is accepted once.",
    )
    deployment: str = Field(
        default="crosstie-new-scene/new-scene",
        pattern="^[^/]+/[^/]+$",
        description="Prefect deployment to run for a scene, FLOW/DEPLOYMENT.",
    )
    dedupe_s: float = Field(
        default=86_400.0,
        ge=60,
        le=31_622_400,
        description="How long further notices of a scene start no second run, unless the first one failed, "
        "seconds (60..31622400). A reprocessed product has another id, so it starts a run at once.",
    )
    also_ids: RegularExpression | None = Field(
        default=None,
        description="Regular expression for ids of your own scenes, accepted besides those of Sentinel-1 and "
        "Sentinel-2; it must match the whole id. null: none.",
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=67_108_864,
        description="Longest message that is accepted, bytes (1024..67108864).",
    )
    max_requests: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Number of requests that are handled at the same time; further ones are refused (503).",
    )
    body_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="Longest time for a message to arrive, seconds."
    )
    prefect_timeout_s: float = Field(
        default=8.0,
        gt=0,
        le=300,
        description="Longest time for Prefect to answer, seconds; senders of notices wait 10 to 15.",
    )
    sns_topics: tuple[str, ...] = Field(
        default=(),
        description="ARNs of the Amazon SNS topics whose messages need no token: Amazon's signature is "
        "checked instead.",
    )
    confirm_sns: bool = Field(
        default=False,
        description="Confirm subscriptions of Amazon SNS topics. Switch it off once they are confirmed.",
    )


class ObserveSettings(Group):
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_526,
        description="Port on which a run serves its metrics (/metrics) to Prometheus, or the first free "
        "one of the nine ports after it (1..65526); null serves none.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        pattern=r"^\S+$",
        description="Address on which metrics are served. A container needs 0.0.0.0, all addresses.",
    )
    linger_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="How long a finished run waits for Prometheus to fetch its last metrics, seconds; it "
        "exits as soon as they are fetched.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Form of the log of runs, workers and services: text for people, json for a log "
        "collector (one object a line, with pair_key, from level INFO).",
    )


class ProductSettings(Group):
    displacement: Literal["auto", "never"] = Field(
        default="auto",
        description="auto: a displacement field (displacement.tif) is written where held-out tiles show that "
        "it is better than the affine. never: no field is computed.",
    )
    aligned: Literal["none", "reference-grid"] = Field(
        default="none",
        description="reference-grid: the secondary is resampled once onto the reference's grid (aligned.tif, "
        "a COG), by the field where there is one, else by the affine. none: no pixel is written.",
    )
    resampling: Literal["cubic", "lanczos", "bilinear", "nearest"] = Field(
        default="cubic", description="Kernel of aligned.tif."
    )


class AdjustGroup(Group):
    after_run: bool = Field(
        default=False,
        description="Adjust and monitor the archive at the end of each nightly run and each backfill.",
    )
    stack: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or URL for the aligned pixels of each placed scene, STACK/PLACE/SCENE.tif: "
        "written when a flow adjusts the archive, and anew where a position has changed. It must not lie in "
        "the product root or contain a secret. null: none.",
    )
    datum: str = Field(
        default="mean-s2",
        pattern="^(mean-s2|scene:.+|held:.+)$",
        description="Where position 0 of a place lies: mean-s2, the mean of its Sentinel-2 scenes; scene:ID, "
        "that of one scene; or held:FILE, scenes held where a CSV table says (scene, dx_m, dy_m, and place "
        "where one row does not hold for all places).",
    )
    false_alarm: float = Field(
        default=1e-3,
        gt=0,
        lt=0.5,
        description="Share of the correct pairs that are rejected as wrong, and of the places without any "
        "affine whose scenes get one, 0..0.5.",
    )
    scene_ids: RegularExpression | None = Field(
        default=None,
        description="Regular expression that reads your own scene ids, by named groups: place, sensor, "
        "platform, track, baseline, date; such as (?P<place>[a-z]+)_(?P<sensor>s[12])_. null: ids of "
        "Sentinel-1 and Sentinel-2.",
    )


class Settings(Group):
    """All settings. Later sources win: defaults, the YAML file, the environment, options of the command.

    The groups `catalog`, `pairing`, `estimation` and `storage` are the classes that the code below takes, so
    that limits and descriptions are written down once.
    """

    grid: GridSettings = Field(
        default=GridSettings(), description="The grid on which two images are compared."
    )
    tiles: TileSettings = Field(
        default=TileSettings(), description="Size and spacing of the tiles, and how far they are searched."
    )
    catalog: SceneQuery = Field(default=SceneQuery(), description="Which scenes of a catalog to use.")
    pairing: PairingRules = Field(default=PairingRules(), description="Which scenes make a pair.")
    estimation: EstimationSettings = Field(
        default=EstimationSettings(), description="From tie points to a verdict."
    )
    field: FieldSettings = Field(
        default=FieldSettings(), description="From tie points to a displacement field."
    )
    products: ProductSettings = Field(
        default=ProductSettings(), description="What is written for a pair beside the correction."
    )
    adjust: AdjustGroup = Field(
        default=AdjustGroup(), description="How an archive is adjusted as one network."
    )
    monitor: MonitorSettings = Field(
        default=MonitorSettings(), description="When an adjusted position counts as moved."
    )
    storage: S3Options = Field(
        default=S3Options(),
        description="How to reach S3. Keys and tokens stay in the environment or in ~/.aws.",
    )
    compute: ComputeSettings = Field(
        default=ComputeSettings(), description="Where the work is done, and by how many processes."
    )
    runs: RunSettings = Field(default=RunSettings(), description="How a run handles errors.")
    nightly: NightlySettings = Field(default=NightlySettings(), description="What a nightly run searches.")
    backfill: BackfillSettings = Field(default=BackfillSettings(), description="How a backfill is divided.")
    listen: ListenSettings = Field(
        default=ListenSettings(), description="The service that receives notices of new scenes."
    )
    observe: ObserveSettings = Field(
        default=ObserveSettings(), description="Metrics and logs of runs and services."
    )
    weights: Path | None = Field(
        default=None,
        description="Weights of the matcher (.safetensors); null: those that come with crosstie.",
    )

    @property
    def hash(self) -> str:
        """Hash of the settings that change results, 16 hex digits; where the work is done changes none."""
        relevant = self.model_dump(mode="json", include={"grid", "tiles", "estimation"})
        # Groups of later versions count where they are changed: what was done before them stays done.
        changed = {name for name in ("field", "products") if getattr(self, name) != _DEFAULTS[name]}
        relevant |= self.model_dump(mode="json", include=changed)
        if not self.catalog.cloud_masks:
            relevant["cloud_masks"] = False
        text = json.dumps(relevant, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_DEFAULTS = {"field": FieldSettings(), "products": ProductSettings()}
