from __future__ import annotations

import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from crosstie.io.plots.positions import TRACK_COLOURS, DrawnTrack, positions_png


def track(name: str, at: float) -> DrawnTrack:
    rng = np.random.default_rng(0)
    return DrawnTrack(
        name,
        tuple(f"{n:02d}" for n in range(12)),
        tuple(rng.normal(at, 0.3, (8, 2)) for _ in range(12)),
        np.full((12, 2), at),
        np.full((12, 2), 0.05),
    )


def pixels(*tracks: DrawnTrack) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(positions_png(tracks, title="t", caption="c"))).convert("RGB"), np.int64
    )


def rows_of(picture: np.ndarray, colour: str) -> np.ndarray:
    """Rows of the upper half, without the legend, that hold a colour as it is."""
    want = np.round(np.array(to_rgb(colour)) * 255)
    upper = picture[60 : picture.shape[0] // 2, : picture.shape[1] // 2]
    return np.flatnonzero((np.abs(upper - want) < 2).all(axis=2).any(axis=1))


def test_each_track_is_drawn_in_its_colour_and_where_it_lies() -> None:
    both = pixels(track("ascending", -1.4), track("descending", 1.1))
    low, high = (rows_of(both, colour) for colour in TRACK_COLOURS[:2])
    assert len(low)
    assert len(high)
    assert high.max() < low.min()  # rows count downwards
    assert not len(rows_of(pixels(track("ascending", 0.0)), TRACK_COLOURS[1]))


def test_the_same_data_make_the_same_picture() -> None:
    first, second = (positions_png([track("a", 0.0)], title="t", caption="c") for _ in range(2))
    assert first == second
