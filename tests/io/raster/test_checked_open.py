"""No file of a catalog leads to another, and none fills memory: not read, not planned with, not published.

Which guard is proven by which test (take the guard away, and the test fails):

- metadata domains (`untrusted.POINTERS`): `test_a_pointer_is_refused_wherever_the_file_is_opened`
- no siblings (`access.gdal_settings`): `test_what_lies_beside_a_catalogs_file_does_not_count`
- sides of the user's own files still count (the same line): `test_what_lies_beside_the_users_own_file_counts`
- grid shifts in a CRS (`untrusted.GRID_FILES`): `test_a_crs_that_names_files_is_refused`
- the driver once more (`untrusted.refuse_untrusted`): `test_another_driver_than_those_allowed_is_refused`
- drivers of the source in publishing (`flows.publish`, `products.render`, `vrt`):
  `test_publishing_opens_as_reading_did`
- bands, sides, samples, bytes of a block, of overviews and masks, number of images (`untrusted`), tiles and
  code-blocks of JPEG 2000 (`jpeg2000`): `test_a_bomb_is_refused_before_it_goes_off`, a case each
- what one block of the grid may ask for (`pixels.MAX_READ_SAMPLES`): `test_a_folded_grid_is_refused`
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import hostile_rasters as hostile
import numpy as np
import pytest
import rasterio
from affine import Affine
from hostile_rasters import SECRET, SHAPE, directory, tiff, vrt_of, with_side_file, write
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from crosstie.config import load_settings
from crosstie.errors import UnreadableRasterError
from crosstie.flows.registration.pipeline import InProcess, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.publish import PairNames, assemble, publish
from crosstie.io.products.vrt import corrected_vrt, place_of
from crosstie.io.raster import RasterSource, open_pair, open_source, read_plane
from crosstie.io.raster import gdal as access
from crosstie.io.raster import read as pixels
from crosstie.io.raster.gdal import IMAGE_DRIVERS, OWN_DRIVERS, opened
from crosstie.io.storage.store import open_store
from crosstie.matcher.matching import Matches
from crosstie.types import Kind

DRIVERS = {"tif": "GTiff", "jp2": "JP2OpenJPEG"}


class Steady:
    """Finds every tile off by (3, -2) px: what is read and published is under test, not the match."""

    weights_sha256 = "0" * 64
    halo_px = 16

    def match(self, reference, secondary, rows, cols, **about) -> Matches:
        n = len(rows)
        return Matches(np.tile([3.0, -2.0], (n, 1)), np.full(n, 0.2), np.full(n, 0.9))

    def offset_probability(self, reference, secondary, *, search_px: int, **about) -> NDArray[np.float32]:
        found = np.zeros((2 * search_px + 1,) * 2, np.float32)
        found[search_px, search_px] = 1
        return found


def walk(reference: Path, secondary: Path, out: Path) -> dict[str, bytes]:
    """All that the nightly run does with a pair; returns what it has published."""
    settings = load_settings(options={"tiles.size_px": 128, "tiles.stride_px": 64})
    sources = open_pair(
        str(reference),
        str(secondary),
        reference_kind=Kind.OPTICAL,
        secondary_kind=Kind.SAR,
        from_catalog=True,
    )
    plan = plan_pair(*sources, settings)
    measured = register_plan(plan, InProcess(Steady()), settings)
    names = PairNames("s2", "s1", sources[0].hrefs, sources[1].hrefs)
    registration = assemble(names, plan, measured, settings, weights_sha256="0" * 64, seconds=1)
    publish(open_store(str(out)), registration, plan, names, settings)
    return {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A service of this machine that holds the secret, and where it notes what it was asked for."""
    folder = hostile.secret(tmp_path_factory.mktemp("service")).parent
    log = folder.parent / f"{folder.name}.log"
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    with (
        log.open("w") as notes,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=notes, text=True) as server,
    ):
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().split('port ')[1].split()[0]}", log
        server.terminate()


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    (tmp_path / "honest").mkdir()
    return write(tmp_path / "honest" / "s2.tif")


def zipped(target: Path) -> str:
    path = target.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(target, "secret.tif")
    return f"/vsizip/{path}/secret.tif"


def vrt_file(target: Path) -> str:
    path = target.with_suffix(".vrt")
    path.write_text(vrt_of(str(target)))
    return str(path)


