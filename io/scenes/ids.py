"""Ids of Sentinel-1 and Sentinel-2 scenes: which texts are accepted as an id."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crosstie.types import Kind

_TIME = r"\d{8}T\d{6}"
_MGRS = r"\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"

_SENTINEL_1 = re.compile(
    # The product's own four digits are left out by Earth Search and the Planetary Computer; the Copernicus
    # Data Space adds _COG, the Planetary Computer _rtc, and a cut to one Sentinel-2 tile its name.
    rf"S1[A-D]_(IW|EW|S[1-6]|WV)_(GRD[FHM]|SLC_)_1S[SD][HV]_{_TIME}_{_TIME}_\d{{6}}_[0-9A-F]{{6}}"
    rf"(_[0-9A-F]{{4}})?(_COG)?(_rtc)?(_T{_MGRS})?",
    re.ASCII,
)

_SENTINEL_2 = re.compile(
    # As in a SAFE name; the Planetary Computer leaves out the baseline.
    rf"S2[A-D]_MSIL(1C|2A)_{_TIME}_(N\d{{4}}_)?R\d{{3}}_T{_MGRS}_{_TIME}"
    # Earth Search, by day and sequence or by time.
    r"|S2[A-D]_\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]_\d{8}_\d{1,3}_L(1C|2A)"
    rf"|S2[A-D]_T{_MGRS}_{_TIME}_L(1C|2A)",
    re.ASCII,
)

EXAMPLE = "S2A_MSIL1C_20201104T183541_N0209_R027_T11SLT_20201104T203551"
"""An id, for messages."""

MAX_CHARACTERS = 200
"""Longer texts are never ids, and are not searched."""


@dataclass(frozen=True, slots=True)
class SceneIds:
    """Which texts are scene ids: those of Sentinel-1 and Sentinel-2, and those of the user's own archive."""

    also: str | None = None
    """Regular expression of further ids; it must match the whole id. None: none."""

    def accepts(self, text: str) -> bool:
        """Say whether the whole text is the id of a scene."""
        if len(text) > MAX_CHARACTERS or not text.isprintable():
            return False
        return kind_of(text) is not None or (self.also is not None and bool(re.fullmatch(self.also, text)))


def kind_of(scene_id: str) -> Kind | None:
    """Kind of a Sentinel-1 or Sentinel-2 scene by its id; None for any other text."""
    if _SENTINEL_1.fullmatch(scene_id):
        return Kind.SAR
    if _SENTINEL_2.fullmatch(scene_id):
        return Kind.OPTICAL
    return None


def ids_in_path(path: str, ids: SceneIds) -> tuple[str, ...]:
    """Find the scenes that a path or object key names: every part that is an id, with or without extension.

    `2020/S2A_….SAFE/GRANULE/…/TCI.jp2`, `S2A_…/item.json` and `S2A_….zip` name one scene each. A part that
    only begins with an id names none, because names of products of a pair contain both ids.
    """
    found: dict[str, None] = {}
    for part in path.split("/"):
        for text in (part, part.partition(".")[0]):
            if ids.accepts(text):
                found[text] = None
                break
    return tuple(found)
