"""Addresses of other machines: the one parser, and the rules for where a catalog may lead.

A catalog is written by others, so its addresses are not trusted. All code that decides about an address uses
this module. Scheme and host are made lower-case before anything compares them.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self
from urllib.parse import unquote, urlsplit

from crosstie.errors import CatalogError

REMOTE_SCHEMES = frozenset({"https", "http", "s3"})
"""Schemes by which other machines may be read."""

METADATA_HOSTS = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)

METADATA_IPS = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23",
            "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16",
        ),
    )
)  # fmt: skip
"""Metadata services of AWS, Google, Alibaba, Oracle and Azure. They give out keys, so never allowed."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9-]|\.(?=[a-z0-9])){1,61}[a-z0-9]")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

_MAX_DECODINGS = 4
"""Maximum number of percent-decodings (`%2525` needs two) before the address is refused."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV6_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        ("::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10"),
    )
)
"""IPv6 ranges that embed IPv4 addresses (compatible, mapped, local NAT64, Teredo, 6to4), and site-local."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address of another machine, in parts that all readers understand alike."""

    scheme: str
    """https, http or s3."""
    host: str
    """Lower-case, without a final dot; IPv6 without brackets; for s3 the bucket."""
    port: int | None
    path: str
    """As written, percent signs included."""
    query: str
    userinfo: str = field(default="", repr=False, compare=False)
    """User and password. Only an address from the user may have them: see `AddressPolicy.check_address`."""

    @property
    def url(self) -> str:
        """The whole address in the same form for all clients, without a fragment."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        user = f"{self.userinfo}@" if self.userinfo else ""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{user}{host}{port}{self.path}{query}"


def parse_address(text: str) -> RemoteAddress:
    """Split an absolute address into its parts.

    Raises
    ------
    CatalogError
        It is no https, http or s3 address, or two readers could understand it differently.
    """
    refuse_ambiguous(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as problem:
        raise CatalogError(f"href {short_href(text)!r} is no address ({problem})") from None
    if parts.scheme not in REMOTE_SCHEMES or text[len(parts.scheme) :][:3] != "://":
        raise CatalogError(
            f"href {short_href(text)!r} begins with {parts.scheme!r}; a catalog may name https, s3 and its"
            " own files only"
        )
    userinfo, _, _ = parts.netloc.rpartition("@")
    if parts.scheme == "s3":
        # all that follows a bucket is the key: S3 knows no query
        netloc, slash, key = text[len("s3://") :].partition("/")
        return RemoteAddress("s3", _checked_bucket(text, netloc), None, slash + key, "", userinfo)
    return RemoteAddress(
        parts.scheme, _checked_host(text, parts.hostname or ""), port, parts.path, parts.query, userinfo
    )


def refuse_ambiguous(text: str) -> None:
    """Refuse text that readers understand differently, plain or percent-encoded, in any address or path.

    Raises
    ------
    CatalogError
        It holds control characters, backslashes, or a path of GDAL's virtual file systems.
    """
    if not text or _CONTROL.search(text) or _CONTROL.search(_percent_decoded(text)):
        raise CatalogError(
            f"href {short_href(text)!r} is empty or holds control characters; correct the catalog"
        )
    place = text.split("?", 1)[0]
    if "\\" in text or "\\" in _percent_decoded(place):
        raise CatalogError(
            f"href {short_href(text)!r} holds a backslash; write / between the parts of a path"
        )
    # the whole text, or the path of an address; `./` and doubled slashes before it hide nothing
    path = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?", "", _percent_decoded(place))
    if re.match(r"[./]*/vsi|vsi[a-z0-9_]+/(vsi|/)", path, re.IGNORECASE):
        raise CatalogError(
            f"href {short_href(text)!r} is GDAL syntax, not an address; a catalog may name https, s3 and"
            " its own files only"
        )


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, from its name or IP address alone. Nothing is looked up."""
    name = host.lower().rstrip(".")
    if name in {"localhost", "localhost.localdomain", "ip6-localhost"} or name.endswith(".localhost"):
        return True
    number = _parse_ip(name)
    return number is not None and number.is_loopback


def is_public(ip: IpAddress) -> bool:
    """Say whether an IP address is public: in no private, local, shared, reserved or multicast range."""
    if isinstance(ip, ipaddress.IPv6Address) and ip in _NAT64:
        return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return (
        ip.is_global
        and not ip.is_multicast
        and not any(ip in n for n in _IPV6_NOT_PUBLIC if n.version == ip.version)
    )


