"""Where the server goes for data sources: an administrator's list of hosts, and what is never gone to unless listed.

Whoever may register a data source names a host, and the server speaks to it from where it stands: behind firewalls, and
with services on its own loopback that ask nobody for a password. So each host is held against the list before anything
is sent, and each of its addresses when it is looked up. What is connected to are the addresses that were checked: a
name that leads elsewhere a moment later leads nowhere.

Entries of the list are

    gitlab.example.com     a host by its name
    *.example.com          every host below a domain, not the domain itself
    10.0.0.0/8, ::1        addresses, and the hosts that have no other ones
    localhost              the name, and with it the addresses 127.0.0.0/8 and ::1
    file                   folders of the server's host
    *                      all that is allowed where nothing is listed

and all but `file` may end with a port. docs/adr/0019 has the reasons.
"""

import contextlib
import re
import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from modelhost.server.errors import Conflict
from modelhost.v1.error_reason_pb2 import ErrorReason

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""Looks a host up: its addresses, best first. Raises `socket.gaierror` for a name that has none."""

ANYTHING, FOLDERS, LOCALHOST = "*", "file", "localhost"
MOST_PORT = 65535
FORMS = (
    "a host name, `*.` and a domain, an address, a network as 10.0.0.0/8, `file` or `*`; all but `file` may end"
    " with :port, with an IPv6 address in brackets"
)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*{_LABEL}")
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry; what clouds have for
# metadata is link-local but for these: AWS and Google over IPv6, Alibaba, Azure, Oracle.
_FORBIDDEN: tuple[tuple[str, tuple[Network, ...]], ...] = (
    ("a loopback address", _LOOPBACK),
    ("an address of no host", (ip_network("0.0.0.0/8"), ip_network("::/128"), ip_network("255.255.255.255/32"))),
    ("a link-local address", (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))),
    ("a multicast address", (ip_network("224.0.0.0/4"), ip_network("ff00::/8"))),
    (
        "an address of a cloud's metadata",
        tuple(
            ip_network(each)
            for each in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
        ),
    ),
)
# Networks of IPv6 whose addresses have one of IPv4 in them, and how many bits are behind that: RFC 4291, 2765, 6052 and
# 8215, 3056.
_EMBEDDING = (
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")


@dataclass(frozen=True)
class Entry:
    """One entry of the list: a name, or networks, or both; at one port, or with 0 at any."""

    name: str = ""
    networks: tuple[Network, ...] = ()
    port: int = 0

    def at(self, port: int) -> bool:
        """Whether it is for that port."""
        return self.port in (0, port)

    def names(self, host: str) -> bool:
        """Whether it has the host by its name."""
        below = self.name.startswith("*.") and host.endswith(self.name[1:])
        return below or (self.name in (host, ANYTHING) and self.name != FOLDERS)

    def has(self, address: Address) -> bool:
        """Whether it has the address."""
        return any(address in network for network in self.networks)

    def has_some_of(self, networks: Sequence[Network]) -> bool:
        """Whether it has an address of these."""
        return any(own.version == each.version and own.overlaps(each) for own in self.networks for each in networks)


def parse_entry(text: str) -> Entry:
    """Read one entry. Raises `ValueError` that says what it may be."""
    if text.lower() == FOLDERS:
        return Entry(FOLDERS)
    host, port = _split(text)
    if host == ANYTHING:
        return Entry(ANYTHING, port=port)
    if host == LOCALHOST:
        return Entry(LOCALHOST, _LOOPBACK, port)
    try:
        return Entry(networks=(_unmapped(ip_network(host)),), port=port)
    except ValueError:
        pass
    if host == FOLDERS or _is_numeric(host) or not _NAME.fullmatch(host):
        raise ValueError(f"--git-host must be {FORMS}; not {text!r}{_meant(host)}")
    return Entry(host, port=port)


class Outgoing:
    """What the list allows. Immutable, and safe to use from many threads.

    `hosts` are entries; without any, every host and every folder is allowed, but for addresses that only a list can
    allow. `resolve` looks hosts up. Raises `ValueError` as `parse_entry` does.
    """

    def __init__(self, hosts: Sequence[str] = (), resolve: Resolve | None = None) -> None:
        self._entries = tuple(map(parse_entry, hosts)) or (Entry(ANYTHING),)
        self._is_open = any(entry.name == ANYTHING for entry in self._entries)
        self._resolve = resolve or _resolve

    def check_folder(self, folder: object) -> None:
        """Raise `Conflict` HOST_NOT_ALLOWED unless repositories in folders of the server's host may be read."""
        if not any(entry.name in (ANYTHING, FOLDERS) and not entry.port for entry in self._entries):
            raise Conflict(
                ErrorReason.ERROR_REASON_HOST_NOT_ALLOWED,
                "{folder} is on the server's own host, whose folders are not among what models may come from",
                hint=_hint(FOLDERS),
                folder=folder,
            )

    def check_host(self, host: str, port: int) -> None:
        """Raise `Conflict` HOST_NOT_ALLOWED for what needs no looking up to be refused."""
        address = literal(host)
        name = _plain(host)
        if address is None and (name == LOCALHOST or name.endswith(f".{LOCALHOST}")):  # RFC 6761, 6.3
            if not any(entry.at(port) and entry.has_some_of(_LOOPBACK) for entry in self._entries):
                raise self._forbidden(name, port, IPv4Address("127.0.0.1"), "a loopback address")
        elif address is not None:
            self._check_address(str(address), port, address)
        elif not self._names(name, port) and not any(entry.networks and entry.at(port) for entry in self._entries):
            raise self._not_listed(name, port)

    def addresses(self, host: str, port: int, *, lookup: str = "") -> list[str]:
        """The addresses of a host, best first, every one of them allowed: connect to these, and to nothing else.

        `lookup` is what is looked up where that is not `host`, the name that has to be allowed. Raises `Conflict`
        HOST_NOT_ALLOWED, and `socket.gaierror` for a name that has no address.
        """
        self.check_host(host, port)
        name, sought = canonical_host(host), lookup or host
        address = literal(sought)
        found = [address] if address else [_address(each) for each in self._resolve(_plain(sought), port)]
        for each in found:
            self._check_address(name, port, each)
        return [str(each) for each in found]

    def check_behind_proxy(self, host: str, port: int, *, lookup: str = "") -> None:
        """Raise `Conflict` HOST_NOT_ALLOWED unless a proxy may be asked for a host.

        The proxy looks it up. What this server knows of its addresses is checked; where that is nothing, its name must
        be allowed.
        """
        try:
            self.addresses(host, port, lookup=lookup)
        except socket.gaierror:
            name = canonical_host(host)
            if not self._names(name, port):
                raise self._not_listed(name, port) from None

    def _names(self, host: str, port: int) -> bool:
        return any(entry.at(port) and entry.names(host) for entry in self._entries)

    def _check_address(self, host: str, port: int, address: Address) -> None:
        if any(entry.at(port) and entry.has(address) for entry in self._entries):
            return
        if kind := _forbidden_kind(address):
            raise self._forbidden(host, port, address, kind)
        if not self._names(host, port):
            raise self._not_listed(host, port, address)

    def _forbidden(self, host: str, port: int, address: Address, kind: str) -> Conflict:
        says = "{host} is {kind}" if host == str(address) else "{host} is at {address}, {kind}"
        return Conflict(
            ErrorReason.ERROR_REASON_HOST_NOT_ALLOWED,
            f"{says}, which this server goes to only if it is listed (port {{port}})",
            hint=_hint(str(address), ANYTHING if self._is_open else ""),
            host=host, address=address, kind=kind, port=port,
        )  # fmt: skip

    def _not_listed(self, host: str, port: int, address: Address | None = None) -> Conflict:
        known = {} if address is None or host == str(address) else {"address": address}
        nor = ", nor is its address {address}" if known else ""
        return Conflict(
            ErrorReason.ERROR_REASON_HOST_NOT_ALLOWED,
            f"{{host}} (port {{port}}) is not among the hosts that models may come from{nor}",
            hint=_hint(host),
            host=host, port=port, **known,
        )  # fmt: skip


