"""What a matcher adds to every offset by itself, found by turning the images. Needs no truth.

    python benchmarks/matcher/turning.py ../shared/data

Both images of a patch are turned by 0, 90, 180 and 270 degrees and matched each time. The true offset turns
with them, so over the four it sums to zero; what the matcher itself adds does not turn, and is their mean. No
closure and no loop over dates shows it, for it cancels in every difference; a corrected scene keeps it.

One tile of 192 px from the middle of each patch of 256 px, +-32 px: all of Texas, the ombria test places, and
sebast144 (dates of one coast, the matcher has learnt from ten of its twelve places without labels). Patches
whose four offsets, turned back, differ by more than 1.5 px show no bias but a false peak, and are left out.
Mutual information beside it: a matcher that compares pixels by themselves cannot lean to one side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from classical import mutual_information
from numpy.typing import NDArray
from scenes import (
    HELD_OUT_PLACES,
    Plane,
    amplitude,
    load_on_one_thread,
    luminance,
    ombria_chips,
    parser_of,
    picture_db,
    read_picture,
    texas_bands,
)
from trials import KINDS

from crosstie.io.raster.values.plane import optical_plane, sar_plane
from crosstie.matcher.training.held_out_calibration import added_by_itself

PATCH_PX, SIZE_PX, SEARCH_PX = 256, 192, 32

Find = Callable[[Plane, Plane], NDArray[np.float64]]
"""Offset (2,) of the middle of an optical patch in a SAR patch (dB)."""


def main() -> None:
    arguments = parser_of(__doc__).parse_args()
    matcher = load_on_one_thread(arguments.weights)
    start = np.array([SEARCH_PX])

    def crosstie(optical: Plane, sar_db: Plane) -> NDArray[np.float64]:
        found = matcher.match(optical, sar_db, start, start, size_px=SIZE_PX, search_px=SEARCH_PX, **KINDS)
        return found.offset_px[0]

    def mi(optical: Plane, sar_db: Plane) -> NDArray[np.float64]:
        middle = slice(SEARCH_PX, SEARCH_PX + SIZE_PX)
        return np.array(mutual_information(optical[middle, middle], amplitude(sar_db)).offset_px)

    print(f"weights {matcher.weights_sha256[:12]}; bias (dx, dy) px, mean and its standard error\n")
    print("| set | matcher | patches | agree | bias |\n|---|---|---|---|---|")
    for name, patches in sets(arguments.data).items():
        for find in (crosstie, mi):
            offsets = np.stack([turned_offsets(find, *patch) for patch in patches], axis=1)
            bias = added_by_itself(offsets)
            mean, error = bias.mean(axis=0), bias.std(axis=0) / np.sqrt(len(bias))
            told = " , ".join(f"{m:+.3f} ±{e:.3f}" for m, e in zip(mean, error, strict=True))
            agree = len(bias) / len(patches)
            print(f"| {name} | {find.__name__} | {len(patches)} | {100 * agree:.0f} % | {told} |", flush=True)


def sets(data: Path) -> dict[str, list[tuple[Plane, Plane]]]:
    """Patches (256, 256), optical and SAR in dB, by set."""
    pictures = data / "pairs" / "sebast144"
    names = sorted(path.stem for path in (pictures / "s1").glob("*.png"))
    held_out = [name for name in names if name.endswith(HELD_OUT_PLACES)]
    seen = [name for name in names if name not in held_out]
    chips = ombria_chips(data / "pairs" / "ombria", role="test")
    return {
        "Texas": list(texas_patches(data / "scenes" / "T14RNT-2048")),
        "ombria test": [(chip.optical, chip.sar_db) for chip in chips],
        "sebast144, learnt from": [picture_pair(pictures, name) for name in seen],
        "sebast144, held out": [picture_pair(pictures, name) for name in held_out],
    }


def texas_patches(folder: Path) -> Iterator[tuple[Plane, Plane]]:
    rgb, amplitudes = texas_bands(folder)
    optical, sar = optical_plane(rgb), sar_plane(amplitudes[None], is_db=False)
    for row in range(0, optical.shape[0] - PATCH_PX + 1, PATCH_PX):
        for col in range(0, optical.shape[1] - PATCH_PX + 1, PATCH_PX):
            here = slice(row, row + PATCH_PX), slice(col, col + PATCH_PX)
            yield optical[here], sar[here]


def picture_pair(folder: Path, name: str) -> tuple[Plane, Plane]:
    optical = luminance(read_picture(folder / "s2" / f"{name}.jpg"))
    return optical, picture_db(read_picture(folder / "s1" / f"{name}.png"))


def turned_offsets(find: Find, optical: Plane, sar_db: Plane) -> NDArray[np.float64]:
    """Offsets (4, 2) after 0, 1, 2 and 3 quarter turns (`np.rot90`) of both images."""
    return np.array(
        [
            find(*(np.ascontiguousarray(np.rot90(image, quarter)) for image in (optical, sar_db)))
            for quarter in range(4)
        ]
    )


if __name__ == "__main__":
    main()
