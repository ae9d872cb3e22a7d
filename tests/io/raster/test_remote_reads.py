"""What one pair costs at the server: requests, and bytes against the blocks that its tiles need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import boto3
import numpy as np
import pytest
import rasterio.shutil
from counting_proxy import CountingProxy, counting
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from read_costs import needed_bytes
from s3_server import s3_server

from crosstie.config import load_settings
from crosstie.flows.registration.measure import ALIGN_PX
from crosstie.flows.registration.pipeline import InProcess, register_plan
from crosstie.flows.registration.plan import TilePlan, plan_pair
from crosstie.flows.registration.publish import PairNames, assemble, publish
from crosstie.io.raster import RasterSource, open_pair, read_plane
from crosstie.io.storage.s3 import S3Options
from crosstie.io.storage.store import open_store
from crosstie.matcher.matching import Matches
from crosstie.types import Kind

pytestmark = [pytest.mark.server, pytest.mark.real]

FILES = ("s2_tci.tif", "s1_vh.tif")


class Steady:
    """Finds every tile off by (3, -2) px, at once: reading is what is measured."""

    weights_sha256 = "0" * 64
    halo_px = 2 * ALIGN_PX

    def match(self, reference, secondary, rows, cols, **about) -> Matches:
        n = len(rows)
        scatter = np.random.default_rng([int(rows[0]), int(cols[0])]).normal(0, 0.1, (n, 2))
        return Matches(np.array([3.0, -2.0]) + scatter, np.full(n, 0.2), np.full(n, 0.9))

    def offset_probability(self, reference, secondary, *, search_px: int, **about) -> NDArray[np.float32]:
        found = np.zeros((2 * search_px + 1,) * 2, np.float32)
        found[search_px, search_px] = 1
        return found


@pytest.fixture(scope="module")
def scenes(real_data: Path) -> Iterator[Callable[[str], str]]:
    """A server with the files of a scene in the bucket `scenes`; gives its address."""
    with s3_server("scenes") as server:

        def upload(scene: str) -> str:
            for name in FILES:
                server.client.upload_file(
                    str(real_data / "scenes" / scene / name), "scenes", f"{scene}/{name}"
                )
            return server.url

        yield upload


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")


def register(scene: str, storage: S3Options, out: Path) -> TilePlan:
    """All that `crosstie register` does, with a matcher that takes no time."""
    settings = load_settings()
    sources = open_pair(*(f"s3://scenes/{scene}/{name}" for name in FILES), storage=storage)
    plan = plan_pair(*sources, settings)
    measured = register_plan(plan, InProcess(Steady()), settings)
    names = PairNames("s2", "s1", sources[0].hrefs, sources[1].hrefs)
    registration = assemble(names, plan, measured, settings, weights_sha256="0" * 64, seconds=1)
    publish(open_store(str(out)), registration, plan, names, settings)
    return plan


def test_a_pair_is_fetched_once(scenes: Callable[[str], str], real_data: Path, tmp_path: Path):
    scene = "T14RNT-2048"
    with counting(scenes(scene)) as proxy:
        plan = register(scene, S3Options(endpoint=proxy.url), tmp_path)
        first = Tally.of(proxy)
        local = real_data / "scenes" / scene
        needed = needed_bytes(plan, local / FILES[0], local / FILES[1])
        assert needed.full_resolution > 0.9 * 5.68e6  # its tiles cover the scene: the bound is a real one
        assert first.bytes <= 1.3 * needed.full_resolution
        assert first.bytes <= 1.1 * needed.with_overviews
        assert first.requests <= 60
        assert {passed.method for passed in proxy.log} == {"GET"}
        assert {passed.status for passed in proxy.log} == {206}
        # What was fetched is kept: the same pair again costs nothing.
        register(scene, S3Options(endpoint=proxy.url), tmp_path / "again")
        assert Tally.of(proxy) == first


@pytest.mark.slow
def test_a_raster_without_overviews_is_fetched_once_for_plan_and_tiles(
    scenes: Callable[[str], str], real_data: Path, tmp_path: Path
):
    scene = "T11SMT"
    with counting(scenes(scene)) as proxy:
        plan = register(scene, S3Options(endpoint=proxy.url), tmp_path)
        local = real_data / "scenes" / scene
        needed = needed_bytes(plan, local / FILES[0], local / FILES[1])
        assert proxy.received() <= 1.3 * needed.full_resolution


FETCH_TWICE = """
import sys
from crosstie.io.raster import open_source, read_plane
from crosstie.io.storage.s3 import S3Options

