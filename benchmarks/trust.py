"""How far results can be trusted: false corrections, false "aligned", power, ellipses, sigma, confidence.

    python benchmarks/trust.py --scenes 2000 --seed 1 --pixels 60 --out ../trust
    python benchmarks/trust.py --out ../trust --crops 75 --scene ../shared/data/scenes/T14RNT-2048
    python benchmarks/trust.py --out ../trust --picture docs/trust.png        # the figures again

Three kinds of simulated scenes, each with a known truth, and never mixed in one figure:

tie points  thousands of scenes whose tie points are drawn: noise that overlapping tiles share, wrong matches,
            relief of a random terrain, hidden and changed ground, unrelated pairs. They test estimation.
pixels      some tens of pairs of pictures of a made-up land, through planning, the shipped matcher and
            estimation. They test the whole.
crops       512 px of a real pair that has been aligned, the SAR shifted by its geotransform: every third by
            nothing, the others by up to 8 px an axis. The truth is the shift; what the alignment left is
            relief. There are no affines in it: those that are found are not there.

Every scene is a line of `tie_points.jsonl`, `pixels.jsonl` or `crops.jsonl` in the folder. A run that was
stopped goes on where it ended, and a larger number adds to what is there. `trust.json` has all figures,
`trust.md` the table.

The truth of a scene with relief can be understood in two ways, and both are told: `ground`, the affine that
lies closest to the true displacement over the whole scene, which is what a correction is for; `sensor`, the
error that was given to the scene, with all of its relief as an error of the correction.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window
from scipy.stats import chi2

import crosstie
from crosstie.estimation import estimate
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.flows.registration.pipeline import InProcess, PairMeasurement, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.io.plots.trust import trust_png
from crosstie.io.raster import open_pair
from crosstie.io.simulation.hazards import endangered_pair
from crosstie.io.simulation.tie_points import PIXEL_M, Hazard, simulate_tie_points
from crosstie.matcher.matching import Matcher
from crosstie.types import AffineCorrection, Estimate, Model, TiePoints

FAR_PX = 1.0
"""A correction that leaves more than this at a corner is false; so is "aligned" of a scene so far off."""

PIXEL_SIZES_PX = (512, 768, 1024)
CROP_PX, CROP_SHIFT_PX = 512, 8.0
IN_95 = float(chi2.ppf(0.95, 2))
POWER_PX = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CONFIDENCE = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=0, help="scenes of drawn tie points, in all")
    parser.add_argument("--pixels", type=int, default=0, help="scenes with pixels, in all")
    parser.add_argument("--crops", type=int, default=0, help="crops of a real scene, in all")
    parser.add_argument("--scene", type=Path, help="folder of that scene: s2_tci.tif and s1_vh_refined.tif")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and figures")
    parser.add_argument("--picture", type=Path, help="draw the figures here as well")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    seed = arguments.seed
    drawn = go_on(arguments.out / "tie_points.jsonl", seed, arguments.scenes, of_tie_points)
    pipeline = Pipeline()
    pictures = go_on(arguments.out / "pixels.jsonl", seed, arguments.pixels, Pictures(pipeline))
    crops = go_on(arguments.out / "crops.jsonl", seed, arguments.crops, Crops(pipeline, arguments.scene))
    kinds = {"tie_points": drawn, "pixels": pictures, "crops": crops}
    parts = {name: figures(rows) for name, rows in kinds.items() if rows}
    (arguments.out / "trust.json").write_text(json.dumps({"seed": seed, **parts}, indent=1) + "\n")
    text = "\n".join(table(name, part) for name, part in parts.items())
    (arguments.out / "trust.md").write_text(text)
    print(text)
    if parts:
        picture = trust_png(parts)
        (arguments.picture or arguments.out / "trust.png").write_bytes(picture)


def go_on(path: Path, seed: int, count: int, scene: Callable[[int, int], Row]) -> list[Row]:
    """Add the scenes that a file of lines lacks, each as soon as it is done; all rows of this seed."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [row for row in rows if row["seed"] == seed]
    done = {row["index"] for row in rows}
    with path.open("a") as file:
        for index in range(count):
            if index not in done:
                rows.append({"seed": seed, "index": index, **scene(seed, index)})
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    return rows


def of_tie_points(seed: int, index: int) -> Row:
    """One scene of drawn tie points."""
    scene = simulate_tie_points(seed, index)
    found = estimate(
        scene.points,
        planned=scene.planned,
        pixel_m=PIXEL_M,
        tile_px=scene.tile_px,
        stride_px=scene.stride_px,
    )
    about = {"hazard": scene.hazard, "size_px": scene.size_px, "relief_px": scene.relief_px}
    return about | judged(found, scene.corners_m, scene.best_affine, scene.true_affine)


