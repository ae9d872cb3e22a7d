"""The displacement field of a real scene against its truth field, next to what was delivered and the affine.

    python benchmarks/field.py ../shared/data/scenes/T14RNT-2048 [--secondary s1_vh_refined.tif]

RMS, median and 95 % of the error (px), over nodes of the truth within 96 px of a tie point that the field
uses, of one that the affine uses, of one with a confidence of at least 0.3, and over all nodes; the block of
1,024 px where the field does worst against the affine; and the error that the field reports as a share of the
true one.
The truth carries 0.7 to 0.9 px of noise, and is clipped at 20 px an axis in steep land.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from accuracy import SIZE_PX, rms, truth_nodes
from scipy.spatial import cKDTree

import crosstie
from crosstie.estimation.field.fit import fit_field, trend_offset
from crosstie.flows.registration.load_matcher import load_matcher

NEAR_PX, BLOCK_PX, LEAST_NODES, STRIDE_PX = 96, 1024, 10, 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the scene")
    parser.add_argument("--secondary", default="s1_vh.tif", help="s1_vh_refined.tif: the truth is zero")
    arguments = parser.parse_args()
    matcher = load_matcher(crosstie.Settings())
    found = crosstie.register(
        arguments.folder / "s2_tci.tif", arguments.folder / arguments.secondary, matcher=matcher
    )
    print(json.dumps(figures(arguments.folder, arguments.secondary, found.registration), indent=1))


def figures(folder: Path, secondary: str, registration: crosstie.types.Registration) -> dict[str, object]:
    """Everything that is printed, from the tie points of one registration."""
    points, estimate, grid = registration.points, registration.estimate, registration.grid
    assert grid is not None
    pixel_m = float(grid.affine.a)
    fit = fit_field(points, estimate, grid, tile_px=SIZE_PX, stride_px=STRIDE_PX)
    out: dict[str, object] = {
        "offered": fit.report.offered,
        "reason": str(fit.report.reason),
        "points_used": fit.report.used,
        "coverage": round(fit.report.coverage, 3),
        "held_out_rmse_px": round(fit.report.error_held_out.rmse_m / pixel_m, 3),
        "reported_rmse_px": round(fit.report.error_after.rmse_m / pixel_m, 3),
    }
    nodes, truth = truth_nodes(folder)
    truth = truth * [1, -1] if secondary == "s1_vh.tif" else np.zeros_like(truth)
    xy = np.column_stack(grid.affine @ (nodes[:, 0], nodes[:, 1]))
    affine = trend_offset(estimate.fitted, xy) / pixel_m
    field = affine
    if fit.field is not None:
        offset = fit.field.at(xy)[0] / pixel_m
        field = np.where(np.isnan(offset), affine, offset)
    of = {"field": fit.used, "affine": estimate.used, "sure": points.confidence >= 0.3}
    near = {
        name: cKDTree(points.xy_m[mask]).query(xy)[0] <= NEAR_PX * pixel_m
        for name, mask in of.items()
        if mask.any()
    }
    for name, where in (near | {"all_nodes": np.ones(len(xy), np.bool_)}).items():
        error = {"delivered": -truth, "affine": affine - truth, "field": field - truth}
        block = np.ravel_multi_index((nodes[where] // BLOCK_PX).astype(np.int64).T, (1000, 1000))
        out[name] = {model: summary(left[where]) for model, left in error.items()} | {
            "nodes": int(where.sum()),
            "worst_block": worst(error["field"][where], error["affine"][where], block),
            "reported_by_true": round(
                fit.report.error_after.rmse_m / pixel_m / rms(error["field"][where]), 2
            ),
        }
    return out


def summary(error_px: np.ndarray) -> list[float]:
    """RMS, median, 95 %."""
    length = np.hypot(*error_px.T)
    return [round(float(v), 3) for v in (rms(error_px), np.median(length), np.quantile(length, 0.95))]


def worst(field: np.ndarray, affine: np.ndarray, block: np.ndarray) -> float:
    """Largest quotient of the two RMS in a block of enough nodes."""
    names, count = np.unique(block, return_counts=True)
    quotients = [rms(field[block == n]) / rms(affine[block == n]) for n in names[count >= LEAST_NODES]]
    return round(max(quotients, default=float("nan")), 2)


if __name__ == "__main__":
    main()
