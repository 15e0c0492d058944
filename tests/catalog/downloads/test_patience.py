"""How polite and how patient a download is: rate, connections, waits, tries, dead hosts."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from tests.catalog.picture_server import (
    Answer,
    Handler,
    PictureServer,
    hang_up,
    jpeg,
    left_in,
    only_status,
    picture,
    then_hang_up,
)
from visual_search.catalog.downloads.settings import WantedPicture


def say_nothing(handler: Handler) -> None:
    """Stays silent until the client leaves."""
    handler.connection.recv(1)
    handler.close_connection = True


def stall(handler: Handler) -> None:
    """Announces a picture, sends its beginning, and falls silent."""
    handler.give(200, jpeg()[:100], Content_Length=len(jpeg()))
    say_nothing(handler)


def drip(handler: Handler) -> None:
    """Sends a byte now and then until the client leaves, never silent for long."""
    handler.give(200, jpeg()[:100], Content_Length=100_000)
    while True:
        time.sleep(0.03)
        handler.wfile.write(b"x")


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        time.sleep(0.03)
        handler.wfile.write(b"x")


def cut_short(handler: Handler) -> None:
    handler.give(200, jpeg()[:200], Content_Length=len(jpeg()))
    hang_up(handler)


def cut_in_a_chunk(handler: Handler) -> None:
    body = b"%x\r\n" % len(jpeg()) + jpeg()[:200]
    handler.give(200, body, Content_Length=None, Transfer_Encoding="chunked")
    hang_up(handler)


def broken_chunk(handler: Handler) -> None:
    handler.give(200, b"64\r\n" + jpeg()[:100], Content_Length=None, Transfer_Encoding="chunked")
    time.sleep(0.05)  # in a piece of its own
    handler.wfile.write(b"\r\nno number\r\n")
    say_nothing(handler)


def cut_without_a_length(handler: Handler) -> None:
    handler.give(200, jpeg()[:-200], Content_Length=None, Connection="close")
    hang_up(handler)


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n")
    hang_up(handler)


STALE = "no answer in time: "
BETTER_LATER: dict[str, tuple[Answer, str]] = {
    **{str(n): (only_status(n), f"status {n}") for n in (408, 425, 429, 500, 502, 503)},
    "hangs up": (hang_up, "the connection broke"),
    "says nothing": (say_nothing, STALE + "silent for 0.2 s"),
    "stalls": (stall, STALE + "silent for 0.2 s"),
    "drips": (drip, STALE + "took too long"),
    "drips headers": (drip_headers, STALE + "took too long"),
    "cut short": (cut_short, f"ended after 200 of {len(jpeg())} bytes"),
    "cut in a chunk": (cut_in_a_chunk, "the connection broke"),
    "cut without a length": (cut_without_a_length, "came without a length, and does not decode"),
    "no HTTP": (no_http, "the connection broke"),
    "empty": (picture(b""), "the answer is empty"),
    "negative chunk": (
        picture(b"-5\r\nhello\r\n", Content_Length=None, Transfer_Encoding="chunked"),
        "the connection broke",
    ),
    "broken chunk": (broken_chunk, "the connection broke"),
    "length of letters": (picture(Content_Length="many"), "the connection broke"),
}


@pytest.mark.parametrize("kind", BETTER_LATER)
def test_what_may_be_better_later_is_tried_again(server: PictureServer, kind: str) -> None:
    answer, reason = BETTER_LATER[kind]
    # Of the two limits the one that is meant is far below the other, and where a picture is to come
    # in the end it is long enough for a machine that does other things as well; so of those that
    # wait for it one shows it.
    settings = {"read_timeout_s": 60.0, "total_timeout_s": 120.0}
    limit = {"silent": "read_timeout_s", "took": "total_timeout_s"}.get(
        reason.removeprefix(STALE).split()[0], ""
    )
    if not limit or kind == "stalls":
        server.on("/0.jpg", answer, picture())
        patient = settings | ({limit: 2.0} if limit else {})
        (record,) = server.load(server.folder / "once", **patient).records
        assert (record.status, record.tries) == ("saved", 2)
        assert (server.folder / "once" / "0.jpg").read_bytes() == jpeg()

    server.on("/0.jpg", answer)
    impatient = settings | ({limit: 0.2} if limit else {})
    report = server.load(server.folder / "ever", max_tries=2, **impatient)
    (record,) = report.of("failed")
    assert record.tries == 2
    assert reason in record.error
    assert not report.is_complete
    assert left_in(server.folder / "ever") == []  # nothing half

    server.on("/0.jpg", picture())
    (record,) = server.load(server.folder / "ever").records  # a failed one is tried again
    assert (record.status, record.tries) == ("saved", 1)


def test_the_whole_try_has_a_limit_shorter_than_a_silence(server: PictureServer) -> None:
    server.on("/0.jpg", stall)
    report = server.load(max_tries=1, read_timeout_s=9.0, total_timeout_s=0.2)
    assert [record.error for record in report.of("failed")] == [STALE + "took too long"]


def test_retry_after_is_honoured_by_the_whole_host(server: PictureServer) -> None:
    server.on("/0.jpg", only_status(429, Retry_After=1), picture())
    report = server.download(4, max_connections=1)
    assert len(report.of("saved")) == 4
    first, second = server.asked[0][0], server.asked[1][0]
    assert server.asked[0][1] == "/0.jpg"
    assert second - first >= 1.0  # also of another picture
    assert len(server.asked) == 5


def test_a_host_that_wants_too_much_patience_is_given_up(server: PictureServer) -> None:
    server.on("/0.jpg", only_status(503, Retry_After=3600))
    report = server.download(5, max_connections=1)
    assert report.given_up == {server.place: "it asked to wait 3,600 s; at most 300 s are waited"}
    assert report.not_tried == tuple(f"{number}.jpg" for number in range(5))
    assert (report.records, report.was_stopped) == ((), False)
    assert len(server.asked) == 1
    server.on("/0.jpg", picture())
    assert server.download(5, max_connections=1).is_complete


def test_requests_keep_their_distance(server: PictureServer) -> None:
    server.on("/3.jpg", only_status(500), picture())  # a further try counts as well
    began = time.monotonic()
    report = server.download(11, requests_per_s=25.0)
    assert report.is_complete
    moments = [moment for moment, _ in server.asked]
    assert len(moments) == 12
    # 40 ms apart when they are sent. The server may see one late, and then the next one sooner, but
    # none before its time.
    for number, moment in enumerate(moments):
        assert moment - began >= number * 0.04


def test_a_host_has_no_more_connections_than_allowed(server: PictureServer) -> None:
    together = threading.Barrier(3)
    for number in range(3):
        server.on(f"/{number}.jpg", lambda handler: (together.wait(60), picture()(handler))[1])
    assert server.download(16, max_connections_per_host=3, max_connections=8).is_complete
    assert server.max_open == 3
    assert server.connections == 3  # kept open between pictures


def test_a_busy_host_does_not_hold_up_another_one(server: PictureServer) -> None:
    with PictureServer() as other:
        held = threading.Event()
        slow = server.wanted(4, "slow/{}.jpg")
        for want in slow:
            server.on(f"/{want.name}", lambda handler: (held.wait(60), picture()(handler))[1])
        quick = other.wanted(4, "quick/{}.jpg")

        def release_at_the_end(progress: object) -> None:
            if len(other.paths) == 4:
                held.set()

        places = (server.place, other.place)
        report = server.download(
            [*slow, *quick],
            max_connections=3,
            max_connections_per_host=2,
            http_hosts=places,
            private_hosts=places,
            on_progress=release_at_the_end,
        )
        assert len(report.of("saved")) == 8


@pytest.mark.parametrize("kind", ["closed while idle", "closed when asked"])
def test_a_server_that_leaves_in_between_costs_no_try(server: PictureServer, kind: str) -> None:
    for first in (0, 1):
        if kind == "closed while idle":
            server.on(f"/{first}.jpg", then_hang_up(picture()))
        else:
            server.on(f"/{first + 1}.jpg", hang_up, picture())
    report = server.download(3, max_connections=1, requests_per_s=50.0)
    assert [(record.status, record.tries) for record in report.records] == [("saved", 1)] * 3


def test_a_server_that_dies_and_comes_back(server: PictureServer) -> None:
    restarted = threading.Event()
    cut: list[str] = []

    def die() -> None:
        server.die()
        time.sleep(0.1)
        server.start()
        restarted.set()

    def in_the_middle(handler: Handler) -> None:
        cut.append(handler.path)
        handler.give(200, jpeg()[:100], Content_Length=len(jpeg()))
        threading.Thread(target=die).start()
        say_nothing(handler)  # until its own connection is dropped

    server.on("/7.jpg", in_the_middle, picture())
    tireless = {"max_tries": 1000, "give_up_after": 1000}
    report = server.download(20, requests_per_s=100.0, max_connections=2, **tireless)
    assert restarted.wait(60)
    assert cut == ["/7.jpg"]
    assert len(report.of("saved")) == 20
    assert max(record.tries for record in report.records) > 1
    assert len(list(server.folder.glob("*.jpg"))) == 20


def test_a_dead_host_is_given_up_after_pauses_and_the_rest_kept(server: PictureServer) -> None:
    settings: dict[str, Any] = {"max_connections": 2, "max_tries": 3, "give_up_after": 4}
    settings |= {"backoff_s": 0.02, "max_backoff_s": 0.1}
    server.die()
    start = time.monotonic()
    report = server.download(50, **settings)
    assert time.monotonic() - start >= 0.02 + 0.04 + 0.08 + 0.1
    assert "no answer of use" in report.given_up[server.place]
    assert len(report.not_tried) >= 35
    assert len(report.not_tried) + len(report.of("failed")) == 50
    assert not report.was_stopped
    server.start()
    assert len(server.download(50, **settings).of("saved")) == 50


def test_pictures_that_always_fail_do_not_stop_the_others(server: PictureServer) -> None:
    for number in range(0, 30, 2):
        server.on(f"/{number}.jpg", only_status(500))
    report = server.download(30, max_tries=2, give_up_after=2)
    assert len(report.of("saved")) == 15
    assert len(report.of("failed")) + len(report.not_tried) == 15


def test_an_unknown_name_fails(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    wanted = [WantedPicture("0.jpg", "https://pictures.example.org/0.jpg")]
    report = server.download(wanted, max_tries=2)
    (record,) = report.of("failed")
    assert record.tries == 2
    assert record.error == "the host's name cannot be resolved (Name or service not known)"
