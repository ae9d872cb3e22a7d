"""Figures that need no labelled truth: what must close, must not change, or must come back.

    python benchmarks/matcher/closures.py ../shared/data

closure      known sub-pixel shifts of the SAR (Fourier), tile by tile
invariance   the same ground tiles after both images were cropped by whole pixels, and cut out of the scene in
             windows of their own: the bare matcher on arrays that begin anywhere, and the product, which
             reads windows that begin at fixed places on the ground
loop         over dates: offset(S2_j -> S1_i) must be offset(S2_j -> S1_k) + offset(S1_k -> S1_i), the last
             within one sensor by classical correlation; mutual information beside the shipped matcher
radiometry   the same tiles with the SAR in other units and other optical bands, against the Texas truth
chips        other sensors' products, weights unchanged: offset, confidence, there and back
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from classical import mutual_information, plain_zncc
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scenes import (
    Plane,
    Site,
    amplitude,
    load_on_one_thread,
    luminance,
    parser_of,
    picture_db,
    read_picture,
    texas_bands,
    texas_site,
)
from scipy.ndimage import gaussian_filter

from crosstie.flows.registration.measure import MatchJob, match_chunk, read_chunk
from crosstie.grid import Chunk, tile_starts, window
from crosstie.io.raster import open_pair, read_plane
from crosstie.io.raster.values.plane import optical_plane, sar_plane
from crosstie.matcher.matching import Matcher, Matches
from crosstie.matcher.training.closure import shifted
from crosstie.types import Kind, Tile

SIZE_PX, SEARCH_PX = 192, 32

SHIFTS_PX = ((0.5, 0.0), (0.37, -0.61), (-2.25, 3.75))
"""Known shifts (dx, dy) of the closure."""

CROPS_PX = ((1, 1), (7, 13), (8, 8), (12, 15))
"""Rows and columns taken off the top and the left of both images."""

LOOP_SEARCH_PX = 20
"""Reach of the search between dates: 192-px tiles of 256-px pictures leave room for moving the window."""

LOOP_MARGIN_PX = 32
"""First pixel of the tile in a picture."""

MOVE_PX = 8
"""Each SAR picture of the loop is moved by a drawn shift of up to this: what sticks to zero, or to whole
pixels, does not close."""

VEIL = 0.03
"""An optical picture whose median is brighter than that of its place's twelve dates by more is veiled."""

CHIP_SIZE_PX, CHIP_SEARCH_PX, CHIP_STRIDE_PX = 128, 16, 32

SURE = 0.5

