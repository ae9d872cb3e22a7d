"""A private certificate authority, trusted beside the usual ones by every client that this process has.

requests, httpx, botocore, obstore and GDAL each find certificates in a place of their own, and most take one
file alone. So one file is made of the usual authorities and the private one, and each client is told of it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import ssl
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

import certifi

from crosstie.errors import SettingsError

GDAL_VARIABLE = "GDAL_CURL_CA_BUNDLE"

CLIENT_VARIABLES = (
    "SSL_CERT_FILE",  # Python, httpx, obstore
    "REQUESTS_CA_BUNDLE",  # requests
    "AWS_CA_BUNDLE",  # botocore, s3fs
    GDAL_VARIABLE,  # GDAL as rasterio's wheels have it, and as its configuration calls it
    "CURL_CA_BUNDLE",  # GDAL of others, curl
    "PREFECT_API_SSL_CERT_FILE",  # Prefect's client
)
"""Where each client looks for the authorities that it trusts."""

_ENVIRONMENT_LOCK = threading.Lock()


def trust(ca_file: str | None) -> str | None:
    """Make all clients trust a private authority from now on, in this process and in those that it starts.

    Parameters
    ----------
    ca_file : str or None
        PEM file of one authority or more; None changes nothing.

    Returns
    -------
    str or None
        File of all that is trusted, for clients that have read their variables already.

    Raises
    ------
    SettingsError
        The file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return None
    path = Path(ca_file).expanduser()
    try:
        changed_ns = path.stat().st_mtime_ns
    except OSError as problem:
        raise SettingsError(f"storage.ca_file {ca_file}: cannot be read ({problem.strerror})") from None
    with _ENVIRONMENT_LOCK:
        bundle = _bundle(path, changed_ns)
        os.environ.update(dict.fromkeys(CLIENT_VARIABLES, bundle))
    return bundle


@lru_cache(maxsize=4)
def _bundle(path: Path, changed_ns: int) -> str:
    """Write the usual authorities and those of a file into one; return its path."""
    del changed_ns  # part of the cache key: a file that has changed is read again
    try:
        ssl.create_default_context().load_verify_locations(cafile=path)
        private = path.read_text("utf-8")
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        reason = getattr(problem, "reason", None) or getattr(problem, "strerror", None) or problem
        raise SettingsError(
            f"storage.ca_file {path}: holds no certificate in PEM form ({reason}); give the file of your"
            " certificate authority, which begins with -----BEGIN CERTIFICATE-----"
        ) from None
    usual = {certifi.where(), ssl.get_default_verify_paths().openssl_cafile}
    parts = [Path(name).read_text("utf-8") for name in sorted(usual) if Path(name).is_file()]
    folder = Path(tempfile.mkdtemp(prefix="crosstie-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "authorities.pem").write_text("\n".join([*parts, private]), "utf-8")
    return str(folder / "authorities.pem")


UNTRUSTED = "its certificate is of an authority that is not trusted here; give its file as storage.ca_file"
"""What to say where `is_untrusted`; asking again would change nothing."""

_REFUSALS = (
    "invalidcertificate",
    "certificate verify failed",
    "certificate_verify_failed",
    "ssl certificate",
)


def is_untrusted(problem: BaseException | str) -> bool:
    """Whether a client has refused a server for its certificate; each says it in words of its own."""
    text = f"{problem!r} {problem}".lower()
    return any(said in text for said in _REFUSALS)


def hint(problem: BaseException) -> str:
    """The next step to add to a message; empty where the certificate is not the matter."""
    return f"; {UNTRUSTED}" if is_untrusted(problem) else ""
