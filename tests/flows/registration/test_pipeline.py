"""One pair end to end in this process: a known shift and a known affine come back, refusals say why.

The matcher here is an honest fake: zero-mean normalised cross-correlation, which needs both images to look
alike. What it cannot do (SAR against optical) is the network's own test; what is tested here is the walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import fftconvolve

from crosstie.config import Settings, load_settings
from crosstie.flows.register import RegisterResult, register
from crosstie.flows.registration.measure import ALIGN_PX, MatchJob, match_chunk, read_chunk, spread_out
from crosstie.flows.registration.phases import Phase
from crosstie.flows.registration.pipeline import InProcess, find_coarse_offset, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.publish import DETAIL_PX, PairNames, assemble, publish
from crosstie.grid import Chunk, chunks, ground_lattice, tiles
from crosstie.io.products.overview import Thumbnails
from crosstie.io.products.stages import stages
from crosstie.io.raster import RasterSource, open_pair, read_plane
from crosstie.io.storage.store import open_store
from crosstie.types import Kind, Reason, TiePoints, Tile, VerdictCode

Plane = NDArray[np.float32]
PIXEL_M = 10.0
COARSE = load_settings(options={"tiles.size_px": 128, "tiles.stride_px": 64})
"""Fewer tiles than by default: the walk is the same."""

ORIGIN = (600_000.0, 5_300_000.0)


@dataclass(frozen=True)
class Found:
    offset_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    confidence: NDArray[np.float64]


class Correlation:
    """Zero-mean normalised cross-correlation, one tile at a time."""

    halo_px = 0
    weights_sha256 = "c0" * 32

    def match(
        self,
        reference: Plane,
        secondary: Plane,
        rows: NDArray[np.int64],
        cols: NDArray[np.int64],
        *,
        size_px: int,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Found:
        peaks = [
            peak(correlate(reference, secondary, row, col, size_px, search_px))
            for row, col in zip(rows, cols, strict=True)
        ]
        offset = np.array([(x - search_px, y - search_px) for x, y, _ in peaks]).reshape(-1, 2)
        height = np.array([h for _, _, h in peaks])
        return Found(offset, np.full(len(peaks), 0.1), np.clip(height, 0, 1))

    def offset_probability(
        self,
        reference: Plane,
        secondary: Plane,
        *,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Plane:
        size = len(reference) - 2 * search_px
        secondary = np.where(np.isnan(secondary), np.nanmean(secondary), secondary)
        surface = 60 * correlate(reference, secondary, search_px, search_px, size, search_px)
        weight = np.exp(surface - 60)
        return (weight / weight.sum()).astype(np.float32)


def correlate(reference: Plane, secondary: Plane, row: int, col: int, size: int, search: int) -> Plane:
    """(2 search + 1, 2 search + 1) correlation; NaN where the secondary does not cover the whole template."""
    template = np.nan_to_num(reference[row : row + size, col : col + size]).astype(np.float64)
    template -= template.mean()
    area = secondary[row - search : row + size + search, col - search : col + size + search]
    known = np.nan_to_num(area).astype(np.float64)
    cross = fftconvolve(known, template[::-1, ::-1], mode="valid")
    power = box_sum(known**2, size) - box_sum(known, size) ** 2 / size**2
    surface = cross / np.sqrt(np.maximum(power, 1e-9) * max((template**2).sum(), 1e-9))
    return np.where(box_sum(np.isnan(area), size) > 0, np.nan, surface).astype(np.float32)


def box_sum(image: NDArray[np.float64] | NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    total = np.pad(image.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def peak(surface: Plane) -> tuple[float, float, float]:
    """(x, y, height) of the maximum, refined by a parabola an axis; NaN where it is not surrounded."""
    if np.isnan(surface).all():
        return np.nan, np.nan, 0.0
    r, c = map(int, np.unravel_index(int(np.nanargmax(surface)), surface.shape))
    if not (0 < r < len(surface) - 1 and 0 < c < len(surface) - 1):
        return np.nan, np.nan, 0.0

    def refined(line: NDArray[np.float32], i: int) -> float:
        left, middle, right = map(float, line[i - 1 : i + 2])
        return i + 0.5 * (left - right) / (left - 2 * middle + right)

    return refined(surface[r], c), refined(surface[:, c], r), float(surface[r, c])


def texture(size: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Fields and noise, 0.1..0.6, the same texture everywhere."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter(rng.standard_normal((size, size)), 1.5)
    coarse = gaussian_filter(rng.standard_normal((size, size)), 9)
    mixed = fine / fine.std() + coarse / coarse.std()
    return (0.35 + 0.06 * mixed).clip(0.02, 1).astype(np.float32)


def write(path: Path, plane: Plane, *, origin: tuple[float, float] = ORIGIN) -> Path:
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": plane.shape[0], "width": plane.shape[1],
        "crs": "EPSG:32632", "transform": Affine(PIXEL_M, 0, origin[0], 0, -PIXEL_M, origin[1]),
        "nodata": float("nan"), "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(plane, 1)
    return path


def displaced(land: Plane, affine: Affine) -> Plane:
    """What a sensor shows whose pixel (x, y) looks at pixel affine(x, y) of the land."""
    rows, cols = np.mgrid[0 : land.shape[0], 0 : land.shape[1]] + 0.5
    x = affine.a * cols + affine.b * rows + affine.c - 0.5
    y = affine.d * cols + affine.e * rows + affine.f - 0.5
    moved: Plane = map_coordinates(land, [y, x], order=3, mode="constant", cval=np.nan).astype(np.float32)
    return moved


def run(
    reference: Path, secondary: Path, *, out: Path | None = None, settings: Settings | None = None
) -> RegisterResult:
    return register(
        reference,
        secondary,
        out=out,
        settings=settings or COARSE,
        reference_kind=Kind.OPTICAL,
        secondary_kind=Kind.OPTICAL,
        matcher=Correlation(),
    )


SIZE = 576


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("reference") / "s2_tci.tif", texture(SIZE))


@pytest.mark.parametrize("shift_px", [(3.4, -2.6), (-52.0, 41.0)], ids=["fine", "beyond the fine search"])
def test_a_known_shift_comes_back(reference: Path, tmp_path: Path, shift_px: tuple[float, float]) -> None:
    dx, dy = shift_px
    secondary = write(tmp_path / "b.tif", displaced(texture(SIZE), Affine.translation(-dx, -dy)))
    result = run(reference, secondary)
    assert result.verdict.code is VerdictCode.CORRECTED
    # 0.05 px: the parabola's own bias at 1.5 px of blur
    assert result.registration.estimate.median_offset_m == pytest.approx(
        (dx * PIXEL_M, -dy * PIXEL_M), abs=0.05 * PIXEL_M
    )
    moved = result.correction.apply(np.array([[ORIGIN[0] + dx * PIXEL_M, ORIGIN[1] - dy * PIXEL_M]]))
    np.testing.assert_allclose(moved, [ORIGIN], rtol=0, atol=0.1 * PIXEL_M)


def test_the_window_of_the_report_holds_what_the_correction_moves_in(reference: Path, tmp_path: Path) -> None:
    """It is read with a margin as wide as the offset, on the network's lattice, and then shows both alike."""
    secondary = write(tmp_path / "b.tif", displaced(texture(SIZE), Affine.translation(52, -41)))
    sources = open_pair(reference, secondary, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    plan = plan_pair(*sources, COARSE)
    assert plan.grid is not None
    measured = register_plan(plan, InProcess(Correlation()), COARSE)
    names = PairNames("a", "b", sources[0].hrefs, sources[1].hrefs)
    registration = assemble(names, plan, measured, COARSE, weights_sha256="00" * 32, seconds=1.0)
    planes, views = [], []

    def read(source: RasterSource, view: GeoBox) -> Plane:
        planes.append(read_plane(source, view))
        views.append(view)
        return planes[-1]

    publish(open_store(str(tmp_path / "out")), registration, plan, names, COARSE, read=read)
    assert len(views) == 2
    assert views[0] == views[1]
    margin = (views[0].shape[0] - DETAIL_PX) // 2
    assert margin >= 52
    assert margin % ALIGN_PX == 0
    window = Thumbnails(planes[0], planes[1], views[0], margin)
    before, after = (window.after(stage) for stage in stages(registration)[:2])
    reference_px = planes[0][window.shown]
    known = np.isfinite(after) & np.isfinite(reference_px)
    assert known.mean() > 0.6
    assert np.abs(after - reference_px)[known].mean() < 0.2 * np.nanmean(np.abs(before - reference_px))


def test_a_known_affine_comes_back_at_every_corner(reference: Path, tmp_path: Path) -> None:
    middle = Affine.translation(SIZE / 2, SIZE / 2)
    wrong_to_right = (
        middle @ Affine.translation(-6.3, 4.2) @ Affine.rotation(0.1) @ Affine.scale(1.001) @ ~middle
    )
    secondary = write(tmp_path / "b.tif", displaced(texture(SIZE), wrong_to_right))
    result = run(reference, secondary)
    assert result.correction.model == "affine"
    corners_px = np.array([(0.0, 0.0), (SIZE, 0), (0, SIZE), (SIZE, SIZE)])
    truth_px = np.array([wrong_to_right @ tuple(corner) for corner in corners_px])
    to_m = np.array([PIXEL_M, -PIXEL_M])
    found = result.correction.apply(corners_px * to_m + ORIGIN)
    np.testing.assert_allclose(found, truth_px * to_m + ORIGIN, rtol=0, atol=0.1 * PIXEL_M)


def test_an_identity_is_already_aligned_and_moves_nothing(reference: Path, tmp_path: Path) -> None:
    secondary = write(tmp_path / "b.tif", texture(SIZE))
    result = run(reference, secondary, out=tmp_path / "out")
    assert result.verdict.code is VerdictCode.ALREADY_ALIGNED
    assert result.correction.affine == (1, 0, 0, 0, 1, 0)
    assert result.registration.planned == 64
    assert len(result.tie_points) == 36  # at the rim, this matcher has nothing to say
    assert result.tie_points.crs.to_epsg() == 32632
    assert (tmp_path / "out").is_dir()


def test_the_size_of_the_chunks_changes_no_tie_point(reference: Path, tmp_path: Path) -> None:
    secondary = write(tmp_path / "b.tif", displaced(texture(SIZE), Affine.translation(-4.3, 2.2)))
    found = [
        run(
            reference, secondary, settings=load_settings(options={"compute.chunk_px": chunk})
        ).registration.points
        for chunk in (256, 4096)
    ]
    np.testing.assert_array_equal(found[0].row, found[1].row)
    np.testing.assert_allclose(found[0].offset_m, found[1].offset_m, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("elsewhere", Reason.NO_OVERLAP),
        ("nothing valid", Reason.NO_OVERLAP),
        ("flat", Reason.NO_TEXTURE),
        ("another land", Reason.OFFSET_BEYOND_SEARCH),
        ("smaller than a tile", Reason.TOO_FEW_TIE_POINTS),
    ],
)
def test_refusals_say_why_correct_nothing_and_are_written(
    reference: Path, tmp_path: Path, case: str, reason: Reason
) -> None:
    plane, origin = texture(SIZE), ORIGIN
    if case == "elsewhere":
        origin = (ORIGIN[0] + 100_000, ORIGIN[1])
    elif case == "nothing valid":
        plane = np.full_like(plane, np.nan)
    elif case == "flat":
        plane = np.full_like(plane, 0.3)
    elif case == "another land":
        plane = texture(SIZE, seed=9)
    else:
        plane = plane[:100, :100].copy()
    result = run(reference, write(tmp_path / "b.tif", plane, origin=origin), out=tmp_path / "out")
    assert result.verdict.code is VerdictCode.UNRELIABLE
    assert reason in result.verdict.reasons
    assert result.correction.affine == (1, 0, 0, 0, 1, 0)
    assert len(list((tmp_path / "out").rglob("_COMMIT"))) == 1
    assert len(list((tmp_path / "out").rglob("report.html"))) == 1


