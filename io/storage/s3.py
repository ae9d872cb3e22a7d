"""Settings of object storage: one value, and the options of obstore, s3fs and GDAL that follow from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crosstie.errors import StoreError
from crosstie.io.storage.listing import StoredObject
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.trust import trust

if TYPE_CHECKING:
    from botocore.session import Session
    from obstore.store import S3Credential

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Variables that name the endpoint, the first one before the second."""

DEFAULT_REGION = "us-east-1"

_KEYS_LIFE = timedelta(minutes=10)
"""How long obstore keeps the keys of a profile until it asks again. botocore renews keys that expire soon."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where S3 is and how to reach it; never a key or a token."""

    endpoint: str | None = None
    """Address of the S3 server, `https://host[:port]` or `http://...`; null takes `AWS_ENDPOINT_URL_S3`,
    `AWS_ENDPOINT_URL`, the profile's, or AWS itself."""
    region: str | None = None
    """Region of the buckets; null takes `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, or us-east-1."""
    profile: str | None = None
    """Profile of `~/.aws` that holds or fetches the credentials; null takes `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY`, else `AWS_PROFILE`, else the profile `default`, else the machine's own role."""
    path_style: bool | None = None
    """Whether the bucket stands in the path (`host/bucket`) or in the host (`bucket.host`); null: as
    `AWS_VIRTUAL_HOSTING` or `AWS_VIRTUAL_HOSTED_STYLE_REQUEST` says, else in the path of a given endpoint."""
    requester_pays: bool = False
    """Pay for what is read from buckets of others; `AWS_REQUEST_PAYER=requester` says so too."""
    anonymous: bool = False
    """Send no credentials, as public buckets want it; `AWS_NO_SIGN_REQUEST=YES` says so too."""
    ca_file: str | None = None
    """PEM file of a private certificate authority that catalogs, products, rasters and Prefect's server are
    reached by; it is trusted beside the usual ones. Every worker needs it at the same path."""

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            _check_endpoint(self.endpoint)
        if self.anonymous and self.profile is not None:
            raise ValueError(f"anonymous and profile {self.profile!r} exclude each other; drop one")


FROM_ENVIRONMENT = S3Options()
"""Everything from the environment variables."""


def obstore_options(storage: S3Options, bucket: str) -> dict[str, Any]:
    """Keyword arguments of `obstore.store.S3Store`, besides prefix, retries and time limits.

    Raises
    ------
    StoreError
        There is no such profile, or it has no credentials.
    """
    known = _resolve(storage)
    options: dict[str, Any] = {
        "region": known.region,
        "virtual_hosted_style_request": not known.path_style,
        "request_payer": known.requester_pays,
        "skip_signature": known.anonymous,
    }
    if known.endpoint is not None:
        # obstore takes the endpoint as it is: in virtual style the bucket is part of the host.
        endpoint = known.endpoint if known.path_style else _with_bucket(known.endpoint, bucket)
        options["endpoint"] = endpoint
        if "AWS_ENDPOINT_URL_S3" in os.environ:  # it would win over `endpoint`
            options["aws_endpoint_url_s3"] = endpoint
    if known.credentials is not None:
        options["credential_provider"] = known.credentials
    return options


def speaks_http(storage: S3Options) -> bool:
    """Say whether the endpoint begins with `http://`. Only then is anything sent unencrypted."""
    endpoint = _resolve(storage).endpoint
    return endpoint is not None and endpoint.lower().startswith("http://")


def s3fs_options(storage: S3Options) -> dict[str, Any]:
    """`storage_options` of fsspec, pandas, geopandas and pyarrow for `s3://` addresses; holds no secret.

    Raises
    ------
    StoreError
        There is no such profile, or it has no credentials.
    """
    known = _resolve(storage)
    options: dict[str, Any] = {
        "anon": known.anonymous,
        "requester_pays": known.requester_pays,
        "client_kwargs": {"region_name": known.region},
        "config_kwargs": {"s3": {"addressing_style": "path" if known.path_style else "virtual"}},
    }
    if known.endpoint is not None:
        options["client_kwargs"]["endpoint_url"] = known.endpoint
    if known.profile is not None:
        options["profile"] = known.profile
    return options


