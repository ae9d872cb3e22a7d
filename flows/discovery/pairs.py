"""Scenes and pairs of a catalog, as the settings want them, and which pairs are done. Reads metadata only.

Every flow and command asks a catalog through this module, so `storage` of the settings always counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crosstie.io.catalog.search import check_catalog, find_scene, find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.pairing.pair_scenes import PairPlan
    from crosstie.io.scenes.table import Scenes
    from crosstie.types import ScenePair, SceneRef


def wanted_scenes(catalog: str, settings: Settings, *, explain: bool = True) -> Scenes:
    """Scenes of a catalog that `catalog` of the settings wants, oldest first.

    Parameters
    ----------
    catalog : str
        Path or URL.
    settings : Settings
        `catalog` says which scenes are wanted, `storage` how `s3://` is reached.
    explain : bool, optional
        Also list every scene that a rule refuses. Without it, a catalog that can filter is asked for less;
        the scenes are the same.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    """
    return find_scenes(catalog, settings.catalog, storage=settings.storage, explain=explain)


def check_places(catalog: str, out: str, settings: Settings) -> None:
    """Check what a run is given before anything is started for it: of the catalog the first file.

    Raises
    ------
    WeightsError
        The weights are missing, or have another sha256.
    StoreError
        The root is no address of one.
    CatalogError
        The catalog is not there, or is none.
    """
    from crosstie.flows.registration.load_matcher import weights_sha256  # both are slow to import
    from crosstie.io.storage.store import open_store

    open_store(out, settings.storage)
    if settings.weights is not None:
        weights_sha256(settings)
    check_catalog(catalog, settings.catalog, storage=settings.storage)


def scene_by_id(catalog: str, scene_id: str, settings: Settings) -> SceneRef | None:
    """One scene of a catalog by its id, whenever and wherever it was acquired; None where there is none.

    Raises
    ------
    CatalogError
        The catalog cannot be read, or the scene cannot be used.
    """
    return find_scene(catalog, scene_id, settings.catalog, storage=settings.storage)


def find_pairs(catalog: str, settings: Settings, limit: int | None = None) -> list[ScenePair]:
    """Pairs of a catalog that the settings want, sorted by key; at most `limit`.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    """
    return list(find_plan(catalog, settings, explain=False).first(limit).pairs)


def find_plan(catalog: str, settings: Settings, *, explain: bool = True) -> PairPlan:
    """Pairs of a catalog that the settings want and, with `explain`, why every other scene is in none.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    """
    return pair_scenes(wanted_scenes(catalog, settings, explain=explain), settings.pairing)


def done_keys(pairs: Sequence[ScenePair], out: str, settings: Settings) -> set[str]:
    """Keys of the pairs that are committed for these settings and weights.

    Parameters
    ----------
    pairs : Sequence[ScenePair]
    out : str
        Root of the products.
    settings : Settings

    Raises
    ------
    StoreError
        The root cannot be read.
    WeightsError
        The weights are missing, or have another sha256.
    """
    # A plan alone needs none of these, and they are slow to import.
    from crosstie.flows.registration.load_matcher import weights_sha256
    from crosstie.flows.registration.publish import run_key_of
    from crosstie.io.archive.listing import list_archive
    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import open_store

    digest = weights_sha256(settings)
    committed = list_archive(open_store(out, settings.storage)).committed
    return {
        pair.key
        for pair in pairs
        if ProductKey(pair.key, run_key_of(pair.key, settings, weights_sha256=digest)) in committed
    }
