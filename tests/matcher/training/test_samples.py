from __future__ import annotations

import numpy as np
import pytest
from measured_offset import measured_offset
from training_land import shifted_scene

from crosstie.io.raster.values.plane import optical_plane
from crosstie.matcher.training import augment
from crosstie.matcher.training.samples import draw_sample, truth_at


@pytest.mark.parametrize("seed", range(12))
def test_the_offset_of_a_flipped_and_jittered_crop_is_the_one_said(seed: int) -> None:
    """All eight symmetries come up among the seeds; the pixels must agree with the label in each."""
    scene = shifted_scene(7, -4)
    rng = np.random.default_rng(seed)
    reference, secondary, truth = draw_sample(scene, rng, crop_px=256, jitter_px=20, augmented=True)
    assert np.ptp(truth[0]) == 0
    dx, dy = measured_offset(np.nan_to_num(reference), np.nan_to_num(secondary))
    assert abs(dx - truth[0, 0, 0]) <= 1
    assert abs(dy - truth[1, 0, 0]) <= 1


def test_truth_is_bilinear_between_nodes_and_unknown_beside_a_gap() -> None:
    scene = shifted_scene(0, 0)
    scene.truth_px[0] = np.arange(scene.truth_px.shape[2])[None, :]
    scene.truth_px[:, 5, 5] = np.nan
    assert truth_at(scene, 48.0, 32.0)[0] == pytest.approx(1.5)
    assert np.isnan(truth_at(scene, 4.5 * 32, 4.5 * 32)).all()


def test_training_and_use_reduce_colours_alike() -> None:
    rgb = np.random.default_rng(0).random((3, 8, 9)).astype(np.float32)
    np.testing.assert_allclose(augment.luminance(rgb), optical_plane(rgb), rtol=0, atol=1e-6)


def test_augmentation_moves_nothing() -> None:
    """Radiometry may change, geometry may not: an augmented image correlates with itself at zero shift."""
    scene = shifted_scene(0, 0)
    rgb = scene.optical_rgb.astype(np.float32) / 255
    plain = augment.luminance(rgb)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        for other in (
            augment.augment_optical(rgb, rng),
            augment.augment_sar(scene.sar_db.astype(np.float32), rng),
        ):
            filled = np.where(np.isfinite(other), other, np.nanmean(other))
            assert measured_offset(plain - plain.mean(), filled - filled.mean()) == (0, 0)
