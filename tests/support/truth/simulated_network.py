"""An archive of known positions: three places, two platforms of S2, three tracks of S1, some pairs wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosstie.estimation.adjustment import Edges

NOISE_PX, WRONG_PX, PIXEL_M = 0.1, 3.0, 10.0
PLACES = ("forest", "coast", "city")
TRACKS = ("s1a-asc-58", "s1a-desc-80", "s1c-asc-58")


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """Edges, and what is true of them."""

    edges: Edges
    truth_m: dict[str, NDArray[np.float64]]
    """Position of each scene, its place's reference scenes having a mean of 0."""
    wrong: NDArray[np.bool_]
    """(E,)"""


def archive(
    seed: int,
    *,
    per_track: int = 25,
    references: int = 25,
    partners: int = 12,
    wrong: float = 0.05,
    few: int = 2,
) -> Archive:
    """Draw scenes with systematic and random parts; `few` scenes a track of each place have two edges."""
    rng = np.random.default_rng(seed)
    truth, ends = {}, []
    for place in PLACES:
        optical = [f"{place}-s2{'ab'[n % 2]}-{n:03d}" for n in range(references)]
        drawn = rng.normal(0, 0.3 * PIXEL_M, (references, 2))
        truth |= dict(zip(optical, drawn - drawn.mean(axis=0), strict=True))
        for track in TRACKS:
            constant = rng.normal(0, 1.5 * PIXEL_M, 2)
            for n in range(per_track):
                name = f"{place}-{track}-{n:03d}"
                truth[name] = constant + rng.normal(0, 0.2 * PIXEL_M, 2)
                degree = 2 if n < few else partners
                ends += [(r, name) for r in rng.choice(optical, degree, replace=False)]
    reference, secondary = (np.array(side) for side in zip(*ends, strict=True))
    offset = np.array([truth[s] - truth[r] for r, s in ends]) + rng.normal(
        0, NOISE_PX * PIXEL_M, (len(ends), 2)
    )
    bad = rng.random(len(ends)) < wrong
    turn = rng.uniform(0, 2 * np.pi, len(ends))
    offset[bad] += WRONG_PX * PIXEL_M * np.stack([np.cos(turn), np.sin(turn)], axis=1)[bad]
    sigma = np.full(len(ends), NOISE_PX * PIXEL_M)
    return Archive(Edges.of_shifts(reference, secondary, offset, covariance=sigma), truth, bad)
