"""`crosstie apply` as a user meets it: pixels where they belong, and one line that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from committed_runs import recommit
from product_with_truth import BEND_PX, GROUND, SHAPE, SHIFT_PX, Made, make_product, waves, write_waves
from typer.testing import CliRunner, Result

from crosstie.cli import app
from crosstie.io.archive.index import update_index
from crosstie.io.storage.store import open_store
from crosstie.types import Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
INSIDE = np.s_[40:-40, 40:-40]


def crosstie(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def made(tmp_path: Path, make_registration: MakeRegistration) -> Made:
    return make_product(tmp_path / "data", make_registration)


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        assert raster.shape == SHAPE
        assert raster.transform == GROUND
        return raster.read(1)


def seen(shift_px: tuple[float, float] | np.ndarray = (0.0, 0.0)) -> np.ndarray:
    """What the secondary, moved by `shift_px`, shows on the reference's grid."""
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    return waves(col + shift_px[0], row + shift_px[1])


def bump() -> np.ndarray:
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    return BEND_PX * np.sin(np.pi * col / 16 / 21) * np.sin(np.pi * row / 16 / 20)


@pytest.mark.parametrize("model", ["auto", "field", "affine"])
def test_the_correction_is_applied_and_said(made: Made, tmp_path: Path, model: str) -> None:
    out = tmp_path / "out" / "aligned.tif"
    done = crosstie("apply", made.url, "--out", out, "--model", model)
    assert done.exit_code == 0, done.output
    assert (
        "the affine was applied" in done.stdout if model == "affine" else "field was applied" in done.stdout
    )
    wanted = seen() if model == "affine" else seen((bump(), 0.0))
    assert np.abs(pixels(out) - wanted)[INSIDE].max() < 8  # of 100 .. 900; unmoved it is off by hundreds
    assert np.abs(pixels(out) - seen((-SHIFT_PX[0], -SHIFT_PX[1])))[INSIDE].max() > 200
    assert {path.name for path in out.parent.iterdir()} == {"aligned.tif", "aligned.json"}


def test_the_item_beside_it_says_where_it_lies_and_from_what_it_was_made(made: Made, tmp_path: Path) -> None:
    theirs = tmp_path / "s1-item.json"
    facts = {"sar:polarizations": ["VV"], "view:incidence_angle": 38.5, "datetime": "2025-06-06T05:30:00Z"}
    theirs.write_text(json.dumps({"properties": facts | {"proj:code": "EPSG:1"}, "stac_extensions": [
        "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
        "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
    ]}))  # fmt: skip
    out = tmp_path / "aligned.tif"
    assert crosstie("apply", made.url, "--out", out, "--source-item", theirs).exit_code == 0
    item = pystac.Item.from_file(str(tmp_path / "aligned.json"))
    said = item.properties
    assert said["proj:code"] == "EPSG:32614"
    assert said["proj:shape"] == list(SHAPE)
    assert said["proj:transform"] == list(GROUND[:6])
    assert said["sar:polarizations"] == ["VV"]
    assert said["view:incidence_angle"] == 38.5
    assert item.datetime is not None
    assert item.datetime.isoformat() == "2025-06-06T05:30:00+00:00"
    assert (said["crosstie:verdict"], said["crosstie:applied_model"]) == ("corrected", "field")
    assert [url for url in item.stac_extensions if "/sar/" in url]
    assert not [url for url in item.stac_extensions if "/eo/" in url]
    derived = {link.href for link in item.links if link.rel == "derived_from"}
    assert derived == {str(made.reference), str(made.secondary), f"{made.url}/item.json"}
    assert item.assets["aligned"].get_absolute_href() == str(out)
    with rasterio.open(out) as raster:
        west, south, east, north = rasterio.warp.transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
    np.testing.assert_allclose(item.bbox, (west, south, east, north), atol=1e-4)


def test_further_rasters_of_the_scene_come_too_and_masks_are_never_mixed(made: Made, tmp_path: Path) -> None:
    vv = write_waves(tmp_path / "s1_vv.tif", shift_px=SHIFT_PX)
    mask = tmp_path / "mask.tif"
    classes = np.random.default_rng(0).choice([1, 7, 200], SHAPE).astype(np.uint8)
    with rasterio.open(vv) as raster, rasterio.open(
        mask, "w", **raster.profile | {"dtype": "uint8", "nodata": 0}
    ) as file:  # fmt: skip
        file.write(classes, 1)
    done = crosstie("apply", made.url, vv, mask, "--out", tmp_path / "out", "--resampling", "nearest")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"s1_vv_aligned.tif", "s1_vv_aligned.json", "mask_aligned.tif", "mask_aligned.json"}
    assert set(np.unique(pixels(tmp_path / "out" / "mask_aligned.tif"))) == {0, 1, 7, 200}


def test_an_unreliable_pair_is_copied_as_it_is_and_said_so(
    tmp_path: Path, make_registration: MakeRegistration
) -> None:
    made = make_product(tmp_path / "data", make_registration, code=VerdictCode.UNRELIABLE)
    done = crosstie("apply", f"{made.url}/correction.json", "--out", tmp_path / "a.tif")
    assert done.exit_code == 3
    assert "nothing was applied, for the pair is unreliable (too_few_tie_points)" in done.stdout
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), pixels(made.secondary))


def error(*arguments: object) -> str:
    done = crosstie("apply", *arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if "blocks" not in line]
    return line


