"""Cross-validation over places: each strip of Los Angeles measured by a network that has not seen it.

    python benchmarks/matcher/places.py ../shared/data --steps 450

The labelled places (T11SLT, T11SMT) are parted into strips from west to east with equally many places each.
One network a strip learns from the others, without those whose crops could reach across the border, and is
measured on that strip, labels as they are and templates of 192, 128 and 64 px. Beside its hits the table
says how well a confidence holds that is fitted on all other strips, each measured by its own network: its
expected calibration error (ECE), and what a perfect confidence would show on so few tiles by chance. Labels
are a classical matcher's, 0.7 to 0.9 px noisy; 0.65 px are allowed for that. Resumable: each strip has a
folder under --out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import HELD_OUT_PLACES

from crosstie.flows.registration.load_matcher import available_cores, keep_freed_memory
from crosstie.flows.training.data import places, read_pictures
from crosstie.io.datasets.labelled import LabelledScene, read_labelled
from crosstie.matcher.calibration import confidence, expected_calibration_error, fit_confidence
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.training.held_out import MeasuredTiles, measure, shares
from crosstie.matcher.training.held_out_calibration import LABEL_NOISE_PX, RIGHT_PX, joined
from crosstie.matcher.training.learner import CrosstieLearner
from crosstie.matcher.training.loop import train
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.matcher.training.samples import TrainingScene
from crosstie.matcher.training.unlabelled import UnlabelledScene

SIZES_PX = (192, 128, 64)
PIXEL_M = 10.0
DRAWS = 200
"""Simulated outcomes of a perfect confidence."""
REACH_PX = 270
"""How far a training crop may reach from the centre of its place."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with scenes/ and pairs/")
    parser.add_argument("--strips", type=int, default=4)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=40, help="of 8 crops, measured on each strip")
    parser.add_argument("--out", type=Path, default=Path("runs/places"))
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(available_cores())
    found = [measured(strip, arguments) for strip in range(arguments.strips)]
    judged = [on_the_others(strip, found) for strip in range(arguments.strips)]
    rows = [row(strip, found, *judged[strip]) for strip in range(arguments.strips)]
    print(markdown(rows) + "\n\n" + reliability(*map(np.concatenate, zip(*judged, strict=True))))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(strip: int, arguments: argparse.Namespace) -> tuple[MeasuredTiles, MeasuredTiles]:
    """Labelled and unrelated pairs of one strip, measured by the network that has not seen it."""
    folder = arguments.out / f"strip-{strip}-of-{arguments.strips}-{arguments.steps}-{arguments.seed}"
    done = folder / "measured.npz"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [read_labelled(arguments.data / "scenes" / name) for name in ("T11SLT", "T11SMT")]
        learnt, held_out = parted(scenes, strip, arguments.strips)
        network = trained(learnt, arguments, folder)
        draws = TrainingPlan().draws
        plain, unrelated = (
            measure(network, held_out, draws, sizes_px=SIZES_PX, batches=count, unrelated=apart)
            for count, apart in ((arguments.batches, False), (arguments.batches // 4, True))
        )
        np.savez(done, **columns(plain, "plain"), **columns(unrelated, "unrelated"))
        print(f"strip {strip}: {shares(np.hypot(*plain.error_px.T), 0)}", flush=True)
    with np.load(done) as file:
        return restored(file, "plain"), restored(file, "unrelated")


def parted(
    scenes: list[LabelledScene], strip: int, strips: int
) -> tuple[list[TrainingScene], list[TrainingScene]]:
    """Places to learn from, and those of the strip."""
    easting = np.concatenate([scene.centres_m[:, 0] for scene in scenes])
    low, high = np.quantile(easting, (strip / strips, (strip + 1) / strips))
    gap = 2 * REACH_PX * PIXEL_M
    learnt, held_out = [], []
    for scene in scenes:
        x = scene.centres_m[:, 0]
        learnt.append(places(scene, (x < low - gap) | (x > high + gap)))
        held_out.append(places(scene, (x >= low) & (x <= high)))
    return tuple([s for s in part if len(s.centres_px)] for part in (learnt, held_out))  # type: ignore[return-value]


def trained(learnt: list[TrainingScene], arguments: argparse.Namespace, folder: Path) -> MatchingNetwork:
    """A network of the shipped configuration, trained as the shipped one but for fewer steps."""
    steps = arguments.steps
    plan = TrainingPlan(steps=steps, burn_in=steps // 3, evaluate_every=steps)
    unlabelled = [UnlabelledScene(s.optical_rgb, s.optical_valid, s.sar_db, s.centres_px) for s in learnt]
    unlabelled += read_pictures((arguments.data / "pairs" / "sebast144",), HELD_OUT_PLACES)
    plan = replace(plan, seed=arguments.seed)
    network: MatchingNetwork = train(
        learnt, (), plan, folder, learner=CrosstieLearner(), unlabelled=unlabelled
    )
    return network.eval()


def on_the_others(
    strip: int, found: list[tuple[MeasuredTiles, MeasuredTiles]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence of the tiles of a strip by a fit on all other strips, unrelated pairs too; whether right."""
    rest = joined(*(part for n, pair in enumerate(found) if n != strip for part in pair))
    weights = fit_confidence(rest.evidence, right(rest), rest.size_px)
    here = joined(*found[strip])
    return confidence(here.evidence, here.size_px, weights), right(here)


def row(
    strip: int,
    found: list[tuple[MeasuredTiles, MeasuredTiles]],
    given: NDArray[np.float64],
    hits: NDArray[np.bool_],
) -> dict[str, float]:
    """Hits of a strip, and the calibration error of its confidence."""
    figures: dict[str, float] = {"strip": strip, "tiles": len(found[strip][0].size_px)}
    for size in SIZES_PX:
        figures |= found[strip][0].figures(size)
    rng = np.random.default_rng(0)
    by_chance = [expected_calibration_error(given, rng.random(len(given)) < given) for _ in range(DRAWS)]
    return figures | {
        "ece": expected_calibration_error(given, hits),
        "ece_by_chance": float(np.mean(by_chance)),
    }


def right(part: MeasuredTiles) -> NDArray[np.bool_]:
    """Whether each offset is within 1 px of the truth, the labels' own noise allowed for."""
    hits: NDArray[np.bool_] = np.hypot(*part.error_px.T) <= RIGHT_PX + LABEL_NOISE_PX
    return hits


def columns(part: MeasuredTiles, name: str) -> dict[str, NDArray[np.generic]]:
    return {
        f"{name}_{field}": getattr(part, field) for field in ("evidence", "spread_px", "error_px", "size_px")
    }


def restored(file: np.lib.npyio.NpzFile, name: str) -> MeasuredTiles:
    return MeasuredTiles(*(file[f"{name}_{f}"] for f in ("evidence", "spread_px", "error_px", "size_px")))


def markdown(rows: list[dict[str, float]]) -> str:
    """One line a strip, and one for their mean."""
    lines = [
        "| strip | tiles | "
        + " | ".join(f"{s} px: within 1 / 2 px" for s in SIZES_PX)
        + " | ECE | by chance |",
        "|---" * (len(SIZES_PX) + 4) + "|",
    ]
    mean = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
    for r, name in [*((r, f"{r['strip']:.0f}") for r in rows), (mean, "mean")]:
        cells = [f"{100 * r[f'cmr1_{s}']:.1f} / {100 * r[f'cmr2_{s}']:.1f} %" for s in SIZES_PX]
        errors = f"{r['ece']:.3f} | {r['ece_by_chance']:.3f}"
        lines.append(f"| {name} | {r['tiles']:.0f} | " + " | ".join(cells) + f" | {errors} |")
    return "\n".join(lines)


def reliability(given: NDArray[np.float64], hits: NDArray[np.bool_]) -> str:
    """Confidence and share of right tiles, by tenths of confidence, all strips together."""
    tenth = np.minimum((10 * given).astype(int), 9)
    lines = ["| confidence | tiles | right |", "|---" * 3 + "|"]
    for n in np.unique(tenth):
        here = tenth == n
        lines.append(f"| {given[here].mean():.2f} | {here.sum()} | {hits[here].mean():.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
