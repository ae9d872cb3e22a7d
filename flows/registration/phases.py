"""The phases of registering one pair, as they are told to whoever waits."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What is being done for a pair, in order."""

    PLAN = "plan"
    """Headers and overviews are read, and the tiles worth matching are chosen."""
    SEARCH = "search"
    """The coarse offset is looked for."""
    TILES = "tiles"
    """The tiles are matched: nearly all of the work."""
    FIT = "fit"
    """Correction, verdict and displacement field are estimated."""
    WRITE = "write"
    """The products are rendered and committed."""
