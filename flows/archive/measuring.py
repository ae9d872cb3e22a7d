"""Measurements of the pairs of a place: those that the last version holds, and the rest from the products."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from crosstie.errors import StoreError
from crosstie.estimation.pair_offset import measured_affine
from crosstie.io.adjusted.measured import read_pair_points
from crosstie.io.adjusted.tables import MeasuredPairs
from crosstie.io.storage.root_layout import ProductKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.io.adjusted.places import ArchivePair
    from crosstie.io.storage.store import Store
    from crosstie.types import FloatArray

PRODUCTS_AT_ONCE = 16
"""Products read at once: a store answers many small requests in the time of one."""

Measurement = tuple["FloatArray", "FloatArray", "FloatArray"]
"""(6,) affine, (6, 6) covariance, (2,) mean position."""


def measure_pairs(
    store: Store, pairs: Sequence[ArchivePair], known: MeasuredPairs | None
) -> tuple[list[ArchivePair], MeasuredPairs, list[str]]:
    """Measure pairs; of a product that is known already nothing is read.

    Returns
    -------
    tuple of list, MeasuredPairs and list
        Pairs that measure an offset, their measurements, and a sentence for each of the others.
    """
    earlier = {} if known is None else _by_product(known)
    missing = [pair for pair in pairs if pair.product not in earlier]
    with ThreadPoolExecutor(PRODUCTS_AT_ONCE) as pool:
        fresh = dict(
            zip(
                (pair.product for pair in missing),
                pool.map(partial(_measure_pair, store), missing),
                strict=True,
            )
        )
    found: list[tuple[ArchivePair, Measurement]] = []
    problems = []
    for pair in pairs:
        measured = earlier.get(pair.product) or fresh[pair.product]
        if isinstance(measured, str):
            problems.append(measured)
        else:
            found.append((pair, measured))
    return [pair for pair, _ in found], _as_measured(found), problems


def _by_product(known: MeasuredPairs) -> dict[ProductKey, Measurement]:
    keys = map(ProductKey, known.pair_key, known.run_key)
    return dict(zip(keys, zip(known.affine, known.covariance, known.centre_m, strict=True), strict=True))


def _measure_pair(store: Store, pair: ArchivePair) -> Measurement | str:
    try:
        points = read_pair_points(store, pair.product)
    except StoreError as problem:
        return str(problem)
    fitted = measured_affine(points.used, points.model)
    if fitted is None or not np.isfinite(fitted.covariance).all():
        return f"{pair.product.pair_key}: {len(points.used)} tie points are too few for a covariance"
    return np.array(fitted.affine), fitted.covariance, points.used.xy_m.mean(axis=0)


def _as_measured(found: Sequence[tuple[ArchivePair, Measurement]]) -> MeasuredPairs:
    n = len(found)
    return MeasuredPairs(
        pair_key=[pair.product.pair_key for pair, _ in found],
        run_key=[pair.product.run_key for pair, _ in found],
        affine=np.array([m[0] for _, m in found]).reshape(n, 6),
        covariance=np.array([m[1] for _, m in found]).reshape(n, 6, 6),
        centre_m=np.array([m[2] for _, m in found]).reshape(n, 2),
    )
