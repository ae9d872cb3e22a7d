"""Aligned pixels of all placed scenes of an archive, one file a scene and place, each at its one position."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from crosstie.errors import BadInputError
from crosstie.flows.apply import AppliedFile, ApplyOptions, apply_one, refuse_inside
from crosstie.flows.apply import open as open_pair
from crosstie.io.adjusted.places import TRUSTED_VERDICTS
from crosstie.io.adjusted.position import AdjustedPositions
from crosstie.io.archive.index import survey
from crosstie.io.archive.listing import list_archive
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosstie.config import Settings
    from crosstie.io.storage.store import Store

STACK_COLUMNS = (
    "pair_key", "run_key", "created", "updated", "latest", "verdict", "crs", "reference_id", "secondary_id",
)  # fmt: skip
"""Columns of the index that a stack is made of."""


def stack_scenes(archive: Store, stack: str, settings: Settings) -> Iterator[AppliedFile | str]:
    """Align each placed scene by one of its pairs, and write it as `<stack>/<place>/<scene>.tif`.

    What is there and was made from the same position is left. A run that is killed goes on where it was.

    Parameters
    ----------
    archive : Store
        Product root, adjusted.
    stack : str
        Folder or URL.
    settings : Settings
        Kernel, and how S3 is reached.

    Yields
    ------
    AppliedFile or str
        What was written, or why a scene could not be aligned.

    Raises
    ------
    BadInputError
        The stack lies in the product root, or nothing is adjusted.
    """
    target = open_store(stack, settings.storage)
    refuse_inside(target, archive)
    positions = AdjustedPositions.read(archive)
    options = ApplyOptions(resampling=settings.products.resampling, adjusted=True)
    for (place, scene), row in sorted(_pair_of_each(archive, positions).items()):
        try:
            product = open_pair(f"{archive.url}/{row['pair_key']}/{row['run_key']}", settings=settings)
            grid = product.alignment.grid()
            key = f"{place}/{scene}.tif"
            yield apply_one(
                product, target, key, None, grid, options, None, None, resume=True, positions=positions
            )
        except BadInputError as problem:
            yield f"{scene} at {place}: {' '.join(str(problem).split())}"


def _pair_of_each(archive: Store, positions: AdjustedPositions) -> dict[tuple[str, str], dict[str, Any]]:
    """Place and scene -> the pair that brings the grid: one that the network uses, the first by name."""
    table = survey(archive, list_archive(archive).committed, columns=STACK_COLUMNS)
    found: dict[tuple[str, str], tuple[bool, dict[str, Any]]] = {}
    for row in sorted(table.to_pylist(), key=lambda row: (row["pair_key"], row["run_key"])):
        if not row["latest"] or row["verdict"] not in TRUSTED_VERDICTS:
            continue
        reference, scene = row["reference_id"], row["secondary_id"]
        try:
            at = positions.find(scene=scene, partner=reference, crs=row["crs"])
        except BadInputError:  # not placed: `crosstie adjust` tells of it
            continue
        if any(other.sensor == at.sensor != "" for other in positions.of_scene.get(reference, ())):
            continue
        unused = row["pair_key"] not in positions.places[at.place].used
        before = found.get((at.place, _stack_name(scene)))
        if before is None or unused < before[0]:
            found[at.place, _stack_name(scene)] = unused, row
    return {key: row for key, (_, row) in found.items()}


def _stack_name(scene: str) -> str:
    """A scene's id as the name of a file; of one that had to be changed, a digest keeps it apart."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", scene).strip("-.")[:160]
    return name if name == scene else f"{name}-{hashlib.sha256(scene.encode()).hexdigest()[:10]}"
