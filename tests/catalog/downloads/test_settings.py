"""What a download may be told, and how long it waits."""

from __future__ import annotations

import io
import math
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image

from visual_search.catalog.downloads.responses import picture_format, retry_after_s
from visual_search.catalog.downloads.scheduler import PendingPicture, Stopped, Turns, backoff_s
from visual_search.catalog.downloads.settings import DownloadSettings, WantedPicture
from visual_search.catalog.downloads.urls import parse_url
from visual_search.catalog.images import FORMATS

URL = "https://pictures.example.org/1.jpg"
NOW = datetime(2024, 5, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("requests_per_s", 0),
        ("requests_per_s", math.inf),
        ("backoff_s", -1.0),
        ("max_backoff_s", math.nan),
        ("max_retry_after_s", 0),
        ("connect_timeout_s", 0),
        ("read_timeout_s", 0),
        ("total_timeout_s", 0),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a number above 0"):
        DownloadSettings(**{name: value})


@pytest.mark.parametrize(
    "name",
    ["max_connections", "max_connections_per_host", "max_tries", "give_up_after", "max_bytes"],
)
@pytest.mark.parametrize("value", [0, 1.5])
def test_counts_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a whole number of at least"):
        DownloadSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_bytes", 2**40, "expected at most 67108864, the largest picture that is read"),
        ("max_redirects", -1, "max_redirects is -1; expected 0"),
        ("allowed_hosts", ("https://a.example.org",), "is no host"),
        ("http_hosts", "a.example.org", "expected a list of places"),
        ("private_hosts", ("",), "is no host"),
        ("try_again", ("saved",), "try_again holds \\['saved'\\]; expected some of"),
        ("check_saved", "md5", "check_saved is 'md5'; expected 'size'"),
        ("user_agent", "a\r\nHost: b", "expected printable ASCII"),
        ("user_agent", "für", "expected printable ASCII"),
    ],
)
def test_other_values_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DownloadSettings(**{name: value})


def test_lists_of_a_config_become_tuples() -> None:
    settings = DownloadSettings(http_hosts=["A.example.org"], try_again=["gone"])  # type: ignore[arg-type]
    assert (settings.http_hosts, settings.try_again) == (("a.example.org",), ("gone",))


@pytest.mark.parametrize(
    "name", ["../1.jpg", "/etc/1.jpg", "a/../../1.jpg", "c:1.jpg", "", " ", ".", "a\0.jpg"]
)
def test_a_name_does_not_leave_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match="expected a path below the data's root"):
        WantedPicture(name, URL)


@pytest.mark.parametrize("name", ["./1.jpg", "a//1.jpg", "a\\1.jpg", "a/"])
def test_a_name_has_one_form(name: str) -> None:
    with pytest.raises(ValueError, match="not in its plain form"):
        WantedPicture(name, URL)


@pytest.mark.parametrize("name", [".downloads.jsonl", "a/.1.jpg", "Thumbs.db"])
def test_a_name_is_not_hidden(name: str) -> None:
    with pytest.raises(ValueError, match="is hidden or the system's own"):
        WantedPicture(name, URL)


def test_a_name_is_not_too_long_for_its_temporary_one() -> None:
    assert WantedPicture("a" * 226 + ".jpg", URL).name
    with pytest.raises(ValueError, match="has a part of 231 bytes; expected at most 230"):
        WantedPicture("b/" + "a" * 227 + ".jpg", URL)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Fri, 31 May 2024 12:02:00 GMT", 120.0),
        ("Friday, 31-May-24 12:02:00 GMT", 120.0),
        ("Fri, 31 May 2024 11:00:00 GMT", 0.0),  # over already
        ("Fri, 31 May 2024 14:02:00 +0200", 120.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, NOW) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_read_is_known_by_its_first_bytes(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, kind)
    assert picture_format(file.getvalue()[:16]) == kind


@pytest.mark.parametrize("start", [b"", b"BM is a text", b"RIFF1234WAVE", b"\0\0\0\x18ftypmp42"])
def test_other_files_are_known_to_be_none(start: bytes) -> None:
    assert picture_format(start) == ""


def test_waits_double_and_differ_by_a_quarter() -> None:
    settings = DownloadSettings(backoff_s=0.5, max_backoff_s=3.0)
    assert [backoff_s(settings, n, random=0.0) for n in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff_s(settings, 10**9, random=0.999) == pytest.approx(3.0 * 0.75, rel=1e-3)


def jobs(*places: str) -> list[PendingPicture]:
    found = []
    for number, place in enumerate(places):
        url = f"https://{place}/{number}.jpg"
        found.append(PendingPicture(WantedPicture(f"{number}.jpg", url), parse_url(url)))
    return found


def test_hosts_are_asked_in_turn() -> None:
    turns = Turns(jobs("a", "a", "a", "b", "b", "c"), DownloadSettings(requests_per_s=1e6))
    taken = []
    for _ in range(6):
        found = turns.take()
        assert found is not None
        job, turn = found
        with turn:
            taken.append(job.url.host)
        turns.finish()
    assert taken == ["a", "b", "c", "a", "b", "a"]
    assert turns.take() is None


def test_a_stop_ends_whoever_waits() -> None:
    settings = DownloadSettings(requests_per_s=1e6, max_connections_per_host=1)
    turns = Turns(jobs("a", "a"), settings)
    taken = turns.take()
    assert taken is not None
    ended: list[str] = []

    def wait_for_a_job() -> None:
        assert turns.take() is None
        ended.append("take")

    def wait_for_a_turn() -> None:
        with pytest.raises(Stopped):
            turns.turn("a")
        ended.append("turn")

    threads = [threading.Thread(target=wait) for wait in (wait_for_a_job, wait_for_a_turn)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    assert ended == []
    turns.stop()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == ["take", "turn"]
    turns.leave(taken[0])
    assert sorted(job.wanted.name for job in turns.left()) == ["0.jpg", "1.jpg"]


def test_a_host_that_is_given_up_leaves_its_jobs_undone_wherever_they_are() -> None:
    settings = DownloadSettings(requests_per_s=1e6, max_retry_after_s=1.0)
    turns = Turns(jobs("a", "a", "a", "b"), settings)
    first = turns.take()
    assert first is not None
    other = turns.take()
    assert other is not None
    assert other[0].url.host == "b"
    second = turns.take()
    assert second is not None
    turns.put_back(first[0], 100.0)  # waits for its time; one is queued, one under way
    turns.pause("a", 1.5)
    assert turns.given_up == {"a": "it asked to wait 2 s; at most 1 s are waited"}
    assert sorted(job.wanted.name for job in turns.left()) == ["0.jpg", "2.jpg"]
    with pytest.raises(Stopped):
        turns.turn("a")
    turns.put_back(second[0])
    turns.finish()  # of b
    assert turns.take() is None
    assert sorted(job.wanted.name for job in turns.left()) == ["0.jpg", "1.jpg", "2.jpg"]
