from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, settings
from odc.geo.geobox import GeoBox

from crosstie.flows.runs.prefect_env import prepare
from crosstie.types import (
    AffineCorrection,
    Error,
    Estimate,
    Model,
    Provenance,
    Reason,
    Registration,
    TiePoints,
    Verdict,
    VerdictCode,
    pair_key,
)

REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"

LONGEST_FIRST = ("test_real_scene.py", "test_run.py", "test_image_steps.py", "test_hpc.py", "test_runbook.py")
"""Files that take minutes: begun last, one would keep one process busy with nothing left for the other."""

# A busy machine is no fault of the code.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

UTM_GRID = GeoBox((1000, 1200), Affine(10, 0, 600_000, 0, -10, 3_300_000), "EPSG:32614")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST_FIRST)


@pytest.fixture(autouse=True)
def logs_are_open() -> None:
    """Take off the handlers whose stream is closed: Prefect's keeps that of the command which set it up."""
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in list(getattr(logger, "handlers", ())):
            if getattr(getattr(handler, "stream", None), "closed", False):
                logger.removeHandler(handler)


@pytest.fixture(autouse=True, scope="module")
def log_level_stays() -> Iterator[None]:
    """A run in the tests' own process makes the log say more; the next module's does not."""
    logger = logging.getLogger("crosstie")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True, scope="module")
def environment_of_the_module() -> Iterator[None]:
    """A run in the tests' own process sets variables for Prefect and Dask; they end with the module."""
    with _environment_kept():
        yield


@pytest.fixture(autouse=True)
def environment_of_the_test() -> Iterator[None]:
    """What a test's own run sets, no other test of the module inherits."""
    with _environment_kept():
        yield


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own for Prefect, in this process and in those that it starts.

    Prefect reads its environment when it is imported: a test asks for this before it imports a flow.
    """
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "400")  # its tables are made first
        prepare(verbose=False)
        yield home


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scenes, pairs and chips, beside the checkout."""
    if not (REAL_DATA / "scenes" / "catalog.json").is_file():
        pytest.skip(f"needs the real scenes in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def make_registration() -> Callable[..., Registration]:
    """Maker of registrations with known truth: every used tie point is off by exactly what `affine` mends."""

    def make(
        *,
        affine: Sequence[float] = (1.0, 2e-4, -640.0, -2e-4, 1.0, 135.0),
        code: VerdictCode = VerdictCode.CORRECTED,
        reasons: tuple[Reason, ...] = (),
        n: int = 150,
        grid: GeoBox | None = UTM_GRID,
        secondary_hrefs: tuple[str, ...] = ("s1.tif",),
        secondary_id: str = "S1A_IW",
    ) -> Registration:
        rng = np.random.default_rng(7)
        fitted = AffineCorrection(Model.AFFINE if n else Model.IDENTITY, tuple(affine), np.eye(6) * 1e-8)
        row, col = rng.integers(0, 900, n), rng.integers(0, 1100, n)
        xy_m = np.column_stack([600_050.0 + 10 * col, 3_299_950.0 - 10 * row])
        to_secondary = ~Affine(*affine)
        offset_m = np.array([to_secondary @ tuple(p) for p in xy_m]).reshape(-1, 2) - xy_m
        used = np.arange(n) % 5 > 0
        offset_m[~used] += rng.normal(0, 80, (int((~used).sum()), 2))
        points = TiePoints(xy_m, offset_m, np.full(n, 2.0), rng.random(n), row, col)
        applied = fitted if code is VerdictCode.CORRECTED else AffineCorrection.identity()
        residual_m = applied.apply(xy_m + offset_m) - xy_m
        median = np.median(offset_m[used], axis=0) if used.any() else (np.nan, np.nan)
        estimate = Estimate(
            verdict=Verdict(code, reasons),
            correction=applied,
            fitted=fitted,
            used=used,
            residual_m=residual_m,
            error_before=Error(24.0, 35.5) if n else Error(np.nan, np.nan),
            error_after=Error(3.25, 4.5) if n else Error(np.nan, np.nan),
            median_offset_m=(float(median[0]), float(median[1])),
        )
        return Registration(
            pair_key=pair_key("S2B_L1C", secondary_id),
            run_key="0123456789abcdef",
            reference_id="S2B_L1C",
            reference_hrefs=("https://me:pw@example.org/s2.tif?sig=XYZ&v=1",),
            secondary_id=secondary_id,
            secondary_hrefs=secondary_hrefs,
            grid=grid,
            planned=2 * n,
            points=points,
            estimate=estimate,
            provenance=Provenance(
                versions=(("crosstie", "0.1.0"), ("torch", "2.13.0")),
                weights_sha256="ab" * 32,
                settings_hash="cd" * 8,
                created_utc=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                seconds=8.25,
            ),
        )

    return make