POINTS_TO: dict[str, Callable[[Path, str], str]] = {
    "a file": lambda target, _: str(target),
    "a file beside it": lambda target, _: ":::BASE:::beside.tif",
    "a vrt": lambda target, _: vrt_file(target),
    "a vrt in words": lambda target, _: vrt_of(str(target)),
    "an archive": lambda target, _: zipped(target),
    "a part of a file": lambda target, _: f"/vsisubfile/0,{target}",
    "a page of a file": lambda target, _: f"GTIFF_DIR:1:{target}",
    "a service": lambda _, service: f"/vsicurl/{service}/secret.tif",
    "a vrt of a service": lambda _, service: vrt_of(f"/vsicurl/{service}/secret.tif"),
    "a streamed service": lambda _, service: f"/vsicurl_streaming/{service}/secret.tif",
}


@pytest.mark.server
@pytest.mark.parametrize("domain", ["OVERVIEWS", "overviews"])
@pytest.mark.parametrize("kind", DRIVERS)
@pytest.mark.parametrize("to", POINTS_TO)
def test_a_pointer_is_refused_wherever_the_file_is_opened(
    tmp_path: Path, honest: Path, service: tuple[str, Path], kind: str, to: str, domain: str
):
    address, log = service
    before = log.read_text()
    target = hostile.secret(tmp_path / "elsewhere")
    pointer = POINTS_TO[to](target, address)
    path = write(tmp_path / f"s1.{kind}", driver=DRIVERS[kind], tags={domain: {"OVERVIEW_FILE": pointer}})
    if to == "a file beside it":
        target.rename(path.with_name("beside.tif"))
    refused_everywhere(path, honest, tmp_path / "out")
    assert log.read_text() == before
    # Without the check GDAL follows it: the file is as hostile as it is meant to be.
    # Under the same settings, as the first remote file sets the size of GDAL's cache for the whole process.
    with rasterio.Env(**access.gdal_settings(str(path), beside=False)), DatasetReader(str(path)) as raster:
        raster.overviews(1)
        seen = raster.read(1, out_shape=(160, 160))
    assert (seen == SECRET).all()


def refused_everywhere(path: Path, honest: Path, out: Path) -> None:
    """By the header, by the pixels, by planning and by publishing, though only one of them came upon it."""
    with pytest.raises(UnreadableRasterError, match="never followed"):
        open_source(str(path), kind=Kind.SAR, from_catalog=True)
    with pytest.raises(UnreadableRasterError, match="never followed"):
        open_source(str(path), kind=Kind.SAR)
    source = open_source(str(honest), kind=Kind.SAR, from_catalog=True)
    swapped = replace(source, hrefs=(str(path),))  # honest when it was planned, hostile by now
    for grid in (source.geobox, source.geobox.zoom_out(4)):
        with pytest.raises(UnreadableRasterError, match="never followed"):
            read_plane(swapped, grid)
    for published in (lambda: place_of(str(path)), lambda: vrt(path)):
        with pytest.raises(UnreadableRasterError, match="never followed"):
            published()
    for pair in ((honest, path), (path, honest)):
        with pytest.raises(UnreadableRasterError, match="never followed"):
            walk(*pair, out)
    assert not [found for found in out.rglob("*") if found.is_file()]


def vrt(path: Path) -> str:
    return corrected_vrt([str(path)], affine=(1, 0, 0, 0, 1, 0), grid_crs=None).decode()


@pytest.mark.parametrize("kind", DRIVERS)
def test_coordinates_in_another_file_are_refused(tmp_path: Path, honest: Path, kind: str):
    named = {"X_DATASET": "/etc/passwd", "Y_DATASET": "/etc/passwd"}
    path = write(tmp_path / f"s1.{kind}", driver=DRIVERS[kind], tags={"GEOLOCATION": named})
    refused_everywhere(path, honest, tmp_path / "out")


SIDE_FILES = (".ovr", ".vrt.ovr", ".aux", ".aux.xml", ".msk", ".vrt.msk", "world")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", DRIVERS)
@pytest.mark.parametrize("side", SIDE_FILES)
def test_what_lies_beside_a_catalogs_file_does_not_count(tmp_path: Path, kind: str, side: str):
    target = hostile.secret(tmp_path / "elsewhere", SHAPE if side == ".vrt.msk" else (160, 160))
    (tmp_path / "scene").mkdir()
    path = with_side_file(tmp_path / "scene", kind, side, target)
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / path.name
    alone.write_bytes(path.read_bytes())
    placed = open_source(str(write(tmp_path / "placed.tif")), kind=Kind.OPTICAL, from_catalog=True)
    sources = [replace(placed, hrefs=(str(file),)) for file in (alone, path)]
    with opened(str(alone), drivers=IMAGE_DRIVERS) as one, opened(str(path), drivers=IMAGE_DRIVERS) as other:
        assert (one.transform, one.crs, one.overviews(1)) == (other.transform, other.crs, other.overviews(1))
        np.testing.assert_array_equal(one.read_masks(1), other.read_masks(1))
        assert other.files == [str(path)]
    for grid in (placed.geobox, placed.geobox.zoom_out(4)):
        planes = [read_plane(source, grid) for source in sources]
        np.testing.assert_array_equal(*planes)
        assert np.isfinite(planes[1]).all()
        assert planes[1].max() < SECRET / 255 / 2


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_lies_beside_the_users_own_file_counts(tmp_path: Path):
    for side in (".ovr", ".msk", "world"):
        (tmp_path / side).mkdir()
        path = with_side_file(tmp_path / side, "tif", side, hostile.secret(tmp_path / "elsewhere"))
        with opened(str(path), drivers=OWN_DRIVERS) as raster:
            seen = {
                ".ovr": raster.overviews(1) == [4] and (raster.read(1, out_shape=(160, 160)) == SECRET).all(),
                ".msk": not raster.read_masks(1).any(),
                "world": raster.transform.a == 2,
            }
            assert seen[side]


