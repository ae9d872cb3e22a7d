"""Which pairs are worth registering. Part of the settings, so it imports little."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from crosstie.codes import Graph, Kind, Slices


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Which pairs are worth registering."""

    max_days: float = 60.0
    """Longest time between the two acquisitions, days."""
    min_overlap: float = 0.1
    """Smallest common area, as a share of the smaller footprint, 0..1."""
    best_n: int = 1
    """Maximum number of secondaries for one reference; slices of one pass count as one."""
    best_n_per_tile: int | None = None
    """Maximum number of pairs for one Sentinel-2 tile over all dates; an optical scene without a tile counts
    as a separate tile. None: no limit."""
    slices: Slices = "largest"
    """Which slices of one SAR pass are used if several cover a reference: largest uses the one that
    covers most of it; each uses every one with enough overlap."""
    graph: Graph = "nearest"
    """nearest: each reference gets its best secondaries (`best_n`). network: each scene gets `partners` among
    those acquired before it, half the nearest in time and half at random, for `crosstie adjust`; a large
    `max_days` bridges the seasons."""
    partners: int = 4
    """Number of partners that each scene chooses in a network, 2 or more."""
    same_kind: int = 0
    """Number of partners of its own kind that each scene chooses in a network besides: Sentinel-2 of the same
    tile, Sentinel-1 of the same track. 0: none."""
    secondary: Kind = Kind.SAR
    """Kind of scene that is corrected: sar or optical. The other kind is the reference."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_days < inf:
            raise ValueError(f"max_days must be a finite number and not negative, got {self.max_days}")
        if not 0 < self.min_overlap <= 1:
            raise ValueError(f"min_overlap must lie in 0..1 and above 0, got {self.min_overlap}")
        if self.best_n < 1:
            raise ValueError(f"best_n must be at least 1, got {self.best_n}")
        if self.partners < 2:
            raise ValueError(f"partners must be at least 2, got {self.partners}: one pair controls no other")
        if self.same_kind < 0:
            raise ValueError(f"same_kind must be 0 or more, got {self.same_kind}")
        if self.best_n_per_tile is not None and self.best_n_per_tile < 1:
            raise ValueError(f"best_n_per_tile must be at least 1, got {self.best_n_per_tile}")