def test_wrong_input_is_one_line_and_writes_nothing(
    made: Made, tmp_path: Path, make_registration: MakeRegistration
) -> None:
    out = tmp_path / "out" / "aligned.tif"
    plain = make_product(tmp_path / "plain", make_registration, field=False)
    assert "no displacement field is offered" in error(plain.url, "--out", out, "--model", "field")
    assert "no committed product" in error(tmp_path / "data", "--out", out)
    assert "is no product" in error("s3://bucket/x", "--out", out)
    assert "name a folder" in error(made.url, made.secondary, made.reference, "--out", out)
    assert "is the raster itself" in error(made.url, "--out", made.secondary)
    assert "--all" in error(made.url, "--out", out, "--since", "2025-06-01")
    assert "no such STAC item" in error(made.url, "--out", out, "--source-item", tmp_path / "gone.json")
    made.reference.unlink()
    assert "--like" in error(made.url, "--out", out)
    assert not out.parent.exists()
    assert crosstie("apply", made.url, "--out", out, "--like", made.secondary).exit_code == 0


def test_what_is_not_committed_does_not_exist(made: Made, tmp_path: Path) -> None:
    Path(made.url.removeprefix("file://"), "_COMMIT").unlink()
    assert "no committed product" in error(made.url, "--out", tmp_path / "a.tif")


@pytest.mark.parametrize(
    "change",
    [
        {"affine": [1, 0, 0, 0, 1]},
        {"affine": [0, 0, 0, 0, 0, 0]},
        {"affine": "what"},
        {"affine": [1, 0, float("nan"), 0, 1, 0]},
        {"crs": "EPSG:none"},
        {"verdict": "fine"},
        {"pair": None},
        {"covariance": [[0]]},
    ],
)
def test_a_broken_record_is_one_line(made: Made, tmp_path: Path, change: dict[str, object]) -> None:
    path = Path(made.url.removeprefix("file://"), "correction.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    committed_anew(path)
    assert "is committed, but broken" in error(made.url, "--out", tmp_path / "a.tif")


def renamed(made: Made, href: str) -> None:
    """Make the product name another secondary."""
    path = Path(made.url.removeprefix("file://"), "correction.json")
    record = json.loads(path.read_text())
    record["pair"]["secondary"]["href"] = href
    path.write_text(json.dumps(record))
    committed_anew(path)


def committed_anew(path: Path) -> None:
    """Commit what is there, as whoever can write into a shared root can."""
    recommit(open_store(str(path.parents[2])), path.parts[-3:-1])  # type: ignore[arg-type]


def test_what_a_product_names_is_opened_as_an_image_alone(made: Made, tmp_path: Path) -> None:
    """A VRT leads on to any file: whoever can write into a shared root could make its reader open one."""
    vrt = tmp_path / "innocent.tif"
    vrt.write_bytes(Path(made.url.removeprefix("file://"), "corrected.vrt").read_bytes())
    out = tmp_path / "a.tif"
    renamed(made, str(vrt))
    assert "cannot be opened as a raster" in error(made.url, "--out", out)
    assert crosstie("apply", made.url, vrt, "--out", out).exit_code == 0  # named by the user, it may be one
    for href in (
        f"/vsicurl/https://example.org{vrt}",
        "https://169.254.169.254/latest",
        "http://10.0.0.1/a.tif",
    ):
        renamed(made, href)
        line = error(made.url, "--out", tmp_path / "b.tif")
        assert "refused" in line or "http" in line or "virtual file system" in line
    assert not (tmp_path / "b.tif").exists()


def test_all_of_an_archive_once_by_verdict_and_age(
    tmp_path: Path, make_registration: MakeRegistration
) -> None:
    folder = tmp_path / "data"
    codes = (VerdictCode.CORRECTED, VerdictCode.ALREADY_ALIGNED, VerdictCode.UNRELIABLE)
    for scene, code in zip("ABC", codes, strict=True):
        made = make_product(folder, make_registration, code=code, secondary_id=scene, field=scene == "A")
    update_index(open_store(str(made.root)))
    out = tmp_path / "aligned"
    done = crosstie("apply", made.root, "--all", "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "2 aligned (0 of them were there already), 0 could not be applied"
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")}
    assert sorted(path.parts[-3] for path in written) == ["S2B_L1C__A", "S2B_L1C__B"]

    next(iter(written)).with_suffix(".json").unlink()  # as a run leaves it that was killed before the end
    again = crosstie("apply", made.root, "--all", "--out", out)
    assert again.stdout.splitlines()[-1].startswith("2 aligned (1 of them were there already)")
    assert sum(path.stat().st_mtime_ns == before for path, before in written.items()) == 1

    other = crosstie("apply", made.root, "--all", "--out", tmp_path / "c", "--verdict", "unreliable")
    assert other.exit_code == 3
    assert [path.parts[-3] for path in (tmp_path / "c").rglob("*.tif")] == ["S2B_L1C__C"]
    none = crosstie("apply", made.root, "--all", "--out", tmp_path / "d", "--since", "2026-02-01")
    assert none.stdout.startswith("0 aligned")
    assert "choose another folder" in error(made.root, "--all", "--out", made.root / "aligned")

    made.reference.unlink()
    gone = crosstie("apply", made.root, "--all", "--out", tmp_path / "e")
    assert gone.exit_code == 3
    assert gone.stderr.count("not applied: S2B_L1C__") == 2


def test_a_date_that_is_none_is_told_before_anything_is_read(tmp_path: Path) -> None:
    done = crosstie("register", tmp_path / "a.tif", tmp_path / "b.tif", "--acquired", "yesterday")
    assert done.exit_code == 2
    assert "--acquired yesterday: not a date" in done.stderr
