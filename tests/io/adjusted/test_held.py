"""The table of scenes that an adjustment holds: what is no such table is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from crosstie.errors import BadInputError
from crosstie.io.adjusted import held
from crosstie.io.adjusted.held import HeldScene, read_held


def table(folder: Path, text: str) -> Path:
    path = folder / "held.csv"
    path.write_text(text)
    return path


def test_rows_are_read_in_any_order_of_columns(tmp_path: Path) -> None:
    found = read_held(table(tmp_path, "\ufeffdy_m,scene,more,dx_m\n-2.5,S2A_1,x,1e1\n0,S2A_2,,-3\n"))
    assert found == (HeldScene("S2A_1", "", 10.0, -2.5), HeldScene("S2A_2", "", -3.0, 0.0))


def test_a_scene_may_lie_otherwise_at_another_place(tmp_path: Path) -> None:
    found = read_held(table(tmp_path, "scene, place, dx_m, dy_m\nS1, T31UFS, 1, 2\nS1, , 3, 4\n"))
    assert found == (HeldScene("S1", "T31UFS", 1.0, 2.0), HeldScene("S1", "", 3.0, 4.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column scene"),
        ("scene,dx_m\nS1,1\n", "no column dy_m"),
        ("scene,dx_m,dy_m\n", "no row below the header"),
        ("scene,dx_m,dy_m\n ,1,2\n", "row 1: scene is empty"),
        ("scene,dx_m,dy_m\nS1,1,2\nS2,1\n", "row 2: dy_m = ''"),
        ("scene,dx_m,dy_m\nS1,nan,2\n", "row 1: dx_m = 'nan'"),
        ("scene,dx_m,dy_m\nS1,inf,2\n", "row 1: dx_m = 'inf'"),
        ("scene,dx_m,dy_m\nS1,500000,2\n", "10000 at most"),
        ("scene,dx_m,dy_m\nS1,1,2\nS1,1,2\n", "'S1' is there twice"),
        ("scene,dx_m,dy_m\nS1,1,2\x00\n", "row 1: dy_m = "),
        ("scene,dx_m,dy_m\n" + "S" * 200_000 + ",1,2\n", "cannot be read as a CSV table"),
    ],
)
def test_what_is_no_table_of_offsets_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said) as raised:
        read_held(table(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_too_large_or_no_text_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BadInputError, match="no such file"):
            read_held(path)
    (tmp_path / "held.csv").write_bytes(b"scene,dx_m,dy_m\n\xff\xfe,1,2\n")
    with pytest.raises(BadInputError, match="cannot be read as a CSV table"):
        read_held(tmp_path / "held.csv")
    monkeypatch.setattr(held, "MOST_BYTES", 20)
    with pytest.raises(BadInputError, match="larger than"):
        read_held(table(tmp_path, "scene,dx_m,dy_m\nS1,1,2\n"))