Figures = dict[str, object]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What every part needs."""

    matcher: Matcher
    data: Path
    triples: int
    with_mi: bool
    seed: int

    @property
    def texas(self) -> Path:
        return self.data / "scenes" / "T14RNT-2048"


def main() -> None:
    parser = parser_of(__doc__)
    parts: dict[str, Callable[[Run], Figures]] = {
        "closure": closure,
        "invariance": invariance,
        "loop": loop,
        "radiometry": radiometry,
        "chips": chips,
    }
    parser.add_argument("--only", choices=parts, nargs="+", default=list(parts))
    parser.add_argument("--triples", type=int, default=400, help="of place and dates in the loop closure")
    parser.add_argument("--methods", choices=("crosstie", "mi"), nargs="+", default=["crosstie", "mi"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    matcher = load_on_one_thread(arguments.weights)
    run = Run(matcher, arguments.data, arguments.triples, "mi" in arguments.methods, arguments.seed)
    print(f"weights {matcher.weights_sha256[:12]}")
    figures: dict[str, Figures] = {}
    for name in arguments.only:
        print(f"\n{name}", flush=True)
        figures[name] = parts[name](run)
        _print(figures[name])
    if arguments.json:
        body = {"weights_sha256": matcher.weights_sha256} | figures
        arguments.json.write_text(json.dumps(body, indent=1) + "\n")


def closure(run: Run) -> Figures:
    """Error (px) of known sub-pixel shifts, and how it compares with the sigma that is claimed."""
    site = texas_site(run.texas, size_px=SIZE_PX, search_px=SEARCH_PX, stride_px=64)
    plain = _match(run.matcher, site.optical, site.sar_db, site.rows, site.cols)
    gaps, sigmas = [], []
    for shift in SHIFTS_PX:
        moved = shifted(site.sar_db, shift)
        found = _match(run.matcher, site.optical, moved, site.rows, site.cols)
        gaps.append(found.offset_px - plain.offset_px - shift)
        sigmas.append(found.sigma_px)
    gap, sigma = np.concatenate(gaps), np.concatenate(sigmas)
    sure = np.tile(plain.confidence >= SURE, len(SHIFTS_PX))
    error = np.hypot(*gap.T)
    truth_gap = np.abs(plain.offset_px - site.truth_px)
    return {
        "tiles": len(plain.offset_px),
        "all": _spread(error),
        "sure": _spread(error[sure]) | {"share": float(sure.mean())},
        "within_one_sigma": {
            "closure_error_per_axis": float((np.abs(gap) <= sigma[:, None]).mean()),
            "error_against_truth_per_axis": float((truth_gap <= plain.sigma_px[:, None]).mean()),
            "wanted": [0.60, 0.76],
            "median_sigma_px": float(np.median(plain.sigma_px)),
            "rms_closure_error_per_axis_px": float(np.sqrt((gap**2).mean())),
        },
    }


def invariance(run: Run) -> Figures:
    """Change (px) of the offsets of the same ground, wanted below 0.02 px for the product.

    Tiles whose context reaches over the edge of the cropped scene see something else there, so the figures
    of those that keep theirs are given apart (`inside`).
    """
    site = texas_site(run.texas, size_px=SIZE_PX, search_px=SEARCH_PX, stride_px=192)
    margin = SEARCH_PX + run.matcher.halo_px
    limit = max(map(max, CROPS_PX))
    kept = (site.rows >= SEARCH_PX + limit) & (site.cols >= SEARCH_PX + limit)
    rows, cols = site.rows[kept], site.cols[kept]
    plain = _match(run.matcher, site.optical, site.sar_db, rows, cols).offset_px
    changes = []
    for row, col in CROPS_PX:
        found = _match(run.matcher, site.optical[row:, col:], site.sar_db[row:, col:], rows - row, cols - col)
        changes.append(np.hypot(*(found.offset_px - plain).T))
    inside = _inside(rows, cols, site.optical.shape, margin + limit)
    change = np.array(changes)
    apart = _windows_apart(run, site, rows, cols, plain, margin)
    by_crop = {f"{r}, {c}": _spread(e[inside]) for (r, c), e in zip(CROPS_PX, change, strict=True)}
    return {
        "bare_cropped": _spread(change),
        "bare_cropped_inside": _spread(change[:, inside]),
        "bare_cropped_inside_by_rows_cols": by_crop,
        "bare_windows_of_their_own": apart,
        "product": _product(run),
    }


def _product(run: Run) -> Figures:
    """Change (px) of what `crosstie register` measures at the same ground tiles.

    The files are cropped by whole pixels, or the tiles are read in a window of their own each instead of one
    for all.
    """
    files = {Kind.OPTICAL: run.texas / "s2_tci.tif", Kind.SAR: run.texas / "s1_vh.tif"}
    first = 400  # whole halo inside the scene, whatever is cropped
    places = [(first + i * 160, first + j * 160) for i in range(4) for j in range(4)]
    plain = _measure_files(run, files, places)
    cropped = []
    with tempfile.TemporaryDirectory() as name:
        for row, col in CROPS_PX:
            parts = {kind: _cropped(path, row, col, Path(name)) for kind, path in files.items()}
            moved = _measure_files(run, parts, [(r - row, c - col) for r, c in places])
            cropped.append(np.hypot(*(moved - plain).T))
    apart = np.concatenate([_measure_files(run, files, [place]) for place in places])
    return {
        "tiles": len(places),
        "cropped": _spread(np.concatenate(cropped)),
        "windows_of_their_own": _spread(np.hypot(*(apart - plain).T)),
    }


def _measure_files(run: Run, files: dict[Kind, Path], places: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Offsets (N, 2), px, of tiles that begin at (row, col), read in one window as the flows read them."""
    reference, secondary = open_pair(files[Kind.OPTICAL], files[Kind.SAR])
    job = MatchJob(reference, secondary, reference.geobox, search_px=SEARCH_PX, coarse_search_px=0)
    chunk = Chunk(tuple(Tile(row=r, col=c, size_px=SIZE_PX) for r, c in places))
    points = match_chunk(job, chunk, read_chunk(job, chunk, halo_px=run.matcher.halo_px), run.matcher)
    return points.offset_m / (reference.affine.a, reference.affine.e)


