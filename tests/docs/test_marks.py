"""The checks on pages see what they are for: a wrong number, a missing line, a block of another kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_blocks import blocks, code_of
from docs_output import differs

HERE = Path("/somewhere/data")

SHOWN = """\
Corrected
  error: 37.7 -> 2.84 m, in 3.1 s
...
#  verdict  seconds
1  fine     3.0

file:///data/a-b276cd07__b/d0af76532879ce74 of 2025-06-01
"""

PRINTED = """\
Corrected
  error:   37.9 -> 2.81 m, in 9.8 s
one line
and another
#  verdict  seconds
1  fine     77.5
file:///somewhere/data/a-11111111__b/aaaaaaaaaaaaaaa1 of 2031-12-24
"""


def test_what_may_differ_from_run_to_run_is_let_pass() -> None:
    assert differs(SHOWN, PRINTED, HERE) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Corrected", "Unreliable"),
        ("37.9", "58.0"),
        ("2.81", "-2.81"),
        ("1  fine", "1  bad "),
        ("1  fine     77.5\n", ""),
        ("2031-12-24", "2031-12-24\nmore"),
        ("/somewhere/data/", "/elsewhere/data/"),
    ],
)
def test_another_word_number_or_line_is_seen(old: str, new: str) -> None:
    assert old in PRINTED
    assert differs(SHOWN, PRINTED.replace(old, new), HERE) is not None


def test_marks_belong_to_the_block_below_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- run: exit 3 -->\n```bash\ncrosstie a\n```\n\n<!-- output -->\n```text\nb\n```\n\n"
        "```python\nc\n```\n\nThe command\n\n    crosstie d \\\n        --e\n\nis `crosstie f`.\n"
    )
    found = blocks(page)
    assert [(block.what, block.language, block.exit_code) for block in found] == [
        ("run", "bash", 3),
        ("output", "text", 0),
        (None, "python", 0),
    ]
    assert [block.line for block in found] == [2, 7, 11]
    code = [(text.strip(), block) for text, block in code_of(page) if text.strip()]
    assert code == [("crosstie a", True), ("crosstie d \\\n    --e", True), ("crosstie f", False)]
