"""The displacement field of a real scene against its truth field, next to what was delivered and the affine.

    python benchmarks/field.py ../shared/data/scenes/T14RNT-2048 [--secondary s1_vh_refined.tif]
    python benchmarks/field.py ../shared/data/scenes/T14RNT-2048 --picture docs/field.png

RMS, median and 95 % of the error (px), over nodes of the truth within 96 px of a tie point that the field
uses, of one that the affine uses, of one with a confidence of at least 0.3, and over all nodes; the block of
1,024 px where the field does worst against the affine; and the error that the field reports as a share of the
true one.
The truth carries 0.7 to 0.9 px of noise, and is clipped at 20 px an axis in steep land.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from accuracy import SIZE_PX, rms, truth_nodes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

import crosstie
from crosstie.estimation.field.fit import fit_field, trend_offset
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.types import FieldFit, Registration

NEAR_PX, BLOCK_PX, LEAST_NODES, STRIDE_PX = 96, 1024, 10, 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the scene")
    parser.add_argument("--secondary", default="s1_vh.tif", help="s1_vh_refined.tif: the truth is zero")
    parser.add_argument("--picture", type=Path, help="draw the error at each node of the truth, here")
    arguments = parser.parse_args()
    matcher = load_matcher(crosstie.Settings())
    found = crosstie.register(
        arguments.folder / "s2_tci.tif", arguments.folder / arguments.secondary, matcher=matcher
    )
    errors = Errors.of(arguments.folder, arguments.secondary, found.registration)
    print(json.dumps(figures(errors, found.registration), indent=1))
    if arguments.picture:
        arguments.picture.write_bytes(errors_png(errors))


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """What is left at the nodes of the truth, and the field that left it."""

    nodes_px: np.ndarray
    """(N, 2) x, y in the common grid."""
    xy_m: np.ndarray
    """(N, 2) the same on the map."""
    left_px: dict[str, np.ndarray]
    """(N, 2) by what is applied: delivered, affine, field."""
    fit: FieldFit

    @classmethod
    def of(cls, folder: Path, secondary: str, registration: Registration) -> Self:
        """Fit the field to the tie points of a registration and compare it with the truth."""
        grid = registration.grid
        assert grid is not None
        pixel_m = float(grid.affine.a)
        fit = fit_field(
            registration.points, registration.estimate, grid, tile_px=SIZE_PX, stride_px=STRIDE_PX
        )
        nodes, truth = truth_nodes(folder)
        truth = truth * [1, -1] if secondary == "s1_vh.tif" else np.zeros_like(truth)
        xy = np.column_stack(grid.affine @ (nodes[:, 0], nodes[:, 1]))
        affine = field = trend_offset(registration.estimate.fitted, xy) / pixel_m
        if fit.field is not None:
            offset = fit.field.at(xy)[0] / pixel_m
            field = np.where(np.isnan(offset), affine, offset)
        left = {"delivered": -truth, "affine": affine - truth, "field": field - truth}
        return cls(nodes, xy, left, fit)


def figures(errors: Errors, registration: Registration) -> dict[str, object]:
    """Everything that is printed."""
    points, report = registration.points, errors.fit.report
    assert registration.grid is not None
    pixel_m = float(registration.grid.affine.a)
    reported_px = report.error_after.rmse_m / pixel_m
    out: dict[str, object] = {
        "offered": report.offered,
        "reason": str(report.reason),
        "points_used": report.used,
        "coverage": round(report.coverage, 3),
        "held_out_rmse_px": round(report.error_held_out.rmse_m / pixel_m, 3),
        "reported_rmse_px": round(reported_px, 3),
    }
    of = {"field": errors.fit.used, "affine": registration.estimate.used, "sure": points.confidence >= 0.3}
    near = {
        name: cKDTree(points.xy_m[mask]).query(errors.xy_m)[0] <= NEAR_PX * pixel_m
        for name, mask in of.items()
        if mask.any()
    }
    for name, where in (near | {"all_nodes": np.ones(len(errors.xy_m), np.bool_)}).items():
        left = {model: error[where] for model, error in errors.left_px.items()}
        block = np.ravel_multi_index((errors.nodes_px[where] // BLOCK_PX).astype(np.int64).T, (1000, 1000))
        out[name] = {model: summary(error) for model, error in left.items()} | {
            "nodes": int(where.sum()),
            "worst_block": worst(left["field"], left["affine"], block),
            "reported_by_true": round(reported_px / rms(left["field"]), 2),
        }
    return out


def errors_png(errors: Errors) -> bytes:
    """Draw the length of the error at each node: as delivered, after the affine, after the field."""
    figure = Figure(figsize=(12, 4.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    titles = ("As delivered", "After the affine", "After the displacement field")
    for panel, title, error in zip(axes, titles, errors.left_px.values(), strict=True):
        length = np.hypot(*error.T)
        drawn = panel.scatter(
            *errors.nodes_px.T, c=length, s=26, marker="s", vmin=0, vmax=5, cmap="viridis_r", linewidths=0
        )
        panel.set_title(f"{title}\nRMS {rms(error):.2f} px, median {np.median(length):.2f} px")
        panel.set(aspect="equal", xlabel="column, px")
    axes[0].invert_yaxis()
    axes[0].set_ylabel("row, px")
    figure.colorbar(drawn, ax=axes, label="distance from the truth field, px (5 and more)", shrink=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


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
