"""Which pairs of a catalogue there are, and which of them are done. Metadata only; knows no Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crosstie.flows.loading import weights_sha256
from crosstie.flows.outcome import Outcome
from crosstie.flows.publish import run_key_of
from crosstie.io.catalog import find_scenes
from crosstie.io.pairing import pair_scenes
from crosstie.io.products import product_prefix, read_correction
from crosstie.io.store import open_store

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.types import ScenePair


def find_pairs(catalogue: str, settings: Settings, limit: int | None = None) -> list[ScenePair]:
    """Pairs of a catalogue that the settings want, sorted by key; at most `limit`.

    Raises
    ------
    CatalogueError : the catalogue cannot be read
    """
    pairs = pair_scenes(find_scenes(catalogue, settings.catalogue), settings.pairing).pairs
    return list(pairs[:limit])


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
    digest = weights_sha256(settings)
    store = open_store(out)
    for pair in pairs:
        key = run_key_of(pair.key, settings, weights_sha256=digest)
        correction = read_correction(store, pair.key, key)
        if correction is not None:
            url = store.url_of(product_prefix(pair.key, key))
            yield Outcome.of(pair.key, correction, products=url, already_done=True)