def _cropped(path: Path, row: int, col: int, folder: Path) -> Path:
    """Write the file without its first rows and columns, the rest in its place on the ground."""
    with rasterio.open(path) as file:
        transform = file.transform @ Affine.translation(col, row)
        pixels, profile = file.read()[:, row:, col:], file.profile
    out = folder / f"{path.stem}_{row}_{col}.tif"
    kept = {name: profile[name] for name in ("count", "dtype", "crs", "nodata")}
    size = {"height": pixels.shape[1], "width": pixels.shape[2], "transform": transform}
    colours = {"photometric": "RGB"} if profile["count"] == 3 else {}
    with rasterio.open(out, "w", driver="GTiff", **kept, **size, **colours) as file:
        file.write(pixels)
    return out


def _windows_apart(
    run: Run,
    site: Site,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    plain: NDArray[np.float64],
    margin: int,
) -> Figures:
    """Change of the offset of tiles each measured in a window of its own, begun at any pixel.

    The window holds search and halo, and 0 to 15 px more.
    """
    rng = np.random.default_rng(run.seed)
    chosen = np.flatnonzero(_inside(rows, cols, site.optical.shape, margin + 16))
    chosen = rng.choice(chosen, size=min(40, len(chosen)), replace=False)
    change = []
    for n in chosen:
        top, left, down, right = margin + rng.integers(0, 16, 4)
        cut = (
            slice(rows[n] - top, rows[n] + SIZE_PX + down),
            slice(cols[n] - left, cols[n] + SIZE_PX + right),
        )
        found = _match(
            run.matcher, site.optical[cut], site.sar_db[cut], np.array([int(top)]), np.array([int(left)])
        )
        change.append(np.hypot(*(found.offset_px[0] - plain[n])))
    return _spread(np.array(change)) | {"tiles": len(chosen)}


def _inside(
    rows: NDArray[np.int64], cols: NDArray[np.int64], shape: tuple[int, ...], margin: int
) -> NDArray[np.bool_]:
    ends = (rows + SIZE_PX + margin <= shape[0]) & (cols + SIZE_PX + margin <= shape[1])
    inside: NDArray[np.bool_] = (rows >= margin) & (cols >= margin) & ends
    return inside


def loop(run: Run) -> Figures:
    """Closure (px) over place and dates, one tile of 192 px from the middle of each 256-px picture.

    Every SAR picture is moved by a known shift of its own.
    """
    folder = run.data / "pairs" / "sebast144"
    dates: dict[str, list[str]] = {}
    for path in sorted((folder / "s1").glob("*.png")):
        date, place = path.stem.split("_")
        dates.setdefault(place, []).append(date)
    names = [f"{date}_{place}" for place, known in dates.items() for date in known]
    optical = {name: luminance(read_picture(folder / "s2" / f"{name}.jpg")) for name in names}
    grey = {name: read_picture(folder / "s1" / f"{name}.png") for name in names}
    rng = np.random.default_rng(run.seed)
    shift = {name: rng.uniform(-MOVE_PX, MOVE_PX, 2) for name in names}
    sar = {name: _moved(grey[name], shift[name]) for name in names}
    usual = {p: np.median([np.median(optical[f"{d}_{p}"]) for d in known]) for p, known in dates.items()}
    veiled = {n for n in names if np.median(optical[n]) > usual[n.split("_")[1]] + VEIL}
    triples = _draw_triples(dates, veiled, run)
    within = {
        (k, i): _sar_offset(grey[k], grey[i]) + shift[i] - shift[k]
        for k, i in sorted({(k, i) for _, i, k in triples})
    }
    across = sorted({(j, s) for j, i, k in triples for s in (i, k)})
    matches = {pair: _match_pictures(run.matcher, optical[pair[0]], sar[pair[1]]) for pair in across}
    measured = {"crosstie": {pair: found.offset_px[0] for pair, found in matches.items()}}
    if run.with_mi:
        measured["mi"] = {(j, s): _mutual_information_offset(optical[j], sar[s]) for j, s in across}
    sure = np.array(
        [min(matches[j, i].confidence[0], matches[j, k].confidence[0]) >= SURE for j, i, k in triples]
    )
    places = np.array([j.split("_")[1] for j, _, _ in triples])
    figures: Figures = {
        "triples": len(triples),
        "veiled_pictures_left_out": sorted(veiled),
        "sar_to_sar_ring": _within_one_sensor(grey, dates, run),
    }
    for method, offset in measured.items():
        gap = np.array([offset[j, i] - offset[j, k] - within[k, i] for j, i, k in triples])
        figures |= _loop_figures(method, np.hypot(*gap.T), sure, places)
    return figures


