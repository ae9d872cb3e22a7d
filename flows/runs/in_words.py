"""Counts and times as people say them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 pair`, `2 pairs`, `1,521 tiles`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def time_span(seconds: float) -> str:
    """`3 s`, `4 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
