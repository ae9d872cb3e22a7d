"""Measure a matcher on pairs whose true offset is known: place templates, match, compare with the truth."""

from __future__ import annotations

import csv
import io
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosstie.errors import BadInputError, SettingsError
from crosstie.io.datasets import public_sets as sets
from crosstie.io.datasets.pair_table import read_pair_table
from crosstie.io.datasets.scene_tiles import scenes, sih1733
from crosstie.io.datasets.split import Part, split_at_random, split_by_place
from crosstie.io.plots.evaluation import WorstPair, evaluation_png
from crosstie.matcher.calibration import expected_calibration_error
from crosstie.matcher.evaluation.metrics import metrics
from crosstie.types import Tile

if TYPE_CHECKING:
    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.io.datasets.benchmark_pair import BenchmarkPair
    from crosstie.types import BoolArray, FloatArray

CHIP_PX = 256
"""Up to this side a picture is a chip, which is cut at random; a larger one is cut at its centre."""

LARGEST_PX, SMALLEST_PX = 512, 32
"""Sides of a template that is chosen to fit."""

SCENE_SIZES_PX = (192, 128, 64)
"""Sides of the templates of a whole scene."""

SPAN_PX = 768
"""Templates that begin in one cell of this side share one pass of the network, as in use."""

RIM_PX = 1
"""A true offset is kept this far from the end of the search: a peak needs neighbours on both sides."""


class Dataset(StrEnum):
    """Sets with loaders."""

    SEN12 = "sen12"
    QXS = "qxs"
    SCENES = "scenes"
    OMBRIA = "ombria"
    SEBAST144 = "sebast144"
    SIH1733 = "sih1733"


TRUTH = {
    Dataset.SEN12: "taken as zero, as published: nobody has measured it",
    Dataset.QXS: "taken as zero, as published: nobody has measured it; the set names no places, runs of "
    "consecutive numbers stand for them",
    Dataset.SCENES: "a classical dense matcher, smoothed: noise 0.5 to 1 px",
    Dataset.OMBRIA: "a classical dense matcher; pairs without a distinct peak are left out",
    Dataset.SEBAST144: "taken as zero, as published; a classical matcher finds a median of 1 px",
    Dataset.SIH1733: "taken as zero, as published; a classical matcher finds less than 0.5 px",
}
"""Where the true offsets of each set come from."""

PUBLISHED_TEST_SHARE = {Dataset.SEN12: 1 - 256_000 / 282_384, Dataset.QXS: 4_000 / 20_000}
"""Of SEN1-2 16,000 labelled and 240,000 unlabelled pairs of 282,384 were learnt from; of QXS-SAROPT 4,000 of
20,000 were tested on."""


