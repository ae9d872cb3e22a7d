"""A key is made of its parts and taken apart again, and an archive of the last version is understood."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstie.io.storage.root_layout import (
    COMMIT,
    INDEX,
    ProductFile,
    ProductKey,
    flow_of_run_log,
    index_part_key,
    index_part_name,
    product_file,
    run_log_key,
    run_log_prefix,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "archive-0.1.0"

NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1)
PAIR_KEYS = NAMES.filter(lambda name: not name.startswith("_"))


@given(pair_key=PAIR_KEYS, run_key=NAMES, name=NAMES)
def test_the_parts_of_a_key_are_found_again(pair_key: str, run_key: str, name: str) -> None:
    product = ProductKey(pair_key, run_key)
    assert product_file(product.file(name)) == ProductFile(product, name)
    assert flow_of_run_log(product.file(name)) is None
    assert index_part_name(product.file(name)) is None


@given(number=st.integers(min_value=1))
def test_the_number_of_a_claim_is_found_again(number: int) -> None:
    found = product_file(ProductKey("A__B", "0").claim(number))
    assert found is not None
    assert found.claim_number == number


@pytest.mark.parametrize("name", ["_COMMIT", "_CLAIM.", "_CLAIM.x", "_CLAIM.-1", "_CLAIM.²", "1"])
def test_what_is_no_claim_has_no_number(name: str) -> None:
    assert ProductFile(ProductKey("A__B", "0"), name).claim_number is None


@pytest.mark.parametrize(
    "key",
    [
        "A__B",
        "A__B/0",
        "A__B/0/sub/_COMMIT",
        "_runs/nightly/_COMMIT",
        "_index/parts/_COMMIT",
        "_other/x/_COMMIT",
    ],
)
def test_what_lies_elsewhere_is_no_file_of_a_product(key: str) -> None:
    assert product_file(key) is None


def test_logs_of_a_flow_and_parts_of_the_index_are_found_again() -> None:
    key = run_log_key("nightly", "2026-01-02T03:04:05.678900+00:00")
    assert key == f"{run_log_prefix('nightly')}/2026-01-02T030405.678900Z.json"
    assert flow_of_run_log(key) == "nightly"
    assert index_part_name(index_part_key("00.parquet")) == "00.parquet"
    assert index_part_name("_index/parts/notes.txt") is None


def test_every_file_of_an_archive_of_the_last_version_is_known() -> None:
    keys = [path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file()]
    files = [file for file in map(product_file, keys) if file is not None]
    assert len(files) == 14
    assert sum(file.name == COMMIT for file in files) == 2
    others = [key for key in keys if product_file(key) is None]
    assert len(others) == 3
    assert INDEX in others
    assert sum(flow_of_run_log(key) == "nightly" for key in others) == 1
    assert sum(index_part_name(key) is not None for key in others) == 1
