"""The page of error sentences is made from the program: every class, and what a user is really told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from docs_blocks import ROOT
from typer.testing import CliRunner

from crosstie import errors
from crosstie.cli import app

sys.path.insert(0, str(ROOT / "docs" / "making"))

from sentences import page, pattern, sentences

SAID = sentences()
PAGE = page()


def test_the_page_is_made_when_the_site_is_built_and_has_every_class() -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert text.splitlines().count("<!-- made: errors -->") == 1
    for name, kind in vars(errors).items():
        if isinstance(kind, type):
            assert f"\n## {name}\n" in PAGE
    assert all(said.sentence.replace("`", "'") in PAGE for said in SAID)
    assert len(SAID) > 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "absent.tif", "absent.tif"),
        ("register", "{here}", "{here}"),
        ("register", "NETCDF:x", "/vsicurl/x"),
        ("register", "{text}", "{text}"),
        ("pairs", "--catalog", "absent.json"),
        ("pairs", "--catalog", "{text}"),
        ("pairs", "--catalog", "{text}", "--start", "yesterday"),
        ("pairs", "--catalog", "{text}", "--bbox", "1,2,3"),
        ("pairs", "--catalog", "{text}", "--area", "absent.geojson"),
        ("pairs", "--catalog", "{text}", "--format", "geoparquet"),
        ("status", "--out", "{here}/absent"),
        ("status", "--out", "s3:/bucket/x"),
        ("status", "--out", ""),
        ("index", "--out", "ftp://host/x"),
        ("apply", "{here}"),
        ("apply", "{here}", "--verdict", "corrected"),
        ("verify", "--out", "{here}/empty"),
        ("config", "--config", "absent.yaml"),
        ("evaluate",),
        ("simulate", "{here}/x", "--from", "{here}"),
        ("backfill", "--catalog", "{text}", "--out", "{here}/out"),
        ("site", "--out", "{here}/absent"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_a_user_is_told_is_on_the_page(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no JSON")
    (tmp_path / "empty").mkdir()
    given = [part.format(here=tmp_path, text=tmp_path / "text.json") for part in arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2, result.output
    told = result.stderr.removeprefix("error: ").strip()
    assert [said.sentence for said in SAID if pattern(said.sentence).fullmatch(told)], told


def test_a_new_sentence_is_seen_with_its_values_and_both_sides_of_a_choice(tmp_path: Path) -> None:
    file = tmp_path / "new.py"
    file.write_text(
        'STEP = "do this"\n'
        "class OwnError(StoreError):\n    pass\n"
        "def f(path, names, *, many):\n"
        "    raise OwnError(f\"{path.name} lacks {', '.join(names)} files; {STEP}\" if many else why(path))\n"
        "def why(path):\n"
        '    return f"{public_href(path)}: has no files at all"\n'
        "def g(said):\n    raise StoreError(said)\n"
    )
    assert [(said.error, said.sentence) for said in sentences([file])] == [
        ("StoreError", "‹name› lacks ‹names, …› files; do this"),
        ("StoreError", "‹path›: has no files at all"),
    ]
