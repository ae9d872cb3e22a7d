from __future__ import annotations

import numpy as np
import torch
from training_land import shifted_scene

from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.training.closure import measure_closure, shifted
from crosstie.matcher.training.held_out import Draws


def test_a_shifted_plane_shows_the_same_further_on() -> None:
    rows, cols = np.mgrid[:64, :64].astype(np.float32)
    wave = np.sin(2 * np.pi * (3 * cols + 2 * rows) / 64)
    expected = np.sin(2 * np.pi * (3 * (cols - 1.25) + 2 * (rows + 0.5)) / 64)
    np.testing.assert_allclose(shifted(wave, (1.25, -0.5)), expected, rtol=0, atol=1e-5)


def test_what_is_not_known_is_not_known_after_a_shift() -> None:
    plane = np.random.default_rng(0).normal(size=(16, 16))
    plane[5, 9] = np.nan
    assert np.argwhere(np.isnan(shifted(plane, (2.0, 0.3)))).tolist() == [[5, 9]]


def test_closure_is_small_where_both_images_show_the_same_land() -> None:
    """Even random weights measure a shift of what they saw before, if one encoder serves both images."""
    torch.manual_seed(0)
    network = MatchingNetwork().eval()
    network.encoders["optical"].load_state_dict(network.encoders["sar"].state_dict())
    found = measure_closure(network, [shifted_scene(5, -3)], Draws(160, 16, 8), sizes_px=(96,), batches=1)
    assert found.error_px.shape == (8, 2)
    assert np.median(np.abs(found.error_px)) < 0.1
