"""Linear algebra in one thread.

The matrices of a pair are small: a few hundred rows at most, some hundred of them. BLAS would share each among
all cores, whose threads wait for one another by spinning. On two cores with other work beside, the same sums
took over thirty times as long, in seconds of a core as well.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable

Given = ParamSpec("Given")
Found = TypeVar("Found")


def in_one_thread(work: Callable[Given, Found]) -> Callable[Given, Found]:
    """Decorate a function whose linear algebra is done by the thread that calls it.

    The limit holds for the process as long as the function runs. Calls that overlap in several threads may
    lift it early, or leave it for good: that costs time, and changes no result.
    """

    @functools.wraps(work)
    def limited(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        with threadpool_limits(limits=1, user_api="blas"):
            return work(*args, **kwargs)

    return limited