class Split(StrEnum):
    """How a set is parted."""

    PLACE = "place"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Protocol:
    """How templates are cut and searched."""

    search_px: int = 32
    """How far an offset may reach per axis, px."""
    sizes_px: tuple[int, ...] = ()
    """Sides of the templates; none: 192, 128 and 64 in scenes, and in pictures the largest that fits."""
    seed: int = 0
    """Of where templates are cut and how far the secondary is moved first."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One template of one pair, and what is asked of the matcher there."""

    pair: BenchmarkPair
    tile: Tile
    shape: tuple[int, int]
    """(rows, cols) of the images."""
    shift_px: tuple[int, int]
    """Known extra shift (x, y) of the secondary: a matcher that sticks to zero must not look good."""

    @property
    def true_px(self) -> tuple[float, float]:
        """Offset (x, y) that the matcher should find, px."""
        return self.pair.dx_px + self.shift_px[0], self.pair.dy_px + self.shift_px[1]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a matcher found at N placements."""

    placements: tuple[Placement, ...]
    offset_px: FloatArray
    """(N, 2) measured, the extra shift taken off."""
    sigma_px: FloatArray
    """(N,)"""
    confidence: FloatArray
    """(N,) 0..1"""
    ms: FloatArray
    """(N,) features and match, milliseconds; templates that share a pass share its time."""

    @property
    def error_px(self) -> FloatArray:
        """(N, 2) measured minus true offset."""
        true = np.array([(p.pair.dx_px, p.pair.dy_px) for p in self.placements]).reshape(-1, 2)
        return np.asarray(self.offset_px - true)

    @property
    def distance_px(self) -> FloatArray:
        """(N,) length of the error."""
        return np.asarray(np.hypot(*self.error_px.T))

    @property
    def places(self) -> list[str]:
        return [p.pair.place for p in self.placements]

    @property
    def sizes_px(self) -> list[int]:
        return [p.tile.size_px for p in self.placements]

    def figures(self, mask: BoolArray | None = None) -> dict[str, float]:
        """All figures of the placements where `mask` (N,) is True."""
        keep = np.ones(len(self.placements), np.bool_) if mask is None else mask
        good = self.distance_px[keep] <= 1
        return {
            **asdict(metrics(self.error_px[keep])),
            "expected_calibration_error": expected_calibration_error(self.confidence[keep], good),
            "ms_per_pair": float(self.ms[keep].mean()),
            "ms_median": float(np.median(self.ms[keep])),
        }

    def sections(self, labels: Sequence[str] | Sequence[int]) -> dict[str, dict[str, float]]:
        """Figures of each group of equal labels (N,), in the labels' order."""
        column = np.asarray(labels)
        return {str(label): self.figures(column == label) for label in np.unique(column)}

    def rows(self) -> list[dict[str, str | float]]:
        """One row a placement, for a table."""
        return [
            {
                "name": p.pair.name,
                "place": p.pair.place,
                "size_px": p.tile.size_px,
                "row": p.tile.row,
                "col": p.tile.col,
                "shift_x_px": p.shift_px[0],
                "shift_y_px": p.shift_px[1],
                "true_dx_px": p.pair.dx_px,
                "true_dy_px": p.pair.dy_px,
                "dx_px": round(float(self.offset_px[n, 0]), 4),
                "dy_px": round(float(self.offset_px[n, 1]), 4),
                "error_px": round(float(self.distance_px[n]), 4),
                "sigma_px": round(float(self.sigma_px[n]), 4),
                "confidence": round(float(self.confidence[n]), 4),
                "ms": round(float(self.ms[n]), 2),
            }
            for n, p in enumerate(self.placements)
        ]


def load_pairs(
    dataset: Dataset,
    folder: Path,
    protocol: Protocol,
    *,
    part: Part = Part.ALL,
    split: Split = Split.PLACE,
) -> list[BenchmarkPair]:
    """List the pairs of one set, or of one part of it.

    Raises
    ------
    BadInputError : the folder does not hold the set as it is published
    SettingsError : the set has no such part
    """
    sizes = protocol.sizes_px or SCENE_SIZES_PX
    if dataset in (Dataset.SEN12, Dataset.QXS):
        pairs = sets.sen12(folder) if dataset is Dataset.SEN12 else sets.qxs(folder)
        if split is Split.PLACE:
            return split_by_place(pairs, part, seed=protocol.seed)
        share = PUBLISHED_TEST_SHARE[dataset]
        return split_at_random(pairs, part, seed=protocol.seed, test_share=share)
    if dataset is Dataset.OMBRIA and part is not Part.TRAIN:
        return sets.ombria(folder, role="test" if part is Part.TEST else None)
    if part is not Part.ALL:
        raise SettingsError(f"--part {part}: {dataset} has no such part; leave it out")
    if dataset is Dataset.SEBAST144:
        return sets.sebast144(folder)
    tiled = scenes if dataset is Dataset.SCENES else sih1733
    return tiled(folder, sizes_px=sizes, search_px=protocol.search_px)


def load_table(table: Path) -> list[BenchmarkPair]:
    """List the pairs of a table (`io.pair_table`)."""
    return read_pair_table(table)


