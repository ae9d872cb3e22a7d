"""What the C library does with memory that is freed: kept for the next array, or given back at once.

Each suits one kind of command, and holds for its whole process: only commands and workers ask for it, no call
from Python. Only glibc is asked; other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3), from malloc.h."""

LARGE_BYTES = 2**18
"""From this size an array has pages of its own: a block of pixels has, what Python allocates has not."""


def keep_freed_memory() -> None:
    """Keep large freed blocks instead of returning each to the kernel.

    The network allocates arrays of the same few sizes again and again. If the kernel clears each one anew,
    that takes a third of the CPU time.
    """
    _mallopt({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> None:
    """Return large blocks to the kernel as soon as they are freed.

    By default glibc raises its limit for them to the largest that was freed, up to 32 MiB, and cuts all
    smaller ones out of its heaps, of which each thread has one. Blocks of pixels of many sizes, freed in
    another order than they were made, leave holes there that grow with the image.
    """
    _mallopt({M_MMAP_THRESHOLD: LARGE_BYTES})


def _mallopt(values: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in values.items():
            mallopt(parameter, value)