first, endpoint, href = sys.argv[1:]
source = open_source(first)
read_plane(source, source.geobox[:64, :64])
for _ in range(2):
    source = open_source(href, storage=S3Options(endpoint=endpoint))
    read_plane(source, source.geobox[:6144])
"""


@pytest.mark.slow
def test_what_is_kept_does_not_depend_on_what_was_opened_first(
    scenes: Callable[[str], str], real_data: Path, tmp_path: Path
):
    """GDAL sizes its cache at the first remote file of a process, be it one that a local VRT names."""
    scene = "T11SMT"
    with counting(scenes(scene)) as proxy:
        signed = boto3.client("s3", endpoint_url=proxy.url, region_name="us-east-1").generate_presigned_url(
            "get_object", {"Bucket": "scenes", "Key": f"{scene}/{FILES[0]}"}
        )
        optical, sar = (real_data / "scenes" / scene / name for name in FILES)
        vrt = tmp_path / "s2.vrt"
        rasterio.shutil.copy(optical, vrt, driver="VRT")
        text = vrt.read_text()
        assert f">{optical}<" in text
        vrt.write_text(text.replace(f">{optical}<", f">{escape(f'/vsicurl/{signed}')}<"))
        ask = [vrt, proxy.url, f"s3://scenes/{scene}/{FILES[1]}"]
        subprocess.run([sys.executable, "-c", FETCH_TWICE, *ask], check=True)
        assert proxy.log[0].path.endswith(FILES[0])
        assert proxy.received(FILES[1]) <= sar.stat().st_size


def test_the_planes_are_those_of_the_files(scenes: Callable[[str], str], real_data: Path):
    scene = "T14RNT-2048"
    with counting(scenes(scene)) as proxy:
        remote = open_pair(
            *(f"s3://scenes/{scene}/{name}" for name in FILES), storage=S3Options(endpoint=proxy.url)
        )
        local = open_pair(*(real_data / "scenes" / scene / name for name in FILES))
        for there, here in zip(remote, local, strict=True):
            for grid in (here.geobox[300:900, 700:1500], _small(here.geobox)):
                np.testing.assert_array_equal(read_plane(there, grid), read_plane(here, grid))


def test_plan_and_report_are_read_by_whom_they_are_told(
    scenes: Callable[[str], str], real_data: Path, tmp_path: Path
):
    """So that the process that reads the tiles can read these, too, and nothing is fetched by two."""
    scene = "T14RNT-2048"
    asked: list[Kind] = []

    def elsewhere(source: RasterSource, geobox: GeoBox) -> NDArray[np.float32]:
        asked.append(source.kind)
        here = open_pair(*(real_data / "scenes" / scene / name for name in FILES))
        return read_plane(here[0] if source.kind is Kind.OPTICAL else here[1], geobox)

    settings = load_settings()
    with counting(scenes(scene)) as proxy:
        sources = open_pair(
            *(f"s3://scenes/{scene}/{name}" for name in FILES), storage=S3Options(endpoint=proxy.url)
        )
        headers = Tally.of(proxy)
        assert headers.requests == 2
        plan = plan_pair(*sources, settings, read=elsewhere)
        assert asked == [Kind.OPTICAL, Kind.SAR]
        assert Tally.of(proxy) == headers
        local = plan_pair(*open_pair(*(real_data / "scenes" / scene / name for name in FILES)), settings)
        assert plan.tiles == local.tiles
        measured = register_plan(local, InProcess(Steady()), settings)
        names = PairNames("s2", "s1", sources[0].hrefs, sources[1].hrefs)
        registration = assemble(names, plan, measured, settings, weights_sha256="0" * 64, seconds=1)
        publish(open_store(str(tmp_path)), registration, plan, names, settings, read=elsewhere)
        assert asked == [Kind.OPTICAL, Kind.SAR] * 2
        assert Tally.of(proxy) == headers


class Tally(tuple[int, int]):
    """(requests, bytes) so far."""

    @classmethod
    def of(cls, proxy: CountingProxy) -> Tally:
        return cls((proxy.requests(), proxy.received()))

    @property
    def requests(self) -> int:
        return self[0]

    @property
    def bytes(self) -> int:
        return self[1]


def _small(grid: GeoBox) -> GeoBox:
    return grid.zoom_out(4)