def literal(host: str) -> Address | None:
    """The address that a host is by itself, in any spelling that the system takes for one: `127.1`, `0x7f000001`.

    One of IPv4 that is written as one of IPv6 (`::ffff:127.0.0.1`) is that of IPv4. None if it is a name.
    """
    plain = _plain(host)
    try:
        return _address(plain)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(plain))
    except (OSError, ValueError):
        return None


def canonical_host(host: str) -> str:
    """A host as it is connected to, whoever reads it: lower case, no dot at its end, an address in its usual form."""
    address = literal(host)
    return _plain(host) if address is None else str(address)


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _address(text: str) -> Address:
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _unmapped(network: Network) -> Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))


def _forbidden_kind(address: Address) -> str:
    """What an address, or one of IPv4 within it, is that is not gone to; "" if it is nothing such."""
    for each in (address, *_embedded(address)):
        for kind, networks in _FORBIDDEN:
            if any(each in network for network in networks):
                return kind
    return ""


def _embedded(address: Address) -> Iterator[IPv4Address]:
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    for network, behind in _EMBEDDING:
        if address in network:
            yield IPv4Address(number >> behind & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(~number & 0xFFFFFFFF)  # RFC 4380, 4: turned around
    if address in _LOCAL_NAT64:  # whoever made it has chosen the length of the prefix; RFC 6052, 2.2
        without_u = (number >> 64 & 0xFFFF) << 56 | number & (1 << 56) - 1
        possible = (number & 0xFFFFFFFF, *(without_u >> behind & 0xFFFFFFFF for behind in (40, 32, 24)))
        yield from (IPv4Address(each) for each in possible if each >> 24)  # what begins with 0 is the filling


def _split(text: str) -> tuple[str, int]:
    """Host and port of an entry, 0 where it names none."""
    host, port = text.lower(), ""
    if "://" in host:
        return host, 0
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
        if not text.endswith("]") and not rest.startswith(":"):
            raise ValueError(f"--git-host must be {FORMS}; not {text!r}")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
        if not port.isdecimal():
            port = "-"
    if not port:
        return host, 0
    if not port.isdecimal() or not 0 < int(port) <= MOST_PORT:
        raise ValueError(f"--git-host must be {FORMS}; not {text!r}, whose port is none")
    return host, int(port)


def _is_numeric(host: str) -> bool:
    """Whether it is, or ends as, an address in a spelling that no entry has."""
    return literal(host) is not None or host.rpartition(".")[2].isdecimal()


def _meant(host: str) -> str:
    """What somebody may have meant by what is no entry, as the end of a sentence."""
    meant: object = (urlsplit(host).hostname if "://" in host else None) or literal(host)
    with contextlib.suppress(ValueError):
        meant = ip_network(host, strict=False)
    return f": is {meant} meant?" if meant else ""


def _resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that is too long, or empty
        raise socket.gaierror(socket.EAI_NONAME, "no name that can be looked up") from None
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def _hint(*entries: str) -> str:
    flags = " ".join(f"--git-host {shlex.quote(entry)}" for entry in entries if entry)
    return f"Whoever runs the server can allow it: `modelhost serve {flags}`."
