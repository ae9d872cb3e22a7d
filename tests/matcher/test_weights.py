from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from crosstie.errors import WeightsError
from crosstie.matcher.calibration import Calibration
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.weights import load, save
from crosstie.matcher.weights_file import verified_sha256

CALIBRATION = Calibration(np.array([0.0, 0, 1, 0, -3]), np.array([1.0, 0, 0, 0]), np.zeros(2))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, MatchingNetwork]:
    torch.manual_seed(4)
    network = MatchingNetwork()
    save(tmp_path / "w.safetensors", network, CALIBRATION, facts={"seed": "4"})
    return tmp_path / "w.safetensors", network


def test_what_was_saved_comes_back(saved: tuple[Path, MatchingNetwork]) -> None:
    path, network = saved
    loaded = load(path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.network.state_dict()[name])
    assert (loaded.calibration.confidence_weights == CALIBRATION.confidence_weights).all()


def test_one_changed_byte_is_refused(saved: tuple[Path, MatchingNetwork]) -> None:
    path, _ = saved
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    with pytest.raises(WeightsError, match="sha256 is"):
        load(path)


def test_weights_nobody_vouches_for_are_refused(saved: tuple[Path, MatchingNetwork]) -> None:
    path, _ = saved
    digest = verified_sha256(path)
    (path.parent / "w.safetensors.sha256").unlink()
    with pytest.raises(WeightsError, match="which sha256"):
        load(path)
    assert load(path, digest).sha256 == digest


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights there"):
        load(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("not weights")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load(text, hashlib.sha256(text.read_bytes()).hexdigest())


def test_a_calibration_of_another_version_is_refused(tmp_path: Path) -> None:
    old = Calibration(np.zeros(8), np.zeros(4), np.zeros(2))
    save(tmp_path / "old.safetensors", MatchingNetwork(), old, facts={})
    with pytest.raises(WeightsError, match="8 and 4 terms, this version's has 5 and 4"):
        load(tmp_path / "old.safetensors")


def test_the_shipped_weights_load() -> None:
    assert load().sha256 == verified_sha256()
