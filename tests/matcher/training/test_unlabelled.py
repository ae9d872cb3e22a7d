"""Views of pairs whose offset nobody knows: same ground, and a known extra shift of the right sign."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from measured_offset import measured_offset
from torch import Tensor
from torch.nn import functional as F
from training_land import unlabelled_scene

from crosstie.matcher.network import DenseFeatures
from crosstie.matcher.training.learner import CrosstieLearner
from crosstie.matcher.training.unlabelled import Views, draw_views
from crosstie.types import Kind

OFFSET = (5, -3)


def some_views(seed: int, *, size: int = 1) -> Views:
    scene = unlabelled_scene(*OFFSET, side=224)
    return draw_views([scene], np.random.default_rng(seed), size=size, crop_px=160, jitter_px=12)


@pytest.mark.parametrize("seed", range(12))
def test_the_extra_shift_is_the_difference_of_the_two_views(seed: int) -> None:
    """Measured offset, strong minus weak, in all eight symmetries and under all that is changed."""
    views = some_views(seed)
    weak = measured_offset(views.weak_reference[0, 0], views.weak_secondary[0, 0])
    strong = measured_offset(views.strong_reference[0, 0], views.strong_secondary[0, 0])
    np.testing.assert_allclose(np.subtract(strong, weak), views.extra_px[0], rtol=0, atol=1)  # speckle, holes
    assert np.abs(views.extra_px).max() <= 24


def test_both_views_show_the_same_ground() -> None:
    for seed in range(8):
        views = some_views(seed)
        assert measured_offset(views.weak_reference[0, 0], views.strong_reference[0, 0]) == (0, 0)


def test_the_extra_shift_takes_both_signs_on_both_axes() -> None:
    extra = some_views(0, size=24).extra_px
    assert (extra.min(axis=0) < -4).all()
    assert (extra.max(axis=0) > 4).all()


class PlainCorrelation:
    """A matcher that needs no training where both images show the same grey: the pixels are the features."""

    def features(self, plane: Tensor, kind: Kind) -> DenseFeatures:
        return DenseFeatures(plane, F.avg_pool2d(plane, 8))

    def logit_scale(self, size_px: int) -> Tensor:
        return torch.tensor(60.0)

    def deep_logit_scale(self, size_px: int) -> Tensor:
        return torch.tensor(10.0)


def test_the_student_is_taught_where_its_own_view_has_the_offset() -> None:
    """A teacher's label plus the extra shift is the student's truth; with the sign wrong it is punished."""
    learner = CrosstieLearner(search_px=32, sizes_px=(64, 96))
    matcher = cast("Any", PlainCorrelation())
    views = some_views(3, size=8)

    def loss(extra_px: np.ndarray) -> float:
        told = Views(
            views.weak_reference, views.weak_secondary, views.weak_reference, views.weak_secondary, extra_px
        )
        moved = Views(
            told.weak_reference, told.weak_secondary, views.strong_reference, views.strong_secondary, extra_px
        )
        value, kept = learner.unlabelled_loss(matcher, matcher, moved, np.random.default_rng(0), "cpu")
        assert kept == 1
        return float(value)

    assert loss(views.extra_px) < 0.5 * min(loss(-views.extra_px), loss(0 * views.extra_px))


def test_what_the_teacher_is_not_sure_of_is_not_learnt() -> None:
    learner = CrosstieLearner(search_px=32, sizes_px=(64, 96))
    noise = np.random.default_rng(0).normal(size=(5, 4, 1, 160, 160)).astype(np.float32)
    views = Views(noise[0], noise[1], noise[2], noise[3], np.zeros((4, 2), np.float32))
    matcher = cast("Any", PlainCorrelation())
    loss, kept = learner.unlabelled_loss(matcher, matcher, views, np.random.default_rng(0), "cpu")
    assert kept == 0
    assert float(loss) == 0
    assert not loss.requires_grad


class Leaning(PlainCorrelation):
    """One that sees every SAR image half a pixel to the right, whichever way the ground is turned."""

    def features(self, plane: Tensor, kind: Kind) -> DenseFeatures:
        if kind is Kind.SAR:
            plane = (plane + plane.roll(1, dims=-1)) / 2
        return super().features(plane, kind)


def test_what_a_teacher_adds_by_itself_is_not_taught() -> None:
    learner = CrosstieLearner(search_px=32, sizes_px=(64, 96))
    views = some_views(5, size=6)
    truth, leaning = (
        learner.taught(cast("Any", teacher), views, np.random.default_rng(0), "cpu")[0]
        for teacher in (PlainCorrelation(), Leaning())
    )
    np.testing.assert_allclose(leaning, truth, rtol=0, atol=0.05)


def test_a_pair_that_looks_another_way_turned_is_not_taught() -> None:
    learner = CrosstieLearner(search_px=32, sizes_px=(64, 96))

    class Wavering(PlainCorrelation):
        """Sees a SAR image elsewhere each time that it is asked."""

        def __init__(self) -> None:
            self.asked = 0

        def features(self, plane: Tensor, kind: Kind) -> DenseFeatures:
            if kind is Kind.SAR:
                self.asked += 1
                plane = plane.roll(3 * self.asked, dims=-1)
            return super().features(plane, kind)

    _, weight = learner.taught(
        cast("Any", Wavering()), some_views(5, size=6), np.random.default_rng(0), "cpu"
    )
    assert (weight == 0).all()
