"""What a download refuses: bodies that are no pictures or lie, redirects, addresses, schemes."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import time
from typing import Any

import pytest

from tests.catalog.picture_server import (
    Answer,
    Handler,
    PictureServer,
    jpeg,
    left_in,
    only_status,
    picture,
    redirect,
)
from visual_search.catalog.downloads.report import DownloadReport
from visual_search.catalog.downloads.settings import WantedPicture

HTML = b"<!DOCTYPE html><title>Please log in</title>"


def endless(handler: Handler) -> None:
    """Sends chunks as long as the client takes them."""
    handler.give(200, b"", Content_Length=None, Transfer_Encoding="chunked")
    chunk = jpeg() + bytes(10_000)
    while True:
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))


def assert_refused(report: DownloadReport, reason: str) -> None:
    (record,) = report.records
    assert record.status == "refused"
    assert reason in record.error
    assert record.tries <= 1
    assert left_in(report.folder) == []


NONE = "is no picture: "
MORE = f"sends more than the {len(jpeg()):,} bytes announced"
BODIES: dict[str, tuple[Answer, str]] = {
    "HTML": (
        picture(HTML, Content_Type="text/html; charset=utf-8"),
        NONE + "Content-Type 'text/html'",
    ),
    "HTML called a picture": (picture(HTML), NONE + "it starts with b'<!DOCTYPE html><'"),
    "HTML of unknown type": (
        picture(HTML, Content_Type=None),
        NONE + "it starts with b'<!DOCTYPE html><'",
    ),
    "a picture called JSON": (
        picture(Content_Type="application/json"),
        NONE + "Content-Type 'application/json'",
    ),
    "SVG": (
        picture(b"<svg xmlns='x'/>", Content_Type="image/svg+xml"),
        NONE + "it starts with b\"<svg xmlns='x'/>\"",
    ),
    "longer than announced": (picture(jpeg() + b"more", Content_Length=len(jpeg())), MORE),
    "longer than announced, closing": (
        picture(jpeg() + b"more", Content_Length=len(jpeg()), Connection="close"),
        MORE,
    ),
    "announced too large": (
        picture(Content_Length=10**12),
        "announces 1,000,000,000,000 bytes; max_bytes allows 50,000",
    ),
    "endless": (endless, "sends more than 50,000 bytes, as max_bytes allows"),
    "packed": (
        picture(gzip.compress(jpeg()), Content_Encoding="gzip"),
        "is packed ('gzip') though not asked to be",
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_that_are_refused(server: PictureServer, kind: str) -> None:
    answer, reason = BODIES[kind]
    server.on("/0.jpg", answer)
    assert_refused(server.load(max_bytes=50_000), reason)
    assert len(server.asked) == 1
    server.load(max_bytes=50_000)
    assert len(server.asked) == 1  # nor by the next run
    server.on("/0.jpg", picture())
    again = server.load(try_again=("refused",))
    assert len(again.of("saved")) == 1


def test_what_came_too_early_is_not_taken_for_the_next_answer(server: PictureServer) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 3\r\n\r\n\xff\xd8\xff"
    server.on("/0.jpg", picture(jpeg() + forged, Content_Length=len(jpeg())))
    report = server.download(2, max_connections=1)
    assert [record.status for record in report.records] == ["refused", "saved"]
    assert (server.folder / "1.jpg").read_bytes() == jpeg()
    assert server.connections == 2


def test_what_comes_unasked_is_not_taken_for_the_next_answer(server: PictureServer) -> None:
    def then_more(handler: Handler) -> None:
        picture()(handler)
        time.sleep(0.05)
        handler.give(200, jpeg(7))

    server.on("/0.jpg", then_more)
    report = server.download(2, max_connections=1, requests_per_s=4.0)
    assert report.num_new == 2
    assert (server.folder / "1.jpg").read_bytes() == jpeg()
    assert server.connections == 2


def test_what_follows_a_large_picture_is_noticed_too(server: PictureServer) -> None:
    data = jpeg() + bytes(2**20)
    server.on("/0.jpg", picture(data + b"more", Content_Length=len(data)))
    assert_refused(server.load(), f"sends more than the {len(data):,} bytes announced")


@pytest.mark.parametrize(
    "headers",
    [
        *({"Content_Type": "application/octet-stream"}, {"Content_Type": None}),
        {"Content_Type": "IMAGE/JPEG; x=1", "Content_Encoding": "identity"},
        {"Content_Length": None, "Connection": "close"},
    ],
)
def test_bodies_that_are_taken(server: PictureServer, headers: dict[str, Any]) -> None:
    server.on("/0.jpg", picture(**headers))
    assert len(server.load().of("saved")) == 1


def test_a_body_in_chunks_is_taken(server: PictureServer) -> None:
    half = len(jpeg()) // 2
    parts = [jpeg()[:half], jpeg()[half:], b""]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    server.on("/0.jpg", picture(body, Content_Length=None, Transfer_Encoding="chunked"))
    server.download(2, max_connections=1)
    assert (server.folder / "0.jpg").read_bytes() == jpeg()
    assert server.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_within_the_host_are_followed(server: PictureServer, status: int) -> None:
    server.on("/0.jpg", redirect("../a/b.jpg", status))
    server.on("/a/b.jpg", redirect(server.url("/c.jpg")))
    report = server.load()
    assert [(record.status, record.tries) for record in report.records] == [("saved", 1)]
    assert server.paths == ["/0.jpg", "/a/b.jpg", "/c.jpg"]


def test_a_redirect_leads_to_allowed_hosts_only(server: PictureServer) -> None:
    with PictureServer() as other:
        server.on("/0.jpg", redirect(other.url("/1.jpg")))
        places = (server.place, other.place)
        rules = {"http_hosts": places, "private_hosts": places}
        off = server.load(server.folder / "off", **rules)
        assert_refused(off, f"redirected to {other.url('/1.jpg')}; expected {server.place!r}")
        assert not other.asked
        on = server.load(server.folder / "on", allowed_hosts=(other.place,), **rules)
        assert len(on.of("saved")) == 1
        assert other.paths == ["/1.jpg"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://{own}", "redirected: http://localhost:{port}/0.jpg is not https"),
        ("https://pictures.example.org/1.jpg", "redirected to https://pictures.example.org/1.jpg"),
        ("file:///etc/passwd", "has the scheme 'file'"),
        ("//user@127.0.0.1/1.jpg", "holds a user name"),
        ("http://[::1", "leads nowhere"),
        ("/again.jpg", "more than 5 redirects"),
    ],
)
def test_redirects_that_are_refused(server: PictureServer, location: str, reason: str) -> None:
    target = location.format(own=f"localhost:{server.port}/0.jpg")
    server.on("/0.jpg", redirect(target))
    server.on("/again.jpg", redirect("/again.jpg"))
    assert_refused(server.load(), reason.format(port=server.port))
    assert len(server.asked) == (6 if location == "/again.jpg" else 1)


def test_a_redirect_to_a_private_address_is_refused(server: PictureServer) -> None:
    with PictureServer() as inner:
        server.on("/0.jpg", redirect(inner.url("/admin")))
        places = (server.place, inner.place)
        report = server.load(http_hosts=places, allowed_hosts=(inner.place,))
        assert_refused(report, "leads to 127.0.0.1, which is not a public address")
        assert not inner.asked


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://pictures.example.org/0.jpg", "is not https"),
        ("ftp://pictures.example.org/0.jpg", "has the scheme 'ftp'"),
        ("https://me:secret@pictures.example.org/0.jpg", "holds a user name"),
        ("https://127.0.0.1/0.jpg", "leads to 127.0.0.1, which is not a public address"),
        ("https://2130706433/0.jpg", "leads to 127.0.0.1, which is not a public address"),
        ("https://localhost/0.jpg", "which is not a public address"),
        ("https://[::ffff:10.0.0.1]/0.jpg", "which is not a public address"),
        ("https://169.254.169.254/latest/meta-data", "leads to 169.254.169.254"),
        ("", "is no URL"),
        ("0.jpg", "has the scheme ''"),
    ],
)
def test_urls_that_are_refused(server: PictureServer, url: str, reason: str) -> None:
    report = server.download([WantedPicture("0.jpg", url)])
    assert_refused(report, reason)
    assert "secret" not in report.records[0].error


def test_a_url_that_rules_refused_is_asked_for_under_other_rules(server: PictureServer) -> None:
    for _ in range(2):
        assert_refused(server.load(http_hosts=()), "among http_hosts")
    assert len((server.folder / ".downloads.jsonl").read_text().splitlines()) == 1
    assert len(server.load().of("saved")) == 1


def test_a_name_that_changes_its_address_does_not_lead_inside(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is public and passes the check, the second is not."""
    answers = ["93.184.215.14", "127.0.0.1", "127.0.0.1"]
    asked: list[str] = []

    def rebind(host: str, port: int, *rest: object, **more: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    connected: list[Any] = []

    class Recorded(socket.socket):
        def connect(self, address: Any) -> None:
            connected.append(address)
            raise ConnectionRefusedError("as from outside")

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    monkeypatch.setattr(socket, "socket", Recorded)
    place = f"rebound.example.org:{server.port}"
    wanted = [WantedPicture("0.jpg", f"http://{place}/0.jpg")]
    report = server.download(wanted, max_tries=2, http_hosts=(place,), private_hosts=())
    (record,) = report.records
    assert connected == [("93.184.215.14", server.port)]  # the address that was checked
    assert asked == ["rebound.example.org"] * 2  # the second answer is refused before connecting
    assert (record.status, record.tries) == ("refused", 2)
    assert "leads to 127.0.0.1" in record.error
    assert not server.asked


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_https_needs_a_certificate(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = server.folder / "key.pem", server.folder / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout {key} "
        f"-out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(certificate, key)
    server.die()
    server.start(inside)
    wanted = [WantedPicture(f"{n}.jpg", f"https://{server.place}/{n}.jpg") for n in range(2)]
    settings: dict[str, Any] = {"http_hosts": (), "max_connections": 1}
    report = server.download(wanted, server.folder / "a", **settings)
    assert [record.status for record in report.records] == ["refused"] * 2
    assert "the server's certificate is not valid" in report.records[0].error
    assert not server.asked

    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    before = server.connections
    server.on("/0.jpg", only_status(500), picture())
    report = server.download(wanted, server.folder / "b", **settings)
    assert len(report.of("saved")) == 2
    assert server.connections == before + 1  # one handshake for all requests
