"""A small archive of committed pairs whose scenes have known positions, some pairs wrong."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from crosstie.io.products.correction import correction_dict
from crosstie.io.products.displacement import displacement_cog
from crosstie.io.products.stac_item import stac_item
from crosstie.io.products.tie_points import to_geodataframe
from crosstie.io.raster.georeference import Georeference
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

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store

PIXEL_M = 10.0
PAIR_NOISE_M = 1.0
"""Per axis: what differs between two dates on the ground moves all tie points of a pair alike."""

POINT_NOISE_M = 2.0
STRIDE_PX, ACROSS = 64, 8
RUN_KEY = "0123456789abcdef"
FIRST_DAY = datetime(2025, 1, 3, 17, 24, 17, tzinfo=UTC)
MADE = datetime(2026, 1, 2, tzinfo=UTC)


def optical_id(tile: str, n: int) -> str:
    """Scenes of one track, five days apart, of two platforms."""
    day = FIRST_DAY + timedelta(days=5 * n + 1)
    return f"S2{'AB'[n % 2]}_MSIL1C_{day:%Y%m%d}T103629_N0511_R008_T{tile}_{day:%Y%m%d}T124233"


def sar_id(tile: str, n: int, *, mission: str = "S1A", track: int = 58) -> str:
    """Scenes of one track, twelve days apart, cut to a tile."""
    day, orbit = FIRST_DAY + timedelta(days=12 * n), 57_000 + 175 * n
    first = {"S1A": 73, "S1C": 172}[mission]
    orbit += (track - 1 - (57_000 - first)) % 175
    return f"{mission}_IW_GRDH_1SDV_{day:%Y%m%dT%H%M%S}_{day:%Y%m%dT%H%M%S}_{orbit:06d}_07611C_0D2A_T{tile}"


@dataclass
class MeasuredArchive:
    """Pairs that are committed as they are drawn; positions of their scenes are known."""

    store: Store
    rng: np.random.Generator
    truth_m: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Position of each scene; of the reference scenes of a place the mean is 0."""
    wrong: set[str] = field(default_factory=set)
    """Keys of wrong pairs."""

    def place(self, tile: str, *, optical: int = 6, sar: int = 10, wrong: float = 0.05) -> None:
        """Draw a place, every scene of one sensor paired with every scene of the other."""
        references = [optical_id(tile, n) for n in range(optical)]
        drawn = self.rng.normal(0, 3.0, (optical, 2))
        self.truth_m |= dict(zip(references, drawn - drawn.mean(axis=0), strict=True))
        for n in range(sar):
            self.scene(sar_id(tile, n), references, at=(12.0, -7.0), wrong=wrong)

    def scene(
        self, scene: str, references: list[str], *, at: tuple[float, float], wrong: float = 0.0
    ) -> None:
        """Add a scene, placed near `at`, with a pair for each of the references."""
        self.truth_m[scene] = np.array(at) + self.rng.normal(0, 2.0, 2)
        for reference in references:
            offset = self.truth_m[scene] - self.truth_m[reference] + self.rng.normal(0, PAIR_NOISE_M, 2)
            if self.rng.random() < wrong:
                turn = self.rng.uniform(0, 2 * np.pi)
                offset += 3 * PIXEL_M * np.array([np.cos(turn), np.sin(turn)])
                self.wrong.add(pair_key(reference, scene))
            self.commit(measured_registration(reference, scene, offset, self.rng))

    def commit(self, registration: Registration) -> None:
        """Write what an archive keeps of a pair, without its pictures: they take a hundred times as long."""
        commit_without_pictures(self.store, registration)


def measured_registration(
    reference: str, secondary: str, offset_m: NDArray[np.float64], rng: np.random.Generator
) -> Registration:
    """A pair that measured a shift; corrected where it is longer than half a pixel."""
    grid = grid_of(secondary)
    row, col = (axis.ravel() * STRIDE_PX for axis in np.mgrid[:ACROSS, :ACROSS])
    xy_m = np.column_stack([grid.affine.c + PIXEL_M * (col + 64), grid.affine.f - PIXEL_M * (row + 64)])
    n = len(xy_m)
    points = TiePoints(
        xy_m, offset_m + rng.normal(0, POINT_NOISE_M, (n, 2)), np.full(n, 2.0), np.full(n, 0.9), row, col
    )
    x, y = -points.offset_m.mean(axis=0)
    covariance = np.zeros((6, 6))
    covariance[2, 2] = covariance[5, 5] = POINT_NOISE_M**2 / n
    fitted = AffineCorrection(Model.TRANSLATION, (1.0, 0.0, float(x), 0.0, 1.0, float(y)), covariance)
    aligned = np.hypot(x, y) < PIXEL_M / 2
    applied = AffineCorrection.identity() if aligned else fitted
    return Registration(
        pair_key=pair_key(reference, secondary),
        run_key=RUN_KEY,
        reference_id=reference,
        reference_hrefs=(f"https://example.org/{reference}.tif",),
        secondary_id=secondary,
        secondary_hrefs=(f"https://example.org/{secondary}.tif",),
        grid=grid,
        planned=n,
        points=points,
        estimate=Estimate(
            verdict=Verdict(VerdictCode.ALREADY_ALIGNED if aligned else VerdictCode.CORRECTED),
            correction=applied,
            fitted=fitted,
            used=np.ones(n, np.bool_),
            residual_m=applied.apply(xy_m + points.offset_m) - xy_m,
            error_before=Error(float(np.hypot(x, y)), float(np.hypot(x, y))),
            error_after=Error(2.8, 4.2),
            median_offset_m=(float(-x), float(-y)),
        ),
        provenance=Provenance(
            versions=(("crosstie", "0.1.0"),),
            weights_sha256="ab" * 32,
            settings_hash="cd" * 8,
            created_utc=MADE,
            seconds=1.0,
        ),
    )


def grid_of(scene: str) -> GeoBox:
    """Grid of a place: tiles lie side by side, other scenes by what their id begins with."""
    tile = scene.rpartition("_T")[2]
    east = sum(map(ord, tile[-3:] if tile != scene else scene[:4])) * 1000 % 200_000
    return GeoBox((640, 640), Affine(PIXEL_M, 0, 400_000 + east, 0, -PIXEL_M, 5_300_000), "EPSG:32631")


def commit_without_pictures(store: Store, registration: Registration) -> None:
    grid = registration.grid
    assert grid is not None
    product = ProductKey(registration.pair_key, registration.run_key)
    table = to_geodataframe(registration)
    item = stac_item(
        registration,
        place=Georeference(grid.shape.yx, str(grid.crs), grid.affine),
        acquired_utc=None,
    )
    files = {
        "correction.json": json.dumps(correction_dict(registration)).encode(),
        "item.json": json.dumps(item).encode(),
        "tie_points.parquet": _parquet(table),
    }
    if registration.field is not None and registration.field.field is not None:
        files["displacement.tif"] = displacement_cog(registration.field.field)
    listing = {}
    for name, body in files.items():
        store.put(product.file(name), body)
        listing[name] = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    store.create(product.commit, json.dumps({"files": listing}).encode())


def _parquet(table: gpd.GeoDataFrame) -> bytes:
    body = io.BytesIO()
    table.to_parquet(body, index=False, compression="zstd")
    return body.getvalue()