def _loop_figures(
    method: str, error_px: NDArray[np.float64], sure: NDArray[np.bool_], places: NDArray[np.str_]
) -> Figures:
    """Closure of all triples, of those that crosstie is sure of, and by place."""
    return {
        method: _spread(error_px) | {"within_1px": float((error_px <= 1).mean())},
        f"{method}_where_crosstie_is_sure": _spread(error_px[sure]) | {"share": float(sure.mean())},
        f"{method}_median_by_place": {
            str(place): float(np.median(error_px[places == place])) for place in np.unique(places)
        },
    }


def _mutual_information_offset(optical: Plane, sar_db: Plane) -> NDArray[np.float64]:
    """Offset (2,) of the middle tile of two pictures by mutual information."""
    middle = slice(LOOP_MARGIN_PX, LOOP_MARGIN_PX + SIZE_PX)
    seen = slice(LOOP_MARGIN_PX - LOOP_SEARCH_PX, LOOP_MARGIN_PX + SIZE_PX + LOOP_SEARCH_PX)
    return np.array(mutual_information(optical[middle, middle], amplitude(sar_db[seen, seen])).offset_px)


def _moved(grey: Plane, shift_px: NDArray[np.float64]) -> Plane:
    """SAR plane in dB whose content is moved by (dx, dy), cut to what the search sees, NaN around."""
    whole = np.round(shift_px).astype(int)
    moved = shifted(grey[0], tuple(shift_px - whole))
    low, side = LOOP_MARGIN_PX - LOOP_SEARCH_PX, SIZE_PX + 2 * LOOP_SEARCH_PX
    plane = np.full(grey.shape[1:], np.nan, np.float32)
    seen = slice(low, low + side)
    row, col = low - whole[1], low - whole[0]
    plane[seen, seen] = picture_db(moved[None, row : row + side, col : col + side])
    return plane


def _sar_offset(reference: Plane, secondary: Plane) -> NDArray[np.float64]:
    """Offset (dx, dy) between two SAR pictures of one place: correlation of smoothed grey levels.

    Of what was tried the most consistent round a ring of three dates (median 0.045 px); on dB it is 0.2 px.
    """
    tile, window = (gaussian_filter(grey[0], 1.0, mode="nearest") for grey in (reference, secondary))
    return np.array(plain_zncc(tile[8:-8, 8:-8], window).offset_px)


def _draw_triples(dates: dict[str, list[str]], veiled: set[str], run: Run) -> list[tuple[str, str, str]]:
    """(optical j, SAR i, SAR k) of one place, three dates, j not veiled; a seeded draw without repeats."""
    every = [
        (f"{j}_{place}", f"{i}_{place}", f"{k}_{place}")
        for place, known in dates.items()
        for j in known
        if f"{j}_{place}" not in veiled
        for i in known
        for k in known
        if len({i, j, k}) == 3
    ]
    chosen = np.random.default_rng(run.seed).permutation(len(every))[: run.triples]
    return [every[n] for n in sorted(chosen)]


