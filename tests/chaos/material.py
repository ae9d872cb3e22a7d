"""What the writers write: registrations of two pairs, rendered once; the bytes tell whose they are."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from affine import Affine
from committed_runs import write_secondary
from odc.geo.geobox import GeoBox

from crosstie.io.products.displacement import DISPLACEMENT
from crosstie.io.products.write import render
from crosstie.io.storage.root_layout import ProductKey
from crosstie.types import (
    AffineCorrection,
    Error,
    Estimate,
    Model,
    Provenance,
    Registration,
    TiePoints,
    Verdict,
    VerdictCode,
    pair_key,
)

FILE = "CROSSTIE_CHAOS_MATERIAL"
"""Variable that names the file of the material, for the processes that are killed."""

WRITERS = 5
LARGE_BYTES = 9 * 2**20
"""More than is written in one request."""

RUN_KEY = "0123456789abcdef"
KEPT = ProductKey(pair_key("S2B_L1C", "S1A_KEPT"), RUN_KEY)
"""The run that was committed before."""
NEW = ProductKey(pair_key("S2B_L1C", "S1A_NEW"), RUN_KEY)
"""The run that is to be written."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A registration, and the files that are made of it."""

    registration: Registration
    files: dict[str, bytes]


def make_material(folder: Path) -> Path:
    """Render what all writers write, and return the file that holds it."""
    secondary = write_secondary(folder)
    found = {}
    for product, secondary_id in ((KEPT, "S1A_KEPT"), (NEW, "S1A_NEW")):
        for writer in range(WRITERS):
            made = _registration(product, secondary_id, secondary, writer)
            found[product, writer] = Rendered(made, render(made, thumbnails=None))
    path = folder / "material.pickle"
    path.write_bytes(pickle.dumps(found))
    return path


@cache
def material() -> dict[tuple[ProductKey, int], Rendered]:
    return pickle.loads(Path(os.environ[FILE]).read_bytes())  # type: ignore[no-any-return]


def files_of(product: ProductKey, writer: int, *, large: bool) -> dict[str, bytes]:
    """What a writer writes; a large file takes several requests."""
    files = dict(material()[product, writer].files)
    return files | ({DISPLACEMENT: _large(writer)} if large else {})


@cache
def _large(writer: int) -> bytes:
    return np.random.default_rng(writer).bytes(LARGE_BYTES)


def _registration(product: ProductKey, secondary_id: str, secondary: str, writer: int) -> Registration:
    n = 30
    row, col = np.arange(n) * 20, np.arange(n) * 30
    xy_m = np.column_stack([600_050.0 + 10 * col, 3_299_950.0 - 10 * row])
    affine = (1.0, 0.0, -40.0, 0.0, 1.0, 30.0)
    offset_m = np.tile([40.0, -30.0], (n, 1))
    fitted = AffineCorrection(Model.AFFINE, affine, np.eye(6) * 1e-8)
    return Registration(
        pair_key=product.pair_key,
        run_key=product.run_key,
        reference_id="S2B_L1C",
        reference_hrefs=("s2.tif",),
        secondary_id=secondary_id,
        secondary_hrefs=(secondary,),
        grid=GeoBox((1000, 1200), Affine(10, 0, 600_000, 0, -10, 3_300_000), "EPSG:32614"),
        planned=n,
        points=TiePoints(xy_m, offset_m, np.full(n, 2.0), np.ones(n), row, col),
        estimate=Estimate(
            verdict=Verdict(VerdictCode.CORRECTED, ()),
            correction=fitted,
            fitted=fitted,
            used=np.ones(n, bool),
            residual_m=np.zeros((n, 2)),
            error_before=Error(50.0, 50.0),
            error_after=Error(1.0, 1.0),
            median_offset_m=(40.0, -30.0),
        ),
        provenance=replace(
            Provenance(
                versions=(("crosstie", "0.1.0"),),
                weights_sha256="ab" * 32,
                settings_hash="cd" * 8,
                created_utc=datetime(2026, 1, 2, tzinfo=UTC),
                seconds=0.0,
            ),
            seconds=1.0 + writer,
        ),
    )