def some_of(pairs: Sequence[BenchmarkPair], limit: int | None, *, seed: int) -> list[BenchmarkPair]:
    """At most `limit` pairs, drawn by the seed, in the order of the set."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    chosen = np.random.default_rng((seed, 3)).permutation(len(pairs))[:limit]
    return [pairs[n] for n in sorted(chosen.tolist())]


def place(pairs: Sequence[BenchmarkPair], protocol: Protocol) -> list[list[Placement]]:
    """Choose the templates of every pair; those of one group are matched together.

    What is drawn depends on the seed and on the pair's name alone, not on which other pairs there are.

    Raises
    ------
    BadInputError : a pair is too small, its images differ in size, or its offset is beyond the search
    """
    cells: dict[tuple[Any, ...], list[BenchmarkPair]] = {}
    groups = []
    for pair in pairs:
        if pair.tile is None:
            shape = pair.shape()
            sizes = protocol.sizes_px or (_fitting_px(pair, shape, protocol.search_px),)
            groups += [[place_picture(pair, shape, size, protocol)] for size in sizes]
        else:
            cell = (pair.tile.size_px, pair.tile.row // SPAN_PX, pair.tile.col // SPAN_PX)
            cells.setdefault((pair.reference, pair.secondary, *cell), []).append(pair)
    shapes: dict[tuple[Path, Path], tuple[int, int]] = {}
    for members in cells.values():
        files = (members[0].reference, members[0].secondary)
        if files not in shapes:
            shapes[files] = members[0].shape()
        groups.append(place_tiles(members, shapes[files], protocol))
    return groups


def place_picture(pair: BenchmarkPair, shape: tuple[int, int], size_px: int, protocol: Protocol) -> Placement:
    """Choose where the template of one pair of pictures is cut.

    In a chip the template lies at random in the reference, and so does the search window in the secondary:
    their distance is the known shift, drawn evenly over the search. In a larger picture the template is cut
    at the centre and nothing is moved.

    Raises
    ------
    BadInputError : the template does not fit, or the true offset cannot be reached
    """
    search = protocol.search_px
    room = min(shape) - 2 * search
    if size_px > room:
        raise BadInputError(
            f"{pair.name}: a template of {size_px} px with {search} px of search on every side does not fit "
            f"its {shape[0]} x {shape[1]} px; at most {max(room, 0)} px do"
        )
    if min(shape) > CHIP_PX:
        furthest = max(abs(pair.dx_px), abs(pair.dy_px))
        if furthest > search:
            raise _beyond(pair, search)
        row, col = ((length - size_px) // 2 for length in shape)
        return Placement(pair, Tile(row, col, size_px), shape, (0, 0))
    rng = np.random.default_rng((protocol.seed, zlib.crc32(pair.name.encode()), size_px))
    starts, shifts = [], []
    for length, offset in zip(shape, (pair.dy_px, pair.dx_px), strict=True):
        least = max(-search, math.ceil(RIM_PX - search - offset))
        most = min(search, math.floor(search - RIM_PX - offset))
        if least > most:
            raise _beyond(pair, search)
        window = int(rng.integers(0, length - 2 * search - size_px + 1))
        shift = int(rng.integers(least, most + 1))
        starts.append(window + search + shift)
        shifts.append(shift)
    return Placement(pair, Tile(starts[0], starts[1], size_px), shape, (shifts[1], shifts[0]))


def place_tiles(
    pairs: Sequence[BenchmarkPair], shape: tuple[int, int], protocol: Protocol
) -> list[Placement]:
    """Move the secondary of neighbouring tiles of a scene by one known shift of up to half the search."""
    key = zlib.crc32(pairs[0].name.encode())
    rng = np.random.default_rng((protocol.seed, key))
    reach = protocol.search_px // 2
    shift = []
    for axis in ("dx_px", "dy_px"):
        offsets = [getattr(pair, axis) for pair in pairs]
        least = max(-reach, math.ceil(RIM_PX - protocol.search_px - min(offsets)))
        most = min(reach, math.floor(protocol.search_px - RIM_PX - max(offsets)))
        shift.append(int(rng.integers(least, most + 1)) if least <= most else 0)
    return [Placement(p, p.tile, shape, (shift[0], shift[1])) for p in pairs if p.tile is not None]


def evaluate(
    groups: Sequence[Sequence[Placement]],
    matcher: TileMatcher,
    *,
    search_px: int,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Match every placement and keep what was found, in the order of the groups.

    Parameters
    ----------
    progress : called with the number of placements done since the last call

    Raises
    ------
    UnreadableRasterError : an image is missing or cut short
    """
    columns: list[tuple[FloatArray, ...]] = []
    for number, group in enumerate(groups):
        if number == 0:  # the first call pays for what is set up once: not the pair's time
            _match(group[:1], matcher, search_px)
        columns.append(_match(group, matcher, search_px))
        if progress is not None:
            progress(len(group))
    offset, sigma, confidence, ms = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Evaluation(tuple(p for group in groups for p in group), offset, sigma, confidence, ms)


def report(evaluation: Evaluation, *, per_pair: bool = False) -> dict[str, Any]:
    """Everything measured, fit for JSON: figures, the same by place and by size, and the pairs if wanted."""
    tree: dict[str, Any] = {
        **evaluation.figures(),
        "per_place": evaluation.sections(evaluation.places),
        "per_size": evaluation.sections(evaluation.sizes_px),
    }
    if per_pair:
        tree["pairs"] = evaluation.rows()
    return {name: _finite(value) for name, value in tree.items()}


