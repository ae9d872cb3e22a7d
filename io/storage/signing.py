"""Addresses that want a signature: made at the moment of reading, for it ends within the hour.

Scenes, plans, sources and products keep the address as the catalog has it; what is signed is seen by GDAL
alone. Which addresses are signed is told by their host, so that nothing has to be carried along, and so that
no catalog can make another host be sent a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from crosstie.errors import UnreadableRasterError
from crosstie.io.storage.address import is_loopback
from crosstie.io.storage.href import public_href

Signer = Callable[[str], str]
"""Makes an address that may be read now."""


def _planetary_computer(href: str) -> str:
    """Sign for the Planetary Computer; its package keeps tokens until a minute before they end.

    Raises
    ------
    UnreadableRasterError
        The package is not installed, or no token was given.
    """
    try:
        import planetary_computer  # an extra
    except ImportError:
        raise UnreadableRasterError(
            f"{public_href(href)}: files of the Planetary Computer want a signature;"
            " pip install 'crosstie[planetary]'"
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
"""Host -> who signs its addresses: the containers of the collections in `presets`."""


def signed(href: str, signers: Mapping[str, Signer] = SIGNERS) -> str:
    """Address to read now: signed where its host wants it and it is not, else as it is.

    Raises
    ------
    UnreadableRasterError
        It cannot be signed; the message says how to mend that.
    """
    parts = urlsplit(href)
    signer = signers.get(parts.hostname or "")
    if signer is None or "sig=" in parts.query:
        return href
    # a token is never sent in the clear
    private = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return signer(href) if private else href
