"""Load the matcher that the settings ask for: weights, device and number of threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from crosstie.flows.heap import keep_freed_memory

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.matcher.matching import Matcher


def load_matcher(settings: Settings) -> Matcher:
    """Load the network into this process.

    Raises
    ------
    WeightsError
        The weights are missing, or have another sha256.
    SettingsError
        The settings ask for CUDA, and there is none.
    """
    # Threads that wait by spinning slow each other down where processes share cores. Torch reads this when it
    # loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported here, so that a process that only reads or plans does not load torch.
    import torch

    from crosstie.errors import SettingsError
    from crosstie.matcher.matching import Matcher

    if settings.compute.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("setting compute.device = 'cuda': torch sees no CUDA device; set auto or cpu")
    keep_freed_memory()
    threads = settings.compute.threads
    torch.set_num_threads(available_cores() if threads == "auto" else threads)
    return Matcher.load(settings.weights, device=settings.compute.device)


def weights_sha256(settings: Settings) -> str:
    """Sha256 of the weights that `load_matcher` would load, after checking it.

    Raises
    ------
    WeightsError
        The weights are missing, or have another sha256.
    """
    from crosstie.matcher.weights_file import verified_sha256

    return verified_sha256(settings.weights)


def available_cores() -> int:
    """Number of cores that this process may use; a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0))
