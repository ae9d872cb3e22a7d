"""One parser for addresses: what an address says, and whether a catalog may lead there.

Everything that decides about an address asks here. Scheme and host are lower-case before anything compares
them.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from crosstie.errors import CatalogError

REMOTE_SCHEMES = frozenset({"https", "http", "s3"})
"""Schemes of other machines that may be read."""

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
"""Services of a cloud that give a machine its keys: AWS, Google, Alibaba, Oracle, Azure. Never allowed."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9-]|\.(?=[a-z0-9])){1,61}[a-z0-9]")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

_MAX_DECODINGS = 4
"""How often `%25` may hide a percent sign before the address is refused."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV6_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        ("::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10"),
    )
)
"""IPv6 forms that carry an IPv4 address (compatible, mapped, local NAT64, Teredo, 6to4), and site-local."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address of another machine, as all readers take it."""

    scheme: str
    """https, http or s3."""
    host: str
    """Lower-case, without a dot at its end; IPv6 without brackets; the bucket of s3."""
    port: int | None
    path: str
    """As it stands, percent signs included."""
    query: str
    userinfo: str = field(default="", repr=False, compare=False)
    """Only what the user gave may hold one: `AddressPolicy.check_address` makes sure."""

    @property
    def url(self) -> str:
        """The address in one form for all clients; without a fragment."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        user = f"{self.userinfo}@" if self.userinfo else ""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{user}{host}{port}{self.path}{query}"


def parse_address(text: str) -> RemoteAddress:
    """Take an absolute address apart.

    Raises
    ------
    CatalogError
        No https, http or s3 address, or one that two readers could understand differently.
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
    """Refuse what some readers see and others do not, plain or percent-encoded, whatever the address says.

    Raises
    ------
    CatalogError
        Control characters, backslashes, or GDAL's virtual file system.
    """
    if not text or _CONTROL.search(text) or _CONTROL.search(_percent_decoded(text)):
        raise CatalogError(
            f"href {short_href(text)!r} is empty or holds control characters; mend the catalog"
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
    """Whether a host is this machine, by its name or number alone."""
    name = host.lower().rstrip(".")
    if name in {"localhost", "localhost.localdomain", "ip6-localhost"} or name.endswith(".localhost"):
        return True
    number = _parse_ip(name)
    return number is not None and number.is_loopback


def is_public(ip: IpAddress) -> bool:
    """Whether a number is of the open internet: in no private, local, shared, reserved or multicast range."""
    if isinstance(ip, ipaddress.IPv6Address) and ip in _NAT64:
        return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return (
        ip.is_global
        and not ip.is_multicast
        and not any(ip in n for n in _IPV6_NOT_PUBLIC if n.version == ip.version)
    )


def is_metadata(host: str) -> bool:
    """Whether a host is known to give a machine of a cloud its keys."""
    number = _parse_ip(host)
    if isinstance(number, ipaddress.IPv6Address) and (number in _NAT64 or number.ipv4_mapped):
        number = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return host in METADATA_HOSTS or number in METADATA_IPS


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Where a catalog may lead: to the open internet, to its own host, and to what a setting allows."""

    catalog: RemoteAddress | None
    """Where the catalog lies; None: among the files of this machine."""
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts that may lie on a private network or on this machine."""
    allowed_buckets: frozenset[str] = frozenset()
    """Buckets that may be named, beside the catalog's own; empty: all."""
    catalog_ips: frozenset[str] = frozenset()
    """What the catalog's host was when the user named it, where that is no number of the open internet."""
    _checked_hosts: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, root: str, hosts: Iterable[str] = (), buckets: Iterable[str] = ()) -> Self:
        """Policy of a catalog that the user named: its host is looked up once, and held to.

        Raises
        ------
        CatalogError
            The address of the catalog is none.
        """
        home = parse_address(root) if urlsplit(root).scheme in REMOTE_SCHEMES else None
        allowed = frozenset(host.lower().rstrip(".").strip("[]") for host in hosts)
        ips = (
            frozenset()
            if home is None or home.scheme == "s3"
            else frozenset(_resolve_host(home.host, home.port))
        )
        private = frozenset() if any(is_public(ipaddress.ip_address(ip)) for ip in ips) else ips
        return cls(home, allowed, frozenset(buckets), private)

    def check_address(self, address: RemoteAddress, *, shown: str, http_host: str | None = None) -> None:
        """Agree to an address by what it says.

        Parameters
        ----------
        shown : str
            The href as it stood, for messages.
        http_host : str, optional
            A host, beside this machine, that may be asked by plain http.

        Raises
        ------
        CatalogError
            Says which rule forbids it.
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
        here = is_loopback(address.host) or (number is not None and not is_public(number))
        if here and not self._may_be_private(address):
            where = "this one" if is_loopback(address.host) else f"the private network ({address.host})"
            raise CatalogError(
                f"href {href!r} points from a catalog on another machine into {where}; refused:"
                " if it is meant, add the host to catalog.allow_hosts"
            )

    def check_host(self, address: RemoteAddress, *, shown: str) -> None:
        """Look a host up, once, and agree to where its name leads. One without a number leads nowhere.

        Raises
        ------
        CatalogError
            To a private network, to this machine or to a metadata service.
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
        """Numbers of a host, all of them agreed to: connect to these, and look nothing up again.

        Raises
        ------
        CatalogError
            One of them lies where the catalog may not lead.
        """
        found = _resolve_host(address.host, address.port)
        for text in found:
            ip = ipaddress.ip_address(text)
            own = self.catalog is not None and address.host == self.catalog.host and bool(self.catalog_ips)
            held = text in self.catalog_ips if own else is_public(ip)
            if is_metadata(text) or not (
                held or address.host in self.allowed_hosts or self._is_this_machine(address, ip)
            ):
                raise CatalogError(
                    f"{address.host} is {text}, an address of a private network or of this machine; refused:"
                    " if it is meant, add the host to catalog.allow_hosts"
                )
        return found

    def check_ip(self, number: str) -> None:
        """Agree to connect to a number, where nobody says any more by what name it was found.

        Raises
        ------
        OSError
            It is not of the open internet, nor of the catalog's own host, nor of an allowed one.
        """
        allowed = number in self.catalog_ips or any(
            number in _resolve_host(host, None) for host in self.allowed_hosts
        )
        if is_metadata(number) or not (allowed or is_public(ipaddress.ip_address(number))):
            raise OSError(
                f"it leads to {number}, an address of a private network or of this machine; refused"
            )

    def _is_catalog_host(self, address: RemoteAddress) -> bool:
        home = self.catalog
        if home is None or "s3" in (home.scheme, address.scheme):
            return False
        return home.host == address.host or (is_loopback(home.host) and is_loopback(address.host))

    def _may_be_private(self, address: RemoteAddress) -> bool:
        return (
            address.host in self.allowed_hosts
            or self._is_catalog_host(address)
            or self._is_this_machine(address)
        )

    def _is_this_machine(self, address: RemoteAddress, ip: IpAddress | None = None) -> bool:
        """Whether it is named as this machine, and the catalog lies on it."""
        lies_here = self.catalog is None or (self.catalog.scheme != "s3" and is_loopback(self.catalog.host))
        return lies_here and is_loopback(address.host) and (ip is None or ip.is_loopback)


def short_href(href: str) -> str:
    """Without the query, which may hold a signature, nor a password, and never a screenful."""
    return re.sub(r"//[^/@]*@", "//", href.split("?", 1)[0])[:200]


def _user_of(home: RemoteAddress | None) -> str:
    return "" if home is None else home.userinfo


def _checked_host(text: str, host: str) -> str:
    """Lower-case name or plain number.

    Raises
    ------
    CatalogError
        Neither: `0x7f.1`, `2130706433` and the like are this machine to some readers.
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
    """Percent signs undone until none is left.

    Raises
    ------
    CatalogError
        There is no end of them.
    """
    for _ in range(_MAX_DECODINGS):
        again = unquote(text)
        if again == text:
            return text
        text = again
    raise CatalogError(f"href {short_href(text)!r} is percent-encoded again and again; mend the catalog")


def _parse_ip(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _resolve_host(host: str, port: int | None) -> list[str]:
    """Numbers of a host, in the system's order; none where it has none, which the reader will say."""
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
