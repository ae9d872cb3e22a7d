"""Which pairs of a catalogue there are, and which of them are done. Metadata only; knows no Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crosstie.io.catalog.search import find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.pairing.pair_scenes import PairPlan
    from crosstie.types import ScenePair


def find_pairs(catalogue: str, settings: Settings, limit: int | None = None) -> list[ScenePair]:
    """Pairs of a catalogue that the settings want, sorted by key; at most `limit`.

    Raises
    ------
    CatalogueError : the catalogue cannot be read
    """
    return list(find_plan(catalogue, settings, explain=False).first(limit).pairs)


def find_plan(catalogue: str, settings: Settings, *, explain: bool = True) -> PairPlan:
    """Pairs of a catalogue that the settings want and, with `explain`, why every other scene is in none.

    Without `explain` a catalogue that can filter is asked for less; the pairs are the same.

    Raises
    ------
    CatalogueError : the catalogue cannot be read
    """
    scenes = find_scenes(catalogue, settings.catalogue, storage=settings.storage, explain=explain)
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
    from crosstie.io.archive.listing import take_stock
    from crosstie.io.storage.store import open_store

    digest = weights_sha256(settings)
    committed = take_stock(open_store(out, settings.storage)).committed
    return {
        pair.key
        for pair in pairs
        if (pair.key, run_key_of(pair.key, settings, weights_sha256=digest)) in committed
    }
