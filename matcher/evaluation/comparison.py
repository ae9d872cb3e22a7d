"""Is one matcher better than another? Decided on the same pairs, so that luck with the pairs cancels out.

The new one is better if it is within 1 px more often, by more than chance explains, and not less often within
2 or 5 px. Two tests judge chance, because each has a weakness. A bootstrap over places, and over the pairs in
them, accounts for pairs of one place failing together, but is too sure with few pairs. The exact sign test of
McNemar (1947) is right for few pairs, but treats them as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

LEVEL = 0.05
"""One-sided: a matcher no better than the old one passes at most this often."""

LOSS_ALLOWED = 0.005
"""A loss of up to 0.5 % of the pairs at 2 or 5 px is accepted, chance or not."""

DRAWS = 4000
"""Bootstrap samples."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the new matcher gains at one threshold: difference of the shares of pairs within it."""

    threshold_px: float
    old: float
    """Share of the old matcher, 0..1."""
    new: float
    """Share of the new matcher, 0..1."""
    low: float
    """5 % quantile of the gain over bootstrap samples."""
    high: float
    """95 % quantile."""

    @property
    def gain(self) -> float:
        """Share of the new matcher less that of the old one."""
        return self.new - self.old


@dataclass(frozen=True, slots=True)
class Comparison:
    """The decision, and what it rests on."""

    better: bool
    reasons: tuple[str, ...]
    """Why not, one sentence each; empty where it is better."""
    changes: tuple[Change, ...]
    """At 1, 2 and 5 px."""
    sign_test_p: float
    """Chance of so many pairs won at 1 px if both were equally good."""
    n: int
    places: int


def compare(
    old_error_px: NDArray[np.float64],
    new_error_px: NDArray[np.float64],
    places: Sequence[str],
    *,
    seed: int = 0,
) -> Comparison:
    """Decide whether a new matcher is better than an old one on the same N pairs.

    Parameters
    ----------
    old_error_px, new_error_px : NDArray[np.float64]
        (N, 2) measured minus true offset, row by row of the same pair.
    places : Sequence[str]
        (N,) where each pair lies.
    """
    if old_error_px.shape != new_error_px.shape or len(places) != len(old_error_px) or not len(places):
        raise ValueError(
            f"needs errors of the same pairs, got {old_error_px.shape}, {new_error_px.shape} and "
            f"{len(places)} places"
        )
    place = np.unique(np.asarray(places), return_inverse=True)[1]
    old, new = (np.hypot(error[:, 0], error[:, 1]) for error in (old_error_px, new_error_px))
    changes = tuple(_change(old <= t, new <= t, place, t, seed) for t in (1.0, 2.0, 5.0))
    won, lost = int(((new <= 1) & (old > 1)).sum()), int(((new > 1) & (old <= 1)).sum())
    p = float(binomtest(won, won + lost, alternative="greater").pvalue) if won + lost else 1.0
    reasons = []
    if changes[0].low <= 0 or p > LEVEL:
        reasons.append(
            f"within 1 px it won {won} pairs and lost {lost} (gain {changes[0].gain:+.2%}, "
            f"{changes[0].low:+.2%} to {changes[0].high:+.2%}; sign test p = {p:.3g}): chance explains that"
        )
    reasons += [
        f"within {c.threshold_px:g} px it lost {-c.gain:.2%} of the pairs ({c.low:+.2%} to {c.high:+.2%}): "
        "more than chance explains"
        for c in changes[1:]
        if c.gain < -LOSS_ALLOWED and c.high < 0
    ]
    return Comparison(
        better=not reasons,
        reasons=tuple(reasons),
        changes=changes,
        sign_test_p=p,
        n=len(place),
        places=int(place.max()) + 1,
    )


def _change(
    old: NDArray[np.bool_], new: NDArray[np.bool_], place: NDArray[np.int64], threshold_px: float, seed: int
) -> Change:
    """Draw places with replacement, then as many pairs from each as it has.

    A pair is won, lost or neither, so that drawing its place's pairs is one multinomial draw of three.
    """
    outcome = new.astype(int) - old.astype(int)
    sizes = np.bincount(place)
    shares = np.stack([np.bincount(place, outcome == o) / sizes for o in (-1, 0, 1)], axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    rng = np.random.default_rng((seed, round(threshold_px)))
    times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=DRAWS)
    drawn = rng.multinomial(times * sizes, shares)
    gain = (drawn[..., 2] - drawn[..., 0]).sum(axis=1) / (times * sizes).sum(axis=1)
    low, high = np.quantile(gain, (LEVEL, 1 - LEVEL))
    return Change(threshold_px, float(old.mean()), float(new.mean()), float(low), float(high))