def gdal_options(storage: S3Options) -> dict[str, Any]:
    """GDAL's configuration for `/vsis3/`, for a session of `rasterio.Env` alone: it holds a profile's keys.

    Unlike the other clients, GDAL knows neither `AWS_ENDPOINT_URL` nor all kinds of profiles.

    Raises
    ------
    StoreError
        There is no such profile, or it has no credentials.
    """
    known = _resolve(storage)
    options: dict[str, Any] = {
        "AWS_REGION": known.region,
        "AWS_VIRTUAL_HOSTING": not known.path_style,
        "AWS_NO_SIGN_REQUEST": known.anonymous,
    }
    if known.endpoint is not None:
        parts = urlsplit(known.endpoint)
        options["AWS_S3_ENDPOINT"] = parts.netloc
        options["AWS_HTTPS"] = "NO" if parts.scheme.lower() == "http" else "YES"
    if known.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    if known.credentials is not None:
        keys = known.credentials()
        options["AWS_ACCESS_KEY_ID"] = keys["access_key_id"]
        options["AWS_SECRET_ACCESS_KEY"] = keys["secret_access_key"]
        # Empty if the profile has none: a token in the environment belongs to other keys.
        options["AWS_SESSION_TOKEN"] = keys.get("token") or ""
    return options


def objects_of_bucket(
    storage: S3Options, bucket: str, prefix: str, *, after: str = ""
) -> Iterator[StoredObject]:
    """Objects whose keys begin with a prefix and come after one, in the order of S3, whatever the characters.

    Raises
    ------
    StoreError
        The bucket cannot be listed.
    """
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    known = _resolve(storage)
    style = "path" if known.path_style else "virtual"
    signature: dict[str, Any] = {"signature_version": UNSIGNED} if known.anonymous else {}
    payer = {"RequestPayer": "requester"} if known.requester_pays else {}
    try:
        client = _session(known.profile, *_files()).create_client(
            "s3",
            region_name=known.region,
            endpoint_url=known.endpoint,
            config=Config(s3={"addressing_style": style}, **signature),
        )
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, StartAfter=after, **payer
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                yield StoredObject(entry["Key"], entry["Size"], entry["LastModified"])
    except (BotoCoreError, ClientError) as problem:
        raise StoreError(f"cannot list s3://{bucket}/{prefix}: {first_line(problem)}") from None


@dataclass(frozen=True, slots=True)
class _Resolved:
    """The options after reading the environment and the profile."""

    endpoint: str | None
    region: str
    profile: str | None
    path_style: bool
    requester_pays: bool
    anonymous: bool
    credentials: Callable[[], S3Credential] | None
    """Fetches the profile's keys; None if the clients find keys in the environment themselves."""


def _resolve(storage: S3Options) -> _Resolved:
    _forget_empty()
    trust(storage.ca_file)
    env = os.environ
    _check_keys(env)
    anonymous = storage.anonymous or _yes(env, "AWS_NO_SIGN_REQUEST") or _yes(env, "AWS_SKIP_SIGNATURE")
    profile = None if anonymous else _aws_profile(storage)
    written = _Profile(profile).written() if profile is not None else {}
    endpoint = (
        storage.endpoint
        or env.get("AWS_ENDPOINT_URL_S3")
        or env.get("AWS_ENDPOINT_URL")
        or written.get("endpoint_url")
    )
    _check_named_endpoint(endpoint)
    return _Resolved(
        endpoint=endpoint or None,
        region=storage.region
        or env.get("AWS_REGION")
        or env.get("AWS_DEFAULT_REGION")
        or written.get("region")
        or DEFAULT_REGION,
        profile=profile,
        path_style=_path_style(storage, env, has_endpoint=bool(endpoint)),
        requester_pays=storage.requester_pays or env.get("AWS_REQUEST_PAYER", "").lower() == "requester",
        anonymous=anonymous,
        credentials=None if profile is None else _Profile(profile),
    )


