"""How much of what a matcher misses on Texas is the smoothing of the truth.

    python benchmarks/matcher/truth_smoothing.py ../shared/data

The truth is a classical matcher's field, smoothed by who made it: where relief bends the true offsets, it
cuts the corner. Tiles show that, as they see less ground than the smoothing took together. The field is
sharpened by unsharp masking, truth + k (truth - smoothed truth), smoothed by a Gaussian of one node (64 px);
k per axis is the least-squares fit to the offsets of one matcher on one half of the scene, and used on the
other half. A field that is sharp enough gives k = 0, a noisy one k < 0.

`sharpened by mi` and `by zncc`: no offset of crosstie has any part in the truth it is judged by.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from classical import METHODS
from compare import CROSSTIE, measure_classical, measure_crosstie
from numpy.typing import NDArray
from scenes import load_on_one_thread, texas_site, truth_detail

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
        error = np.hypot(*(self.offset_px[matcher] - truth_px).T)
        return " / ".join(f"{100 * np.mean(error <= t):.1f}" for t in (1, 2))

    def agreement(self, one: str, other: str) -> Array:
        """Correlation (2,) per axis of what two matchers' offsets have left over the truth."""
        (left, fits), (right, also_fits) = self._left(one), self._left(other)
        both = fits & also_fits
        return np.array([np.corrcoef(left[both, axis], right[both, axis])[0, 1] for axis in (0, 1)])

    def _left(self, matcher: str) -> tuple[Array, NDArray[np.bool_]]:
        """What offsets have over the truth, (N, 2) px, and which of them are no misses."""
        residual = self.offset_px[matcher] - self.truth_px
        return residual, np.hypot(*residual.T) <= OUTLIER_PX


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with scenes/ and pairs/")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES_PX), help="sides of tiles, px")
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    arguments = parser.parse_args()
    matcher = load_on_one_thread(arguments.weights)
    print(f"weights {matcher.weights_sha256[:12]}; shares within 1 / 2 px, %\n")
    print("| tile | matcher | field as it is | " + " | ".join(f"sharpened by {j}" for j in JUDGES) + " |")
    print("|---" * (3 + len(JUDGES)) + "|")
    notes = []
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
            shared = _pair(tiles.agreement(judge, CROSSTIE))
            notes.append(f"| {size_px} px | {judge} | {_pair(west)} | {_pair(east)} | {shared} |")
    print("\n| tile | by | k (dx, dy), west | east | what it and crosstie have left correlates by |")
    print("|---" * 5 + "|\n" + "\n".join(notes))


def _slopes(x: Array, y: Array) -> Array:
    """Least-squares k of y = k x, per axis (2,)."""
    slopes: Array = (x * y).sum(0) / (x**2).sum(0)
    return slopes


def _pair(values: Array) -> str:
    return f"({values[0]:+.2f}, {values[1]:+.2f})"


if __name__ == "__main__":
    main()
