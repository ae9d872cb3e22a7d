"""Files whose only band has a colour table: pictures are looked up, what may be a legend is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.errors import BadInputError
from crosstie.flows.training.mine import read_bands
from crosstie.io.raster import open_pair, open_source, read_plane
from crosstie.types import Kind

SIDE = 128
RNG = np.random.default_rng(5)
SMOOTH = np.cumsum(np.cumsum(RNG.normal(0, 0.3, (SIDE, SIDE)), axis=0), axis=1)
GREY = np.rint(np.interp(SMOOTH, np.percentile(SMOOTH, [1, 99]), [20, 230])).astype(np.uint8)
RGB = np.stack([GREY, np.rint(GREY * 0.8 + 20).astype(np.uint8), np.roll(GREY, 9, axis=0)], axis=2)
PLACE = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000)}

Table = dict[int, tuple[int, ...]]


def write(path: Path, numbers: np.ndarray, table: Table | None) -> Path:
    shape = {"count": 1, "height": numbers.shape[0], "width": numbers.shape[1], "dtype": numbers.dtype}
    driver = {".png": "PNG"}.get(path.suffix, "GTiff")
    with rasterio.open(path, "w", driver=driver, **shape, **PLACE) as raster:
        if table is not None:
            raster.write_colormap(1, table)
        raster.write(numbers, 1)
    return path


def drawn(rgb: np.ndarray, colours: int = 200) -> tuple[np.ndarray, Table, np.ndarray]:
    """A picture in few colours: its numbers, its table, and the colours that it shows."""
    few = Image.fromarray(rgb).quantize(colours, dither=Image.Dither.NONE)
    flat = few.getpalette() or []
    order = RNG.permutation(256)  # neighbouring numbers are no neighbouring colours
    table = {int(order[n]): tuple(flat[3 * n : 3 * n + 3]) for n in range(len(flat) // 3)}
    return order[np.asarray(few)].astype(np.uint8), table, np.asarray(few.convert("RGB"))


def luminance(rgb: np.ndarray) -> np.ndarray:
    return (rgb @ np.array([0.299, 0.587, 0.114])) / 255


@pytest.mark.parametrize("name", ["image.tif", "image.png"])
def test_a_picture_in_few_colours_is_seen_as_it_is_drawn(name: str, tmp_path: Path):
    numbers, table, shown = drawn(RGB)
    source = open_source(write(tmp_path / name, numbers, table))
    assert (source.kind, source.white) == (Kind.OPTICAL, 1.0)
    np.testing.assert_allclose(read_plane(source, source.geobox), luminance(shown), rtol=0, atol=1e-3)


def test_colours_are_averaged_and_not_their_numbers(tmp_path: Path):
    numbers, table, shown = drawn(RGB)
    source = open_source(write(tmp_path / "image.tif", numbers, table))
    grid = source.geobox
    half = GeoBox((SIDE // 2, SIDE // 2), grid.affine @ Affine.scale(2), grid.crs)
    mean = luminance(shown.reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean(axis=(1, 3)))
    np.testing.assert_allclose(read_plane(source, half)[1:-1, 1:-1], mean[1:-1, 1:-1], rtol=0, atol=2e-3)
    coarse = GeoBox((SIDE // 8, SIDE // 8), grid.affine @ Affine.scale(8), grid.crs)
    eighth = luminance(shown.reshape(SIDE // 8, 8, SIDE // 8, 8, 3).mean(axis=(1, 3)))
    found = read_plane(source, coarse)[1:-1, 1:-1]
    assert np.corrcoef(found.ravel(), eighth[1:-1, 1:-1].ravel())[0, 1] > 0.995


def test_the_same_picture_beside_sar_is_the_optical_one(tmp_path: Path):
    numbers, table, _ = drawn(RGB)
    first = write(tmp_path / "image.tif", numbers, table)
    second = write(tmp_path / "vh.tif", RNG.gamma(4, 0.01, (SIDE, SIDE)).astype(np.float32), None)
    assert [source.kind for source in open_pair(first, second)] == [Kind.OPTICAL, Kind.SAR]
    assert [source.kind for source in open_pair(second, first)] == [Kind.SAR, Kind.OPTICAL]


@pytest.mark.parametrize(("name", "kind"), [("s2_red.tif", Kind.OPTICAL), ("s1_vh.tif", Kind.SAR)])
def test_shades_of_grey_are_one_band_of_either_kind(name: str, kind: Kind, tmp_path: Path):
    inverse = {n: (255 - n,) * 3 for n in range(256)}
    source = open_source(write(tmp_path / name, 255 - GREY, inverse))
    plain = open_source(write(tmp_path / f"plain_{name}", GREY, None))
    assert source.kind == plain.kind == kind
    np.testing.assert_allclose(
        read_plane(source, source.geobox), read_plane(plain, plain.geobox), rtol=0, atol=1e-5
    )


def test_what_is_transparent_is_invalid(tmp_path: Path):
    numbers, table, shown = drawn(RGB, colours=100)
    unused = min(set(range(256)) - set(table))
    numbers[:10] = unused
    table[unused] = (255, 255, 255, 0)
    source = open_source(write(tmp_path / "image.png", numbers, table))
    plane = read_plane(source, source.geobox)
    assert np.isnan(plane[:10]).all()
    np.testing.assert_allclose(plane[10:], luminance(shown)[10:], rtol=0, atol=1e-3)


LEGEND = {10: (0, 100, 0), 20: (255, 187, 34), 30: (255, 255, 76), 50: (250, 0, 0), 80: (0, 100, 200)}


def ramp(n: int) -> tuple[int, ...]:
    """From blue over green to red."""
    return n, 255 - abs(2 * n - 255), 255 - n


CLASSES = {n: ramp(9 * n) for n in range(12)}


@pytest.mark.parametrize(
    ("name", "numbers", "table", "count"),
    [
        ("worldcover.tif", RNG.choice(list(LEGEND), (SIDE, SIDE)).astype(np.uint8), LEGEND, 5),
        ("s2_scl.tif", RNG.integers(0, 12, (SIDE, SIDE)).astype(np.uint8), CLASSES, 12),
        ("grey_classes.tif", (GREY // 32 * 32).astype(np.uint8), {n: (n,) * 3 for n in range(256)}, 8),
        ("s1_vh_jet.tif", GREY, {n: ramp(n) for n in range(256)}, None),
    ],
    ids=["land cover", "scene classes", "greys of classes", "SAR in colours"],
)  # fmt: skip
def test_what_may_be_no_picture_is_asked_about_and_the_option_decides(
    name: str, numbers: np.ndarray, table: Table, count: int | None, tmp_path: Path
):
    path = write(tmp_path / name, numbers, table)
    with pytest.raises(BadInputError, match="colour table and shows") as refused:
        open_source(path)
    assert count is None or f" {count} colours" in str(refused.value)
    assert open_source(path, kind=Kind.OPTICAL).palette is not None
    sar = open_source(path, kind=Kind.SAR)
    stored = 10 * np.log10(np.where(numbers > 0, numbers, np.nan).astype(float))
    np.testing.assert_allclose(read_plane(sar, sar.geobox), stored, rtol=0, atol=1e-4)


def test_the_command_says_it_in_one_line(tmp_path: Path):
    path = write(tmp_path / "worldcover.tif", RNG.choice(list(LEGEND), (SIDE, SIDE)).astype(np.uint8), LEGEND)
    done = CliRunner().invoke(app, ["register", str(path), str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "--reference-kind" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_bands_with_scales_are_mined_one_by_one(tmp_path: Path):
    """Each band of a raster whose file declares scales keeps its own."""
    path = tmp_path / "s2.tif"
    stored = np.stack([np.full((SIDE, SIDE), value, np.uint16) for value in (1000, 2000, 3000)])
    stored += RNG.integers(0, 50, stored.shape).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint16", **PLACE
    ) as raster:
        raster.write(stored)
        raster.scales, raster.offsets = (1e-4, 1e-4, 2e-4), (0.0, -0.1, 0.0)
    source = open_source(path, kind=Kind.OPTICAL)
    bands, valid = read_bands(source, source.geobox)
    assert bands.shape == (3, SIDE, SIDE)
    assert valid.all()
    expected = [0.1, 0.1, 0.6]
    np.testing.assert_allclose(
        bands.mean(axis=(1, 2)) / 255 * 0.35, np.minimum(expected, 0.35), rtol=0, atol=0.01
    )