def _within_one_sensor(grey: dict[str, Plane], dates: dict[str, list[str]], run: Run) -> Figures:
    """What the ruler itself is worth: three SAR dates in a ring, by classical correlation alone."""
    rng = np.random.default_rng(run.seed)
    errors = []
    for place in rng.choice(sorted(dates), size=100):
        a, b, c = (f"{date}_{place}" for date in rng.choice(dates[place], size=3, replace=False))
        ring = [_sar_offset(grey[p], grey[q]) for p, q in ((a, b), (b, c), (c, a))]
        errors.append(np.hypot(*np.sum(ring, axis=0)))
    return _spread(np.array(errors))


def _match_pictures(matcher: Matcher, optical: Plane, sar: Plane) -> Matches:
    start = np.array([LOOP_MARGIN_PX])
    return _match(matcher, optical, sar, start, start, search_px=LOOP_SEARCH_PX)


def radiometry(run: Run) -> Figures:
    """CMR@1/2 of the same Texas tiles under other units and bands."""
    rgb, stored = texas_bands(run.texas)
    site = texas_site(run.texas, size_px=SIZE_PX, search_px=SEARCH_PX, stride_px=128)
    decibel = 20 * np.log10(stored[None])
    sars = {
        "amplitude": sar_plane(stored[None], is_db=False),
        "power": sar_plane(stored[None] ** 2, is_db=False),
        "dB": sar_plane(decibel, is_db=True),
        "amplitude, no logarithm": stored,
        "power, no logarithm": stored**2,
    }
    opticals = {
        "luminance": optical_plane(rgb),
        "red": rgb[0],
        "green": rgb[1],
        "blue": rgb[2],
    }
    pairs = [("luminance", sar) for sar in sars] + [(band, "amplitude") for band in list(opticals)[1:]]
    figures: Figures = {"tiles": len(site.rows)}
    for band, unit in pairs:
        found = _match(run.matcher, opticals[band], sars[unit], site.rows, site.cols)
        error = np.hypot(*(found.offset_px - site.truth_px).T)
        figures[f"{band} / {unit}"] = {f"cmr_{t}": float((error <= t).mean()) for t in (1, 2)} | {
            "median_px": float(np.median(error)),
            "mean_confidence": float(found.confidence.mean()),
        }
    return figures


def chips(run: Run) -> Figures:
    """Offset and confidence on products of other kinds; there is no truth but for `sih1733`."""
    folder = run.data / "chips"
    figures: Figures = {}
    for path in sorted((folder / "terramind5" / "S2L2A").glob("*.tif")):
        figures[f"terramind5 {path.stem}"] = _chip(
            run.matcher, path, folder / "terramind5" / "S1RTC" / path.name
        )
    for clear in ("s2_cloudfree", "s2_cloudy"):
        for path in sorted((folder / "glfcr2" / clear).glob("*.tif")):
            figures[f"glfcr2 {clear[3:]} {path.stem}"] = _chip(
                run.matcher, path, folder / "glfcr2" / "s1" / path.name
            )
    for path in sorted((folder / "sen1floods11" / "S2").glob("*.tif")):
        sar = folder / "sen1floods11" / "S1" / path.name.replace("S2Hand", "S1Hand")
        figures[f"sen1floods11 {path.stem}"] = _chip(run.matcher, path, sar)
    for pair in sorted((run.data / "pairs" / "sih1733").iterdir()):
        optical = luminance(read_picture(next(pair.glob("Optical*.jpg"))))
        sar = picture_db(read_picture(next(pair.glob("SAR*.jpg"))))
        figures[f"sih1733 {pair.name} (known: below 0.5 px)"] = _there_and_back(
            run.matcher, optical, sar, stride_px=128
        )
    return figures


