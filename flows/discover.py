"""Which pairs of a catalogue there are, and which of them are done. Metadata only; knows no Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crosstie.io.catalog import find_scenes
from crosstie.io.pairing import pair_scenes

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.outcome import Outcome
    from crosstie.io.pairing import PairPlan
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


def look_up(pairs: Sequence[ScenePair], out: str, settings: Settings) -> list[Outcome]:
    """Outcomes of the pairs whose products are committed already, for these settings and weights.

    Raises
    ------
    StoreError : the root cannot be read
    WeightsError : weights missing, or with another sha256
    """
    return list(_committed(pairs, out, settings))


def done_keys(pairs: Sequence[ScenePair], out: str, settings: Settings) -> set[str]:
    """Keys of the pairs that `look_up` finds."""
    return {outcome.pair_key for outcome in _committed(pairs, out, settings)}


def _committed(pairs: Sequence[ScenePair], out: str, settings: Settings) -> Iterator[Outcome]:
    # A plan alone needs none of these, and they are slow to import.
    from crosstie.flows.loading import weights_sha256
    from crosstie.flows.outcome import Outcome as Result
    from crosstie.flows.publish import run_key_of
    from crosstie.io.products import product_prefix, read_correction
    from crosstie.io.store import open_store

    digest = weights_sha256(settings)
    store = open_store(out, settings.storage)
    for pair in pairs:
        key = run_key_of(pair.key, settings, weights_sha256=digest)
        correction = read_correction(store, pair.key, key)
        if correction is not None:
            url = store.url_of(product_prefix(pair.key, key))
            yield Result.of(pair.key, correction, products=url, already_done=True)
