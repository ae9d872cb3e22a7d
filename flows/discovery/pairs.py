"""Which pairs of a catalog there are, and which of them are done. Metadata only; knows no Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crosstie.io.catalog.search import find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.pairing.pair_scenes import PairPlan
    from crosstie.types import ScenePair


def find_pairs(catalog: str, settings: Settings, limit: int | None = None) -> list[ScenePair]:
    """Pairs of a catalog that the settings want, sorted by key; at most `limit`.

    Raises
    ------
    CatalogError : the catalog cannot be read
    """
    return list(find_plan(catalog, settings, explain=False).first(limit).pairs)


def find_plan(catalog: str, settings: Settings, *, explain: bool = True) -> PairPlan:
    """Pairs of a catalog that the settings want and, with `explain`, why every other scene is in none.

    Without `explain` a catalog that can filter is asked for less; the pairs are the same.

    Raises
    ------
    CatalogError : the catalog cannot be read
    """
    scenes = find_scenes(catalog, settings.catalog, storage=settings.storage, explain=explain)
    return pair_scenes(scenes, settings.pairing)


def done_keys(pairs: Sequence[ScenePair], out: str, settings: Settings) -> set[str]:
    """Keys of the pairs whose products are committed already, for these settings and weights.

    Raises
    ------
    StoreError : the root cannot be read
    WeightsError : weights missing, or with another sha256
    """
    # A plan alone needs none of these, and they are slow to import.
    from crosstie.flows.registration.load_matcher import weights_sha256
    from crosstie.flows.registration.publish import run_key_of
    from crosstie.io.archive.listing import list_archive
    from crosstie.io.storage.store import open_store

    digest = weights_sha256(settings)
    committed = list_archive(open_store(out, settings.storage)).committed
    return {
        pair.key
        for pair in pairs
        if (pair.key, run_key_of(pair.key, settings, weights_sha256=digest)) in committed
    }
