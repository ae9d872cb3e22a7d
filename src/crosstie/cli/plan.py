"""A plan of pairs in the forms in which commands give it: a table, JSON, GeoJSON, GeoParquet."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstie.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.config import Settings
    from crosstie.io.pairing.pair_scenes import PairPlan
    from crosstie.types import ScenePair

PLAN_SCHEMA = "crosstie/plan/1"


class PairsFormat(StrEnum):
    """Form of the plan."""

    TABLE = "table"
    GEOJSON = "geojson"
    GEOPARQUET = "geoparquet"


def write_parquet(plan: PairPlan, done: set[str] | None, to: Path) -> list[Path]:
    """Write the pairs to a file and the scenes left out to one beside it; return both."""
    from crosstie.io.pairing.pair_scenes import left_out_frame

    beside = to.with_suffix(".left_out.parquet")
    prepare_file(to)
    _frame(plan, done).to_parquet(to)
    left_out_frame(plan).to_parquet(beside)
    return [to, beside]


def prepare_file(path: Path) -> None:
    """Make a file and its folder.

    Raises
    ------
    SettingsError
        It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as problem:
        raise SettingsError(
            f"--to {path}: cannot be written ({problem.strerror}); give another path"
        ) from None


def _frame(plan: PairPlan, done: set[str] | None):  # type: ignore[no-untyped-def]
    from crosstie.io.pairing.pair_scenes import plan_frame

    frame = plan_frame(plan)
    if done is not None:
        frame["done"] = frame["pair_key"].isin(done)
    return frame


def geojson(plan: PairPlan, done: set[str] | None) -> str:
    """Pairs as features; the scenes left out are a foreign member, which GeoJSON allows."""
    import json

    tree = json.loads(_frame(plan, done).to_json())
    return json.dumps(tree | {"left_out": _scenes_left_out(plan)}) + "\n"


def plan_json(plan: PairPlan, done: set[str] | None, *, catalog: str) -> dict[str, Any]:
    """Values fit for JSON, schema `crosstie/plan/1`."""
    return {
        "schema": PLAN_SCHEMA,
        "catalog": catalog,
        "pairs": [
            {**_pair(pair, done), "overlap_pct": 100 * share}
            for pair, share in zip(plan.pairs, plan.overlap, strict=True)
        ],
        "left_out": _scenes_left_out(plan),
    }


def pairs_json(pairs: Sequence[ScenePair], done: set[str], *, catalog: str) -> dict[str, Any]:
    """As `plan_json`, where only the pairs are known."""
    return {
        "schema": PLAN_SCHEMA,
        "catalog": catalog,
        "pairs": [_pair(pair, done) for pair in pairs],
        "left_out": None,
    }


def _pair(pair: ScenePair, done: set[str] | None) -> dict[str, Any]:
    from crosstie.io.pairing.pair_scenes import gap_days

    said = {
        "pair_key": pair.key,
        "reference": pair.reference.id,
        "secondary": pair.secondary.id,
        "gap_days": gap_days(pair),
    }
    return said if done is None else said | {"done": pair.key in done}


def _scenes_left_out(plan: PairPlan) -> list[dict[str, str]]:
    return [{"scene": o.scene, "rule": o.rule, "why": o.why} for o in plan.left_out]


def text_table(
    pairs: Sequence[ScenePair], overlap: Sequence[float] | None = None, done: set[str] | None = None
) -> str:
    """Plain text, because rich is slow: a plan may have a hundred thousand rows."""
    from crosstie.io.pairing.pair_scenes import gap_days

    if not pairs:
        return ""
    keys = [pair.key for pair in pairs]
    width = max(map(len, keys))
    shares = [""] * len(keys) if overlap is None else [f"  {share:>5.0%}" for share in overlap]
    head = f"{'pair':<{width}}  days apart" + ("" if overlap is None else "  overlap")
    lines = [head + ("" if done is None else "  state")]
    for key, pair, share in zip(keys, pairs, shares, strict=True):
        state = "" if done is None else "  already done" if key in done else "  to do"
        lines.append(f"{key:<{width}}  {gap_days(pair):>+10.1f}{share}{state}".replace("%", " %"))
    return "\n".join(lines) + "\n"


def nothing_there(settings: Settings) -> str:
    """Say that a catalog has no scene where and when one was asked for."""
    query = settings.catalog
    asked = []
    if query.bbox is not None or query.intersects is not None:
        asked.append("in that area")
    if query.start_utc is not None or query.end_utc is not None:
        asked.append("at that time")
    return f"the catalog has no scene {' '.join(asked) or 'of the collections and kinds that are asked for'}"