def test_a_crs_that_names_files_is_refused(tmp_path: Path, honest: Path):
    named = (
        'GEOGCS["b",DATUM["d",SPHEROID["s",6378137,298.257],EXTENSION["PROJ4_GRIDS","/etc/shift.gsb"]],'
        'PRIMEM["g",0],UNIT["degree",0.0174532925199433]]'
    )
    path = write(
        tmp_path / "s1.tif", crs=rasterio.crs.CRS.from_wkt(named), GEOTIFF_KEYS_FLAVOR="ESRI_PE",
        transform=Affine(1e-4, 0, 9, 0, -1e-4, 50),
    )  # fmt: skip
    refused_everywhere(path, honest, tmp_path / "out")
    web = open_source(str(write(tmp_path / "web.tif", crs="EPSG:3857")), kind=Kind.SAR, from_catalog=True)
    assert web.crs == "EPSG:3857"  # its `+nadgrids=@null` names none


def test_another_driver_than_those_allowed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "s1.img", driver="HFA")
    with (
        pytest.raises(UnreadableRasterError, match="cannot be opened"),
        opened(str(path), drivers=IMAGE_DRIVERS),
    ):
        pass
    # A GDAL that does not keep to the list it was given cannot be provoked.
    monkeypatch.setattr(access, "_open_allowed", lambda href, drivers: DatasetReader(href))
    with (
        pytest.raises(UnreadableRasterError, match="opened as HFA"),
        opened(str(path), drivers=IMAGE_DRIVERS),
    ):
        pass


