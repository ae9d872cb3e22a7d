"""A pair has one key, no other pair has it, and the keys of earlier archives stay."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstie.io.storage.root_layout import COMMIT, ProductKey, product_file
from crosstie.types import pair_key

S2 = "S2B_MSIL1C_20250602T103629_N0511_R008_T31UFS_20250602T124233"
GRD = "S1A_IW_GRDH_1SDV_20250601T172417_20250601T172442_059449_07611C_0D2A"
SLC = "S1A_IW_SLC__1SDV_20250601T172416_20250601T172443_059449_07611C_7E6F"

IDS = st.text("ab_-.!é\n0", min_size=1, max_size=4)


def key_of_0_1_0(reference_id: str, secondary_id: str) -> str:
    """As version 0.1.0 made it."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") for text in (reference_id, secondary_id)]
    key, exact = "__".join(parts), f"{reference_id}__{secondary_id}"
    if key == exact and len(key) <= 180:
        return key
    return f"{key[:169]}-{hashlib.sha256(exact.encode()).hexdigest()[:10]}"


@given(st.sets(st.tuples(IDS, IDS), min_size=2, max_size=50))
def test_two_pairs_never_share_a_key(pairs: set[tuple[str, str]]) -> None:
    assert len({pair_key(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a__b", "c"), ("a", "b__c")),
        (("a_", "b"), ("a", "_b")),
        (("a__b!", "c"), ("a", "b!__c")),
        (("a", "b!"), ("a", key_of_0_1_0("a", "b!").removeprefix("a__"))),
        (("a__b", "c"), ("a", pair_key("a__b", "c").removeprefix("a__"))),
        (("場", "面"), ("面", "場")),
        (("a" * 200, "b"), ("a" * 201, "b")),
        (("a\ud800", "b"), ("a\ud801", "b")),
    ],
)
def test_ids_that_could_be_mixed_up_are_told_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert pair_key(*one) != pair_key(*other)


@pytest.mark.parametrize(
    "pair",
    [(S2, GRD), (S2, SLC), ("_S2", "S1"), ("a", "b c"), ("場面", "S1"), ("1", "2"), ("x" * 150, "y" * 150)],
)
def test_keys_of_earlier_archives_stay(pair: tuple[str, str]) -> None:
    assert pair_key(*pair) == key_of_0_1_0(*pair)


@given(IDS, IDS)
def test_every_key_is_listed_and_fit_for_a_folder(reference_id: str, secondary_id: str) -> None:
    product = ProductKey(pair_key(reference_id, secondary_id), "0" * 16)
    found = product_file(product.commit)
    assert found is not None
    assert (found.product, found.name) == (product, COMMIT)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,179}", product.pair_key)
    assert "__" in product.pair_key
