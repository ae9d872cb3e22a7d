"""The datum: pairs measure differences only, so something must say where 0 lies.

A part is solved with one scene held, and carried over to the datum asked for by an S-transformation:
positions and covariances change, nothing that the edges themselves say does.

References
----------
Baarda (1973), S-transformations and criterion matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crosstie.estimation.adjustment.network import Datum
    from crosstie.estimation.adjustment.normal import Normal
    from crosstie.types import BoolArray, FloatArray, IntArray, StrArray


def check_datum(datum: Datum, ids: StrArray, size: int) -> None:
    """Refuse a datum that names scenes without edges, or positions of the wrong length."""
    asked = [datum.scene] if datum.scene else [name for name, _ in datum.fixed]
    missing = sorted(set(asked) - set(ids.tolist()))
    if missing:
        raise ValueError(f"the datum names {missing[0]}, which is in no edge; choose a scene of the network")
    for name, position in datum.fixed:
        if len(position) != size or not np.isfinite(position).all():
            raise ValueError(f"{name} is held fixed at {position}: give {size} finite numbers")


def chosen(datum: Datum, ids: StrArray, references: BoolArray) -> tuple[BoolArray, str, bool]:
    """Scenes of one part whose mean position is 0, what to say of it, and whether it is what was asked for.

    Parameters
    ----------
    datum : Datum
        The datum that was asked for.
    ids : StrArray
        (n,) scenes of the part.
    references : BoolArray
        (n,) True for scenes of the reference sensor.
    """
    if datum.scene is not None and (ids == datum.scene).any():
        return ids == datum.scene, f"Position 0 is that of {datum.scene}.", True
    asked = datum.scene is None and not datum.fixed
    lacks = "No scene that is held" if datum.fixed else "The scene that the datum names"
    missing = "" if asked else f"{lacks} is {'' if datum.fixed else 'not '}in this part. "
    if references.any():
        said = f"{missing}Position 0 is the mean of the {references.sum()} reference scenes of this part."
        return references, said, asked
    said = f"No reference scene is in this part: position 0 is the mean of its own {len(ids)} scenes."
    return np.ones(len(ids), np.bool_), missing + said, False


def transform(
    x: FloatArray, cofactor: FloatArray, normal: Normal, free: IntArray, members: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Positions (n, b, m) and their cofactors (n, b, b) such that the mean over `members` (n,) is 0.

    Parameters
    ----------
    x : FloatArray
        (n, b, m) positions with one scene held at 0.
    cofactor : FloatArray
        (n, b, b) their cofactors.
    normal : Normal
        Factorised normal equations of the part.
    free : IntArray
        (n,) row of each scene in `normal`, -1 for the one that is held.
    members : BoolArray
        (n,) scenes whose mean is 0.
    """
    b = x.shape[1]
    weight = members / members.sum()
    unknown = free >= 0
    right = np.zeros((normal.structure.n, b, b))
    right[free[unknown]] = weight[unknown, None, None] * np.eye(b)
    across = np.zeros((len(free), b, b))
    across[unknown] = normal.solve(right)[free[unknown]]
    of_mean = np.einsum("n,nbc->bc", weight, across)
    moved = x - np.einsum("n,nbm->bm", weight, x)
    spread = cofactor - across - across.transpose(0, 2, 1) + of_mean
    return moved, (spread + spread.transpose(0, 2, 1)) / 2
