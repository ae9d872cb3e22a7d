"""Sign URLs when they are read: a signature expires within the hour.

Scenes, plans, sources and products keep the address from the catalog; only GDAL sees the signed one. The host
of an address decides whether it is signed. So nothing must be stored with it, and no catalog can send a token
to another host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from crosstie.errors import UnreadableRasterError
from crosstie.io.storage.address import is_loopback
from crosstie.io.storage.href import public_href

Signer = Callable[[str], str]
"""Gives the signed form of an address."""


def _planetary_computer(href: str) -> str:
    """Sign for the Planetary Computer. Its package keeps tokens until a minute before they expire.

    Raises
    ------
    UnreadableRasterError
        The package is not installed, or no token was given.
    """
    try:
        import planetary_computer  # an extra
    except ImportError:
        raise UnreadableRasterError(
            f"{public_href(href)}: files of the Planetary Computer need a signature;"
            " pip install planetary-computer"
        ) from None
    from requests import RequestException  # comes with the package

    try:
        return str(planetary_computer.sign_url(href))
    except (RequestException, ValueError, KeyError) as problem:
        raise UnreadableRasterError(
            f"{public_href(href)}: the Planetary Computer gives no signature ({type(problem).__name__});"
            " try later, or set PC_SDK_SUBSCRIPTION_KEY"
        ) from None


SIGNERS: dict[str, Signer] = {
    "sentinel1euwest.blob.core.windows.net": _planetary_computer,
    "sentinel1euwestrtc.blob.core.windows.net": _planetary_computer,
    "sentinel2l2a01.blob.core.windows.net": _planetary_computer,
}
"""Host -> its signer: the containers of the collections in `presets`."""


def signed(href: str, signers: Mapping[str, Signer] = SIGNERS) -> str:
    """Sign an address if its host needs it and it is not signed yet; else return it as it is.

    Raises
    ------
    UnreadableRasterError
        It cannot be signed; the message says what to do.
    """
    parts = urlsplit(href)
    signer = signers.get(parts.hostname or "")
    if signer is None or "sig=" in parts.query:
        return href
    # a token is never sent in the clear
    private = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return signer(href) if private else href
