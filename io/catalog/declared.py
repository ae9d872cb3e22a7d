"""Scale and offset of pixels as an item declares them, in either version of STAC's raster extension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crosstie.io.catalog.documents import finite_number

DeclaredBands = tuple[tuple[float, float], ...]
"""(scale, offset) of each band of an asset, or of all where there is one; empty where nothing is declared."""

DECLARING_PARTS = ("raster:bands", "bands", "raster:scale", "raster:offset")
"""What declares them: bands of version 1, bands of STAC 1.1, and version 2 for all bands of an asset."""

SCALE_NAMES = {"raster:bands": ("scale", "offset"), "bands": ("raster:scale", "raster:offset")}
"""How scale and offset are called in a band."""

OFFSET_APPLIED = "earthsearch:boa_offset_applied"
"""Property of an item whose pixels have their offset already, though its assets declare one."""

MOST_OF_ASSET = 64
"""An asset of more bands is no image that is registered."""

AS_STORED = (1.0, 0.0)


def declared_of(asset: object, *, offset_applied: object) -> DeclaredBands:
    """Read what an asset declares.

    Parameters
    ----------
    asset : object
        An asset as the catalog gives it, or its `DECLARING_PARTS` alone.
    offset_applied : object
        Value of the item's property `OFFSET_APPLIED`: where it is true, offsets are 0.

    Returns
    -------
    DeclaredBands
        Empty where all bands are as stored, too.
    """
    if not isinstance(asset, Mapping):
        return ()
    of_asset = (asset.get("raster:scale"), asset.get("raster:offset"))
    found: list[DeclaredBands] = [
        tuple(
            _scale_and_offset(
                *(band.get(name, default) for name, default in zip(names, of_asset, strict=True))
            )
            for band in bands
        )
        for part, names in SCALE_NAMES.items()
        if (bands := _bands_of_asset(asset.get(part)))
    ]
    for one in (*found, (_scale_and_offset(*of_asset),)):
        kept = tuple((scale, 0.0 if offset_applied is True else offset) for scale, offset in one)
        if any(band != AS_STORED for band in kept):
            return kept
    return ()


def by_address(
    assets: Iterable[tuple[str | None, object]], *, offset_applied: object
) -> tuple[tuple[str, DeclaredBands], ...] | None:
    """Collect what the assets of an item declare, under their addresses; None where none declares anything.

    Parameters
    ----------
    assets : iterable of (str or None, object)
        Address and asset, the preferred ones first: of one address the first declaration counts.
    """
    found: dict[str, DeclaredBands] = {}
    for href, asset in assets:
        if href is not None and (declared := declared_of(asset, offset_applied=offset_applied)):
            found.setdefault(href, declared)
    return tuple(found.items()) or None


def _bands_of_asset(value: object) -> list[Mapping[str, object]]:
    """Bands of an asset; none where they are too many, or one of them is none."""
    if not isinstance(value, list) or not 0 < len(value) <= MOST_OF_ASSET:
        return []
    bands = [band for band in value if isinstance(band, Mapping)]
    return bands if len(bands) == len(value) else []


def _scale_and_offset(scale: object, offset: object) -> tuple[float, float]:
    """Scale and offset; as stored where one of them is said and cannot be meant."""
    numbers = [
        default if value is None else finite_number(value)
        for value, default in zip((scale, offset), AS_STORED, strict=True)
    ]
    if numbers[0] is None or numbers[1] is None or numbers[0] <= 0:
        return AS_STORED
    return numbers[0], numbers[1]