class Pipeline:
    """Planning, the shipped matcher and estimation; the matcher is loaded with the first pair."""

    def __init__(self) -> None:
        self.settings = crosstie.Settings.model_validate({"products": {"displacement": "never"}})
        self.matcher: Matcher | None = None

    def register(self, optical: Picture, sar: Picture) -> PairMeasurement:
        self.matcher = self.matcher or load_matcher(self.settings)
        with tempfile.TemporaryDirectory() as folder:
            images = [Path(folder) / name for name in ("s2.tif", "s1.tif")]
            for path, picture in zip(images, (optical, sar), strict=True):
                picture.write(path)
            plan = plan_pair(*open_pair(*images), self.settings)
            return register_plan(plan, InProcess(self.matcher), self.settings)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image with its place on the map."""

    bands: np.ndarray
    crs: str
    transform: Affine

    def write(self, path: Path) -> None:
        count, rows, cols = self.bands.shape
        with rasterio.open(
            path, "w", driver="GTiff", dtype=self.bands.dtype, count=count, height=rows, width=cols,
            crs=self.crs, transform=self.transform, nodata=0,
        ) as file:  # fmt: skip
            file.write(self.bands)

    @property
    def corners_m(self) -> np.ndarray:
        """(4, 2)"""
        _, rows, cols = self.bands.shape
        return mapped(self.transform, np.array([[0, 0], [cols, 0], [0, rows], [cols, rows]], np.float64))


@dataclass(frozen=True, slots=True)
class Pictures:
    """Simulated scenes with pixels: hazards and sizes in turn."""

    pipeline: Pipeline

    def __call__(self, seed: int, index: int) -> Row:
        hazards = list(Hazard)
        made = endangered_pair(
            seed,
            index,
            size_px=PIXEL_SIZES_PX[index // len(hazards) % len(PIXEL_SIZES_PX)],
            hazard=hazards[index % len(hazards)],
        )
        crs, transform = str(made.pair.grid.crs), made.pair.grid.affine
        optical = Picture(made.optical, crs, transform)
        done = self.pipeline.register(optical, Picture(made.sar[None], crs, transform))
        row: Row = {"hazard": made.hazard, "size_px": made.pair.grid.shape[0]}
        if made.hazard is Hazard.NONE:
            row |= of_points(done.points, made.best_affine)
        return row | judged(done.estimate, optical.corners_m, made.best_affine, made.pair.true_affine)


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops of an aligned scene, shifted by known amounts."""

    pipeline: Pipeline
    folder: Path | None

    def __call__(self, seed: int, index: int) -> Row:
        if self.folder is None:
            raise SystemExit("--crops needs --scene FOLDER, with s2_tci.tif and s1_vh_refined.tif in it")
        rng = np.random.default_rng([seed, index])
        east, north = rng.uniform(-CROP_SHIFT_PX, CROP_SHIFT_PX, 2) * PIXEL_M * (index % 3 > 0)
        wrong = Affine.translation(float(east), float(north))
        optical, sar = self.crop(rng, "s2_tci.tif"), self.crop(rng, "s1_vh_refined.tif")
        done = self.pipeline.register(optical, replace(sar, transform=wrong @ sar.transform))
        row: Row = {"hazard": Hazard.NONE, "size_px": CROP_PX}
        return row | judged(done.estimate, optical.corners_m, ~wrong, ~wrong)

    def crop(self, rng: np.random.Generator, name: str) -> Picture:
        """Window of an image; the same for both, because the place is drawn from a copy."""
        assert self.folder is not None
        place = copy.deepcopy(rng)
        with rasterio.open(self.folder / name) as file:
            row, col = (int(place.integers(0, side - CROP_PX + 1)) for side in file.shape)
            bands = file.read(window=Window(col, row, CROP_PX, CROP_PX))
            return Picture(bands, str(file.crs), file.transform @ Affine.translation(col, row))


def judged(found: Estimate, corners: np.ndarray, ground: Affine, sensor: Affine) -> Row:
    """Compare a result at the corners of the scene with both truths; px."""
    row: Row = {
        "verdict": found.verdict.code,
        "reasons": list(found.verdict.reasons),
        "model": found.correction.model,
        "true_px": longest(corners - mapped(ground, corners)),
    }
    for name, truth in (("ground", ground), ("sensor", sensor)):
        row[f"error_{name}_px"] = longest(found.correction.apply(corners) - mapped(truth, corners))
        for which, one in (("applied", found.correction), ("fitted", found.fitted)):
            if one.model is not Model.IDENTITY:
                row[f"{which}_{name}"] = squared_lengths(one, corners, truth)
    return row


def of_points(points: TiePoints, truth: Affine) -> Row:
    """What sigma and confidence of the tie points are worth, without relief."""
    error = points.offset_m - (mapped(~truth, points.xy_m) - points.xy_m)
    good = points.confidence >= CONFIDENCE[0]
    z = np.abs(error[good] / points.sigma_m[good, None])
    within = np.hypot(*error.T) <= PIXEL_M
    binned = np.digitize(points.confidence, CONFIDENCE[:-1])
    return {
        "sigma": [float((z <= limit).sum()) for limit in (1, 2)] + [z.size],
        "confidence": [
            [
                int((binned == n).sum()),
                float(points.confidence[binned == n].sum()),
                int(within[binned == n].sum()),
            ]
            for n in range(1, len(CONFIDENCE))
        ],
    }


