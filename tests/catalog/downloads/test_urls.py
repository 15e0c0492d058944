"""URLs that may be asked for, and addresses that are nobody's own network."""

from __future__ import annotations

import pytest

from tests.catalog.shops import refuses
from visual_search.catalog.downloads.urls import (
    RefusedUrlError,
    check_address,
    check_place,
    check_scheme,
    is_public,
    parse_url,
    redirected,
)


@pytest.mark.parametrize(
    ("text", "place", "target"),
    [
        ("https://Pictures.Example.org", "pictures.example.org", "/"),
        ("https://a.example.org:443/1.jpg", "a.example.org", "/1.jpg"),
        ("http://a.example.org:443/1.jpg", "a.example.org:443", "/1.jpg"),
        ("https://a.example.org:8443/1.jpg?w=400&h=#x", "a.example.org:8443", "/1.jpg?w=400&h="),
        ("https://bücher.example.org/ü.jpg", "xn--bcher-kva.example.org", "/%C3%BC.jpg"),
        ("https://[2001:DB8::1]:8443/a", "[2001:db8::1]:8443", "/a"),
        ("https://a.example.org/%20a b%zz'\"", "a.example.org", "/%20a%20b%zz'%22"),
        ("  https://a.example.org/1.jpg ", "a.example.org", "/1.jpg"),
        ("https://my_shop.example.org/1.jpg", "my_shop.example.org", "/1.jpg"),
        ("https://2130706433/1.jpg", "127.0.0.1", "/1.jpg"),
        ("https://127.1:8443/1.jpg", "127.0.0.1:8443", "/1.jpg"),
        ("https://\N{FULLWIDTH DIGIT ONE}27.0.0.1/1.jpg", "127.0.0.1", "/1.jpg"),
    ],
)
def test_urls_are_taken_apart(text: str, place: str, target: str) -> None:
    url = parse_url(text)
    assert (url.place, url.target) == (place, target)
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no URL"),
        ("nan", "has the scheme ''"),
        ("//pictures.example.org/1.jpg", "has the scheme ''"),
        ("file:///etc/passwd", "has the scheme 'file'"),
        ("data:image/png;base64,AA", "has the scheme 'data'"),
        ("https:///1.jpg", "has the host ''"),
        ("https://a b/1.jpg", "has the host 'a b'"),
        ("https://-/1.jpg", "has the host '-'"),
        ("https://99999999999/1.jpg", "is no IPv4 address"),
        ("https://1.2.3.4.5/1.jpg", "is no IPv4 address"),
        ("https://a.example.org:0/1.jpg", "has the port 0"),
        ("https://a.example.org:99999/1.jpg", "Port out of range"),
        ("https://a.example.org:x/1.jpg", "is no URL"),
        ("https://[::1/1.jpg", "Invalid IPv6 URL"),
        ("https://me@a.example.org/1.jpg", "holds a user name"),
        ("https://good.example.org\\@evil.example.org/", "holds a user name"),
        ("https://a.example.org/1.jpg\r\nHost: evil", "is no URL"),
        ("https://a.example.org/\t1.jpg", "is no URL"),
        (f"https://{'a' * 300}/1.jpg", "the host has 300 characters"),
        ("https://\ud800.example.org/1.jpg", "is no URL"),
        ("https://a.example.org/\ud800.jpg", "is no URL"),
    ],
)
def test_what_is_no_url_is_refused(text: str, message: str) -> None:
    refuses(RefusedUrlError, message, parse_url, text)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/b.jpg", "https://a.example.org:8443/b.jpg"),
        ("b.jpg?x=1", "https://a.example.org:8443/shop/b.jpg?x=1"),
        ("//b.example.org/b.jpg", "https://b.example.org/b.jpg"),
        ("http://b.example.org:80/b.jpg", "http://b.example.org/b.jpg"),
        ("/ü.jpg", "https://a.example.org:8443/%C3%BC.jpg"),
        ("/\udcfc.jpg", "https://a.example.org:8443/%FC.jpg"),  # a byte that is no UTF-8
        ("/../../b.jpg", "https://a.example.org:8443/b.jpg"),
    ],
)
def test_redirects_are_resolved(location: str, expected: str) -> None:
    assert str(redirected(parse_url("https://a.example.org:8443/shop/a.jpg"), location)) == expected


def test_redirects_to_nowhere_are_refused() -> None:
    start, message = parse_url("https://a.example.org/"), r"leads nowhere|has the scheme|is no URL"
    for location in ("http://[::1", "javascript:alert(1)", "ftp://a.example.org/"):
        refuses(RefusedUrlError, message, redirected, start, location)


def test_places_are_names_or_addresses_with_a_port_or_without() -> None:
    for entry in ("A.example.org", "127.0.0.1:8000", "[::1]:80", "localhost"):
        assert check_place(entry) == entry.lower()
    for entry in ("", "https://a.example.org", "a/b", "*.example.org", "::1", "a:"):
        refuses(ValueError, "is no host; expected a name or an address", check_place, entry)


def test_http_needs_to_be_allowed_for_the_host_and_port() -> None:
    allowed = ["a.example.org:8000"]
    check_scheme(parse_url("https://a.example.org/"), [])
    check_scheme(parse_url("http://a.example.org:8000/"), allowed)
    message, url = r"'a\.example\.org' among http_hosts", parse_url("http://a.example.org/")
    refuses(RefusedUrlError, message, check_scheme, url, allowed)


PUBLIC = "8.8.8.8 93.184.215.14 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808"
PUBLIC += " 2002:808:808::1 2a00:1450::1 2620:4f:8000::1"
PRIVATE = "127.0.0.1 127.8.8.8 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254"
PRIVATE += " 100.64.0.1 192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 192.0.0.9"
PRIVATE += " 192.88.99.1 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fec0::1 ff02::1 2001:db8::1"
PRIVATE += " ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 2002:7f00:1::1"
PRIVATE += " 2002:a00:1::1 2001:0:4136:e378:8000:63bf:f7f7:f7f7 2001:1::1 2001:20::1 3fff::1"
PRIVATE += " 64:ff9b:1::808:808 5f00::1 ::808:808"


def test_addresses_of_everybody_and_of_the_own_network() -> None:
    assert [address for address in PUBLIC.split() if not is_public(address)] == []
    assert [address for address in PRIVATE.split() if is_public(address)] == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_private_address_needs_its_host_and_port_among_the_private_ones(address: str) -> None:
    check_address("shop.example.org", 8000, address, ["shop.example.org:8000"])
    check_address("shop.example.org", 443, address, ["shop.example.org"])
    check_address("shop.example.org", 443, "8.8.8.8", [])
    for named in ([], ["shop.example.org"], ["shop.example.org:8001"], ["example.org:8000"]):
        message = f"{address}.*'shop.example.org:8000' among private_hosts"
        refuses(RefusedUrlError, message, check_address, "shop.example.org", 8000, address, named)
