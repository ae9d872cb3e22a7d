"""Where adjusted positions lie under a product root.

_adjusted/<place>/scenes.parquet             one row a scene: what holds now
_adjusted/<place>/<version>/scenes.parquet   the same, of one version, which never changes
_adjusted/<place>/<version>/edges.parquet    one row a pair: measurement, residual, whether it is used
_adjusted/<place>/<version>/items.json       STAC items, one a scene
_adjusted/<place>/<version>/adjustment.json  datum, tests and rejected pairs of the place
_adjusted/<place>/<version>/field_R058.tif   displacement field of a track, where relief makes one
_adjusted/<place>/<version>/_COMMIT          written last; without it the version does not exist
"""

from __future__ import annotations

import re
from typing import NamedTuple

from crosstie.io.storage.root_layout import COMMIT

ADJUSTED = "_adjusted"

SCENES, EDGES, ITEMS, SUMMARY = "scenes.parquet", "edges.parquet", "items.json", "adjustment.json"
"""Files of a version."""


class PlaceVersion(NamedTuple):
    """One version of one place."""

    place: str
    version: str

    @property
    def commit(self) -> str:
        """Key of its commit."""
        return self.file(COMMIT)

    def file(self, name: str) -> str:
        """Key of a file."""
        return f"{ADJUSTED}/{self.place}/{self.version}/{name}"


def current_key(place: str) -> str:
    """Key of the table that holds now."""
    return f"{ADJUSTED}/{place}/{SCENES}"


def place_of_current(key: str) -> str | None:
    """Place whose current table has this key; None for any other key."""
    parts = key.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == ADJUSTED and parts[2] == SCENES else None


def field_file(track: str) -> str | None:
    """Name of the file with the field of a track; None for a track that cannot be part of a name."""
    return f"field_{track}.tif" if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", track) else None


def is_place_name(text: str) -> bool:
    """Whether a text can be the name of a place: one part of a key."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}", text) is not None


def is_version_name(text: object) -> bool:
    """Whether a text can be the name of a version: 16 hex digits."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{16}", text) is not None
