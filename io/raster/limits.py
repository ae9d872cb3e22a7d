"""The one sentence that refuses a file for what it claims."""

from __future__ import annotations

from crosstie.errors import UnreadableRasterError


def refuse_beyond(name: str, what: str, value: int, limit: int, *, next_step: str) -> None:
    """Refuse a file that claims more than a limit.

    Parameters
    ----------
    name : str
        Of the file, as it may be shown.
    what : str
        What is counted, plural: `bands`.
    value : int
        How many the file claims.
    limit : int
        The largest number that is allowed.
    next_step : str
        What to do about it, an imperative.

    Raises
    ------
    UnreadableRasterError
        The value is beyond the limit.
    """
    if value > limit:
        raise UnreadableRasterError(f"{name}: {value} {what}, and the limit is {limit}; {next_step}")
