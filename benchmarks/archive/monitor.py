"""What the monitor notices, and how often it is wrong, on simulated series of scenes.

    python benchmarks/archive/monitor.py [--scatter 3.0]

One scene every 12 days (6 for the drift, two satellites), the network's sigma 0.4 m. Scatter of dates is 3 m
unless said otherwise; drifts are asked at several, for a drift hides in the scatter.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import beta

from crosstie.estimation.change_points import (
    MonitorSettings,
    Scatter,
    Series,
    pooled_shift,
    scatter_of,
    watch,
)

SIGMA_M, STEP_DAYS, DRAWS = 0.4, 12.0, 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scatter", type=float, default=3.0, help="of dates, metres per axis (default 3)")
    scatter_m = parser.parse_args().scatter
    rng = np.random.default_rng(0)
    false_alarms(rng, scatter_m)
    jumps(rng, scatter_m)
    drifts(rng)
    processors(rng, scatter_m)


def still(rng: np.random.Generator, n: int, scatter_m: float, step_days: float = STEP_DAYS) -> Series:
    position = rng.normal(0, np.hypot(SIGMA_M, scatter_m), (n, 2))
    return Series("series", np.arange(n) * step_days, position, np.full(n, SIGMA_M))


def moved(one: Series, by: np.ndarray) -> Series:
    return Series(one.name, one.days, one.position_m + by, one.sigma_m)


def false_alarms(rng: np.random.Generator, scatter_m: float) -> None:
    for rate in (1e-3, 1e-2):
        stable = [still(rng, 100, scatter_m) for _ in range(50)]
        shared = scatter_of(stable)
        settings = MonitorSettings(false_alarms_per_scene=rate)
        count, scenes = sum(len(watch(one, shared, settings)) for one in stable), 5000
        low = beta.ppf(0.025, count, scenes - count + 1) if count else 0.0
        high = beta.ppf(0.975, count + 1, scenes - count)
        print(
            f"false alarms, rate set {100 * rate:g} %: {count} in {scenes} stable scenes = "
            f"{100 * count / scenes:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f} %)"
        )


def jumps(rng: np.random.Generator, scatter_m: float) -> None:
    for size in (5.0, 10.0, 20.0):
        delays = []
        for _ in range(DRAWS):
            one = still(rng, 40, scatter_m)
            jumped = moved(one, np.where(np.arange(40)[:, None] >= 20, [0.8 * size, 0.6 * size], 0.0))
            found = [alarm.at for alarm in watch(jumped, Scatter(scatter_m, 1000)) if alarm.at >= 20]
            delays.append(found[0] - 20 + 1 if found else np.inf)
        within = np.mean(np.array(delays) <= 3)
        print(
            f"jump of {size:g} m: {100 * within:.0f} % noticed within 3 scenes, median {np.median(delays):g}"
        )


def drifts(rng: np.random.Generator) -> None:
    for scatter_m, step in ((0.4, 12.0), (0.4, 6.0), (1.0, 6.0), (2.0, 6.0)):
        seen = []
        for _ in range(DRAWS):
            one = still(rng, int(365 / step) + 1, scatter_m, step)
            drifting = moved(one, np.outer(one.days / 365.25, [1.6, -1.2]))
            seen.append(bool(watch(drifting, Scatter(scatter_m, 1000))))
        print(
            f"drift of 2 m a year, dates scatter by {scatter_m:g} m, every {step:g} days: "
            f"{100 * np.mean(seen):.0f} % noticed within a year"
        )


def processors(rng: np.random.Generator, scatter_m: float) -> None:
    found, false = [], []
    asked = np.arange(60, 330, 30.0)
    for _ in range(DRAWS // 2):
        places = [still(rng, 30, scatter_m) for _ in range(20)]
        change = 15 * STEP_DAYS
        new = [moved(one, np.where(one.days[:, None] >= change, [3.0, 0.0], 0.0)) for one in places]
        told, quiet = pooled_shift(new, asked), pooled_shift(places, asked)
        found.append(told is not None and told.probability < 1e-3 and told.days == change)
        false.append(quiet is not None and quiet.probability < 1e-3)
    print(
        f"processor change of 3 m at one of {len(asked)} dates, 20 places: {100 * np.mean(found):.0f} % "
        f"noticed and dated at 0.1 %, {100 * np.mean(false):.0f} % where nothing changed"
    )


if __name__ == "__main__":
    main()
