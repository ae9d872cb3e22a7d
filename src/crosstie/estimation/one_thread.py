"""Linear algebra in one thread.

The matrices of a pair are small: a few hundred rows at most, some hundred of them. BLAS would share each
among all cores, whose threads wait for one another by spinning. On two cores with other work beside, the same
sums took over thirty times as long, in seconds of a core as well.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def in_one_thread(work: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """Decorate a function whose linear algebra is done by the thread that calls it.

    The limit holds for the process as long as the function runs. Calls that overlap in several threads may
    lift it early, or leave it for good: that costs time, and changes no result.
    """

    @functools.wraps(work)
    def limited(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        with threadpool_limits(limits=1, user_api="blas"):
            return work(*args, **kwargs)

    return limited