def _path_style(storage: S3Options, env: Mapping[str, str], *, has_endpoint: bool) -> bool:
    if storage.path_style is not None:
        return storage.path_style
    for name in ("AWS_VIRTUAL_HOSTING", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        if env.get(name):
            return not _yes(env, name)
    return has_endpoint


def _aws_profile(storage: S3Options) -> str | None:
    """Name of the profile to ask for credentials; None if the environment or a role has them."""
    if storage.profile is not None:
        return storage.profile
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    if named := os.environ.get("AWS_PROFILE"):
        return named
    return "default" if "default" in _session(None, *_files()).available_profiles else None


@dataclass(frozen=True, slots=True)
class _Profile:
    """A profile, read by botocore, which supports keys, roles, single sign-on and processes."""

    name: str

    def written(self) -> Mapping[str, Any]:  # obstore looks for `config` in credential providers
        if self.name not in _session(None, *_files()).available_profiles:
            raise StoreError(
                f"storage.profile: there is no profile {self.name!r} in ~/.aws; write it there, or point"
                " AWS_SHARED_CREDENTIALS_FILE or AWS_CONFIG_FILE to the file that has it"
            )
        found: Mapping[str, Any] = _session(self.name, *_files()).get_scoped_config()
        return found

    def __call__(self) -> S3Credential:
        from botocore.exceptions import BotoCoreError  # slow to import, and not needed for files on a disk

        try:
            credentials = _session(self.name, *_files()).get_credentials()
            keys = None if credentials is None else credentials.get_frozen_credentials()
        except BotoCoreError as problem:
            raise StoreError(
                f"storage.profile {self.name!r}: gives no credentials ({first_line(problem)})"
            ) from None
        if keys is None:
            raise StoreError(
                f"storage.profile {self.name!r}: has no credentials; give it aws_access_key_id and"
                " aws_secret_access_key, or a role"
            )
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _KEYS_LIFE,
        }


def _files() -> tuple[str | None, str | None]:
    return os.environ.get("AWS_SHARED_CREDENTIALS_FILE"), os.environ.get("AWS_CONFIG_FILE")


@lru_cache(maxsize=16)
def _session(profile: str | None, *files: str | None) -> Session:
    """Keep one session for each profile, so that a role is assumed once and not at every read."""
    import botocore.session  # slow to import, and not needed for files on a disk

    del files  # part of the cache key only: botocore reads the variables itself
    return botocore.session.Session(profile=profile)


def _forget_empty() -> None:
    """Take away variables that are empty: that means unset, but each client of S3 reads them by itself."""
    for name in ENDPOINTS:
        if name in os.environ and not os.environ[name].strip():
            del os.environ[name]


def _check_keys(env: Mapping[str, str]) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if (value := env.get(name, "")) and (value != value.strip() or not value.isprintable()):
            raise StoreError(
                f"{name} begins or ends with a space, or holds a line break, as a file that was read whole"
                " does: take it away"
            )


def _check_named_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    try:
        _check_endpoint(endpoint)
    except ValueError as problem:
        raise StoreError(f"{' or '.join(ENDPOINTS)}, or the profile's: {problem}") from None


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(  # without the value, because it is secret
            "endpoint must not hold a user, a password or a query; credentials come from AWS_ACCESS_KEY_ID"
            " and AWS_SECRET_ACCESS_KEY or from a profile"
        )
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError(
            f"endpoint must be https://host[:port] or http://host[:port], got {endpoint[:200]!r}"
        )


def _with_bucket(endpoint: str, bucket: str) -> str:
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{bucket}.{host}"


def _yes(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").strip().lower() in {"1", "yes", "true", "on"}
