"""One new scene: find its partners by the pairing rules, and register it with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import shapely
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from crosstie.errors import CrosstieError, SceneMissingError
from crosstie.flows.discovery.pairs import scene_by_id, wanted_scenes
from crosstie.flows.discovery.periods import between, now_utc
from crosstie.flows.runs.outcome import Outcome
from crosstie.flows.runs.parameters import as_parameter, private, settings_of, shown
from crosstie.flows.runs.progress import run_listener
from crosstie.flows.runs.run import NEW_SCENE, Run
from crosstie.io.pairing.pair_scenes import pair_scenes
from crosstie.io.storage.href import public_href
from crosstie.io.storage.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.config import Settings
    from crosstie.types import ScenePair, SceneRef

ASK_AGAIN_S = 30.0
"""Time between two looks for a scene that the catalog does not have yet, seconds."""


@dataclass(frozen=True, slots=True)
class Partners:
    """Pairs that a new scene is in."""

    pairs: tuple[ScenePair, ...]
    """Sorted by key."""
    why_none: str | None
    """Why the scene is in no pair; None where it is in one."""


def partners_of(catalog: str, scene_id: str, settings: Settings) -> Partners:
    """Find the pairs of a scene; a search of the whole catalog would give the same.

    Raises
    ------
    SceneMissingError
        The catalog has no such scene.
    CatalogError
        It cannot be read, or the scene cannot be used.
    """
    try:
        return _partners(catalog, scene_id, settings)
    except CrosstieError as problem:
        raise type(problem)(redacted(str(problem))) from None


def _partners(catalog: str, scene_id: str, settings: Settings) -> Partners:
    scene = scene_by_id(catalog, scene_id, settings)
    if scene is None:
        raise SceneMissingError(
            f"{public_href(catalog)}: has no scene {scene_id!r} in its collections "
            f"{', '.join(settings.catalog.collections)}; check the id, or catalog.sar_collections and "
            "catalog.optical_collections"
        )
    references: Sequence[SceneRef] = [scene]
    if scene.kind is settings.pairing.secondary:
        # Whether it is a reference's best secondary depends on the others there, so they have to be known.
        near = wanted_scenes(catalog, _around([scene], settings), explain=False)
        references = [other for other in near if other.kind is not scene.kind] or [scene]
    found = wanted_scenes(catalog, _around(references, settings))
    plan = pair_scenes(found, settings.pairing)
    mine = tuple(pair for pair in plan.pairs if scene.id in _scene_ids(pair))
    why = next((left.why for left in plan.left_out if left.scene == scene.id), "the settings do not want it")
    return Partners(mine, None if mine else why)


def _around(scenes: Sequence[SceneRef], settings: Settings) -> Settings:
    """Narrow the settings to what may be paired with some scenes: near in time, on the same ground."""
    near = settings
    if settings.pairing.best_n_per_tile is None:  # else it competes with scenes of any time
        reach = timedelta(days=settings.pairing.max_days)
        moments = [scene.acquired_utc for scene in scenes]
        near = between(settings, min(moments) - reach, max(moments) + reach)
    ground = shapely.union_all(
        shapely.make_valid(shapely.from_wkt([scene.footprint_wkt for scene in scenes]))
    )
    query = near.catalog
    # An area in the settings stays; this one only saves time.
    if query.intersects is None:
        query = replace(query, intersects=ground.wkt)
    return near.model_copy(update={"catalog": query})


def _scene_ids(pair: ScenePair) -> tuple[str, ...]:
    return pair.reference.id, pair.secondary.id


def _is_missing(task: object, task_run: object, state: Any) -> bool:
    """Whether waiting may help, because the catalog may have the scene later."""
    del task, task_run
    return isinstance(state.result(raise_on_failure=False), SceneMissingError)


find_partners_task = task(name="find partners", cache_policy=NO_CACHE, retry_condition_fn=_is_missing)(
    partners_of
)


def _patient(wait_s: float) -> Any:
    """The task, which asks again for so many seconds while the scene is missing."""
    delay_s = min(ASK_AGAIN_S, wait_s)
    return find_partners_task.with_options(
        retries=math.ceil(wait_s / delay_s) if wait_s else 0, retry_delay_seconds=delay_s
    )


@flow(name="crosstie-new-scene", flow_run_name="{scene_id}", persist_result=False)
def new_scene(
    scene_id: str,
    catalog: str,
    out: str,
    settings: dict[str, Any] | None = None,
    limit: Annotated[int | None, Field(ge=1)] = None,
) -> list[Outcome]:
    """Register one scene with its partners; return one outcome per pair, sorted by key.

    Args:
        scene_id: Id of a Sentinel-1 or Sentinel-2 scene, as the catalog names it.
        catalog: Path or URL of a STAC catalog or a stac-geoparquet file. It must not contain a secret,
            because Prefect stores and shows parameters.
        out: Folder or URL of the products, such as s3://products. It must not contain a secret.
        settings: Settings, as in a settings file: {"catalog": {"start_utc": "2024-01-01"}}. `crosstie config`
            prints all. Settings that are left out come from the worker's CROSSTIE_… variables.
        limit: Maximum number of pairs, done ones included; leave it empty for all.
    """
    known = settings_of(settings)
    started = now_utc()
    partners = _patient(known.runs.scene_wait_s)(private(catalog), scene_id, known)
    asked = {
        "scene": scene_id,
        "catalog": catalog,
        "out": out,
        "in no pair, for": partners.why_none,
        "limit": limit,
    }
    if partners.why_none is not None:
        run_listener().finished(scene_id, f"in no pair: {partners.why_none}")
    with Run(NEW_SCENE, out, known, asked=asked, started=started, whole=False) as run:
        outcomes = list(run.take(partners.pairs[:limit]))
    return sorted(outcomes, key=lambda outcome: outcome.pair_key)


def run_new_scene(
    scene_id: str, catalog: str, out: str, settings: Settings, *, limit: int | None = None
) -> list[Outcome]:
    """Run the flow in this process. Here addresses may carry secrets; Prefect does not see them."""
    with shown(catalog) as public, shown(out) as products:
        outcomes: list[Outcome] = new_scene(scene_id, public, products, as_parameter(settings), limit)
    return outcomes
