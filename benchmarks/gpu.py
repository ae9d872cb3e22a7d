"""The matcher on an accelerator, beside the CPU of the same machine: is it the same, and how fast is it?

    python benchmarks/gpu.py                        # CUDA where there is one, about five minutes
    python benchmarks/gpu.py --device cpu --side 1024 --scene 2048

It needs this checkout, torch, scipy and safetensors (and ONNX Runtime for the CPU's side), and makes its own
images: smooth random land seen twice, the second time moved, with other contrasts and speckle. A line of JSON
a finding:

peaks       what the device reaches: a matrix product a precision, TFLOP/s, and a copy, GB/s
parity      offsets of the device less those of the CPU, px, where both are sure (0.02 asked)
features    megapixels a second by precision and side of the plane, and the share of the roofline
tiles       tiles a second (192 px every 64 px) by side of the block, features included
scene       one whole scene block by block, from memory and from a file that a thread reads ahead

Halved precisions are of the convolutions alone; correlation stays in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from crosstie.matcher.matching import Matcher
from crosstie.matcher.network import DenseFeatures, MatchingNetwork
from crosstie.types import Kind

TILE_PX, STRIDE_PX, SEARCH_PX = 192, 64, 32
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SURE = 0.9
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", type=int, default=2048, help="largest side of a block, px")
    parser.add_argument("--scene", type=int, default=10980, help="side of the scene, px")
    asked = parser.parse_args()
    name = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "CPU"
    say("device", name=name, torch=torch.__version__, threads=torch.get_num_threads())
    peaks = measured_peaks(asked.device)
    on_cpu, matcher = Matcher.load(device="cpu"), on_device(asked.device)
    parity(on_cpu, matcher, *land(min(asked.side, 1024)))
    sides = [side for side in (512, 1024, 2048, 4096) if side <= asked.side]
    for side in sides:
        features(matcher, side, peaks)
    for side in sides:
        tiles(matcher, side)
    whole_scene(matcher, asked.scene, asked.side)


def on_device(device: str) -> Matcher:
    """The matcher with torch's own features, also on a CPU: the code that an accelerator runs."""
    return replace(Matcher.load(device=device), on_cpu=None)


class Halved:
    """A network whose convolutions run in another precision; features come back as float32."""

    def __init__(self, network: MatchingNetwork, precision: torch.dtype | None) -> None:
        self.network, self.precision = network, precision

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def features(self, x: torch.Tensor, kind: Kind) -> DenseFeatures:
        if self.precision is None:
            return self.network.features(x, kind)
        with torch.autocast(x.device.type, self.precision):
            found = self.network.features(x, kind)
        return DenseFeatures(*(part.float() for part in found))


def in_precision(matcher: Matcher, precision: str) -> Matcher:
    return replace(matcher, network=Halved(matcher.network, PRECISIONS[precision]))


def precisions(device: str) -> list[str]:
    """fp16 convolutions are not for a CPU."""
    return [name for name in PRECISIONS if device.startswith("cuda") or name != "fp16"]


