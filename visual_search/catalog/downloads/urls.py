"""URLs that may be asked for, and the network addresses that they may lead to.

A list of pictures comes from somebody else, and a server may redirect anywhere. So a URL is https
unless its host is named, a redirect stays where it began or goes to a host that is named, and no
host may lead to an address of the own machine or network unless it is named.

A *place* is what the lists of hosts hold: ``pictures.example.org``, or
``pictures.example.org:8443`` where the port is not the scheme's own.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

_PORTS = {"https": 443, "http": 80}
# What stays as it is in a URL's path and query (RFC 3986, 2.2 and 2.3); the rest is encoded.
_KEPT = "%/:=&?~#+!$,;'@()*[]"
_PLACE = re.compile(r"([a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# RFC 6052: the last four bytes are an IPv4 address, reached through a network's translator.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# IANA's special-purpose address registries (RFC 6890 and what was added since), groups, and what is
# reserved. Of IPv6 only 2000::/3 is given out at all.
_NOT_PUBLIC_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = [
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "3fff::/20")  # the first holds Teredo
]


class RefusedUrlError(ValueError):
    """A URL may not be asked for; the message says why and what would allow it."""


@dataclass(frozen=True)
class Url:
    """An absolute http or https URL, taken apart.

    Attributes:
        scheme: ``https`` or ``http``.
        host: In lower case; an IPv4 address in its usual form, an IPv6 one without its brackets.
        port: 1 to 65535.
        target: Path and query, ASCII, as the request line takes them.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def place(self) -> str:
        """The host as lists of hosts name it, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}{self.target}"


def parse_url(text: str) -> Url:
    """Takes a URL apart; spaces and other letters of its path are encoded, a fragment goes.

    Example:
        >>> url = parse_url("https://Pictures.example.org/a b.jpg?size=400#top")
        >>> url.place, url.target
        ('pictures.example.org', '/a%20b.jpg?size=400')

    Raises:
        RefusedUrlError: It is not absolute, of another scheme than http and https, holds control
            characters, a user name or password, or no usable host or port.
    """
    if re.search(r"[\x00-\x1f\x7f]", text) or not text.strip():
        raise RefusedUrlError(f"{text!r} is no URL; expected one as https://host/path")
    try:
        parts = urlsplit(text.strip())
        port = parts.port
        host = _ascii_host(parts.hostname or "")
        target = quote(parts.path or "/", safe=_KEPT)
        query = quote(parts.query, safe=_KEPT)
    except ValueError as error:  # among them Unicode errors
        raise RefusedUrlError(f"{text!r} is no URL ({error}); expected https://host/path") from None
    if parts.scheme not in _PORTS:
        raise RefusedUrlError(
            f"{text!r} has the scheme {parts.scheme!r}; expected https, or http from a host that "
            "http_hosts names"
        )
    if parts.username is not None or parts.password is not None:
        raise RefusedUrlError(f"a URL at {host!r} holds a user name; expected one without")
    if port == 0:
        raise RefusedUrlError(f"{text!r} has the port 0; expected 1 to 65535")
    url = Url(
        parts.scheme, host, port or _PORTS[parts.scheme], target + (f"?{query}" if query else "")
    )
    if not _PLACE.fullmatch(url.place):
        raise RefusedUrlError(f"{text!r} has the host {host!r}; expected a name or an address")
    return url


def redirected(url: Url, location: str) -> Url:
    """Returns where a response's ``Location`` leads, absolute or relative to the URL asked for.

    Args:
        url: What was asked for.
        location: The header as aiohttp gives it, bytes that are no UTF-8 as surrogates.

    Raises:
        RefusedUrlError: It leads to no http or https URL.
    """
    try:
        text = urljoin(str(url), quote(location.encode("utf-8", "surrogateescape"), safe=_KEPT))
    except ValueError as error:
        raise RefusedUrlError(f"a redirect to {location!r} leads nowhere ({error})") from None
    return parse_url(text)


def check_place(place: str) -> str:
    """Returns an entry of a list of hosts in lower case.

    Raises:
        ValueError: It is no host, or host and port.
    """
    lowered = place.lower()
    if not _PLACE.fullmatch(lowered):
        raise ValueError(
            f"{place!r} is no host; expected a name or an address, with a port where it is not the "
            "scheme's own, as pictures.example.org or 127.0.0.1:8000"
        )
    return lowered


def check_scheme(url: Url, http_hosts: Collection[str]) -> None:
    """Refuses http from a host that ``http_hosts`` does not name.

    Raises:
        RefusedUrlError: As said.
    """
    if url.scheme != "https" and url.place not in http_hosts:
        raise RefusedUrlError(
            f"{url} is not https; expected https, or {url.place!r} among http_hosts"
        )


def check_address(host: str, port: int, address: str, private_hosts: Collection[str]) -> None:
    """Refuses an address that a host leads to where it is none of the public network.

    Args:
        host: A name or an address.
        port: Of the request.
        address: What the host's name stands for, or itself.
        private_hosts: Places whose addresses may be anywhere.

    Raises:
        RefusedUrlError: As said.
    """
    # whoever resolves a name is not told the scheme: the place may be that of either
    places = [Url(scheme, host, port, "/").place for scheme in _PORTS]
    if not is_public(address) and not any(place in private_hosts for place in places):
        raise RefusedUrlError(
            f"{host} leads to {address}, which is not a public address; expected one, or "
            f"{min(places, key=len)!r} among private_hosts"
        )


def is_public(address: str) -> bool:
    """Returns whether an IP address is one of the public network, a host and no group.

    The answer is the table's here, not the interpreter's: of 6to4, of 2001:1::1 and of others
    Python 3.11 says something else than 3.13. An IPv6 address that carries an IPv4 address (mapped,
    6to4, NAT64) is as public as that is.

    Example:
        >>> is_public("8.8.8.8"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1")
        (True, False, False)
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _NOT_PUBLIC_V4)
    if parsed.ipv4_mapped is not None:
        return is_public(str(parsed.ipv4_mapped))
    if parsed in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    if parsed.sixtofour is not None:
        return is_public(str(parsed.sixtofour))
    return parsed in _PUBLIC_V6 and not any(parsed in network for network in _NOT_PUBLIC_V6)


def _ascii_host(host: str) -> str:
    # encodings.idna has no limit of its own on what it spends on a long name
    if len(host) > 253:
        raise ValueError(f"the host has {len(host)} characters")
    host = host.lower() if host.isascii() else host.encode("idna").decode("ascii").lower()
    # "2130706433" and "127.1" are 127.0.0.1, as in a browser: no name, that a resolver would check
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) if host.replace(".", "").isdigit() else host
    except OSError:
        raise ValueError(f"the host {host!r} is no IPv4 address") from None
