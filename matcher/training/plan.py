"""How long, how fast and on what crops a network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from crosstie.matcher.training.held_out import Draws


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything that decides the result of a training run, apart from the data and the learner."""

    steps: int = 2600
    """Total number of optimiser steps."""
    batch: int = 8
    """Labelled crops per step."""
    unlabelled_rounds: int = 1
    """Unlabelled batches for each labelled one."""
    unlabelled_batch: int = 6
    """Unlabelled crops per step after `burn_in`."""
    burn_in: int = 700
    """Steps before the teacher is used: it must have learnt something first."""
    unlabelled_weight: float = 0.5
    """Weight of the loss on pseudo-labels; it rises to this value in the 200 steps after `burn_in`."""
    accumulate: int = 1
    """Batches whose gradients are added before each optimiser step."""
    learning_rate: float = 2e-3
    """Highest learning rate, after 50 steps of warm-up; it falls to zero over the last 30 % of the steps."""
    weight_decay: float = 1e-2
    seed: int = 0
    """Seed of the first weights and of all draws; the same seed gives the same weights on a CPU."""
    crop_px: int = 288
    """Side of the labelled crops, px, a multiple of 16."""
    unlabelled_crop_px: int = 224
    """Side of the unlabelled crops, px, a multiple of 16. Smaller, because chips of 256 px leave only 16 px
    to move."""
    search_px: int = 32
    """Search radius per axis, px."""
    jitter_px: int = 24
    """Largest known extra shift per axis, px, drawn uniformly: a network that always answers zero gains
    nothing."""
    unlabelled_jitter_px: int = 16
    """Largest known extra shift of each of the two views per axis, px, drawn uniformly."""
    average_decay: float = 0.995
    """Decay of the exponential moving average of the weights. The average is the teacher, and is saved."""
    evaluate_every: int = 200
    """Steps between measurements on the held-out places."""
    checkpoint_every: int = 50
    """Steps between checkpoints: the most that a killed run loses."""
    patience: int = 0
    """Evaluations without a better `watched` figure before training stops early; 0 for never."""
    watched: str = "cmr1_64"
    """Held-out figure that `patience` waits for; larger is better."""

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch", "accumulate", "crop_px", "search_px", "evaluate_every")
        for name in (*at_least_one, "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("unlabelled_batch", "burn_in", "jitter_px", "unlabelled_jitter_px", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("crop_px", "unlabelled_crop_px"):
            if getattr(self, name) % 16:
                raise ValueError(f"{name} must be a multiple of 16, got {getattr(self, name)}")

    def rate_at(self, step: int) -> float:
        """Learning rate at `step`: warm-up, plateau, linear fall (so that a run can be extended)."""
        fall = max(1, round(0.3 * self.steps))
        return self.learning_rate * min(1.0, (step + 1) / 50, (self.steps - step) / fall)

    def unlabelled_weight_at(self, step: int) -> float:
        """Weight of the loss on pseudo-labels at `step`."""
        return self.unlabelled_weight * min(1.0, max(0.0, (step - self.burn_in + 1) / 200))

    @property
    def draws(self) -> Draws:
        """How labelled crops are drawn."""
        return Draws(self.crop_px, self.search_px, self.jitter_px)
