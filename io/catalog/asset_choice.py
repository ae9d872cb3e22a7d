"""Choose the asset of an item that is read: by the names that are preferred, else by what its name says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

POLARISED = ("vh", "hv", "vv", "hh")
"""Cross-polarised first: over land it varies less with the look direction and with wind and waves."""

WHOLE_IMAGES = ("data", "image", "measurement", "analytic")
"""Names of an only asset that holds all bands."""

SAR_WORDS = (*POLARISED, *WHOLE_IMAGES)
OPTICAL_WORDS = ("visual", "tci", "truecolor", "red", "b04", "b4", *WHOLE_IMAGES)
"""True colour before red."""

CLASS_WORDS = ("scl",)
"""Of Sentinel-2's scene classification."""

NO_IMAGE = re.compile(
    r"^(schema|annotation|calibration|noise|rfi|metadata|manifest|product|safe|xml|json|html|thumbnail|quicklook"
    r"|preview|overview|rendered|browse|icon|tilejson|tile|mask|incidence|angle|lia|ellipsoid|area|shadow|layover"
    r"|dem|conversion|info|index|checksum|md5|zarr)$"
)
"""Words of assets that are no image to be registered, or one of another size."""

COARSER = ("20m", "60m", "100m", "1km")
"""Words of copies at a coarser resolution, which come last."""

ZARR = re.compile(r"\.zarr(?:/|$)", re.IGNORECASE)

LONGEST_NAME = 200
"""Characters; a longer name says nothing."""

SWATHS = re.compile(r"^(iw|ew)\d$")
"""Sub-swaths are parts of a scene in radar geometry."""


def by_preference(names: Iterable[str], preferred: Sequence[str], words: tuple[str, ...]) -> tuple[str, ...]:
    """Put those names of assets that may be read in order.

    Parameters
    ----------
    names : iterable of str
        All names.
    preferred : sequence of str
        These come first, whatever they say.
    words : tuple of str
        `SAR_WORDS` or `OPTICAL_WORDS`: what a name must hold as a word of its own.

    Returns
    -------
    tuple of str
        The best first.
    """
    given = tuple(dict.fromkeys(names))
    first = [name for name in preferred if name in given]
    others = [
        (rank, name)
        for name in given
        if name not in first and (rank := _order_of_name(name, words)) is not None
    ]
    return (*first, *(name for _, name in sorted(others)))


def best_by_words(
    hrefs: Mapping[str, str | None], preferred: Sequence[str], words: tuple[str, ...]
) -> str | None:
    """Address of the best asset of an item for what its name says; None where a preferred one can be opened.

    One that cannot be opened is given only if no other is there.
    """
    if any(may_be_opened(hrefs.get(name)) for name in preferred):
        return None
    ordered = [href for name in by_preference(hrefs, (), words) if (href := hrefs[name]) is not None]
    return next(filter(may_be_opened, ordered), ordered[0] if ordered else None)


def is_zarr(href: str | None) -> bool:
    """Say whether an address is of a Zarr store, or of a part of one."""
    if href is None:
        return False
    host, _, path = re.split(r"[?#]", href, maxsplit=1)[0].rpartition("://")[2].partition("/")
    return ZARR.search(path if "://" in href else f"{host}/{path}") is not None


def may_be_opened(href: str | None) -> bool:
    """Say whether there is an address, and it is of a file that can be read."""
    return href is not None and not is_zarr(href)


def _order_of_name(name: str, words: tuple[str, ...]) -> tuple[int, int, int] | None:
    return None if len(name) > LONGEST_NAME else _order_of_short_name(name, words)


@lru_cache(maxsize=4096)
def _order_of_short_name(name: str, words: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Order of a name: resolution, place in `words`, number of words; None if it must not be read."""
    parts = _words(name)
    if any(NO_IMAGE.match(part) or SWATHS.match(part) for part in parts):
        return None
    found = [words.index(part) for part in parts if part in words]
    if not found:
        return None
    coarser = next((n + 1 for n, size in enumerate(COARSER) if size in parts), 0)
    return coarser, min(found), len(parts)


def _words(name: str) -> list[str]:
    """Words of a name, in lower case: `gamma0_vh`, `iw-vh`, `true_color`, `B04_10m`, `TrueColor`."""
    text = re.sub(r"true[ _-]?colou?r", "truecolor", name.lower())
    return [part for part in re.split(r"[^a-z0-9]+", text) if part]
