"""Weights as safetensors, opened only when their sha256 is the expected one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

from crosstie.errors import WeightsError
from crosstie.matcher.calibration import CONFIDENCE_TERMS, SIGMA_TERMS, Calibration
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.weights_file import SHIPPED, sidecar_of, verified

FORMAT = "crosstie/weights/1"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A trained network with its calibration."""

    network: MatchingNetwork
    calibration: Calibration
    sha256: str


def load(path: Path | None = None, sha256: str | None = None) -> Weights:
    """Load verified weights (the shipped ones by default), ready for inference.

    Raises
    ------
    WeightsError
        As `weights_file.verified`, or a file that is no crosstie weights.
    """
    body, found = verified(path, sha256)
    path = path or SHIPPED
    try:
        tensors = safetensors.torch.load(body)
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path}: not a safetensors file ({error}); train again or fetch it again"
        ) from error
    confidence = tensors.pop("calibration.confidence", None)
    sigma = tensors.pop("calibration.sigma", None)
    bias = tensors.pop("calibration.bias_px", None)
    network = MatchingNetwork()
    if confidence is None or sigma is None or bias is None or tensors.keys() != network.state_dict().keys():
        raise WeightsError(f"{path}: not weights of this matcher ({FORMAT}); train again with this version")
    if (len(confidence), len(sigma)) != (len(CONFIDENCE_TERMS), len(SIGMA_TERMS)):
        raise WeightsError(
            f"{path}: its calibration has {len(confidence)} and {len(sigma)} terms, this version's has "
            f"{len(CONFIDENCE_TERMS)} and {len(SIGMA_TERMS)}; train again with this version"
        )
    network.load_state_dict(tensors)
    return Weights(
        network.eval().requires_grad_(False),
        Calibration(confidence.double().numpy(), sigma.double().numpy(), bias.double().numpy()),
        found,
    )


def save(path: Path, network: MatchingNetwork, calibration: Calibration, *, facts: dict[str, str]) -> str:
    """Write weights and `<path>.sha256`; return the sha256. `facts` go into the file's header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    tensors["calibration.confidence"] = torch.from_numpy(calibration.confidence_weights.astype(np.float64))
    tensors["calibration.sigma"] = torch.from_numpy(calibration.sigma_weights.astype(np.float64))
    tensors["calibration.bias_px"] = torch.from_numpy(calibration.bias_px.astype(np.float64))
    return _write_safetensors(path, tensors, facts)


def save_tensors(path: Path, network: nn.Module, *, facts: dict[str, str]) -> str:
    """Write any other network, without a calibration, and `<path>.sha256`; return the sha256."""
    return _write_safetensors(
        path, {n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}, facts
    )


def _write_safetensors(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> str:
    """Write tensors and the file of their sha256; return the sha256."""
    # One entry: safetensors writes several in any order, and equal weights would give different files.
    header = {"facts": json.dumps({"format": FORMAT, **facts}, sort_keys=True)}
    body = safetensors.torch.save(tensors, metadata=header)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    sidecar_of(path).write_text(f"{digest}  {path.name}\n")
    return digest