def test_images_without_features_are_not_said_to_lie_beyond_the_search(
    reference: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(3).normal(0.5, 0.1, (SIZE, SIZE)).astype(np.float32)
    result = run(reference, write(tmp_path / "b.tif", noise))
    assert result.verdict.reasons[0] is Reason.NO_TEXTURE
    assert Reason.OFFSET_BEYOND_SEARCH not in result.verdict.reasons


def test_holes_that_leave_no_tile_are_not_called_a_lack_of_overlap(reference: Path, tmp_path: Path) -> None:
    plane = texture(SIZE)
    row, col = np.indices(plane.shape) // 40
    plane[(row % 2 == 1) | (col % 3 == 2)] = np.nan  # a third is left
    result = run(reference, write(tmp_path / "b.tif", plane))
    assert result.verdict.reasons == (Reason.MASKED,)


def test_a_small_chip_gets_smaller_tiles_and_says_so(
    reference: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chip = write(tmp_path / "b.tif", texture(SIZE)[:100, :100].copy())
    sources = open_pair(reference, chip, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    plan = plan_pair(*sources, Settings())
    assert (plan.tile_px, len(plan.tiles)) == (64, 16)
    assert [record.message for record in caplog.records if "64 px" in record.message] == [
        f"{reference}: the common ground has 100 x 100 px, so tiles have 64 px:"
        " fewer and less sure than larger ones"
    ]
    assert plan_pair(*sources, COARSE).tiles == ()  # a size that is set is kept


def test_a_window_holds_its_tiles_the_search_and_the_halo(reference: Path) -> None:
    """Every tile of a chunk is found in the window where the matcher is told that it is."""
    sources = open_pair(reference, reference, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    plan = plan_pair(*sources, COARSE)
    assert plan.grid is not None
    land = texture(SIZE)
    job = MatchJob(*sources, plan.grid, search_px=16, coarse_search_px=0, coarse_offset_px=(5, -3))
    for chunk in chunks(list(tiles((SIZE, SIZE), size_px=96, stride_px=80)), span_px=200):
        planes = read_chunk(job, chunk, halo_px=11)
        first = ground_lattice(plan.grid, step_px=ALIGN_PX)
        assert (planes.row % ALIGN_PX, planes.col % ALIGN_PX) == first
        assert len(planes.reference) % ALIGN_PX == planes.reference.shape[1] % ALIGN_PX == 0
        assert planes.row <= chunk.row - 27
        assert planes.row + len(planes.reference) >= chunk.row + chunk.shape[0] + 27
        for tile in chunk.tiles:
            row, col = tile.row - planes.row, tile.col - planes.col
            np.testing.assert_allclose(
                planes.reference[row : row + 96, col : col + 96], land[tile.roi], rtol=0, atol=1e-5
            )
            shifted = Tile(max(tile.row - 3, 0), tile.col + 5, 64)
            if shifted.row + 64 <= SIZE and shifted.col + 64 <= SIZE and tile.row >= 3:
                np.testing.assert_allclose(
                    planes.secondary[row : row + 64, col : col + 64], land[shifted.roi], rtol=0, atol=1e-5
                )
        points = match_chunk(job, chunk, planes, Correlation())
        # the images are the same: whatever the coarse shift, the offset is none
        inside = (np.minimum(points.row, points.col) >= 27) & (
            np.maximum(points.row, points.col) < SIZE - 123
        )
        np.testing.assert_allclose(points.offset_m[inside], 0, rtol=0, atol=0.05 * PIXEL_M)


def test_progress_ends_with_all_tiles_and_never_goes_back(reference: Path) -> None:
    sources = open_pair(reference, reference, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    plan = plan_pair(*sources, COARSE)
    heard: list[tuple[int, int]] = []
    register_plan(plan, InProcess(Correlation()), COARSE, progress=lambda *step: heard.append(step))
    assert heard == sorted(heard)
    assert heard[0] == (0, len(plan.tiles))
    assert heard[-1] == (len(plan.tiles), len(plan.tiles))


def test_the_phases_are_told_in_order_and_the_tiles_are_counted_in_theirs(
    reference: Path, tmp_path: Path
) -> None:
    heard: list[str] = []
    register(
        reference,
        reference,
        out=tmp_path / "out",
        settings=COARSE,
        reference_kind=Kind.OPTICAL,
        secondary_kind=Kind.OPTICAL,
        matcher=Correlation(),
        progress=lambda done, planned: heard.append(f"{done > 0}"),
        tell_phase=heard.append,
    )
    assert [said for said in heard if said not in {"True", "False"}] == list(Phase)
    assert heard[2:4] == ["search", "tiles"]
    assert set(heard[4:-2]) == {"True"}


def test_spots_are_spread_over_the_whole_scene() -> None:
    everywhere = tuple(tiles((4000, 3000), size_px=192, stride_px=128))
    spots = spread_out(everywhere, count=25)
    assert len(spots) == len(set(spots)) == 25
    centres = np.array([spot.centre_px for spot in spots])
    gaps = np.hypot(*(centres[:, None] - centres[None]).T) + 1e9 * np.eye(25)
    assert gaps.min() > 400  # a fifth of 3000 px is 600 px, less the raster of the tiles
    few = everywhere[:3]
    assert set(spread_out(few, count=25)) <= set(few)
    assert spread_out((), count=25) == []


class Votes:
    """Spots left of `clear_px` all see (31, -12) px; each other one something else, as over water."""

    def __init__(self, clear_px: float) -> None:
        self.clear_px = clear_px
        self.asked: list[list[Tile]] = []

    def probabilities(self, job: MatchJob, spots: Sequence[Tile]) -> list[Plane]:
        rng = np.random.default_rng(len(self.asked))
        self.asked.append(list(spots))
        reach = job.coarse_search_px
        votes = np.zeros((len(spots), 2 * reach + 1, 2 * reach + 1), np.float32)
        for vote, spot in zip(votes, spots, strict=True):
            clear = spot.centre_px[0] < self.clear_px
            dx, dy = (31, -12) if clear else rng.integers(-reach, reach + 1, 2)
            vote[reach + dy, reach + dx] = 1
        return list(votes)

    def match(self, job: MatchJob, work: Sequence[Chunk]) -> Iterator[tuple[Chunk, TiePoints]]:
        raise NotImplementedError("the coarse step is all that is asked of it")


@pytest.mark.parametrize(("clear_px", "rounds"), [(9999, [9]), (500, [9, 16])])
def test_a_third_of_the_spots_is_asked_and_all_of_them_where_the_third_disagrees(
    reference: Path, clear_px: float, rounds: list[int]
) -> None:
    """One of five columns is clear: five votes of 25, of which the first third has two."""
    sources = open_pair(reference, reference, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    grid = GeoBox((2048, 2048), Affine(PIXEL_M, 0, 0, 0, -PIXEL_M, 0), "EPSG:32632")
    job = MatchJob(*sources, grid, search_px=16, coarse_search_px=60)
    engine = Votes(clear_px)
    everywhere = tuple(tiles(grid.shape, size_px=192, stride_px=64))
    found = find_coarse_offset(job, everywhere, engine, most_spots=25)
    assert [len(spots) for spots in engine.asked] == rounds
    assert len({spot for spots in engine.asked for spot in spots}) == found.spots == sum(rounds)
    assert found.reliable
    assert np.hypot(found.dx_px - 31, found.dy_px + 12) <= 1


@pytest.mark.parametrize("side", [3, 4, 5, 6])
def test_each_third_of_the_spots_lies_all_over_the_scene(side: int) -> None:
    spots = spread_out(tuple(tiles((2048, 2048), size_px=192, stride_px=16)), count=side**2)
    few = np.array([spot.centre_px for spot in spots[: -(-len(spots) // 3)]])
    cells = (few / 2048 * side).astype(int)
    assert set(cells[:, 0]) == set(cells[:, 1]) == set(range(side))


def test_nothing_clear_is_hardly_ever_reliable_in_either_round(reference: Path) -> None:
    sources = open_pair(reference, reference, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    grid = GeoBox((2048, 2048), Affine(PIXEL_M, 0, 0, 0, -PIXEL_M, 0), "EPSG:32632")
    job = MatchJob(*sources, grid, search_px=16, coarse_search_px=72)
    everywhere = tuple(tiles(grid.shape, size_px=192, stride_px=64))
    engine = Votes(-1)
    found = [find_coarse_offset(job, everywhere, engine, most_spots=25).reliable for _ in range(150)]
    assert np.mean(found) <= 0.02