def _chip(matcher: Matcher, optical: Path, sar: Path) -> Figures:
    """Measure a georeferenced pair on the optical image's grid; in UTM, of 10 m, where that is in degrees."""
    reference, secondary = open_pair(optical, sar, reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR)
    grid = reference.geobox
    if grid.crs is not None and grid.crs.geographic:
        around = grid.to_crs("utm", resolution=10)
        grid = GeoBox(around.shape, Affine(10, 0, around.affine.c, 0, -10, around.affine.f), around.crs)
    around = window(
        grid,
        row=-CHIP_SEARCH_PX,
        col=-CHIP_SEARCH_PX,
        shape=(grid.shape[0] + 2 * CHIP_SEARCH_PX, grid.shape[1] + 2 * CHIP_SEARCH_PX),
    )
    planes = read_plane(reference, around), read_plane(secondary, around)
    return _there_and_back(matcher, *planes, stride_px=CHIP_STRIDE_PX)


def _there_and_back(matcher: Matcher, optical: Plane, sar: Plane, *, stride_px: int) -> Figures:
    """Offsets optical -> SAR, and what is left of them after SAR -> optical."""
    inside = [n - 2 * CHIP_SEARCH_PX for n in optical.shape]
    starts = [
        np.array(tile_starts(n, size_px=CHIP_SIZE_PX, stride_px=stride_px)) + CHIP_SEARCH_PX for n in inside
    ]
    rows, cols = (axis.ravel() for axis in np.meshgrid(*starts, indexing="ij"))
    covered = [
        np.isfinite(plane[r : r + CHIP_SIZE_PX, c : c + CHIP_SIZE_PX]).mean() > 0.5
        for plane in (optical, sar)
        for r, c in zip(rows, cols, strict=True)
    ]
    kept = np.reshape(covered, (2, -1)).all(0)
    rows, cols = rows[kept], cols[kept]
    sizes = {"size_px": CHIP_SIZE_PX, "search_px": CHIP_SEARCH_PX}
    if not len(rows):
        return {"tiles": 0, "verdict": "no tile covered by both images"}
    there = matcher.match(
        optical, sar, rows, cols, reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR, **sizes
    )
    back = matcher.match(
        sar, optical, rows, cols, reference_kind=Kind.SAR, secondary_kind=Kind.OPTICAL, **sizes
    )
    both = np.hypot(*(there.offset_px + back.offset_px).T)
    sure = there.confidence >= SURE
    figures: Figures = {
        "tiles": len(rows),
        "median_offset_px": np.median(there.offset_px, axis=0).tolist(),
        "mean_confidence": float(there.confidence.mean()),
        "sure_share": float(sure.mean()),
        "there_and_back_px": float(np.median(both)),
        "verdict": "measured" if sure.mean() >= 0.5 else "doubtful" if sure.any() else "refused",
    }
    if sure.any():
        figures |= {
            "sure_median_offset_px": np.median(there.offset_px[sure], axis=0).tolist(),
            "sure_there_and_back_px": float(np.median(both[sure])),
        }
    return figures


def _match(
    matcher: Matcher,
    optical: Plane,
    sar: Plane,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    *,
    search_px: int = SEARCH_PX,
) -> Matches:
    return matcher.match(
        optical,
        sar,
        rows,
        cols,
        size_px=SIZE_PX,
        search_px=search_px,
        reference_kind=Kind.OPTICAL,
        secondary_kind=Kind.SAR,
    )


def _spread(error_px: NDArray[np.float64]) -> Figures:
    if not error_px.size:
        return {}
    return {
        "median_px": float(np.median(error_px)),
        "p95_px": float(np.quantile(error_px, 0.95)),
        "max_px": float(error_px.max()),
    }


def _print(figures: Figures, indent: int = 2) -> None:
    for name, value in figures.items():
        if isinstance(value, dict) and not any(isinstance(part, dict) for part in value.values()):
            print(f"{' ' * indent}{name:<44} " + "  ".join(f"{k} {_short(v)}" for k, v in value.items()))
        elif isinstance(value, dict):
            print(f"{' ' * indent}{name}")
            _print(value, indent + 2)
        else:
            print(f"{' ' * indent}{name:<44} {_short(value)}")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return "(" + ", ".join(_short(part) for part in value) + ")"
    return str(value)


if __name__ == "__main__":
    main()
