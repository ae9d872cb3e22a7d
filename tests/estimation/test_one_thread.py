"""The linear algebra of a pair is done by one thread, and the process gets its threads back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from odc.geo.geobox import GeoBox
from threadpoolctl import threadpool_info, threadpool_limits

from crosstie.estimation import estimate, verdict
from crosstie.estimation.field import fit
from crosstie.io.simulation.tie_points import PIXEL_M, Hazard, simulate_tie_points

SCENE = simulate_tie_points(3, 1, size_px=1024, hazard=Hazard.RELIEF)
TILING = {"tile_px": SCENE.tile_px, "stride_px": SCENE.stride_px}
GRID = GeoBox.from_bbox(
    (*SCENE.corners_m.min(axis=0), *SCENE.corners_m.max(axis=0)), "EPSG:32631", shape=(1024, 1024)
)


def blas_threads() -> set[int]:
    """Threads that each BLAS of this process may use."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@contextmanager
def seen_in(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[int]]]:
    """Note the threads at each call of a function."""
    seen: list[set[int]] = []
    real: Callable[..., Any] = getattr(module, name)

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.append(blas_threads())
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, noting)
    yield seen


def test_a_pair_is_estimated_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        with seen_in(verdict, "climb", monkeypatch) as climbing:
            found = estimate(SCENE.points, planned=SCENE.planned, pixel_m=PIXEL_M, **TILING)
        with seen_in(fit, "choose", monkeypatch) as smoothing:
            fit.fit_field(SCENE.points, found, GRID, **TILING)
        assert climbing == [{1}]
        assert smoothing
        assert set.union(*smoothing) == {1}
        assert blas_threads() == {2}


def test_what_ends_in_an_error_gives_the_threads_back() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        with pytest.raises(ValueError, match="must be positive"):
            estimate(SCENE.points, planned=1, pixel_m=0, tile_px=1, stride_px=1)
        assert blas_threads() == {2}