def is_metadata(host: str) -> bool:
    """Say whether a host is a known metadata service, which gives a machine of a cloud its keys."""
    number = _parse_ip(host)
    if isinstance(number, ipaddress.IPv6Address) and (number in _NAT64 or number.ipv4_mapped):
        number = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return host in METADATA_HOSTS or number in METADATA_IPS


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Where a catalog may lead: to the public internet, its own host, and what a setting allows."""

    catalog: RemoteAddress | None
    """Address of the catalog; None if it is a file of this machine."""
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts that may be on a private network or on this machine."""
    allowed_buckets: frozenset[str] = frozenset()
    """Buckets that may be named besides the catalog's own; empty allows all."""
    catalog_ips: frozenset[str] = frozenset()
    """IP addresses of the catalog's host when the user named it, if none of them is public."""
    _checked_hosts: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)
    """Host -> why it was refused; None if it was allowed. Each host is looked up once."""

    @classmethod
    def of(cls, root: str, hosts: Iterable[str] = (), buckets: Iterable[str] = ()) -> Self:
        """Make the policy of a catalog that the user named.

        The catalog's host is looked up once, now. If it is private, only the IP addresses found now are
        allowed for it later.

        Parameters
        ----------
        root : str
            Path or URL of the catalog.
        hosts : iterable of str, optional
            Hosts that may be on a private network or on this machine.
        buckets : iterable of str, optional
            Buckets that may be named besides the catalog's own.

        Raises
        ------
        CatalogError
            `root` is a URL that cannot be parsed.
        """
        catalog = parse_address(root) if urlsplit(root).scheme in REMOTE_SCHEMES else None
        allowed = frozenset(host.lower().rstrip(".").strip("[]") for host in hosts)
        ips = (
            frozenset()
            if catalog is None or catalog.scheme == "s3"
            else frozenset(_resolve_host(catalog.host, catalog.port))
        )
        private = frozenset() if any(is_public(ipaddress.ip_address(ip)) for ip in ips) else ips
        return cls(catalog, allowed, frozenset(buckets), private)

    def check_address(self, address: RemoteAddress, *, shown: str, http_host: str | None = None) -> None:
        """Check an address as written. Nothing is looked up.

        Parameters
        ----------
        shown : str
            The href as written, for messages.
        http_host : str, optional
            A host besides this machine that may be asked by plain http.

        Raises
        ------
        CatalogError
            The message says which rule forbids the address.
        """
        href = short_href(shown)
        if address.userinfo and not (
            self._is_catalog_host(address) and address.userinfo == _user_of(self.catalog)
        ):
            raise CatalogError(
                f"href {href!r} holds a user or password; keys of storage come from the settings, not from a"
                " catalog"
            )
        if address.scheme == "s3":
            own = (
                self.catalog is not None and self.catalog.scheme == "s3" and self.catalog.host == address.host
            )
            if self.allowed_buckets and address.host not in self.allowed_buckets and not own:
                raise CatalogError(
                    f"href {href!r} names the bucket {address.host}, which is not in catalog.allow_buckets"
                )
            return
        if is_metadata(address.host):
            raise CatalogError(f"href {href!r} leads to a metadata service of a cloud; refused")
        if address.scheme == "http" and address.host != http_host and not is_loopback(address.host):
            raise CatalogError(
                f"href {href!r} is plain http to {address.host}; serve it by https"
                " (http is for this machine only)"
            )
        number = _parse_ip(address.host)
        private = is_loopback(address.host) or (number is not None and not is_public(number))
        if private and not self._may_be_private(address):
            where = "this one" if is_loopback(address.host) else f"the private network ({address.host})"
            raise CatalogError(
                f"href {href!r} points from a catalog on another machine into {where}; refused:"
                " if you intend this, add the host to catalog.allow_hosts"
            )

    def check_host(self, address: RemoteAddress, *, shown: str) -> None:
        """Look up the host of an address, once, and check its IP addresses. A host without any passes.

        Raises
        ------
        CatalogError
            It is on a private network, this machine or a metadata service.
        """
        if address.scheme == "s3":
            return
        if address.host not in self._checked_hosts:
            try:
                self.allowed_ips(address)
                self._checked_hosts[address.host] = None
            except CatalogError as problem:
                self._checked_hosts[address.host] = str(problem)
        if (why := self._checked_hosts[address.host]) is not None:
            raise CatalogError(f"href {short_href(shown)!r}: {why}")

    def allowed_ips(self, address: RemoteAddress) -> list[str]:
        """Look up the IP addresses of a host and check each: connect to these, and do not look up again.

        Raises
        ------
        CatalogError
            One of them is where the catalog may not lead.
        """
        found = _resolve_host(address.host, address.port)
        for text in found:
            ip = ipaddress.ip_address(text)
            own = self.catalog is not None and address.host == self.catalog.host and bool(self.catalog_ips)
            expected = text in self.catalog_ips if own else is_public(ip)
            if is_metadata(text) or not (
                expected or address.host in self.allowed_hosts or self._is_this_machine(address, ip)
            ):
                raise CatalogError(
                    f"{address.host} is {text}, an address of a private network or of this machine; refused:"
                    " if you intend this, add the host to catalog.allow_hosts"
                )
        return found

    def check_ip(self, ip: str) -> None:
        """Check an IP address before connecting, where the name that it was found by is no longer known.

        Raises
        ------
        OSError
            It is not public, and belongs neither to the catalog's own host nor to an allowed one.
        """
        allowed = ip in self.catalog_ips or any(
            ip in _resolve_host(host, None) for host in self.allowed_hosts
        )
        if is_metadata(ip) or not (allowed or is_public(ipaddress.ip_address(ip))):
            raise OSError(f"it leads to {ip}, an address of a private network or of this machine; refused")

    def _is_catalog_host(self, address: RemoteAddress) -> bool:
        catalog = self.catalog
        if catalog is None or "s3" in (catalog.scheme, address.scheme):
            return False
        return catalog.host == address.host or (is_loopback(catalog.host) and is_loopback(address.host))

    def _may_be_private(self, address: RemoteAddress) -> bool:
        return (
            address.host in self.allowed_hosts
            or self._is_catalog_host(address)
            or self._is_this_machine(address)
        )

    def _is_this_machine(self, address: RemoteAddress, ip: IpAddress | None = None) -> bool:
        """Whether the address names this machine, and the catalog is on this machine too."""
        catalog_is_here = self.catalog is None or (
            self.catalog.scheme != "s3" and is_loopback(self.catalog.host)
        )
        return catalog_is_here and is_loopback(address.host) and (ip is None or ip.is_loopback)


