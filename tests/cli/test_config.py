"""Settings: every source counts, in order; a slip is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from crosstie.config import Settings, commented_yaml, each_setting, load_settings
from crosstie.errors import SettingsError


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CROSSTIE_"):
            monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "value",
    [
        "2025-01-41", "2025-02-30T10:00:00Z", "2025-01-01T25:00:00Z", "2025-01-01T00:00:00+99:99", "9" * 5000,
        "!!timestamp x", "!!bool x", "!!int x", "!!float x", "!!binary x", "[" * 5000,
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_a_value_that_yaml_cannot_make_is_a_line(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml: is not YAML"):
        load_settings(write(tmp_path, f"catalog: {{start_utc: {value}}}"))
    monkeypatch.setenv("CROSSTIE_CATALOG__START_UTC", value)
    with pytest.raises(SettingsError, match="CROSSTIE_CATALOG__START_UTC"):
        load_settings()


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "tiles:\n  size_px: 96\n  stride_px: 48\n  search_px: 16\n")
    monkeypatch.setenv("CROSSTIE_TILES__SIZE_PX", "128")
    monkeypatch.setenv("CROSSTIE_TILES__STRIDE_PX", "24")
    tiles = load_settings(path, options={"tiles.size_px": 160, "tiles.stride_px": None}).tiles
    assert (tiles.size_px, tiles.stride_px, tiles.search_px) == (160, 24, 16)


def test_a_group_that_was_renamed_is_read_by_its_old_name_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(write(tmp_path, "catalogue:\n  max_cloud_pct: 7\n")).catalog.max_cloud_pct == 7
    assert load_settings(options={"catalogue.max_cloud_pct": 8}).catalog.max_cloud_pct == 8
    monkeypatch.setenv("CROSSTIE_CATALOGUE__MAX_CLOUD_PCT", "9")
    assert load_settings().catalog.max_cloud_pct == 9
    # A later source wins, whichever of the two names it uses.
    assert load_settings(write(tmp_path, "catalog:\n  max_cloud_pct: 7\n")).catalog.max_cloud_pct == 9


def test_a_slip_below_an_old_name_is_told_by_the_new_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml.*catalog\.max_clouds.*max_cloud_pct"):
        load_settings(write(tmp_path, "catalogue:\n  max_clouds: 7\n"))


def test_what_config_prints_reads_back_as_the_same_settings(tmp_path: Path) -> None:
    changed = load_settings(
        options={"tiles.size_px": 96, "weights": "a b/#1.safetensors", "compute.cluster": "tcp://h:1"}
    )
    for settings in (Settings(), changed):
        text = commented_yaml(settings)
        assert load_settings(write(tmp_path, text)) == settings
        assert yaml.safe_load(text).keys() == Settings.model_fields.keys()


def test_settings_are_described_except_where_the_name_says_it_all() -> None:
    bare = {setting.name for setting in each_setting(Settings()) if not setting.description}
    assert bare <= {"estimation.seed", "estimation.min_threshold_px", "estimation.max_rotation_deg"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tiles:\n  size_px: 12\n", ("tiles.size_px", "12", "32..1024", "settings.yaml")),
        ("tiles:\n  size_px: big\n", ("tiles.size_px", "'big'", "32..1024")),
        ("tiles:\n  size: 128\n", ("tiles.size", "size_px", "settings.yaml")),
        ("tyles:\n  size_px: 128\n", ("tyles", "known there: grid, tiles", "settings.yaml")),
        ("tiles: 3\n", ("tiles", "3")),
        ("compute:\n  device: tpu\n", ("compute.device", "'tpu'")),
        ("pairing:\n  max_days: -1\n", ("pairing", "max_days", "-1")),
        ("pairing:\n  max_day: 1\n", ("pairing.max_day", "max_days")),
        ("estimation:\n  folds: 1\n", ("estimation.folds", "1")),
        ("estimation:\n  search_radius_px: 9\n", ("estimation.search_radius_px", "tiles.search_px")),
        ("- 1\n", ("[1]", "crosstie config")),
        ("a: [\n", ("settings.yaml", "crosstie config")),
    ],
)
def test_a_slip_in_the_file_is_one_line_that_names_it(
    tmp_path: Path, text: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message


@pytest.mark.parametrize("variable", ["CROSSTIE_TYLES__SIZE_PX", "CROSSTIE_TILES__SIZE"])
def test_a_slip_in_the_environment_is_not_passed_over(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "128")
    with pytest.raises(SettingsError, match=r"environment.*t[yi]les"):
        load_settings()


@pytest.mark.parametrize("line", ['start_utc: "\\uD800"', 'sar_collections: ["a", "\\uDFFFb"]'])
def test_half_a_character_in_the_file_is_one_line_that_names_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "crosstie.yaml"
    path.write_text(f"catalog:\n  {line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"crosstie\.yaml: catalog\.\w+ holds half a character") as caught:
        load_settings(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml"):
        load_settings(tmp_path / "absent.yaml")


def test_the_hash_knows_what_changes_results() -> None:
    default = Settings().hash
    assert load_settings(options={"compute.device": "cpu", "compute.readers": 7}).hash == default
    assert load_settings(options={"pairing.max_days": 1}).hash == default
    assert load_settings(options={"tiles.search_px": 31}).hash != default
    assert load_settings(options={"grid.resolution_m": 20}).hash != default


@pytest.mark.parametrize(
    ("shape", "tiling"),
    [
        ((2048, 2048), (192, 64)),
        ((11264, 12288), (192, 128)),
        ((1024, 4096), (192, 64)),
        ((1024, 4097), (192, 128)),
        ((1023, 5000), (128, 32)),
        ((256, 256), (128, 32)),
        ((192, 500), (128, 32)),
        ((191, 500), (64, 16)),
        ((100, 100), (64, 12)),
    ],
)
def test_automatic_tiles_follow_the_grid(shape: tuple[int, int], tiling: tuple[int, int]) -> None:
    assert Settings().tiles.resolved(shape) == tiling


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().tiles.search_px = 3  # type: ignore[misc]