def _finite(value: Any) -> Any:
    """NaN -> None: JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _finite(below) for name, below in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _match(
    group: Sequence[Placement], matcher: TileMatcher, search_px: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Read the window that the templates of one group need, and match them."""
    first = group[0]
    size_px = first.tile.size_px
    rows, cols = (np.array([getattr(p.tile, axis) for p in group], np.int64) for axis in ("row", "col"))
    spans = [
        _span(starts, length, shift, size_px=size_px, search_px=search_px, halo_px=matcher.halo_px)
        for starts, length, shift in zip((rows, cols), first.shape, first.shift_px[::-1], strict=True)
    ]
    (row, row_end), (col, col_end) = spans
    reference, secondary = first.pair.read(
        row=row, col=col, shape=(row_end - row, col_end - col), shift_px=first.shift_px
    )
    begin = time.perf_counter()
    found = matcher.match(
        reference,
        secondary,
        rows - row,
        cols - col,
        size_px=size_px,
        search_px=search_px,
        reference_kind=first.pair.reference_kind,
        secondary_kind=first.pair.secondary_kind,
    )
    ms = (time.perf_counter() - begin) * 1000 / len(group)
    return (
        np.asarray(found.offset_px, np.float64) - np.array(first.shift_px, np.float64),
        np.asarray(found.sigma_px, np.float64),
        np.asarray(found.confidence, np.float64),
        np.full(len(group), ms),
    )


def _span(
    starts: np.ndarray[Any, np.dtype[np.int64]],
    length: int,
    shift: int,
    *,
    size_px: int,
    search_px: int,
    halo_px: int,
) -> tuple[int, int]:
    """First and last row (or column) to read: the search and the halo, as far as either image reaches."""
    low, high = int(starts.min()) - search_px, int(starts.max()) + size_px + search_px
    return (
        min(low, max(low - halo_px, min(0, shift))),
        max(high, min(high + halo_px, length + max(0, shift))),
    )


def _fitting_px(pair: BenchmarkPair, shape: tuple[int, int], search_px: int) -> int:
    size = min(min(shape) - 2 * search_px, LARGEST_PX)
    if size < SMALLEST_PX:
        raise BadInputError(
            f"{pair.name}: {shape[0]} x {shape[1]} px leave no template of {SMALLEST_PX} px or more within "
            f"{search_px} px of search on every side; give larger images or a smaller --search-px"
        )
    return size


def _beyond(pair: BenchmarkPair, search_px: int) -> BadInputError:
    return BadInputError(
        f"{pair.name}: its true offset ({pair.dx_px:g}, {pair.dy_px:g}) px lies beyond the search of "
        f"{search_px} px; give a larger --search-px"
    )


def worst_pairs(evaluation: Evaluation, count: int) -> list[WorstPair]:
    """Read the images of the placements with the largest errors, largest first."""
    found = []
    for n in np.argsort(-evaluation.distance_px, kind="stable")[:count].tolist():
        placement = evaluation.placements[n]
        pair, tile = placement.pair, placement.tile
        true = (pair.dx_px, pair.dy_px)
        measured = (float(evaluation.offset_px[n, 0]), float(evaluation.offset_px[n, 1]))
        at_truth, at_answer = (
            pair.read(
                row=tile.row,
                col=tile.col,
                shape=(tile.size_px, tile.size_px),
                shift_px=(-round(offset[0]), -round(offset[1])),
            )
            for offset in (true, measured)
        )
        found.append(
            WorstPair(
                name=pair.name,
                reference=at_truth[0],
                at_truth=at_truth[1],
                at_answer=at_answer[1],
                true_px=true,
                measured_px=measured,
                confidence=float(evaluation.confidence[n]),
            )
        )
    return found


def picture(evaluation: Evaluation, title: str, *, count: int = 6) -> bytes:
    """Draw the evaluation with its worst pairs, as PNG."""
    return evaluation_png(
        title,
        evaluation.distance_px,
        evaluation.confidence,
        evaluation.sizes_px,
        worst_pairs(evaluation, count),
    )


def csv_text(evaluation: Evaluation) -> str:
    """One line a placement, for a spreadsheet."""
    rows = evaluation.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