def land(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Optical and SAR planes of one land, the second (2.25, -1.5) px off, each with values of its own."""
    rng = torch.Generator().manual_seed(seed)
    cells = 8
    coarse = torch.randn(1, 1, side // cells + 3, side // cells + 3, generator=rng)
    y, x = torch.meshgrid(torch.arange(side) + 0.0, torch.arange(side) + 0.0, indexing="ij")

    def seen(dx: float, dy: float) -> torch.Tensor:
        size = coarse.shape[-1] * cells
        at = torch.stack([(x + cells - dx) * 2 + 1, (y + cells - dy) * 2 + 1], -1) / size - 1
        return torch.nn.functional.grid_sample(
            coarse, at[None], mode="bicubic", padding_mode="reflection", align_corners=False
        )[0, 0]

    fields = (seen(0, 0) > 0.2).float() + 0.4 * seen(0, 0)
    moved = (seen(2.25, -1.5) > 0.2).float() + 0.4 * seen(2.25, -1.5)
    optical = 0.15 + 0.05 * fields + 0.005 * torch.randn(side, side, generator=rng)
    speckle = torch.rand(4, side, side, generator=rng).clamp_min(1e-6).log().neg().mean(0)
    sar = -14 + 4 * moved + 10 * torch.log10(speckle)
    return optical.numpy(), sar.numpy()


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """First rows and columns of the tiles of a block."""
    starts = np.arange(SEARCH_PX, side - TILE_PX - SEARCH_PX + 1, STRIDE_PX)
    rows, cols = np.meshgrid(starts, starts, indexing="ij")
    return rows.ravel(), cols.ravel()


def matched(matcher: Matcher, optical: np.ndarray, sar: np.ndarray) -> Any:
    kinds = {"reference_kind": Kind.OPTICAL, "secondary_kind": Kind.SAR}
    return matcher.match(optical, sar, *grid(len(optical)), size_px=TILE_PX, search_px=SEARCH_PX, **kinds)


def parity(on_cpu: Matcher, matcher: Matcher, optical: np.ndarray, sar: np.ndarray) -> None:
    """Compare with what `crosstie register` computes on this machine's CPU."""
    wanted = matched(on_cpu, optical, sar)
    for precision in precisions(matcher.device):
        found = matched(in_precision(matcher, precision), optical, sar)
        sure = (wanted.confidence > SURE) & (found.confidence > SURE)
        apart = np.hypot(*(found.offset_px - wanted.offset_px)[sure].T)
        say(
            "parity",
            precision=precision,
            tiles=len(sure),
            sure=int(sure.sum()),
            largest_px=round(float(apart.max(initial=0)), 5),
            median_px=round(float(np.median(apart)), 6) if sure.any() else None,
            confidence_apart=round(float(np.abs(found.confidence - wanted.confidence).max()), 5),
        )


def measured_peaks(device: str) -> dict[str, float]:
    """TFLOP/s of a matrix product for each precision, and GB/s read and written by a copy."""
    side = 8192 if device.startswith("cuda") else 2048
    found = {}
    for name in precisions(device):
        a = torch.randn(side, side, device=device, dtype=PRECISIONS[name] or torch.float32)
        found[name] = 2 * side**3 / seconds(lambda a=a: a @ a, device) / 1e12
    plane = torch.randn(2**28 if device.startswith("cuda") else 2**25, device=device)
    target = torch.empty_like(plane)
    found["GB/s"] = 8 * plane.numel() / seconds(lambda: target.copy_(plane), device) / 1e9
    say("peaks", **{name: round(value, 2) for name, value in found.items()})
    return found


def features(matcher: Matcher, side: int, peaks: dict[str, float]) -> None:
    """Time the network alone, and set it beside what memory and arithmetic of the device allow."""
    x = torch.randn(1, 1, side, side, device=matcher.device).contiguous(memory_format=torch.channels_last)
    operations, values = work(matcher.network, x)
    for name in precisions(matcher.device):
        network = Halved(matcher.network, PRECISIONS[name])
        with torch.inference_mode():
            took = seconds(lambda n=network: n.features(x, Kind.SAR), matcher.device)
        bytes_moved = values * (4 if name == "fp32" else 2)
        least = max(operations / peaks[name] / 1e12, bytes_moved / peaks["GB/s"] / 1e9)
        say(
            "features",
            precision=name,
            side=side,
            megapixels_s=round(side * side / took / 1e6, 2),
            tflops=round(operations / took / 1e12, 3),
            share_of_roofline=round(least / took, 3),
        )


def work(network: MatchingNetwork, x: torch.Tensor) -> tuple[int, int]:
    """Operations of all convolutions, and values that these read and write."""
    counts = [0, 0]

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counts[0] += 2 * output.numel() * layer.weight[0].numel()
        counts[1] += inputs[0].numel() + output.numel() + layer.weight.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.inference_mode():
        network.features(x, Kind.SAR)
    for hook in hooks:
        hook.remove()
    return counts[0], counts[1]


def tiles(matcher: Matcher, side: int) -> None:
    images = land(side)
    for name in precisions(matcher.device):
        in_this = in_precision(matcher, name)
        took = seconds(lambda m=in_this: matched(m, *images), matcher.device)
        count = len(grid(side)[0])
        say("tiles", precision=name, side=side, tiles=count, tiles_s=round(count / took, 1))


def whole_scene(matcher: Matcher, scene_px: int, block_px: int) -> None:
    """All tiles of a scene, block by block, with blocks that overlap as those of a run."""
    block_px = min(block_px, scene_px)
    block = [(255 * (plane - plane.min()) / np.ptp(plane)).astype(np.uint16) for plane in land(block_px)]
    repeats = -(-scene_px // block_px)
    scene = np.stack([np.tile(plane, (repeats, repeats))[:scene_px, :scene_px] for plane in block])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.npy"
        np.save(path, scene)
        for source in ("memory", "file"):
            images = scene if source == "memory" else np.load(path, mmap_mode="r")
            began, count, waited = time.perf_counter(), 0, 0.0
            for planes, wait_s in fed(images, block_px):
                count += len(grid(planes.shape[1])[0])
                waited += wait_s
                matched(matcher, *planes)
            synchronised(matcher.device)
            took = time.perf_counter() - began
            say(
                "scene",
                source=source,
                side=scene_px,
                tiles=count,
                seconds=round(took, 1),
                tiles_s=round(count / took, 1),
                waited_for_pixels_s=round(waited, 2),
            )


def fed(images: np.ndarray, block_px: int) -> Iterator[tuple[np.ndarray, float]]:
    """Blocks as float32, read ahead by a thread; with how long the device waited for each."""
    last = images.shape[1] - block_px
    starts = sorted({min(start, last) for start in range(0, last + block_px, block_px - TILE_PX)})
    places = [(row, col) for row in starts for col in starts]

    def read(place: tuple[int, int]) -> np.ndarray:
        row, col = place
        return images[:, row : row + block_px, col : col + block_px].astype(np.float32)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(read, places[0])
        for following in [*places[1:], None]:
            began = time.perf_counter()
            planes = coming.result()
            waited = time.perf_counter() - began
            if following is not None:
                coming = pool.submit(read, following)
            yield planes, waited


def seconds(call: Callable[[], object], device: str) -> float:
    """Shortest of some runs after one that warms up."""
    best = float("inf")
    for repeat in range(REPEATS + 1):
        synchronised(device)
        began = time.perf_counter()
        call()
        synchronised(device)
        if repeat:
            best = min(best, time.perf_counter() - began)
    return best


def synchronised(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def say(what: str, **found: object) -> None:
    print(json.dumps({"what": what, **found}), flush=True)


if __name__ == "__main__":
    main()
