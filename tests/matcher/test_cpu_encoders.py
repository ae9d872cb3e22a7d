"""On a CPU the features come from ONNX Runtime. They are those of the network that torch trains."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import torch
from conftest import REAL_DATA
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from crosstie.config import ComputeSettings, Settings
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.io.raster.values.plane import optical_plane, sar_plane
from crosstie.matcher.calibration import Calibration
from crosstie.matcher.cpu_encoders import CpuEncoders
from crosstie.matcher.matching import Matcher, Matches
from crosstie.matcher.network import MatchingNetwork, fuse
from crosstie.matcher.normalise import normalise
from crosstie.matcher.weights import load, save
from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import Plane

SIZE, SEARCH, SIDE = 192, 32, 640

UNCALIBRATED = Calibration(np.zeros(5), np.zeros(4), np.zeros(2))


@pytest.fixture(scope="module")
def land() -> Plane:
    rng = np.random.default_rng(5)
    noise = [gaussian_filter(rng.normal(size=(SIDE, SIDE)), s) * 10 * s for s in (1, 3, 9)]
    return np.sum(noise, axis=0, dtype=np.float32)


def random_network() -> MatchingNetwork:
    """Random weights, and statistics of the normalisations that are not 0 and 1."""
    torch.manual_seed(7)
    network = MatchingNetwork()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(1e-4, 2)  # small ones: what is added to them counts
                module.weight.uniform_(-1, 2)
                module.bias.normal_()
    return network.eval().requires_grad_(False)


def encoders_of(network: MatchingNetwork, threads: int = 1) -> CpuEncoders:
    """As `Matcher.of` makes them: `fuse` changes a network in place, so that it gets a copy."""
    fused = fuse(copy.deepcopy(network))
    return CpuEncoders.of(
        {name: t.detach().numpy() for name, t in fused.state_dict().items()}, threads=threads
    )


@pytest.mark.parametrize("shape", [(16, 16), (416, 416), (640, 272)])
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("which", ["shipped", "random"])
def test_features_are_those_of_the_network(
    land: Plane, which: str, kind: Kind, shape: tuple[int, int]
) -> None:
    network = load(None).network if which == "shipped" else random_network()
    plane = normalise(land[: shape[0], : shape[1]])[0]
    expected = network.features(torch.from_numpy(plane)[None, None], kind)
    for found, feature in zip(encoders_of(network).features(plane, kind), expected, strict=True):
        assert found.shape == feature.shape
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, feature, rtol=0, atol=1e-5 * float(feature.abs().max()))


def test_the_number_of_threads_and_the_planes_before_change_no_bit(land: Plane) -> None:
    network, plane = load(None).network, normalise(land)[0]
    one, two = encoders_of(network, 1), encoders_of(network, 2)
    expected = one.features(plane, Kind.SAR)
    two.features(plane[:160, :320], Kind.SAR)
    for found in (one.features(plane, Kind.SAR), two.features(plane, Kind.SAR)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_matcher_has_as_many_threads_as_the_settings_say() -> None:
    threads = torch.get_num_threads()
    try:
        for wanted in (1, 2):
            matcher = load_matcher(Settings(compute=ComputeSettings(device="cpu", threads=wanted)))
            assert matcher.on_cpu is not None
            for session in matcher.on_cpu.sessions.values():
                options = session.get_session_options()
                assert options.intra_op_num_threads == wanted
                assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    finally:
        torch.set_num_threads(threads)


USE = """
import numpy as np
from crosstie.matcher.matching import Matcher
from crosstie.types import Kind
Matcher.load(device="cpu").features(np.eye(64, dtype=np.float32), Kind.SAR)
"""


def test_nothing_is_told_to_the_maker_of_the_engine(tmp_path: Path) -> None:
    """Where it may tell, it first gives the machine a number, and stores that in the cache of the user."""
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", USE], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []


def by_torch(path: Path | None = None) -> Matcher:
    """A matcher whose features are torch's own."""
    loaded = load(path)
    return Matcher(loaded.network, loaded.calibration, loaded.sha256, "cpu", None)


def measured(matcher: Matcher, reference: Plane, secondary: Plane, *kinds: Kind) -> Matches:
    starts = np.array([192, 224, 256])
    return matcher.match(
        reference, secondary, np.repeat(starts, 3), np.tile(starts, 3),
        size_px=SIZE, search_px=SEARCH, reference_kind=kinds[0], secondary_kind=kinds[1],
    )  # fmt: skip


def assert_the_same(found: Matches, expected: Matches) -> None:
    np.testing.assert_allclose(found.offset_px, expected.offset_px, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.sigma_px, expected.sigma_px, rtol=0.01)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=0, atol=0.001)


@pytest.mark.parametrize("holed", [False, True])
def test_simulated_tiles_are_measured_as_by_torch(land: Plane, holed: bool) -> None:
    moved = np.roll(land, (5, -9), (0, 1)) + np.random.default_rng(1).normal(0, 3, land.shape)
    moved = moved.astype(np.float32)
    if holed:
        moved[300:340, 200:420] = np.nan
    kinds = Kind.SAR, Kind.SAR
    found = measured(Matcher.load(device="cpu"), land, moved, *kinds)
    np.testing.assert_allclose(found.offset_px, np.tile([-9.0, 5.0], (9, 1)), rtol=0, atol=0.3)
    assert_the_same(found, measured(by_torch(), land, moved, *kinds))


@pytest.mark.real
@pytest.mark.parametrize("scene", ["T11SLT", "T11SMT", "T14RNT-2048"])
def test_real_tiles_are_measured_as_by_torch(scene: str) -> None:
    folder = REAL_DATA / "scenes" / scene
    if not folder.is_dir():
        pytest.skip("no real scenes here")
    window = Window(512, 512, SIDE, SIDE)
    with rasterio.open(folder / "s2_tci.tif") as file:
        optical = optical_plane(file.read(window=window).astype(np.float32))
    with rasterio.open(folder / "s1_vh.tif") as file:
        sar = sar_plane(file.read([1], window=window).astype(np.float32), is_db=False)
    kinds = Kind.OPTICAL, Kind.SAR
    found = measured(Matcher.load(device="cpu"), optical, sar, *kinds)
    assert_the_same(found, measured(by_torch(), optical, sar, *kinds))


def test_weights_that_a_user_trained_are_used_the_same_way(land: Plane, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save(path, random_network(), UNCALIBRATED, facts={})
    ours, torchs = Matcher.load(path, device="cpu"), by_torch(path)
    assert ours.on_cpu is not None
    for level in ("shallow", "deep"):
        found, expected = (
            getattr(m.features(land[:395, :401], Kind.OPTICAL), level).values for m in (ours, torchs)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
