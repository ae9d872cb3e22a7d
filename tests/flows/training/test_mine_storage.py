"""A catalog behind `storage.endpoint` is mined as any other: settings reach the catalog and the rasters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_proxy import counting
from s3_server import s3_server

from crosstie.flows.training.data import MINED
from crosstie.flows.training.train import mine
from crosstie.io.datasets.mined import read_mined, read_mining_index, tiles_path
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.train_settings import load_train_settings

pytestmark = pytest.mark.server


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server whose bucket `archive` holds a simulated catalog; no variable says where it is."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    folder = write_simulated_catalog(tmp_path / "catalog", scenes=1, size_px=256).parent
    with s3_server("archive") as server:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                server.client.upload_file(str(path), "archive", str(path.relative_to(folder)))
        yield server.url


def test_a_catalog_behind_an_endpoint_is_mined(upstream: str, tmp_path: Path) -> None:
    with counting(upstream) as proxy:
        settings = load_train_settings(
            options={
                "mine.catalog": "s3://archive/catalog.json",
                "mine.tile_px": 128,
                "mine.tiles_per_pair": 2,
                "mine.coarse_max_offset_m": 0,
                "storage.endpoint": proxy.url,
                "start_from": "shipped",
                "device": "cpu",
                "out": tmp_path / "run",
            }
        )
        assert mine(settings) == 1
    index = read_mining_index(settings.out / MINED)
    assert index is not None
    (key,) = index["pairs"]
    assert len(read_mined(tiles_path(settings.out / MINED, key))) == 2
    assert proxy.requests("catalog.json") > 0
    for name in ("s2_tci.tif", "s1_vh.tif"):
        assert proxy.received(name) > 0
