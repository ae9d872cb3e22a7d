"""Whether a program prints what a page shows: the same words, and about the same numbers.

Numbers may differ by a fifth, for no two processors fit alike. Times, durations and hashes may be any; `...`
stands for anything on its line, and alone on a line for any lines.
"""

from __future__ import annotations

import re
from pathlib import Path

HASH = re.compile(r"(?<![0-9A-Za-z.])(?=[a-f]*\d)[0-9a-f]{8,}(?![0-9A-Za-z])")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d)?)?(?!\w)")
DURATION = re.compile(r"\bin \d+(?:\.\d+)? s\b")
VERSION = re.compile(r"\b\d+\.\d+\.\d+\b")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w])")
ANY = "..."

RELATIVE, ABSOLUTE = 0.2, 1.5
"""How far a number may be from the one shown: by a share of it, or by so much."""


def differs(shown: str, real: str, folder: Path) -> str | None:
    """The first line that is not as shown, with what was printed; None where all is."""
    wanted, printed = _lines(shown), _lines(real.replace(str(folder), "/data"))
    place = 0
    for number, line in enumerate(wanted):
        if line == ANY:
            after = wanted[number + 1 : number + 2]
            while after and place < len(printed) and not _alike(after[0], printed[place]):
                place += 1
            place = place if after else len(printed)
            continue
        if place == len(printed) or not _alike(line, printed[place]):
            return f"shown:   {line}\nprinted: {(printed[place:] or ['(nothing)'])[0]}"
        place += 1
    return None if place == len(printed) else f"printed beyond what is shown: {printed[place]}"


def _lines(text: str) -> list[str]:
    lines, timed = [], False
    for line in text.splitlines():
        words = " ".join(line.split())
        if timed and words[:1].isdigit():
            words = words.rpartition(" ")[0]  # the seconds at the end of a row
        timed = words.endswith(" seconds") or (timed and bool(words))
        if words:
            words = DURATION.sub("in N s", MOMENT.sub("TIME", HASH.sub("HASH", words)))
            lines.append(VERSION.sub("VERSION", words))
    return lines


def _alike(shown: str, real: str) -> bool:
    pattern, numbers, end = "", [], 0
    for found in re.finditer(rf"{re.escape(ANY)}|{NUMBER.pattern}", shown):
        pattern += re.escape(shown[end : found.start()])
        if found[0] == ANY:
            pattern += ".*"
        else:
            pattern += r"([-+]?\d+(?:\.\d+)?)"
            numbers.append(float(found[0]))
        end = found.end()
    match = re.fullmatch(pattern + re.escape(shown[end:]), real)
    return match is not None and all(
        abs(float(got) - wanted) <= max(ABSOLUTE, RELATIVE * abs(wanted))
        for got, wanted in zip(match.groups(), numbers, strict=True)
    )