def mapped(affine: Affine, xy: np.ndarray) -> np.ndarray:
    return np.stack(affine @ (xy[:, 0], xy[:, 1]), axis=1)


def longest(vectors_m: np.ndarray) -> float:
    return float(np.hypot(*vectors_m.T).max() / PIXEL_M)


def squared_lengths(found: AffineCorrection, corners: np.ndarray, truth: Affine) -> list[float]:
    """Of the errors at the corners, in their covariances: 2 on average, above 5.99 in 5 %."""
    error = found.apply(corners) - mapped(truth, corners)
    row = np.hstack([corners, np.ones((len(corners), 1))])
    covariance = np.einsum("ci,aibj,cj->cab", row, found.covariance.reshape(2, 3, 2, 3), row)
    return [round(float(v), 4) for v in np.einsum("ca,cab,cb->c", error, np.linalg.inv(covariance), error)]


def figures(rows: list[Row]) -> Row:
    """All figures of one kind of scene: of all, by hazard, and by size."""
    out: Row = {"all": part(rows)}
    out["hazard"] = {h.value: part([r for r in rows if r["hazard"] == h]) for h in Hazard}
    sizes = sorted({row["size_px"] for row in rows})
    out["size_px"] = {str(size): part([r for r in rows if r["size_px"] == size]) for size in sizes}
    out["power"] = {str(size): power([r for r in rows if r["size_px"] == size]) for size in sizes}
    with_points = [row for row in rows if "sigma" in row]
    if with_points:
        one, two, count = np.sum([row["sigma"] for row in with_points], axis=0)
        out["sigma"] = {"within_1": one / count, "within_2": two / count, "count": int(count)}
        bins = np.sum([row["confidence"] for row in with_points], axis=0)
        out["confidence"] = [
            {"count": int(n), "said": said / n, "within_1px": seen / n} for n, said, seen in bins if n
        ]
    return out


def part(rows: list[Row]) -> Row:
    """Figures of some scenes. Shares are of the scenes that they are about; None where there are none."""
    related = [row for row in rows if row["hazard"] != Hazard.UNRELATED]
    corrected = [row for row in rows if row["verdict"] == "corrected"]
    aligned = [row for row in related if row["verdict"] == "already_aligned"]
    unrelated = [row for row in rows if row["hazard"] == Hazard.UNRELATED]
    out: Row = {
        "scenes": len(rows),
        "corrected": len(corrected),
        "aligned": sum(row["verdict"] == "already_aligned" for row in rows),
        "unreliable": sum(row["verdict"] == "unreliable" for row in rows),
        "unrelated_accepted": sum(row["verdict"] != "unreliable" for row in unrelated),
        "false_aligned": share(row["true_px"] > FAR_PX for row in aligned),
    }
    for truth in ("ground", "sensor"):
        out[f"false_corrections_{truth}"] = share(row[f"error_{truth}_px"] > FAR_PX for row in corrected)
        for which in ("applied", "fitted"):
            name = f"{which}_{truth}"  # nothing is applied unless a scene is corrected
            held = [row[name] for row in related if name in row]
            out[f"ellipse_{which}_{truth}"] = share(v <= IN_95 for row in held for v in row)
    return out


def share(values: Iterable[bool]) -> float | None:
    found = list(values)
    return round(float(np.mean(found)), 4) if found else None


def power(rows: list[Row]) -> list[Row]:
    """Share of scenes that are corrected, by how far they are off; unrelated pairs aside."""
    rows = [row for row in rows if row["hazard"] != Hazard.UNRELATED]
    out = []
    for low, high in zip(POWER_PX, (*POWER_PX[1:], np.inf), strict=True):
        here = [row for row in rows if low <= row["true_px"] < high]
        if here:
            middle = float(np.median([row["true_px"] for row in here]))
            corrected = share(row["verdict"] == "corrected" for row in here)
            out.append({"true_px": middle, "scenes": len(here), "corrected": corrected})
    return out


def table(name: str, found: Row) -> str:
    """Markdown of one kind of scene."""
    head = (
        f"| {name.replace('_', ' ')} | scenes | corrected / aligned / unreliable | false corrections, %"
        " | false aligned, % | in the 95 % ellipse: applied, % | fitted, % |\n|---|---|---|---|---|---|---|\n"
    )
    lines = []
    groups = {"all": found["all"]} | found["hazard"] | {f"{k} px": v for k, v in found["size_px"].items()}
    for group, row in groups.items():
        if not row["scenes"]:
            continue
        both = {
            key: " / ".join(percent(row[f"{key}_{truth}"]) for truth in ("ground", "sensor"))
            for key in ("false_corrections", "ellipse_applied", "ellipse_fitted")
        }
        lines.append(
            f"| {group} | {row['scenes']} | {row['corrected']} / {row['aligned']} / {row['unreliable']} | "
            f"{both['false_corrections']} | {percent(row['false_aligned'])} | {both['ellipse_applied']} | "
            f"{both['ellipse_fitted']} |"
        )
    return head + "\n".join(lines) + "\n"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
