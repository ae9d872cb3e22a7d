"""What training buys: label efficiency, ablations of the published method, equal wall time, adaptation.

    python benchmarks/matcher/experiments.py ../shared/data labels    --steps 600 --seeds 0 1 2
    python benchmarks/matcher/experiments.py ../shared/data ablations --steps 200
    python benchmarks/matcher/experiments.py ../shared/data published --minutes 20
    python benchmarks/matcher/experiments.py ../shared/data adapt     --steps 300

labels     the crosstie configuration with all labels, with 1/16 of them, and with 1/16 and pseudo-labels
ablations  the small s2m2 network with all mends, and with one thing taken away each time
published  the published preset and the crosstie configuration, the same data for the same wall time
adapt      the shipped weights trained on without labels, on land they have not seen (`ombria`, unlabelled)

Every variant of one experiment has the same steps (or minutes), batches and seeds, learns from Los Angeles
(T11SLT, T11SMT, west of the hold-out line) and sebast144, and is measured on Texas, which none has seen, on
tiles of 192 px (and 128 and 64 px where the network has no fixed template). Runs are resumable: each has a
folder under --out, and a variant that is done is not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import HELD_OUT_PLACES, Site, ombria_chips, ombria_site, texas_site
from trials import KINDS

from crosstie.flows.registration.load_matcher import available_cores, keep_freed_memory
from crosstie.flows.training.data import TrainingData, read_data
from crosstie.matcher.calibration import Calibration
from crosstie.matcher.matching import Matcher
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.s2m2.learner import S2M2Learner
from crosstie.matcher.s2m2.settings import S2M2Settings
from crosstie.matcher.training.learner import CrosstieLearner
from crosstie.matcher.training.loop import Learner, train
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.matcher.training.unlabelled import UnlabelledScene
from crosstie.matcher.weights import load, save
from crosstie.train_settings import LabelledSettings, PictureSettings, TrainSettings
from crosstie.types import Kind

SEARCH_PX = 32
LINE_EAST_M = -13_062_627.0
"""Hold-out line of the shipped weights: the small mountainous part east of it is never learnt from."""
EVERY_PX = 128
"""Spacing of the tiles that are measured."""
ALL_MENDS = "s2m2, all mends"


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of an experiment."""

    name: str
    learner: Learner
    plan: TrainingPlan
    labels: float = 1.0
    """Share of the labelled places that keep their label."""
    pseudo: bool = True
    from_shipped: bool = False
    """Whether training begins with the shipped weights."""
    trained: bool = True
    """Whether it is trained at all."""
    network_of: str = ""
    """Variant whose network this one is: only what is read from its heatmaps differs."""
    read_by: Learner | None = None
    """What reads the heatmaps, where it is not the learner itself."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with scenes/ and pairs/")
    parser.add_argument("experiment", choices=("labels", "ablations", "published", "adapt"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--minutes", type=float, default=20, help="`published`: wall time of each variant")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--width", choices=("published", "small"), help="of the s2m2 network")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--markdown", type=Path, help="also write the table there")
    parser.add_argument("--picture", type=Path, help="also draw the shares of right tiles there, as PNG")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(available_cores())
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for variant in VARIANTS[arguments.experiment](arguments):
            plan = replace(variant.plan, seed=seed)
            row = run(replace(variant, plan=plan), arguments)
            rows.append({"variant": variant.name, "seed": seed, **row})
            print(json.dumps(rows[-1]), flush=True)
    table = markdown(rows)
    print("\n" + table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(table)
    if arguments.picture:
        from dots import draw_dots  # matplotlib is slow to load

        draw_dots(rows, arguments.picture)


def labels(arguments: argparse.Namespace) -> Iterator[Variant]:
    """All labels, a sixteenth, a sixteenth with pseudo-labels; equal steps."""
    steps = arguments.steps
    plan = TrainingPlan(steps=steps, burn_in=steps // 3, evaluate_every=steps)
    learner = CrosstieLearner()
    yield Variant("all labels", learner, plan, pseudo=False)
    yield Variant("1/16 of the labels", learner, plan, labels=1 / 16, pseudo=False)
    yield Variant("1/16 of the labels + pseudo-labels", learner, plan, labels=1 / 16)


def ablations(arguments: argparse.Namespace) -> Iterator[Variant]:
    """The mended s2m2 network, and without one of its parts or mends each; four only read it otherwise."""
    whole = S2M2Settings.mended(arguments.width or "small")
    plan = s2m2_plan(arguments.steps, arguments.width or "small")
    guarded = S2M2Learner(settings=whole)
    yield Variant(ALL_MENDS, guarded, plan)
    for name, settings in (
        ("deep alone predicts", replace(whole, prediction="deep")),
        ("shallow alone predicts", replace(whole, prediction="shallow")),
        ("whole pixels", replace(whole, peak="integer")),
        ("nearest in prediction", replace(whole, prediction_upsampling="nearest")),
    ):
        reader = replace(guarded, settings=settings)
        yield Variant(name, guarded, plan, network_of=ALL_MENDS, read_by=reader)
    yield Variant("no pseudo-labels", guarded, plan, pseudo=False)
    yield Variant("no guards on pseudo-labels", replace(guarded, guarded=False), replace(plan, burn_in=0))
    for name, settings in (
        ("no enhancement", replace(whole, enhancement=False)),
        ("no independence loss", replace(whole, independence=False)),
        ("deep cells stretched", replace(whole, deep_cells="stretched")),
        ("min-max for NCC", replace(whole, normalisation="min_max")),
        ("grey values for input", replace(whole, inputs="raw")),
    ):
        yield Variant(name, replace(guarded, settings=settings), plan)
    published_learner = S2M2Learner(settings=S2M2Settings.published(whole.width), guarded=False)
    yield Variant("published preset", published_learner, replace(plan, burn_in=0))


def published(arguments: argparse.Namespace) -> Iterator[Variant]:
    """The published preset as published, and ours; each for `--minutes`."""
    width = arguments.width or "published"
    plan = replace(s2m2_plan(1, width), burn_in=0, learning_rate=1e-4 if width == "published" else 1e-3)
    settings = S2M2Settings.published(width)
    yield Variant(f"published preset, {width} width", S2M2Learner(settings=settings, guarded=False), plan)
    yield Variant("crosstie", CrosstieLearner(), TrainingPlan())


def adapt(arguments: argparse.Namespace) -> Iterator[Variant]:
    """The shipped weights, and the same trained on with nothing but unlabelled pairs."""
    plan = TrainingPlan(
        steps=arguments.steps, burn_in=0, learning_rate=3e-4, unlabelled_batch=12,
        unlabelled_weight=1.0, evaluate_every=arguments.steps,
    )  # fmt: skip
    yield Variant("shipped", CrosstieLearner(), plan, from_shipped=True, trained=False)
    yield Variant("adapted to ombria, unlabelled", CrosstieLearner(), plan, from_shipped=True)


VARIANTS: dict[str, Callable[[argparse.Namespace], Iterator[Variant]]] = {
    "labels": labels,
    "ablations": ablations,
    "published": published,
    "adapt": adapt,
}


def s2m2_plan(steps: int, width: str) -> TrainingPlan:
    """As published, 1 labelled and 15 unlabelled pairs a step; in the small width 4 and 4, for two cores.

    The published learning rate of 1e-5 is for 160,000 steps; with a few hundred it would move nothing.
    """
    small = width == "small"
    return TrainingPlan(
        steps=steps,
        batch=4 if small else 1,
        unlabelled_batch=4 if small else 3,
        unlabelled_rounds=1 if small else 5,
        burn_in=steps // 3,
        learning_rate=1e-3 if small else 1e-4,
        weight_decay=0.1,
        crop_px=256,
        evaluate_every=max(1, steps),
        watched="cmr1_192",
    )


def run(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one variant, unless its folder says that it is done, and measure it."""
    done = folder_of(variant.name, variant, arguments) / "figures.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    done.parent.mkdir(parents=True, exist_ok=True)
    folder = folder_of(variant.network_of or variant.name, variant, arguments)
    adapting = arguments.experiment == "adapt"
    data = archive(arguments.data) if adapting else los_angeles(arguments.data, variant)
    start = load(None).network.state_dict() if variant.from_shipped else None
    plan = variant.plan
    if arguments.experiment == "published":
        plan = timed(variant, data, folder, minutes=arguments.minutes)
    began = time.monotonic()
    if variant.trained:
        network = train(
            data.scenes, (), plan, folder, learner=variant.learner, unlabelled=data.unlabelled,
            start_from=start,
        )  # fmt: skip
        if adapting:  # for `crosstie evaluate`, with the confidence of the shipped ones
            facts = {"experiment": variant.name}
            save(folder / "adapted.safetensors", network, load(None).calibration, facts=facts)
    else:
        network = load(None).network
    row: dict[str, Any] = {
        "steps": plan.steps if variant.trained else 0,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    row |= figures(variant.read_by or variant.learner, network.eval(), arguments.data, with_ombria=adapting)
    done.write_text(json.dumps(row))
    return row


def folder_of(name: str, variant: Variant, arguments: argparse.Namespace) -> Path:
    slug = "".join(c if c.isalnum() else "-" for c in name)
    folder: Path = arguments.out / arguments.experiment / f"{slug}-{variant.plan.seed}"
    return folder


def timed(variant: Variant, data: TrainingData, folder: Path, *, minutes: float) -> TrainingPlan:
    """The plan with as many steps as fit into the minutes, by timing some without and with pseudo-labels."""
    probe = folder / "probe"
    seconds = []
    for burn_in in (4, 0):
        shutil.rmtree(probe, ignore_errors=True)
        plan = replace(variant.plan, steps=4, burn_in=burn_in, evaluate_every=100)
        clock = Clock()
        train(
            data.scenes, (), plan, probe, learner=variant.learner, unlabelled=data.unlabelled, progress=clock
        )
        seconds.append(clock.seconds_per_step())
    shutil.rmtree(probe, ignore_errors=True)
    if variant.plan.burn_in == 0:
        return replace(variant.plan, steps=max(1, round(60 * minutes / seconds[1])))
    # A third of the steps without pseudo-labels, two thirds with.
    steps = max(3, round(60 * minutes / (seconds[0] / 3 + 2 * seconds[1] / 3)))
    return replace(variant.plan, steps=steps, burn_in=steps // 3, evaluate_every=steps)


class Clock:
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def __call__(self, _step: int, _figures: dict[str, float]) -> None:
        self.ended.append(time.monotonic())

    def seconds_per_step(self) -> float:
        """Without the first, which loads and compiles."""
        return (self.ended[-1] - self.ended[0]) / (len(self.ended) - 1)


def los_angeles(data: Path, variant: Variant) -> TrainingData:
    """Labelled places west of the line and the pictures; as many labels as the variant keeps."""
    return read_data(
        TrainSettings(
            labelled=LabelledSettings(
                scenes=(data / "scenes" / "T11SLT", data / "scenes" / "T11SMT"),
                hold_out_east_m=LINE_EAST_M,
                share=variant.labels,
            ),
            pictures=PictureSettings(
                folders=(data / "pairs" / "sebast144",), hold_out_places=HELD_OUT_PLACES
            ),
            plan=variant.plan,
            use_unlabelled=variant.pseudo,
        )
    )


def archive(data: Path) -> TrainingData:
    """Chips of `ombria` that may be adapted to, without a label."""
    chips = ombria_chips(data / "pairs" / "ombria", role="unlabelled")
    return TrainingData(
        (),
        (),
        tuple(
            UnlabelledScene(
                np.clip(255 * chip.optical[None], 0, 255).astype(np.uint8),
                np.isfinite(chip.optical),
                chip.sar_db.astype(np.float16),
                np.array([[128.0, 128.0]]),
            )
            for chip in chips
        ),
    )


def figures(learner: Learner, network: Any, data: Path, *, with_ombria: bool) -> dict[str, float]:
    """CMR@1/2, median and time of each template size on Texas, and on the ombria test places."""
    found: dict[str, float] = {}
    texas = data / "scenes" / "T14RNT-2048"
    if isinstance(learner, S2M2Learner):
        site = texas_site(texas, size_px=192, search_px=SEARCH_PX, stride_px=EVERY_PX)
        return summary("texas_192", *measure_s2m2(learner, network, site, size_px=192))
    matcher = as_matcher(network)
    for size in (192, 128, 64):
        site = texas_site(texas, size_px=size, search_px=SEARCH_PX, stride_px=EVERY_PX)
        found |= summary(f"texas_{size}", *measure_ours(matcher, [site], size_px=size))
    if with_ombria:
        for size in (192, 128, 64):
            rng = np.random.default_rng(0)
            chips = ombria_chips(data / "pairs" / "ombria", role="test")
            sites = [ombria_site(chip, size_px=size, search_px=SEARCH_PX, rng=rng) for chip in chips]
            found |= summary(f"ombria_{size}", *measure_ours(matcher, sites, size_px=size))
    return found


def as_matcher(network: MatchingNetwork) -> Matcher:
    """A matcher whose confidence is not calibrated: offsets alone are asked for."""
    uncalibrated = Calibration(np.zeros(5), np.zeros(4), np.zeros(2))
    return Matcher.of(network, uncalibrated, weights_sha256="", device="cpu")


def measure_ours(
    matcher: Matcher, sites: Sequence[Site], *, size_px: int
) -> tuple[NDArray[np.float64], float]:
    """Errors (N,) in px and milliseconds a tile, dense features included."""
    matcher.features(sites[0].optical, Kind.OPTICAL)  # the first pass pays for what is set up once
    began = time.perf_counter()
    found = [
        matcher.match(
            site.optical, site.sar_db, site.rows, site.cols, size_px=size_px, search_px=SEARCH_PX, **KINDS
        ).offset_px
        for site in sites
    ]
    truth = np.concatenate([site.truth_px for site in sites])
    elapsed = 1e3 * (time.perf_counter() - began) / len(truth)
    return np.hypot(*(np.concatenate(found) - truth).T), elapsed


def measure_s2m2(
    learner: S2M2Learner, network: Any, site: Site, *, size_px: int
) -> tuple[NDArray[np.float64], float]:
    """The same for a network that takes chips; one at a time, as its features depend on the partner."""
    optical = learner.prepare(site.optical, Kind.OPTICAL)
    sar = learner.prepare(site.sar_db, Kind.SAR)
    errors, began = [], time.perf_counter()
    side = size_px + 2 * SEARCH_PX
    for n, (row, col) in enumerate(zip(site.rows, site.cols, strict=True)):
        window = (
            slice(row - SEARCH_PX, row - SEARCH_PX + side),
            slice(col - SEARCH_PX, col - SEARCH_PX + side),
        )
        offset = learner.offsets(network, optical[window][None, None], sar[window][None, None], "cpu")
        errors.append(offset[0] - site.truth_px[n])
    return np.hypot(*np.array(errors).T), 1e3 * (time.perf_counter() - began) / len(errors)


def summary(name: str, error_px: NDArray[np.float64], ms: float) -> dict[str, float]:
    return {
        f"{name}_cmr1": float((error_px <= 1).mean()),
        f"{name}_cmr2": float((error_px <= 2).mean()),
        f"{name}_median_px": float(np.median(error_px)),
        f"{name}_ms": ms,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line a variant: mean over seeds and, with several, the spread (largest less smallest)."""
    names = [n for n in rows[0] if n not in {"variant", "seed"}]
    lines = ["| variant | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        cells = []
        for name in names:
            values = [float(row[name]) for row in mine]
            percent = name.endswith(("cmr1", "cmr2"))
            text = f"{100 * np.mean(values):.1f} %" if percent else f"{np.mean(values):.3g}"
            if len(values) > 1:
                text += f" (±{(100 if percent else 1) * np.ptp(values) / 2:.2g})"
            cells.append(text)
        lines.append(f"| {variant} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
