"""Tiles to learn from, cut from the pairs of a user's own catalog.

No label is needed. The tiles are those that a registration would match, read by the same reader; the coarse
offset of the pair is taken off the SAR image, too. They are kept on disk: a resumed run reads no raster again
and sees the same tiles.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crosstie.errors import BadInputError, SettingsError
from crosstie.flows.discovery.pairs import find_pairs
from crosstie.flows.registration.measure import MatchJob
from crosstie.flows.registration.pipeline import InProcess, find_coarse_offset
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.scenes import open_scenes
from crosstie.grid import window
from crosstie.io.datasets.mined import (
    MinedTiles,
    read_mining_index,
    tiles_path,
    write_mined,
    write_mining_index,
)
from crosstie.io.raster import RasterSource, read_plane
from crosstie.matcher.training.samples import CROP_MARGIN_PX
from crosstie.types import Kind

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from crosstie.config import Settings
    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.flows.registration.plan import TilePlan
    from crosstie.matcher.training.plan import TrainingPlan
    from crosstie.types import ScenePair, Tile

SEED_PART = 6
"""Keeps these draws apart from other draws of the same seed."""

WANDER_PX = 96
"""Centres of samples are drawn up to this far from a place (`crosstie.matcher.training.samples`)."""

LEAST_VALID, LEAST_VALID_LABELLED = 0.85, 0.97
"""Shares of valid pixels that a tile, or a labelled tile, needs in both images."""

TEMPLATE_PX = 192
"""Of the match that labels a tile; smaller where the tile is."""


@dataclass(frozen=True, slots=True)
class MiningRules:
    """What is taken from a catalog."""

    pairs: int
    """Maximum number of pairs."""
    tiles_per_pair: int
    """Maximum number of tiles of a pair."""
    side_px: int
    """Side of a tile."""
    search_px: int
    """How far the match that labels a tile searches."""
    pseudo_labels: bool
    least_confidence: float
    seed: int


def labelled_side_px(plan: TrainingPlan) -> int:
    """Side of a tile for labelled crops: the crop, its margin, extra shift, own offset and wandering."""
    side = plan.crop_px + 2 * (CROP_MARGIN_PX + plan.jitter_px + plan.search_px // 2) + WANDER_PX
    return -(-side // 16) * 16


def mine_catalog(
    catalog: str,
    settings: Settings,
    rules: MiningRules,
    folder: Path,
    load: Callable[[], TileMatcher],
    *,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[str]:
    """Mine the pairs of a catalog into `folder`; those that are there already are not read again.

    A pair that cannot be read is left out, which is kept in its file too: remove that to try it again.

    Parameters
    ----------
    settings : Settings
        Which scenes make a pair, the grid, the tiles and the coarse step.
    load : Callable[[], TileMatcher]
        Makes the matcher that finds the coarse offset and the pseudo-labels; called once, if at all.
    progress : Callable[[int, int], None] | None
        Called with (pairs done, pairs in all).
    tell : Callable[[str], None] | None
        Called with what is worth a line.

    Returns
    -------
    list[str]
        Keys of the pairs, in order.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    SettingsError
        There is no pair in it, or `folder` was mined by other rules.
    """
    asked = mining_record(catalog, settings, rules)
    index = read_mining_index(folder)
    # What an older version did not note is taken to be as it is now: mining anew takes hours.
    if index is not None and asked | index["asked"] != asked:
        raise SettingsError(f"{folder}: was mined by other settings; remove it, or choose another `out`")
    pairs: dict[str, ScenePair] = {}
    if index is None or not all(tiles_path(folder, key).exists() for key in index["pairs"]):
        pairs = {pair.key: pair for pair in find_pairs(catalog, settings)}
        if not pairs:
            raise SettingsError(f"{catalog}: no pair to mine; `crosstie pairs --catalog …` says why")
    if index is None:
        index = {"asked": asked, "pairs": draw_keys(sorted(pairs), rules.pairs, seed=rules.seed)}
        write_mining_index(folder, index)
    keys: list[str] = index["pairs"]
    matcher: TileMatcher | None = None
    for n, key in enumerate(keys):
        path = tiles_path(folder, key)
        if not path.exists():
            if key not in pairs:
                raise SettingsError(
                    f"{folder}: {key} is no longer in {catalog}; remove the folder to mine anew"
                )
            matcher = matcher or load()
            mined = _mine_or_say_why(pairs[key], settings, rules, matcher)
            write_mined(path, mined)
            if tell is not None and mined.note:
                tell(f"{key}: {mined.note}")
        if progress is not None:
            progress(n + 1, len(keys))
    return keys


def mining_record(catalog: str, settings: Settings, rules: MiningRules) -> dict[str, Any]:
    """All that decides what is mined, fit for JSON."""
    tree = settings.model_dump(mode="json", include={"grid", "catalog", "pairing", "tiles"})
    return tree | {"catalog": catalog, "catalog_settings": tree["catalog"]} | asdict(rules)


def draw_keys(keys: Sequence[str], count: int, *, seed: int) -> list[str]:
    """At most `count`, drawn by the seed, in their order."""
    if len(keys) <= count:
        return list(keys)
    drawn = np.random.default_rng((seed, SEED_PART)).permutation(len(keys))[:count]
    return [keys[n] for n in sorted(drawn.tolist())]


def _mine_or_say_why(
    pair: ScenePair, settings: Settings, rules: MiningRules, matcher: TileMatcher
) -> MinedTiles:
    """Tiles of a pair; none, with the reason, where it cannot be used."""
    try:
        return mine_pair(pair, settings, rules, matcher)
    except BadInputError as problem:
        return MinedTiles.none(f"left out: {' '.join(str(problem).split())}")


def mine_pair(pair: ScenePair, settings: Settings, rules: MiningRules, matcher: TileMatcher) -> MinedTiles:
    """Cut tiles worth matching out of one pair, the optical image being the reference.

    Raises
    ------
    BadInputError
        One of its rasters cannot be read, or both are of one kind.
    """
    optical, sar = pair.reference, pair.secondary
    if optical.kind is Kind.SAR:
        optical, sar = sar, optical
    if optical.kind is sar.kind:
        raise BadInputError(f"{pair.key}: both images are {optical.kind}; one of each kind is needed")
    sources = open_scenes(optical, sar, settings)
    plan = plan_pair(*sources, settings)
    if plan.grid is None or not plan.tiles:
        why = plan.reason.sentence if plan.reason else "nothing is worth matching"
        return MinedTiles.none(f"no tile of {rules.side_px} px: {why}")
    offset = _coarse_offset(plan, settings, matcher)
    rng = np.random.default_rng((rules.seed, SEED_PART, zlib.crc32(pair.key.encode())))
    drawn = sorted(rng.permutation(len(plan.tiles))[: rules.tiles_per_pair].tolist())
    cut = (_cut_tile(plan, plan.grid, plan.tiles[n], offset, rules, matcher) for n in drawn)
    parts = [part for part in cut if part is not None]
    if not parts:
        return MinedTiles.none(f"no tile of {rules.side_px} px is valid in both images")
    bands, valid, planes, offsets = (np.stack(column) for column in zip(*parts, strict=True))
    note = f"coarse offset ({offset[0]:+d}, {offset[1]:+d}) px taken off" if offset != (0, 0) else ""
    return MinedTiles(bands, valid, planes, offsets, note)


def _coarse_offset(plan: TilePlan, settings: Settings, matcher: TileMatcher) -> tuple[int, int]:
    """Offset (x, y) of the whole SAR image in whole pixels; zero where the vote is not clear."""
    if plan.grid is None or not plan.coarse_search_px:
        return 0, 0
    job = MatchJob(plan.reference, plan.secondary, plan.grid, plan.search_px, plan.coarse_search_px)
    most_spots = settings.tiles.coarse_spots
    found = find_coarse_offset(job, plan.tiles, InProcess(matcher), most_spots=most_spots)
    return (found.dx_px, found.dy_px) if found.reliable else (0, 0)


def _cut_tile(
    plan: TilePlan,
    grid: GeoBox,
    tile: Tile,
    coarse_px: tuple[int, int],
    rules: MiningRules,
    matcher: TileMatcher,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float16], NDArray[np.float32]] | None:
    """Bands, validity, dB and offset of one tile; None where too little of it is valid."""
    side = (tile.size_px, tile.size_px)
    here = window(grid, row=tile.row, col=tile.col, shape=side)
    bands, valid = read_bands(plan.reference, here)
    sar = read_plane(
        plan.secondary, window(grid, row=tile.row + coarse_px[1], col=tile.col + coarse_px[0], shape=side)
    )
    share = min(valid.mean(), np.isfinite(sar).mean())
    if share < LEAST_VALID:
        return None
    offset = np.full(2, np.nan, np.float32)
    if rules.pseudo_labels and share >= LEAST_VALID_LABELLED:
        offset = _label(read_plane(plan.reference, here), sar, rules, matcher)
    return bands, valid, sar.astype(np.float16), offset


def read_bands(source: RasterSource, grid: GeoBox) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the bands of an optical raster one by one: training mixes them anew.

    Returns
    -------
    tuple[NDArray[np.uint8], NDArray[np.bool_]]
        (bands, rows, cols) with white at 255, and (rows, cols) where they are valid.
    """
    several = len(source.hrefs) > 1
    planes = np.stack(
        [
            read_plane(
                replace(
                    source,
                    bands=(band,),
                    hrefs=(source.hrefs[n],) if several else source.hrefs,
                    scalings=source.scalings[n : n + 1],
                ),
                grid,
            )
            for n, band in enumerate(source.bands)
        ]
    )
    # A single band may hold the nodata value by chance.
    valid = np.asarray(np.isfinite(planes).any(axis=0))
    scaled = np.clip(np.nan_to_num(planes) * (255 / source.white), 0, 255)
    return np.rint(scaled).astype(np.uint8), valid


def _label(
    optical: NDArray[np.float32], sar: NDArray[np.float32], rules: MiningRules, matcher: TileMatcher
) -> NDArray[np.float32]:
    """Offset (2,) of the middle of a tile, NaN where the matcher is not sure."""
    size = min(TEMPLATE_PX, len(optical) - 2 * rules.search_px)
    first = np.array([(len(optical) - size) // 2], np.int64)
    found = matcher.match(
        optical, sar, first, first, size_px=size, search_px=rules.search_px,
        reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR,
    )  # fmt: skip
    offset: NDArray[np.float32] = found.offset_px[0].astype(np.float32)
    # Farther off than half the search a tile leaves its crops no room.
    sure = found.confidence[0] >= rules.least_confidence and np.abs(offset).max() <= rules.search_px / 2
    return offset if sure else np.full(2, np.nan, np.float32)