def short_href(href: str) -> str:
    """Shorten an href for a message: no query, no password (they may be secret), at most 200 characters."""
    return re.sub(r"//[^/@]*@", "//", href.split("?", 1)[0])[:200]


def _user_of(catalog: RemoteAddress | None) -> str:
    return "" if catalog is None else catalog.userinfo


def _checked_host(text: str, host: str) -> str:
    """Check a host and bring it to one form: a lower-case name or a plain IP address.

    Raises
    ------
    CatalogError
        It is neither: some readers take `0x7f.1` or `2130706433` for this machine.
    """
    name = host.removesuffix(".")
    if not name:
        raise CatalogError(f"href {short_href(text)!r} names no host; write it as https://host/path")
    if ":" in name and "%" not in name and (number := _parse_ip(name)) is not None:
        return str(number)
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]) and _parse_ip(name) is None:
        raise CatalogError(
            f"href {short_href(text)!r}: write the number of a host as four decimals, got {name}"
        )
    if not _HOST_NAME.fullmatch(name):
        raise CatalogError(
            f"href {short_href(text)!r}: {name!r} is no name of a host (xn--... where not ASCII)"
        )
    return name


def _checked_bucket(text: str, netloc: str) -> str:
    name = netloc.rpartition("@")[2]
    if not _BUCKET_NAME.fullmatch(name) or _parse_ip(name) is not None:
        raise CatalogError(
            f"href {short_href(text)!r}: {name[:80]!r} is no name of a bucket (3..63 of a-z, 0-9, - and"
            " single dots); write s3://bucket/key"
        )
    return name


def _percent_decoded(text: str) -> str:
    """Decode percent signs until the text stays the same.

    Raises
    ------
    CatalogError
        It is still encoded after `_MAX_DECODINGS` rounds.
    """
    for _ in range(_MAX_DECODINGS):
        again = unquote(text)
        if again == text:
            return text
        text = again
    raise CatalogError(f"href {short_href(text)!r} is percent-encoded again and again; correct the catalog")


@lru_cache(maxsize=1024)
def _parse_ip(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _resolve_host(host: str, port: int | None) -> list[str]:
    """IP addresses of a host, in the system's order; none if it is unknown: the reader reports that later."""
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
