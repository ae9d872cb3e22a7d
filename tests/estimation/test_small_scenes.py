"""A small scene is worth few independent measurements: relief in it must not pass for a shift or a turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tie_point_field import PIXEL_M, inverse, tie_points, truth

from crosstie.estimation import estimate
from crosstie.types import AffineCorrection, Estimate, Model, TiePoints, VerdictCode

if TYPE_CHECKING:
    from crosstie.types import FloatArray

TILE_PX, STRIDE_PX = 128, 32
"""What scenes of 512 px are matched with."""

SIDE_PX = 512
SCENES = 40

OUTER = np.array([[0, 0], [0, SIDE_PX], [SIDE_PX, 0], [SIDE_PX, SIDE_PX]])
CORNERS_M = np.array([600_000.0, 5_300_000.0]) + PIXEL_M * OUTER * np.array([1, -1])


def hilly(seed: int, shift_px: tuple[float, float] = (0, 0)) -> TiePoints:
    """Tie points of a scene with the relief that a corrected pair of Texas is left with: 0.6 px an axis."""
    points = tie_points(truth(shift_px=shift_px), shape=(SIDE_PX, SIDE_PX), stride_px=STRIDE_PX)
    centre = points.xy_m / PIXEL_M
    apart = np.hypot(*(centre[:, None] - centre[None]).transpose(2, 0, 1)) / 150
    covariance = np.exp(-(apart**2) / 2) + 1e-6 * np.eye(len(points))
    rng = np.random.default_rng(seed)
    relief = 0.6 * np.linalg.cholesky(covariance) @ rng.normal(size=(len(points), 2))
    noise = rng.normal(0, 0.1, relief.shape)
    return replace(points, offset_m=points.offset_m + PIXEL_M * (relief + noise))


def found_in(points: TiePoints) -> Estimate:
    return estimate(points, planned=len(points), pixel_m=PIXEL_M, tile_px=TILE_PX, stride_px=STRIDE_PX)


def corner_error_px(found: AffineCorrection, true: AffineCorrection) -> float:
    at: FloatArray = inverse(true).apply(CORNERS_M)
    return float(np.hypot(*(found.apply(at) - CORNERS_M).T).max() / PIXEL_M)


def test_relief_alone_is_no_error_of_the_scene() -> None:
    verdicts = [found_in(hilly(seed)).verdict.code for seed in range(SCENES)]
    assert verdicts.count(VerdictCode.CORRECTED) <= 4
    assert verdicts.count(VerdictCode.ALREADY_ALIGNED) >= SCENES - 4


def test_a_shifted_scene_gets_its_shift_and_no_turn_from_the_relief() -> None:
    shift = (6.0, -4.0)
    found = [found_in(hilly(seed, shift)) for seed in range(SCENES)]
    assert sum(one.correction.model is Model.TRANSLATION for one in found) >= SCENES - 2
    errors = [corner_error_px(one.correction, truth(shift_px=shift)) for one in found]
    # The mean of the relief over a scene is the error of its shift: 0.25 px an axis, here.
    assert np.mean(np.array(errors) <= 1) >= 0.9


def test_a_turn_longer_than_the_relief_is_still_found() -> None:
    true = truth(rotation_deg=0.6, shift_px=(6, -4))
    points = tie_points(true, shape=(SIDE_PX, SIDE_PX), stride_px=STRIDE_PX, noise_px=0.3)
    found = found_in(points)
    assert found.correction.model is Model.AFFINE
    assert corner_error_px(found.correction, true) < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_many_blocks_decide_by_held_out_ground_alone(seed: int) -> None:
    """A whole scene keeps the affine that lies closest to its relief: that is what lies on its ground."""
    true = truth(rotation_deg=0.05, shift_px=(6, -4))
    points = tie_points(true, shape=(2048, 2048), noise_px=0.8, wrong=0.2, seed=seed)
    found = estimate(points, planned=len(points), pixel_m=PIXEL_M, tile_px=192, stride_px=64)
    assert found.correction.model is Model.AFFINE
