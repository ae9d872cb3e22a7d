"""Whether matching back tells anything that the peak itself does not: why the confidence does without it.

    python benchmarks/matcher/forward_backward.py ../shared/data

Each tile is matched as always, and the tile of the SAR at the same place is matched back into the optical
image: two right offsets cancel. One logistic model of the usual evidence and one that also sees the distance
left over are fitted on Texas and judged there and on the ombria test places. AUC is the probability that a
right offset is given more confidence than a wrong one; ECE the expected calibration error. Right is within
1 px, the labels' own noise (0.65 px) allowed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import Site, load_on_one_thread, ombria_chips, ombria_site, parser_of, texas_site
from scipy.stats import mannwhitneyu

from crosstie.matcher.calibration import confidence, expected_calibration_error, fit_confidence
from crosstie.matcher.matching import Features, Matcher, measure_similarity
from crosstie.matcher.peak import Peaks, find_peaks
from crosstie.matcher.similarity import logits
from crosstie.matcher.training.held_out_calibration import LABEL_NOISE_PX, RIGHT_PX
from crosstie.types import Kind

SIZES_PX = (192, 128, 64)
SEARCH_PX = 32
FARTHEST_PX = 8.0
"""Two offsets that cancel no better than this are simply not the same."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """N tiles of all sizes."""

    evidence: Array
    """(N, 3)"""
    left_over_px: Array
    """(N,) length of the sum of both offsets"""
    right: NDArray[np.bool_]
    size_px: NDArray[np.int64]


def main() -> None:
    arguments = parser_of(__doc__).parse_args()
    matcher = load_on_one_thread(arguments.weights)
    texas, ombria = measured(matcher, arguments.data)
    print("| judged on | tiles | evidence | AUC | ECE |\n|---|---|---|---|---|")
    for with_check in (False, True):
        weights = fit_confidence(seen(texas, with_check), texas.right, texas.size_px)
        for name, tiles in (("Texas, as fitted", texas), ("ombria test", ombria)):
            given = confidence(seen(tiles, with_check), tiles.size_px, weights)
            error = expected_calibration_error(given, tiles.right)
            what = "and the way back" if with_check else "of the peak"
            figures = f"{area(given, tiles.right):.3f} | {error:.3f}"
            print(f"| {name} | {len(tiles.right)} | {what} | {figures} |")


@torch.inference_mode()
def measured(matcher: Matcher, data: Path) -> tuple[Tiles, Tiles]:
    """Texas and the ombria test places, there and back."""
    texas, ombria = [], []
    rng = np.random.default_rng(0)
    chips = ombria_chips(data / "pairs" / "ombria", role="test")
    scene = partial(texas_site, data / "scenes" / "T14RNT-2048", search_px=SEARCH_PX, stride_px=64)
    of_scene = features(matcher, scene(size_px=SIZES_PX[0]))  # the same at all sizes
    for size_px in SIZES_PX:
        texas.append(there_and_back(matcher, scene(size_px=size_px), *of_scene, size_px))
        sites = [ombria_site(chip, size_px=size_px, search_px=SEARCH_PX, rng=rng) for chip in chips]
        ombria += [there_and_back(matcher, site, *features(matcher, site), size_px) for site in sites]
    return joined(texas), joined(ombria)


def features(matcher: Matcher, site: Site) -> tuple[Features, Features]:
    return matcher.features(site.optical, Kind.OPTICAL), matcher.features(site.sar_db, Kind.SAR)


def there_and_back(matcher: Matcher, site: Site, left: Features, right: Features, size_px: int) -> Tiles:
    there, back = (peaks(matcher, site, *pair, size_px) for pair in ((left, right), (right, left)))
    offset = there.offset_px.double().numpy()
    error = np.hypot(*(offset - matcher.calibration.bias_px - site.truth_px).T)
    return Tiles(
        there.evidence.double().numpy(),
        np.hypot(*(offset + back.offset_px.double().numpy()).T),
        error <= RIGHT_PX + LABEL_NOISE_PX,
        np.full(len(error), size_px),
    )


def peaks(matcher: Matcher, site: Site, template: Features, search: Features, size_px: int) -> Peaks:
    similarity = measure_similarity(
        template, search, site.rows.tolist(), site.cols.tolist(), size_px=size_px, search_px=SEARCH_PX
    )
    return find_peaks(similarity, logits(matcher.network, similarity, size_px))


def joined(parts: Sequence[Tiles]) -> Tiles:
    columns = ("evidence", "left_over_px", "right", "size_px")
    return Tiles(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def seen(tiles: Tiles, with_check: bool) -> Array:
    """(N, 3) evidence, or (N, 4) with the logarithm of what is left over."""
    if not with_check:
        return tiles.evidence
    return np.column_stack((tiles.evidence, np.log10(np.clip(tiles.left_over_px, 0.02, FARTHEST_PX))))


def area(given: Array, right: NDArray[np.bool_]) -> float:
    """Area under the receiver operating characteristic (Mann & Whitney 1947)."""
    good, bad = given[right], given[~right]
    return float(mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))


if __name__ == "__main__":
    main()
