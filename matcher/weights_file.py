"""The file of the weights and its sha256. Without torch, which a process that only plans never loads."""

from __future__ import annotations

import hashlib
from pathlib import Path

from crosstie.errors import WeightsError

SHIPPED = Path(__file__).parent / "shipped" / "crosstie.safetensors"
"""The weights that come with the package."""

SHIPPED_SHA256 = "b6a0a6d254238f56aba2e234ada00d0b613ca52f7c3739fd6577f9d44b08ef51"
"""Fixed in the code: a file that was exchanged unnoticed is refused."""


def verified_sha256(path: Path | None = None, sha256: str | None = None) -> str:
    """Sha256 of the weights at `path` (the shipped ones by default), after checking it.

    The expected value is `sha256`, else the first word of `<path>.sha256`, which `save` writes.

    Raises
    ------
    WeightsError
        No file, nothing to check it against, or another sha256.
    """
    return verified(path, sha256)[1]


def verified(path: Path | None, sha256: str | None) -> tuple[bytes, str]:
    """The bytes of the file and their sha256: the bytes that were checked are those that are used."""
    if path is None:
        path, sha256 = SHIPPED, sha256 or SHIPPED_SHA256
    if not path.is_file():
        raise WeightsError(f"{path}: no weights there; give the path of a .safetensors file or leave it out")
    sidecar = sidecar_of(path)
    if sha256 is None:
        if not sidecar.is_file():
            raise WeightsError(
                f"{path}: nothing says which sha256 to expect; give it, or write {sidecar.name}"
            )
        sha256 = (sidecar.read_text().split() or [""])[0]
    body = path.read_bytes()
    found = hashlib.sha256(body).hexdigest()
    if found != sha256.lower():
        raise WeightsError(f"{path}: sha256 is {found}, expected {sha256}; fetch the file again")
    return body, found


def sidecar_of(path: Path) -> Path:
    """File that holds the sha256 of a weights file."""
    return path.with_name(path.name + ".sha256")
