"""What a download may be told, and how long it waits."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image

from tests.catalog.shops import refuses
from visual_search.catalog.downloads.responses import picture_format, retry_after_s
from visual_search.catalog.downloads.scheduler import PendingPicture, Scheduler, backoff_s
from visual_search.catalog.downloads.settings import DownloadSettings, Patience, WantedPicture
from visual_search.catalog.downloads.urls import parse_url
from visual_search.catalog.images import FORMATS
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import DownloadSchema
from visual_search.download import request_settings

URL = "https://pictures.example.org/1.jpg"
NOW = datetime(2024, 5, 31, 12, 0, 0, tzinfo=UTC)


def settings(**more: Any) -> DownloadSettings:
    return request_settings(DownloadSchema(**more))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("requests_per_s", 0, "requests_per_s is 0; expected a number above 0"),
        ("requests_per_s", math.inf, "requests_per_s is inf; expected a number above 0"),
        ("requests_per_s", math.nan, "requests_per_s is nan; expected a number above 0"),
        ("max_bytes", 0, "max_bytes is 0; expected a whole number"),
        ("max_bytes", 1.5, "max_bytes is 1.5; expected a whole number"),
        ("max_bytes", 2**40, "67108864, the largest picture that is read"),
        ("allowed_hosts", ["https://a.example.org"], "is no host"),
        ("http_hosts", "a.example.org", "expected a list of places"),
        ("private_hosts", [""], "is no host"),
        ("try_again", ["saved"], "try_again holds \\['saved'\\]; expected some of"),
        ("check_saved", "md5", "check_saved is 'md5'; expected 'size'"),
        ("user_agent", "a\r\nHost: b", "expected printable ASCII"),
        ("user_agent", "für", "expected printable ASCII"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    refuses(ConfigError, message, settings, **{name: value})


def test_lists_of_a_config_become_tuples() -> None:
    held = settings(http_hosts=["A.example.org"], try_again=["gone"])
    assert (held.http_hosts, held.try_again) == (("a.example.org",), ("gone",))


def test_a_name_stays_in_the_folder_has_one_form_and_is_neither_hidden_nor_too_long() -> None:
    outside = ["../1.jpg", "/etc/1.jpg", "a/../../1.jpg", "c:1.jpg", "", " ", ".", "a\0.jpg"]
    for names, message in (
        (outside, "expected a path below the data's root"),
        (["./1.jpg", "a//1.jpg", "a\\1.jpg", "a/"], "not in its plain form"),
        ([".downloads.jsonl", "a/.1.jpg", "Thumbs.db"], "is hidden or the system's own"),
        (["b/" + "a" * 227 + ".jpg"], "has a part of 231 bytes; expected at most 230"),
    ):
        for name in names:
            refuses(ValueError, message, WantedPicture, name, URL)
    assert WantedPicture("a" * 226 + ".jpg", URL).name


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


def test_every_format_that_is_read_is_known_by_its_first_bytes_and_no_other() -> None:
    for kind in FORMATS:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 0, 0)).save(file, kind)
        assert picture_format(file.getvalue()[:16]) == kind
    for start in (b"", b"BM is a text", b"RIFF1234WAVE", b"\0\0\0\x18ftypmp42"):
        assert picture_format(start) == ""


def test_waits_double_and_differ_by_a_quarter() -> None:
    patience = Patience(backoff_s=0.5, max_backoff_s=3.0)
    assert [backoff_s(patience, n, random=0.0) for n in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff_s(patience, 10**9, random=0.999) == pytest.approx(3.0 * 0.75, rel=1e-3)


def scheduled(*places: str, **patience: Any) -> Scheduler:
    """Returns a scheduler of pictures 0.jpg, 1.jpg ..., one a place; 10 requests a second."""
    urls = [f"https://{place}/{number}.jpg" for number, place in enumerate(places)]
    wanted = [WantedPicture(f"{number}.jpg", url) for number, url in enumerate(urls)]
    pictures = [PendingPicture(each, parse_url(each.url)) for each in wanted]
    return Scheduler(pictures, 10.0, Patience(**patience))


def taken(scheduler: Scheduler, now: float) -> PendingPicture:
    picture = scheduler.next(now)
    assert picture is not None
    return picture


def left(scheduler: Scheduler) -> list[str]:
    return sorted(picture.wanted.name for picture in scheduler.left())


def test_hosts_are_asked_in_turn_at_the_rate() -> None:
    scheduler = scheduled("a", "a", "a", "b", "b", "c")
    assert [taken(scheduler, 0.1 * n).url.host for n in range(6)] == ["a", "b", "c", "a", "b", "a"]
    assert scheduler.next(9.0) is None
    assert scheduler.is_done
    scheduler = scheduled("a", "b")
    taken(scheduler, 5.0)
    assert scheduler.next(5.09) is None
    assert scheduler.wait_s(5.09, 1.0) == pytest.approx(0.01)
    assert taken(scheduler, 5.1).url.host == "b"


def test_requests_under_way_hold_their_host_and_all_together() -> None:
    scheduler = scheduled("a", "a", "a", "b", "c", max_connections=3, max_connections_per_host=2)
    assert [taken(scheduler, n).url.host for n in range(3)] == ["a", "b", "c"]
    assert scheduler.next(3.0) is None
    scheduler.release("b")
    assert taken(scheduler, 4.0).url.host == "a"
    scheduler.release("c")
    assert scheduler.next(5.0) is None  # a has two
    scheduler.release("a")
    assert taken(scheduler, 6.0).url.host == "a"


def test_a_redirect_goes_before_what_waits_and_a_further_try_after_its_wait() -> None:
    scheduler = scheduled("a", "a", "a")
    first, second = taken(scheduler, 1.0), taken(scheduler, 2.0)
    first.num_redirects, first.url = 1, parse_url("https://a/elsewhere")
    scheduler.put_back(first, 3.0)
    scheduler.put_back(second, 3.0, 10.0)
    assert not scheduler.is_done
    assert taken(scheduler, 3.0) is first
    assert taken(scheduler, 4.0).wanted.name == "2.jpg"
    assert scheduler.next(12.9) is None
    assert scheduler.wait_s(12.9, 1.0) == pytest.approx(0.1)
    assert taken(scheduler, 13.0) is second


def test_three_failures_in_a_row_are_a_pause_and_pauses_in_vain_the_end() -> None:
    scheduler = scheduled(*"aaaaaaaaa", give_up_after=2)
    for now in (0.0, 0.1, 0.2):
        taken(scheduler, now)
        scheduler.release("a")
        scheduler.note_failure("a", 1.0)
    assert scheduler.next(1.9) is None
    taken(scheduler, 2.0)
    scheduler.note_failure("a", 2.0)
    assert scheduler.next(3.9) is None  # twice as long
    taken(scheduler, 4.0)
    scheduler.note_answer("a")  # up again: it is counted anew
    for _ in range(2):
        scheduler.note_failure("a", 5.0)
    taken(scheduler, 5.0)
    for now in (5.0, 6.0, 8.0):
        assert not scheduler.given_up
        scheduler.note_failure("a", now)
    assert "no answer of use" in scheduler.given_up["a"]
    assert scheduler.is_done


def test_a_host_that_is_given_up_leaves_its_pictures_undone_wherever_they_are() -> None:
    scheduler = scheduled("a", "a", "a", "b", max_retry_after_s=1.0)
    first, other, second = (taken(scheduler, n) for n in range(3))
    assert other.url.host == "b"
    scheduler.put_back(first, 3.0, 100.0)  # waits for its time; one is queued, one under way
    scheduler.pause("a", 3.0, 0.5)
    assert scheduler.next(3.4) is None
    scheduler.pause("a", 3.0, 1.5)
    assert scheduler.given_up == {"a": "it asked to wait 2 s; at most 1 s are waited"}
    assert left(scheduler) == ["0.jpg", "2.jpg"]
    scheduler.put_back(second, 4.0)
    assert scheduler.next(200.0) is None
    assert scheduler.is_done
    assert left(scheduler) == ["0.jpg", "1.jpg", "2.jpg"]
