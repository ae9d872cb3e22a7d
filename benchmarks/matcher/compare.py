"""The shipped matcher beside classical ones: same tiles, same search, one run, one thread.

    python benchmarks/matcher/compare.py ../shared/data

texas     the scene as delivered, all tiles of a lattice; truth of a classical dense matcher, 0.7 px noisy, so
          it favours its kind
ombria    pairs of 7 places that nothing was trained on: one tile a pair, cut where a seeded draw says, the
          true offset anywhere in the search. 256 px is left out: the search does not fit in the chips, and
          the outline of what is missing would show where the tile belongs

CMR@T is the share of tiles found within T px. CPU is that of one thread, per tile; of crosstie it includes
the dense features of the scene, shared by all tiles of the lattice, also where only every N-th is asked for.
On chips of one tile nothing is shared. `sure` is the share of tiles with a confidence of at least 0.5.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from classical import METHODS
from peers import PANDORA2D, find_pandora2d, pandora2d
from scenes import load_on_one_thread, ombria_chips, ombria_site, parser_of, sealed, texas_site
from trials import CROSSTIE, Measured, Trial, measure_classical, measure_crosstie

from crosstie.matcher.matching import Matcher

MISS_PX = 2.0
SURE = 0.5


def main() -> None:
    arguments = _parse()
    methods: list[str] = arguments.methods
    if PANDORA2D in methods and find_pandora2d(arguments.pandora2d) is None:
        print("pandora2d: not installed (its command is not on the path; --pandora2d says where), left out")
        methods.remove(PANDORA2D)
    matcher = load_on_one_thread(arguments.weights) if CROSSTIE in methods else None
    print(f"weights {matcher.weights_sha256[:12]}" if matcher else "no weights", flush=True)
    trials = []
    for trial in _trials(arguments, matcher, find_pandora2d(arguments.pandora2d)):
        trials.append(trial)
        print(f"\n{trial.name}, {trial.size_px} px, +-{trial.search_px} px, {len(trial.truth_px)} tiles")
        print(_aligned(_table([trial])), flush=True)
    if places := [trial for trial in trials if trial.name.startswith("ombria")]:
        print("\nCMR@2 by place, %\n" + _aligned(_place_table(places)))
    if arguments.markdown:
        arguments.markdown.write_text(_markdown(_table(trials)) + "\n" + _markdown(_place_table(places)))
    if arguments.json:
        body = {"weights_sha256": matcher.weights_sha256 if matcher else None, "trials": _figures(trials)}
        arguments.json.write_text(json.dumps(body, indent=1) + "\n")
    if arguments.misses:
        from misses import draw_misses  # matplotlib is slow to load

        tests = [trial for trial in trials if trial.name == "ombria test"]
        count = draw_misses(tests, arguments.misses, miss_px=MISS_PX)
        print(f"\n{count} misses of {methods[0]} drawn to {arguments.misses}")


def _parse() -> argparse.Namespace:
    parser = parser_of(__doc__)
    names = (CROSSTIE, *METHODS, PANDORA2D)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 192, 128, 64], help="sides of tiles, px"
    )
    parser.add_argument("--search-px", type=int, default=32, help="reach of the search per axis, px")
    parser.add_argument("--stride-px", type=int, default=64, help="between tiles of the Texas scene, px")
    parser.add_argument("--every", type=int, default=1, help="only each N-th tile of the Texas scene")
    parser.add_argument("--draws", type=int, default=1, help="tiles cut from each ombria pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", choices=("texas", "ombria"), default=["texas", "ombria"])
    parser.add_argument("--methods", nargs="+", choices=names, default=[CROSSTIE, *METHODS])
    parser.add_argument("--sealed", action="store_true", help="hide from crosstie what lies outside the tile")
    parser.add_argument("--pandora2d", type=Path, help="its command, where that is not on the path")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--misses", type=Path, help="draw what the first method missed on ombria test pairs")
    return parser.parse_args()


def _trials(arguments: argparse.Namespace, matcher: Matcher | None, peer: str | None) -> Iterator[Trial]:
    if "texas" in arguments.sets:
        yield from _texas_trials(arguments, matcher, peer)
    if "ombria" in arguments.sets:
        yield from _ombria_trials(arguments, matcher)


def _texas_trials(
    arguments: argparse.Namespace, matcher: Matcher | None, peer: str | None
) -> Iterator[Trial]:
    """All tiles of the scene, one trial a tile size."""
    search_px: int = arguments.search_px
    for size_px in arguments.sizes:
        whole = texas_site(
            arguments.data / "scenes" / "T14RNT-2048",
            size_px=size_px,
            search_px=search_px,
            stride_px=arguments.stride_px,
        )
        trial = Trial("texas", size_px, search_px, [whole.every(arguments.every)], {})
        for method in arguments.methods:
            if method == PANDORA2D:
                # Its lattice is regular: all tiles are measured, and those asked for are kept.
                found, seconds = pandora2d(str(peer), whole, size_px=size_px, search_px=search_px)
                trial.measured[method] = Measured(found[:: arguments.every], 1e3 * seconds / len(whole.rows))
            elif matcher is not None and method == CROSSTIE and not arguments.sealed:
                # Its features are shared by all tiles, also where only every N-th is asked for.
                found = measure_crosstie(matcher, [whole], size_px=size_px, search_px=search_px)
                trial.measured[method] = Measured(
                    found.offset_px[:: arguments.every],
                    found.cpu_ms,
                    found.features_ms,
                    found.confidence[:: arguments.every],
                )
            else:
                trial.measured[method] = _measure(method, matcher, trial, arguments.sealed)
        yield trial


def _ombria_trials(arguments: argparse.Namespace, matcher: Matcher | None) -> Iterator[Trial]:
    """Tiles cut from chips, one trial a role and tile size."""
    search_px: int = arguments.search_px
    for role in ("test", "unlabelled"):
        chips = ombria_chips(arguments.data / "pairs" / "ombria", role=role)
        for size_px in arguments.sizes:
            if size_px + 2 * search_px > chips[0].optical.shape[0]:
                continue
            rng = np.random.default_rng(arguments.seed)
            sites = [
                ombria_site(chip, size_px=size_px, search_px=search_px, rng=rng)
                for chip in chips
                for _ in range(arguments.draws)
            ]
            trial = Trial(f"ombria {role}", size_px, search_px, sites, {})
            for method in arguments.methods:
                if method != PANDORA2D:  # it measures a lattice of points in a whole scene
                    trial.measured[method] = _measure(method, matcher, trial, arguments.sealed)
            yield trial


def _measure(method: str, matcher: Matcher | None, trial: Trial, hide: bool) -> Measured:
    sizes = {"size_px": trial.size_px, "search_px": trial.search_px}
    if method == CROSSTIE:
        assert matcher is not None
        sites = [part for site in trial.sites for part in sealed(site, **sizes)] if hide else trial.sites
        return measure_crosstie(matcher, sites, **sizes)
    return measure_classical(METHODS[method], trial.sites, **sizes)


def _figures(trials: Sequence[Trial]) -> list[dict[str, object]]:
    return [
        {
            "set": trial.name,
            "size_px": trial.size_px,
            "search_px": trial.search_px,
            "tiles": len(trial.truth_px),
        }
        | {method: _summary(trial, method) for method in trial.measured}
        for trial in trials
    ]


def _summary(trial: Trial, method: str) -> dict[str, object]:
    measured, error = trial.measured[method], trial.error_px(method)
    given = error[np.isfinite(error)]
    figures: dict[str, object] = {f"cmr_{t}": float((error <= t).mean()) for t in (1, 2, 5)}
    figures |= {
        "median_px": float(np.median(error)),
        "mean_distance_px": float(given.mean()),
        "rmse_px": float(np.sqrt((given**2).mean())),
        "cpu_ms": measured.cpu_ms,
        "features_ms": measured.features_ms,
    }
    if measured.confidence is not None:
        sure = measured.confidence >= SURE
        figures |= {
            "sure_share": float(sure.mean()),
            **{f"sure_cmr_{t}": float((error[sure] <= t).mean()) for t in (1, 2) if sure.any()},
            "mean_confidence": float(measured.confidence.mean()),
        }
    if trial.name.startswith("ombria"):
        figures["cmr_2_by_place"] = {
            str(place): float((error[trial.places == place] <= 2).mean()) for place in np.unique(trial.places)
        }
    return figures


HEADER = (
    "set", "size", "method", "tiles", "CMR@1", "CMR@2", "CMR@5", "median", "mean", "RMSE", "CPU ms",
    "features", "sure", "sure CMR@1", "sure CMR@2",
)  # fmt: skip


def _table(trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    rows = [HEADER]
    for trial in trials:
        for method in trial.measured:
            f = _summary(trial, method)
            shares = (_percent(f[f"cmr_{t}"]) for t in (1, 2, 5))
            distances = (f"{f[name]:.2f}" for name in ("median_px", "mean_distance_px", "rmse_px"))
            features = "" if f["features_ms"] is None else f"{f['features_ms']:.1f}"
            sure = (_percent(f.get(name)) for name in ("sure_share", "sure_cmr_1", "sure_cmr_2"))
            rows.append(
                (
                    trial.name, str(trial.size_px), method, str(len(trial.truth_px)), *shares, *distances,
                    f"{f['cpu_ms']:.1f}", features, *sure,
                )
            )  # fmt: skip
    return rows


def _place_table(trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    if not trials:
        return []
    methods = list(trials[0].measured)
    rows = [("set", "place", "size", "tiles", *methods)]
    for trial in sorted(trials, key=lambda t: (t.name, -t.size_px)):
        for place in np.unique(trial.places):
            at = trial.places == place
            shares = (_percent((trial.error_px(method)[at] <= 2).mean()) for method in methods)
            rows.append((trial.name, str(place), str(trial.size_px), str(at.sum()), *shares))
    return rows


def _percent(share: object) -> str:
    return "" if share is None else f"{100 * float(share):.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    return "".join([lines[0], "|" + "---|" * len(rows[0]) + "\n", *lines[1:]])


if __name__ == "__main__":
    main()
