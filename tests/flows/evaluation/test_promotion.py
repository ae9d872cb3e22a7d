"""New weights take the place of old ones only where they are better, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import GreyMatcher, write_table
from typer.testing import CliRunner, Result

from crosstie.cli import app
from crosstie.config import Settings
from crosstie.errors import SettingsError, WeightsError
from crosstie.flows.evaluation.evaluate import evaluate
from crosstie.flows.evaluation.placement import Protocol, place_templates
from crosstie.flows.evaluation.promote import compared, opponent, promote, refuse_target
from crosstie.io.datasets.pair_table import read_pair_table
from crosstie.matcher.weights_file import SHIPPED, verified_sha256


def crosstie(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def with_sha256(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    path.with_name(path.name + ".sha256").write_text(f"{hashlib.sha256(body).hexdigest()}  {path.name}\n")
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return with_sha256(tmp_path / "good.safetensors", b"sees")


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    return with_sha256(tmp_path / "spoilt.safetensors", b"blind")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path, [(n % 5 - 2, 3 - n) for n in range(8)], shape=(128, 128))


@pytest.fixture(autouse=True)
def matchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of one word stand for a matcher that sees, or for one that is blind and answers zero."""

    def load(settings: Settings) -> GreyMatcher:
        sha256 = verified_sha256(settings.weights)
        word = settings.weights.read_bytes() if settings.weights else b"sees"
        return GreyMatcher(sha256, stuck=word == b"blind")

    monkeypatch.setattr("crosstie.flows.registration.load_matcher.load_matcher", load)


def test_better_weights_take_the_place_and_the_replaced_are_kept(
    tmp_path: Path, table: Path, good: Path, spoilt: Path
) -> None:
    (tmp_path / "in").mkdir()
    target = with_sha256(tmp_path / "in" / "best.safetensors", spoilt.read_bytes())
    result = crosstie("--pairs", table, "--weights", good, "--promote-to", target)
    assert result.exit_code == 0, result.output
    assert f"promoted: {target}" in result.stdout
    assert verified_sha256(target) == verified_sha256(good)
    kept = target.with_name(f"best.{verified_sha256(spoilt)[:12]}.safetensors")
    assert verified_sha256(kept) == verified_sha256(spoilt)
    tree = json.loads((target.parent / "best.safetensors.comparison.json").read_text())
    assert tree["better"]
    assert tree["new"]["weights_sha256"] == verified_sha256(good)
    assert tree["old"]["weights_sha256"] == verified_sha256(spoilt)
    assert tree["new"]["cmr_1"] > tree["old"]["cmr_1"]
    assert not list(target.parent.glob(".*"))


def test_worse_weights_are_refused_with_exit_code_3_and_nothing_changes(
    tmp_path: Path, table: Path, spoilt: Path
) -> None:
    target = tmp_path / "new" / "best.safetensors"
    result = crosstie("--pairs", table, "--weights", spoilt, "--promote-to", target)
    assert result.exit_code == 3, result.output
    assert "not better" in result.stdout
    assert not target.exists()
    (written,) = target.parent.iterdir()
    tree = json.loads(written.read_text())
    assert not tree["better"]
    assert tree["reasons"]
    assert tree["old"]["weights_sha256"] == verified_sha256()  # nothing lay there: the shipped ones


def test_the_same_weights_are_no_better_than_themselves(tmp_path: Path, table: Path, good: Path) -> None:
    (tmp_path / "in").mkdir()
    target = with_sha256(tmp_path / "in" / "best.safetensors", good.read_bytes())
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert crosstie("--pairs", table, "--weights", good, "--promote-to", target).exit_code == 3
    after = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert after.pop("best.safetensors.comparison.json")
    assert after == before


def test_against_alone_compares_and_writes_nothing(
    tmp_path: Path, table: Path, good: Path, spoilt: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = crosstie("--pairs", table, "--weights", good, "--against", spoilt)
    assert result.exit_code == 0, result.output
    assert "the new weights are better" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_target_that_would_be_broken_is_refused(tmp_path: Path, good: Path) -> None:
    for new, target, said in (
        (None, tmp_path / "best.safetensors", "needs --weights"),
        (good, SHIPPED, "fixed in the code"),
        (good, good, "the new weights themselves"),
        (good, tmp_path, "is a folder"),
    ):
        with pytest.raises(SettingsError, match=said):
            refuse_target(new, target)


def test_weights_that_are_not_what_their_sha256_says_are_not_promoted(tmp_path: Path, good: Path) -> None:
    good.write_bytes(good.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="sha256 is"):
        promote(good, tmp_path / "best.safetensors")
    assert not (tmp_path / "best.safetensors").exists()


def test_the_opponent_is_who_was_asked_for_else_who_holds_the_place(tmp_path: Path, good: Path) -> None:
    free = tmp_path / "free.safetensors"
    assert opponent(free, good) == free
    assert opponent(None, good) == good
    assert opponent(None, free) is None


def test_evaluations_of_other_pairs_are_not_compared(table: Path) -> None:
    pairs = read_pair_table(table)
    all_pairs, fewer = (
        evaluate(place_templates(some, Protocol()), GreyMatcher(), search_px=32)
        for some in (pairs, pairs[:4])
    )
    assert not compared(all_pairs, all_pairs).better
    with pytest.raises(ValueError, match="other placements"):
        compared(all_pairs, fewer)
    assert np.isfinite(all_pairs.error_px).all()
