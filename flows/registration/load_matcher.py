"""The matcher as the settings want it: which weights, which device, how many threads."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.matcher.matching import Matcher

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3), from malloc.h."""


def load_matcher(settings: Settings) -> Matcher:
    """Load the network into this process.

    Raises
    ------
    WeightsError : weights missing, or with another sha256
    SettingsError : CUDA is wanted and there is none
    """
    # Threads that wait by spinning stall one another where processes share cores; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported here: a process that only reads or plans is spared torch.
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
    WeightsError : weights missing, or with another sha256
    """
    from crosstie.matcher.weights import verified_sha256

    return verified_sha256(settings.weights)


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of handing each back to the kernel.

    The network's arrays are of a few sizes that come again and again; cleared anew by the kernel at each use
    they cost a third of the CPU time. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def available_cores() -> int:
    """Cores that this process may use: a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0))
