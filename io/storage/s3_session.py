"""A session of s3fs that does not ask again where asking again changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crosstie.io.storage.trust import is_untrusted

if TYPE_CHECKING:
    from aiobotocore.session import AioSession


def sure_session(profile: str | None) -> AioSession:
    """Make a session that gives up at once where a server is not trusted, not there or not known.

    botocore asks five times: for seconds, and each time with the same end.

    Parameters
    ----------
    profile : str or None
        Profile of `~/.aws`; None as the environment says.
    """
    from aiobotocore.session import AioSession  # only for tables on S3

    session = AioSession(profile=profile)
    session.get_component("event_emitter").register_first("needs-retry.s3", _only_if_it_may_help)
    return session


def _only_if_it_may_help(caught_exception: BaseException | None = None, **_: Any) -> bool | None:
    """Answer botocore: False is no further request; None leaves it to the usual rules."""
    if caught_exception is None:
        return None
    return False if any(map(_stays_so, _causes(caught_exception))) else None


def _stays_so(problem: BaseException) -> bool:
    if isinstance(problem, socket.gaierror):
        return problem.errno != socket.EAI_AGAIN
    return isinstance(problem, ConnectionRefusedError) or is_untrusted(problem)


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """Give an error and those that it was made of, as botocore, aiohttp and Python each tell them."""
    seen: list[BaseException] = []
    left: list[object] = [problem]
    while left:
        one = left.pop()
        if isinstance(one, BaseException) and not any(one is other for other in seen):
            seen.append(one)
            yield one
            told = getattr(one, "kwargs", None)  # botocore's
            left += [one.__cause__, one.__context__, getattr(one, "os_error", None)]
            left += list(told.values()) if isinstance(told, dict) else []
