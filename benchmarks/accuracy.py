"""Accuracy on a real scene that the shipped matcher never learnt from; every figure the README quotes.

    python benchmarks/accuracy.py ../shared/data/scenes/T14RNT-2048

The folder holds `s2_tci.tif`, `s1_vh.tif` (misregistered as delivered), `s1_vh_refined.tif` (resampled
through the truth field) and `truth_offsets.tif`. What is measured:

field      what `benchmarks/field.py` prints: the displacement field against the truth field
scene      the tie points of `crosstie register` against the truth field, which itself carries 0.7 to 0.9 px
           of noise, and how much of the error its affine removes, next to the best affine of that field
affines    known affines applied to the refined image: do they come back?
closure    a known sub-pixel shift of the pixels (Fourier), tile by tile: free of the truth's noise
swap       reference and secondary exchanged: is it the inverse?
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy.ndimage import map_coordinates

import crosstie
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.grid import tile_starts, window
from crosstie.io.raster import open_pair, read_plane
from crosstie.matcher.matching import Matcher, Matches
from crosstie.matcher.training.closure import shifted

SIZE_PX, SEARCH_PX = 192, 32
KNOWN = (  # shift east and north (m), rotation (degrees), scale (share)
    (31.4, -12.7, 0.0, 0.0),
    (-150.0, 0.0, 0.0, 0.0),
    (80.0, 65.0, 0.1, 0.0),
    (-47.0, 103.0, -0.1, 0.001),
    (12.3, -140.0, 0.05, -0.001),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the scene")
    parser.add_argument("--only", choices=("scene", "field", "affines", "closure", "swap"))
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    matcher = load_matcher(crosstie.Settings())
    parts = {"scene": scene, "field": field, "affines": affines, "closure": closure, "swap": swap}
    figures: dict[str, object] = {}
    for name, part in parts.items():
        if arguments.only in (None, name):
            figures |= part(arguments.folder, matcher)
            print(f"-- {name}", file=sys.stderr)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def scene(folder: Path, matcher: Matcher) -> dict[str, object]:
    """Tie points and affine of the scene as delivered, against the truth field."""
    result = crosstie.register(folder / "s2_tci.tif", folder / "s1_vh.tif", matcher=matcher)
    points = result.registration.points
    used = result.registration.estimate.used
    grid = result.registration.grid
    assert grid is not None
    px = np.column_stack(~grid.affine @ (points.xy_m[:, 0], points.xy_m[:, 1]))
    pixel_m = np.array([grid.affine.a, grid.affine.e])
    error = np.hypot(*(points.offset_m / pixel_m - truth_at(folder, px)).T)
    known = np.isfinite(error) & used

    nodes, offset = truth_nodes(folder)
    reference_m = np.column_stack(grid.affine @ (nodes[:, 0], nodes[:, 1]))
    secondary_m = reference_m + offset * pixel_m
    before = rms(secondary_m - reference_m) / pixel_m[0]
    after = rms(result.correction.apply(secondary_m) - reference_m) / pixel_m[0]
    design = np.column_stack((secondary_m - secondary_m.mean(0), np.ones(len(nodes))))
    best, *_ = np.linalg.lstsq(design, reference_m, rcond=None)
    floor = rms(design @ best - reference_m) / pixel_m[0]
    confidence = points.confidence[np.isfinite(error)]
    return {
        "verdict": str(result.verdict),
        "model": result.correction.model,
        "tie_points_planned": result.registration.planned,
        "tie_points_used": int(used.sum()),
        "used_median_px": float(np.median(error[known])),
        "used_p95_px": float(np.quantile(error[known], 0.95)),
        "used_within_2px": float((error[known] <= 2).mean()),
        **{f"all_cmr_{t}": float((error[np.isfinite(error)] <= t).mean()) for t in (1, 2, 5)},
        "all_median_px": float(np.nanmedian(error)),
        "mean_confidence": float(confidence.mean()),
        "truth_rmse_before_px": float(before),
        "truth_rmse_after_px": float(after),
        "truth_rmse_best_affine_px": float(floor),
        "share_of_removable_rmse": float((before - after) / (before - floor)),
        "seconds": round(result.registration.provenance.seconds, 1),
    }


def field(folder: Path, matcher: Matcher) -> dict[str, object]:
    """The displacement field of the scene as delivered, against the truth field."""
    from field import Errors, figures  # it imports this file

    found = crosstie.register(folder / "s2_tci.tif", folder / "s1_vh.tif", matcher=matcher)
    errors = Errors.of(folder, "s1_vh.tif", found.registration)
    return {"field": figures(errors, found.registration)}


def affines(folder: Path, matcher: Matcher) -> dict[str, object]:
    """Worst corner error (px) of each known affine, relative to the fit without it; exact truth."""
    with rasterio.open(folder / "s1_vh_refined.tif") as file:
        pixels, profile, transform = file.read(), file.profile, file.transform
    corners = np.array([[0, 0], [0, 2048], [2048, 0], [2048, 2048]], np.float64)
    corners_m = np.column_stack(transform @ (corners[:, 0], corners[:, 1]))
    plain = crosstie.register(folder / "s2_tci.tif", folder / "s1_vh_refined.tif", matcher=matcher)
    baseline = plain.registration.estimate.fitted
    worst, applied = [], []
    with tempfile.TemporaryDirectory() as name:
        moved = Path(name) / "s1_moved.tif"
        for known in KNOWN:
            warp = about(corners_m.mean(0), *known)
            # The same pixels under a wrong geotransform: exactly the known affine, no interpolation.
            resampled(pixels, profile, transform, warp, moved)
            found = crosstie.register(folder / "s2_tci.tif", moved, matcher=matcher).registration.estimate
            displaced = np.column_stack(warp @ (corners_m[:, 0], corners_m[:, 1]))
            gap = found.fitted.apply(displaced) - baseline.apply(corners_m)
            worst.append(float(np.hypot(*gap.T).max() / transform.a))
            gap = found.correction.apply(displaced) - plain.correction.apply(corners_m)
            applied.append(float(np.hypot(*gap.T).max() / transform.a))
    return {
        "refined_verdict": str(plain.verdict),
        "known_affine_worst_corner_px": worst,
        "known_affine_worst_corner_of_products_px": applied,
    }


def closure(folder: Path, matcher: Matcher) -> dict[str, object]:
    """Error (px) of a known sub-pixel shift, tile by tile, over three shifts."""
    reference, secondary = open_pair(folder / "s2_tci.tif", folder / "s1_vh.tif")
    margin = -(-(SEARCH_PX + matcher.halo_px) // 16) * 16
    rows, cols = reference.geobox.shape
    whole = window(reference.geobox, row=-margin, col=-margin, shape=(rows + 2 * margin, cols + 2 * margin))
    optical, sar = read_plane(reference, whole), read_plane(secondary, whole)
    starts = [np.array(tile_starts(n, size_px=SIZE_PX, stride_px=128)) + margin for n in (rows, cols)]
    row, col = (axis.ravel() for axis in np.meshgrid(*starts, indexing="ij"))

    def measure(image: np.ndarray) -> Matches:
        return matcher.match(
            optical,
            image,
            row,
            col,
            size_px=SIZE_PX,
            search_px=SEARCH_PX,
            reference_kind=reference.kind,
            secondary_kind=secondary.kind,
        )

    plain = measure(sar)
    errors = []
    for shift in ((0.5, 0.0), (0.37, -0.61), (-2.25, 3.75)):
        moved = measure(shifted(sar, shift))
        errors.append(np.hypot(*(moved.offset_px - plain.offset_px - shift).T))
    error = np.concatenate(errors)
    sure = np.tile(plain.confidence >= 0.5, 3)
    return {
        "closure_median_px": float(np.median(error)),
        "closure_p95_px": float(np.quantile(error, 0.95)),
        "closure_sure_median_px": float(np.median(error[sure])),
        "closure_sure_p95_px": float(np.quantile(error[sure], 0.95)),
    }


def swap(folder: Path, matcher: Matcher) -> dict[str, object]:
    """Corner distance (px) between the inverse of one direction and the other."""
    there = crosstie.register(folder / "s2_tci.tif", folder / "s1_vh.tif", matcher=matcher)
    back = crosstie.register(folder / "s1_vh.tif", folder / "s2_tci.tif", matcher=matcher)
    grid = there.registration.grid
    assert grid is not None
    box = grid.boundingbox
    corners = np.array([[x, y] for x in (box.left, box.right) for y in (box.bottom, box.top)])
    gap = back.correction.apply(there.correction.apply(corners)) - corners
    return {"swap_worst_corner_px": float(np.hypot(*gap.T).max() / grid.affine.a)}


def about(centre: np.ndarray, east_m: float, north_m: float, rotation_deg: float, scale: float) -> Affine:
    """Rotation and scale about a point, then a shift: map coordinates to map coordinates."""
    x, y = centre
    turn = Affine.rotation(rotation_deg) @ Affine.scale(1 + scale)
    return Affine.translation(x + east_m, y + north_m) @ turn @ Affine.translation(-x, -y)


def resampled(pixels: np.ndarray, profile: dict, transform: Affine, warp: Affine, path: Path) -> None:
    """Write the image with `warp` applied to what it shows, resampled (cubic) on its own grid."""
    from rasterio.warp import Resampling, reproject

    out = np.zeros_like(pixels)
    crs = profile["crs"]
    reproject(
        pixels, out, src_transform=warp @ transform, src_crs=crs, dst_transform=transform, dst_crs=crs,
        src_nodata=0, dst_nodata=0, resampling=Resampling.cubic,
    )  # fmt: skip
    with rasterio.open(path, "w", **(profile | {"driver": "GTiff"})) as file:
        file.write(out)


def truth_field(folder: Path) -> tuple[np.ndarray, float]:
    """Offsets (2, rows, cols) in px at the nodes, NaN where unknown, and their spacing in px."""
    with rasterio.open(folder / "truth_offsets.tif") as truth, rasterio.open(folder / "s1_vh.tif") as image:
        return truth.read(), truth.transform.a / image.transform.a


def at_nodes(field: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Bilinear values (N, 2) of a field (2, rows, cols) at places (N, 2): column and row of nodes."""
    return np.column_stack([map_coordinates(band, place[:, ::-1].T, order=1) for band in field])


def truth_at(folder: Path, px: np.ndarray) -> np.ndarray:
    """True offsets (N, 2) in px at pixel positions (N, 2), NaN where unknown."""
    field, step_px = truth_field(folder)
    return at_nodes(field, px / step_px)


def truth_nodes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) in px and offsets (N, 2) in px of the nodes whose truth is known."""
    field, step_px = truth_field(folder)
    row, col = np.nonzero(np.isfinite(field).all(0))
    return np.column_stack((col, row)) * step_px, field[:, row, col].T.astype(np.float64)


def rms(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(1).mean()))


if __name__ == "__main__":
    main()
