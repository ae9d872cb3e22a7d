"""Find scenes in STAC catalogs. An API, a website, a folder and a table all give the same result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from crosstie.errors import CatalogError
from crosstie.io.catalog.query import Moment, SceneQuery
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.budget import LIMITS, CatalogBudget, CatalogLimits
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.io.storage.trust import trust

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Rows
    from crosstie.io.catalog.presets import Preset
    from crosstie.io.scenes.table import Scenes
    from crosstie.types import SceneRef

__all__ = ["Moment", "SceneQuery", "find_scene", "find_scenes"]

LOG = logging.getLogger(__name__)

MAX_WARNINGS = 20
"""Maximum number of unusable items that are named one by one in the log."""


def find_scenes(
    catalog: str | Path,
    query: SceneQuery | None = None,
    *,
    storage: S3Options = FROM_ENVIRONMENT,
    allow: Sequence[Path] = (),
    explain: bool = True,
    limits: CatalogLimits = LIMITS,
) -> Scenes:
    """Find the scenes of a STAC catalog that a query wants, oldest first.

    A STAC API is recognised by its landing page (`conformsTo`, or a `search` link), and stac-geoparquet by
    its name (`.parquet`, `.geoparquet`) or its first bytes. Anything else is followed link by link. An item
    that cannot be used (no known asset, outline or time, or an href that is not allowed) is left out with a
    reason.

    Parameters
    ----------
    catalog : str or Path
        Path or URL (https, s3) of a catalog, a collection, a file of search results, a stac-geoparquet file
        or folder, or an API's landing page.
    query : SceneQuery, optional
        None means everything in the default collections.
    storage : S3Options, optional
        How to reach `s3://`.
    allow : sequence of Path, optional
        Folders outside a local catalog's own whose files it may name.
    explain : bool, optional
        Also list in `left_out` every scene that a rule of the query refuses. Otherwise an API filters where
        it can, and each item that cannot be used gives a warning.
    limits : CatalogLimits, optional
        What the catalog may cost. An item that exceeds a limit alone is left out.

    Returns
    -------
    Scenes
        Columns, and a sequence of `SceneRef`.

    Raises
    ------
    CatalogError
        The catalog, or a file that it links to, is missing, not JSON or not STAC; an API fails; or the
        catalog exceeds a limit, which is named.
    """
    return _found(catalog, query or SceneQuery(), (), storage, allow, explain=explain, limits=limits)


def check_catalog(
    catalog: str | Path, query: SceneQuery | None = None, *, storage: S3Options = FROM_ENVIRONMENT
) -> None:
    """Read the first file of a catalog, and nothing else.

    Raises
    ------
    CatalogError
        It is missing, not JSON, or not STAC.
    """
    from crosstie.io.catalog.stac_static import form_of, read_stac_file

    trust(storage.ca_file)
    query = query or SceneQuery()
    text = str(catalog)
    root = text if is_url(text) else str(Path(text).resolve())
    if _is_table(root):
        if not is_url(root) and not Path(root).exists():
            raise CatalogError(f"cannot read the catalog {root}: there is no such file")
        return
    policy = AddressPolicy.of(root, query.allow_hosts, query.allow_buckets)
    landing, place = read_stac_file(root, storage, policy)
    if "conformsTo" not in landing:
        form_of(landing, place)


def find_scene(
    catalog: str | Path,
    scene_id: str,
    query: SceneQuery | None = None,
    *,
    storage: S3Options = FROM_ENVIRONMENT,
    allow: Sequence[Path] = (),
) -> SceneRef | None:
    """Find one scene by its id, of any time and place; None if there is none.

    Of `query` only the collections, the preset and what a catalog may name (`allow_...`) are used.

    Raises
    ------
    CatalogError
        As for `find_scenes`; also if the scene exists but cannot be used.
    """
    query = query or SceneQuery()
    anywhere = replace(
        SceneQuery(),
        sar_collections=query.sar_collections,
        optical_collections=query.optical_collections,
        preset=query.preset,
        allow_hosts=query.allow_hosts,
        allow_buckets=query.allow_buckets,
    )
    scenes = _found(catalog, anywhere, (scene_id,), storage, allow, explain=True)
    if len(scenes):
        return scenes[-1]
    for out in scenes.left_out:
        raise CatalogError(f"{public_href(str(catalog))}: {out.scene}: {out.why}")
    return None


def _found(
    catalog: str | Path,
    query: SceneQuery,
    ids: Sequence[str],
    storage: S3Options,
    allow: Sequence[Path],
    *,
    explain: bool,
    limits: CatalogLimits = LIMITS,
) -> Scenes:
    from crosstie.io.catalog.items import NO_ITEM, UNUSABLE
    from crosstie.io.catalog.presets import preset_of
    from crosstie.io.catalog.scenes_of_items import scenes_of

    trust(storage.ca_file)
    text = str(catalog)
    root = text if is_url(text) else str(Path(text).resolve())
    policy = AddressPolicy.of(root, query.allow_hosts, query.allow_buckets)
    preset = preset_of(query, root)
    reading = _Reading(root, query, preset, ids, storage, allow, policy, CatalogBudget(limits), not explain)
    rows = _rows_of_catalog(reading)
    # a folder of tables counts as the folder of the catalog
    href = str(Path(root) / "table") if not is_url(root) and Path(root).is_dir() else root
    scenes = scenes_of(
        rows, query, preset, catalog_href=href, allow=allow, policy=policy, explain=explain, limits=limits
    )
    if not len(scenes) and not ids and scenes.seen:
        LOG.warning("the catalog gave no scene: %s", scenes.seen)
    if not explain:
        broken = [out for out in scenes.left_out if out.rule in (UNUSABLE, NO_ITEM)]
        for out in broken[:MAX_WARNINGS]:
            LOG.warning("left out %s: %s", out.scene, out.why)
        if len(broken) > MAX_WARNINGS:
            LOG.warning("left out %d more that cannot be used", len(broken) - MAX_WARNINGS)
    return scenes


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """One catalog that is read: what is wanted of it, what it may do, and what it has cost."""

    root: str
    query: SceneQuery
    preset: Preset
    ids: Sequence[str]
    storage: S3Options
    allow: Sequence[Path]
    policy: AddressPolicy
    budget: CatalogBudget
    narrow: bool


def _rows_of_catalog(reading: _Reading) -> Rows:
    root, query, preset = reading.root, reading.query, reading.preset
    ids, storage, policy, budget = reading.ids, reading.storage, reading.policy, reading.budget
    if _is_table(root):
        from crosstie.io.catalog.stac_geoparquet import read_table

        return read_table(root, query, preset, ids=ids, storage=storage, policy=policy, budget=budget)
    from crosstie.io.catalog.items import rows_of
    from crosstie.io.catalog.stac_static import read_stac_file, walk

    landing, root = read_stac_file(root, storage, policy, budget=budget)
    if is_url(root) and ("conformsTo" in landing or _has_search(landing)):
        from crosstie.io.catalog.stac_api import search

        items = search(root, landing, query, preset, policy, ids=ids, narrow=reading.narrow, budget=budget)
    else:
        items = walk(landing, root, query, policy, reading.allow, storage, budget=budget)
    if ids:
        items = ((item, base) for item, base in items if isinstance(item, dict) and item.get("id") in ids)
    return rows_of(items, preset, budget=budget)


def _is_table(root: str) -> bool:
    if urlsplit(root).path.lower().rstrip("/").endswith((".parquet", ".geoparquet")):
        return True
    if is_url(root):
        return False
    path = Path(root)
    if path.is_dir():
        return any(path.rglob("*.parquet"))
    if not path.is_file():
        return False  # a pipe would never end
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False  # reported when it is read


def _has_search(landing: dict[str, object]) -> bool:
    from crosstie.io.catalog.stac_static import links

    return any(rel == "search" for rel, _ in links(landing))
