"""How much of what a matcher misses on Texas is an error of the truth.

    python benchmarks/matcher/truth_error.py ../shared/data

Two ways to see it, each with a classical matcher as the judge.

Smoothing. The truth is a classical matcher's field, smoothed by who made it: where relief bends the true
offsets, it cuts the corner. Tiles show that, as they see less ground than the smoothing took together. The
field is sharpened by unsharp masking, truth + k (truth - smoothed truth), smoothed by a Gaussian of one node
(64 px); k per axis is the least-squares fit to the offsets of one matcher on one half of the scene, and used
on the other half. A field that is sharp enough gives k = 0, a noisy one k < 0. `sharpened by mi` and `by
zncc`: no offset of crosstie has any part in the truth it is judged by.

Triple collocation (Stoffelen 1998, JGR 103(C4), with unit scales). Field, crosstie and judge measure the same
offsets; where their errors are independent, what both matchers have left over the field goes together by the
variance of the field's own error. `faultless` is what a matcher without any error would then reach on this
field: crosstie's residuals less their mean, shrunk per axis to the share that is the field's. What relief
does to the images themselves counts as the field's error; one that the judge shares with the field, which a
classical matcher made, counts as crosstie's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from classical import METHODS
from numpy.typing import NDArray
from scenes import load_on_one_thread, parser_of, texas_site, truth_detail
from trials import CROSSTIE, measure_classical, measure_crosstie

SIZES_PX = (256, 192, 128, 64)
SEARCH_PX = 32
STRIDE_PX = 64
SMOOTHING_NODES = 1.0
OUTLIER_PX = 3.0
"""An offset this far from the truth is a miss, and tells nothing about the field."""
JUDGES = ("mi", "zncc")
"""Classical matchers that say how sharp the field should be."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Collocation:
    """Standard deviations (2,) per axis of the errors of three measurements of the same offsets."""

    truth_px: Array
    matcher_px: Array
    judge_px: Array
    correlation: Array
    """(2,) of what matcher and judge have left over the truth"""
    faultless: str
    """share of tiles that a matcher without any error would have within 1 / 2 px of the truth, %"""


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """The tiles of one size, and what each matcher says about them."""

    west: NDArray[np.bool_]
    """(N,) whether a tile lies in the western half"""
    truth_px: Array
    """(N, 2)"""
    detail_px: Array
    """(N, 2) truth less smoothed truth"""
    offset_px: dict[str, Array]
    """(N, 2) by matcher, NaN where it gave none"""

    def sharpened_by(self, matcher: str) -> tuple[Array, Array]:
        """Truth (N, 2) px sharpened by what a matcher found on the other half; k by half and axis (2, 2)."""
        residual, fits = self._left(matcher)
        halves = self.west, ~self.west
        k = np.array([_slopes(self.detail_px[half & fits], residual[half & fits]) for half in halves])
        return self.truth_px + self.detail_px * np.where(self.west[:, None], k[1], k[0]), k

    def shares(self, matcher: str, truth_px: Array) -> str:
        """Share of tiles found within 1 and 2 px of a truth, %; one without an offset is not found."""
        return _shares(np.hypot(*(self.offset_px[matcher] - truth_px).T))

    def collocated(self, matcher: str, judge: str) -> Collocation:
        """The errors of truth, matcher and judge apart, over the tiles that neither of both misses."""
        (own, fits), (other, also_fits) = self._left(matcher), self._left(judge)
        own = own - own[fits].mean(axis=0)
        both = fits & also_fits
        covariance = np.cov(own[both], other[both], rowvar=False)
        shared = np.diagonal(covariance, offset=2)
        total, others = np.split(np.diagonal(covariance), 2)
        faultless = np.hypot(*(own[fits] * np.sqrt(shared / total)).T)
        return Collocation(
            truth_px=np.sqrt(shared),
            matcher_px=np.sqrt(np.maximum(total - shared, 0)),
            judge_px=np.sqrt(np.maximum(others - shared, 0)),
            correlation=shared / np.sqrt(total * others),
            faultless=_shares(faultless),
        )

    def _left(self, matcher: str) -> tuple[Array, NDArray[np.bool_]]:
        """What offsets have over the truth, (N, 2) px, and which of them are no misses."""
        residual = self.offset_px[matcher] - self.truth_px
        return residual, np.hypot(*residual.T) <= OUTLIER_PX


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES_PX), help="sides of tiles, px")
    arguments = parser.parse_args()
    matcher = load_on_one_thread(arguments.weights)
    print(f"weights {matcher.weights_sha256[:12]}; shares within 1 / 2 px, %\n")
    print("| tile | matcher | field as it is | " + " | ".join(f"sharpened by {j}" for j in JUDGES) + " |")
    print("|---" * (3 + len(JUDGES)) + "|")
    sharpness, errors = [], []
    folder = arguments.data / "scenes" / "T14RNT-2048"
    for size_px in arguments.sizes:
        site = texas_site(folder, size_px=size_px, search_px=SEARCH_PX, stride_px=STRIDE_PX)
        sizes = {"size_px": size_px, "search_px": SEARCH_PX}
        offsets = {CROSSTIE: measure_crosstie(matcher, [site], **sizes).offset_px}
        offsets |= {name: measure_classical(METHODS[name], [site], **sizes).offset_px for name in JUDGES}
        centres = np.column_stack((site.cols, site.rows)) + size_px / 2
        detail = truth_detail(folder, centres, smoothing_nodes=SMOOTHING_NODES)
        tiles = Tiles(centres[:, 0] < site.optical.shape[1] / 2, site.truth_px, detail, offsets)
        sharpened = {judge: tiles.sharpened_by(judge) for judge in JUDGES}
        for name in offsets:
            cells = [tiles.shares(name, tiles.truth_px)]
            # What a matcher is judged by must not be its own word.
            cells += ["" if judge == name else tiles.shares(name, sharpened[judge][0]) for judge in JUDGES]
            print(f"| {size_px} px | {name} | " + " | ".join(cells) + " |", flush=True)
        for judge, (_, (west, east)) in sharpened.items():
            sharpness.append(f"| {size_px} px | {judge} | {_pair(west)} | {_pair(east)} |")
            found = tiles.collocated(CROSSTIE, judge)
            deviations = (found.truth_px, found.matcher_px, found.judge_px, found.correlation)
            cells = [*map(_pair, deviations), found.faultless, tiles.shares(CROSSTIE, tiles.truth_px)]
            errors.append(f"| {size_px} px | {judge} | " + " | ".join(cells) + " |")
    print("\n| tile | sharpened by | k (dx, dy), west | east |")
    print("|---" * 4 + "|\n" + "\n".join(sharpness))
    print("\nStandard deviation of the errors, (dx, dy) px, by triple collocation:\n")
    print("| tile | judge | of the field | of crosstie | of the judge | correlation | faultless | crosstie |")
    print("|---" * 8 + "|\n" + "\n".join(errors))


def _shares(error_px: Array) -> str:
    """Share of errors (N,) within 1 and 2 px, %; NaN is within neither."""
    return " / ".join(f"{100 * np.mean(error_px <= t):.1f}" for t in (1, 2))


def _slopes(x: Array, y: Array) -> Array:
    """Least-squares k of y = k x, per axis (2,)."""
    slopes: Array = (x * y).sum(0) / (x**2).sum(0)
    return slopes


def _pair(values: Array) -> str:
    return f"({values[0]:.2f}, {values[1]:.2f})"


if __name__ == "__main__":
    main()
