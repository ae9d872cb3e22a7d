"""The outcome of a run as a page of Markdown, for the person who checks it in the morning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from crosstie.flows.runs.in_words import counted
from crosstie.flows.runs.outcome import FAILED, IN_PROGRESS, Outcome
from crosstie.flows.runs.tally import Tally
from crosstie.io.storage.redaction import redacted
from crosstie.types import VerdictCode

MOST_LINKS = 40
"""Maximum number of lines in a list: nobody reads more."""

MEANING = {
    VerdictCode.CORRECTED: "was off the reference; a correction moves it there",
    VerdictCode.ALREADY_ALIGNED: "lies on the reference already",
    VerdictCode.UNRELIABLE: "no correction that can be trusted; nothing is applied",
    FAILED: "could not be registered; has no products",
    IN_PROGRESS: "another run works on it",
}


def markdown(
    title: str, asked: Mapping[str, object], tally: Tally, *, took: timedelta, next_step: str
) -> str:
    """Write the page: counts, what failed and why, and links to reports. Its length is limited.

    Parameters
    ----------
    asked : Mapping[str, object]
        Parameters of the run, in the words of its user.
    took : timedelta
        Wall time of the run.
    next_step : str
        What to do about what failed.
    """
    parts = [f"# {title}", _headline(tally, took), _markdown_table(("asked", "value"), _asked(asked))]
    if tally.over:
        parts.append(_markdown_table(("pairs", "verdict", "meaning"), _counts(tally)))
    failed = [outcome for outcome in tally.unwell if outcome.verdict == FAILED]
    if failed:
        parts += [
            "## What failed",
            _markdown_table(("pairs", "reason", "for example"), _reasons(tally, failed)),
            next_step,
        ]
    for heading, outcomes in (
        ("## Look at these: unreliable", [o for o in tally.unwell if o.verdict == VerdictCode.UNRELIABLE]),
        ("## Reports", [o for o in tally.well if not o.already_done]),
    ):
        if outcomes:
            parts += [heading, "\n".join(_links(outcomes))]
    return "\n\n".join(parts) + "\n"


def _headline(tally: Tally, took: timedelta) -> str:
    registered = tally.tried - tally.verdicts[FAILED] - tally.verdicts[IN_PROGRESS]
    clock = timedelta(seconds=round(took.total_seconds()))
    text = f"**{counted(tally.over, 'pair')}**, {registered} of them registered in {clock}"
    if tally.already_done:
        text += f", {tally.already_done} registered earlier"
    if registered and tally.work_s:
        text += f"; {tally.work_s / registered:.1f} s each"
    return text + "."


def _asked(asked: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    for name, value in asked.items():
        if value not in (None, (), [], ""):
            yield name, f"`{value}`"


def _counts(tally: Tally) -> Iterator[tuple[str, ...]]:
    for verdict, count in tally.verdicts.most_common():
        yield str(count), str(verdict), MEANING.get(verdict, "")


def _reasons(tally: Tally, failed: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    for code, count in tally.codes.most_common():
        example = next((o for o in failed if code in o.reasons), None)
        text = "" if example is None else f"{example.pair_key}: {' '.join(example.explanation)[:400]}"
        yield str(count), f"`{code}`", text


def _links(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for outcome in outcomes[:MOST_LINKS]:
        link = (
            f"[{outcome.pair_key}]({outcome.products}/report.html)" if outcome.products else outcome.pair_key
        )
        why = f": {', '.join(outcome.reasons)}" if outcome.reasons else f": {outcome.verdict}"
        yield f"- {link}{why}"
    if len(outcomes) > MOST_LINKS:
        yield "- More pairs are not shown here; `crosstie status` lists them all."


def _markdown_table(head: Sequence[str], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_table_cell(cell) for cell in line) + " |" for line in lines)


def _table_cell(text: str) -> str:
    return " ".join(redacted(text).replace("|", "\\|").split())