def test_publishing_opens_as_reading_did(tmp_path: Path, honest: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that was honest when it was measured is a VRT when it is published."""
    target = hostile.secret(tmp_path / "elsewhere", SHAPE)
    path = write(tmp_path / "s1.tif")
    published = publish

    def late(store, registration, plan, names, settings):
        text = vrt_of(str(target), SHAPE).replace(
            "<VRTRasterBand",
            "<SRS>EPSG:32614</SRS><GeoTransform>600000,10,0,3300000,0,-10</GeoTransform><VRTRasterBand",
            1,
        )
        path.write_text(text)
        detail = {"read": lambda source, geobox: np.zeros(geobox.shape, np.float32)}
        return published(store, registration, plan, names, settings, **detail)

    monkeypatch.setitem(globals(), "publish", late)
    with pytest.raises(UnreadableRasterError, match="cannot be opened"):
        walk(honest, path, tmp_path / "out")
    assert not [found for found in (tmp_path / "out").rglob("*") if found.is_file()]
    # What the user named himself is published as it was read.
    own = open_source(path, kind=Kind.SAR)
    assert (
        str(target)
        in corrected_vrt(own.hrefs, affine=(1, 0, 0, 0, 1, 0), grid_crs=None, drivers=own.drivers).decode()
    )


def test_a_published_vrt_names_its_source_alone(tmp_path: Path):
    path = write(tmp_path / "s1.tif", tags={"RPC": {"LINE_OFF": "1"}, "MINE": {"X_DATASET": "/etc/passwd"}})
    text = vrt(path)
    assert "/etc/passwd" not in text
    assert text.count(str(path)) == text.count("<SourceFilename") == 1


def test_an_honest_pair_is_published_whole(tmp_path: Path, honest: Path):
    files = walk(honest, write(tmp_path / "s1.tif"), tmp_path / "out")
    assert {"overview.png", "corrected.vrt", "correction.json", "_COMMIT"} <= set(files)
    assert json.loads(files["correction.json"])["tie_points"]["matched"] > 0


def test_a_jpeg_2000_of_usual_tiles_is_read(tmp_path: Path):
    path = write(tmp_path / "s2.jp2", driver="JP2OpenJPEG")
    source = open_source(str(path), kind=Kind.OPTICAL, from_catalog=True)
    assert set(np.unique(np.rint(read_plane(source, source.geobox) * 255))) == {7, 8}


SMALL = directory(512, 512, tile=512)
BOMBS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "a giant tile": (
        lambda p, _: tiff(p, [directory(32768, 32768, tile=32768, bits=32)]), "bytes in one block",
    ),
    "a giant strip": (
        lambda p, _: tiff(p, [directory(30000, 30000, bits=16, packed=True)]), "bytes in one block",
    ),
    "bands in one block": (
        lambda p, _: tiff(p, [directory(4096, 4096, tile=4096, bits=16, bands=60)]), "bytes in one block",
    ),
    "a giant tile of an overview": (
        lambda p, _: tiff(p, [SMALL, directory(256, 256, tile=32768, role=1)]), "bytes in one block",
    ),
    "a giant tile of an overview inside": (
        lambda p, _: tiff(p, [SMALL, directory(256, 256, tile=32768, role=1)], nested=True),
        "bytes in one block",
    ),
    "a giant tile of a mask": (
        lambda p, _: tiff(p, [SMALL, directory(512, 512, tile=32768, role=4)]), "bytes in one block",
    ),
    "sides": (lambda p, _: tiff(p, [directory(1_000_000, 1000, tile=256)]), "px on its longer side"),
    "sparse": (lambda p, _: tiff(p, [directory(1_000_000, 1_000_000, tile=256)]), "px on its longer side"),
    "samples": (lambda p, _: tiff(p, [directory(90_000, 90_000, tile=256)]), "samples"),
    "bands": (lambda p, _: tiff(p, [directory(64, 64, tile=64, bands=65)]), "bands"),
    "images": (lambda p, _: tiff(p, [SMALL, *[directory(64, 64, tile=64)] * 70]), "images in one file"),
    "tiles of jpeg 2000": (
        lambda p, o: hostile.claiming(p, o, size=25_500, tile=100), "bytes of notes on 65025 tiles",
    ),
    "one tile of jpeg 2000": (lambda p, o: hostile.claiming(p, o, size=90_000, tile=90_000), "code-blocks"),
    "code-blocks of jpeg 2000": (
        lambda p, o: hostile.claiming(p, o, size=40_000, tile=10_000, code_block=0), "code-blocks",
    ),
}  # fmt: skip

OPEN_WITHIN_LIMITS = """
import resource, sys
from crosstie.errors import UnreadableRasterError
from crosstie.io.raster import open_source, read_plane
from crosstie.io.products.vrt import place_of
from crosstie.types import Kind
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
resource.setrlimit(resource.RLIMIT_CPU, (spent + 10,) * 2)
try:
    source = open_source(sys.argv[1], kind=Kind.SAR, from_catalog=True)
    read_plane(source, source.geobox.zoom_to((64, 64)))
except UnreadableRasterError as error:
    print(error)
try:
    place_of(sys.argv[1])
except UnreadableRasterError:
    print("not published either")
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, bomb: str):
    """In a process of its own, which may take a gigabyte and ten seconds more."""
    make, said = BOMBS[bomb]
    jpeg = "jpeg 2000" in bomb
    small = write(tmp_path / "small.jp2", driver="JP2OpenJPEG") if jpeg else tmp_path
    path = make(tmp_path / ("s1.jp2" if jpeg else "s1.tif"), small)
    assert path.stat().st_size < 20_000
    ended = subprocess.run(
        [sys.executable, "-c", OPEN_WITHIN_LIMITS, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert said in ended.stdout.splitlines()[0]
    assert "the limit is" in ended.stdout
    assert "not published either" in ended.stdout


def test_the_largest_files_there_are_lie_within_the_limits(tmp_path: Path):
    """A Sentinel-1 scene of two polarisations, and 10,980 px of 16 bits in one strip."""
    for name, image in {
        "grd": directory(25_800, 16_800, strip=1, bits=16, bands=2)
        | {273: ("I", [0] * 16_800), 279: ("I", [0] * 16_800)},
        "strip": directory(10_980, 10_980, bits=16),
    }.items():
        with opened(str(tiff(tmp_path / f"{name}.tif", [image])), drivers=IMAGE_DRIVERS) as raster:
            assert raster.width == image[256][1][0]


def test_a_folded_grid_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source: RasterSource = open_source(str(write(tmp_path / "s1.tif")), kind=Kind.SAR, from_catalog=True)
    monkeypatch.setattr(pixels, "MAX_READ_SAMPLES", 1000)
    with pytest.raises(UnreadableRasterError, match="fall into one block of the grid"):
        read_plane(source, source.geobox[:100, :100].pad(1).rotate(10))
