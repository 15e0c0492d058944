"""The download command: what is wanted, where it goes, what is said, how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.picture_server import (
    QUICK,
    Handler,
    PictureServer,
    jpeg,
    left_in,
    only_status,
    picture,
)
from tests.composing import typed
from visual_search.catalog.downloads.settings import DownloadSettings, WantedPicture
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import DownloadSchema
from visual_search.download import (
    MAX_REASONS,
    Downloaded,
    download_listed,
    print_download,
    read_list,
    request_settings,
    wanted_pictures,
)

COMPLETE_THE_LOOK = "visual_search.catalog.readers.complete_the_look.complete_the_look"
HEADER = "image_signature bounding_x bounding_y bounding_width bounding_height label\n"
SIGNATURES = ["00015b9d0c08164ed3b5dbb4613bb143", "000187f9ba6ffdce6ec0a6ccd3ea1d9d"]


def test_the_config_says_the_defaults() -> None:
    assert typed("download") == DownloadSchema()
    assert request_settings(DownloadSchema()) == DownloadSettings()


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with PictureServer() as running:
        yield running


def listed(folder: Path, server: PictureServer, num: int) -> str:
    path = folder / "list.csv"
    rows = "".join(f"{want.name},shoes,{want.url}\n" for want in server.wanted(num))
    path.write_text("name,category,url\n" + rows)
    return str(path)


@pytest.fixture
def boards(tmp_path: Path) -> dict[str, Any]:
    """The config of Complete the Look: two boards, one with two boxes."""
    rows = [(SIGNATURES[0], "Shoes"), (SIGNATURES[0], "Pants"), (SIGNATURES[1], "Shoes")]
    text = "".join(f"{name}\t0.1\t0.2\t0.3\t0.4\t{label}\n" for name, label in rows)
    (tmp_path / "raw_test.tsv").write_text(HEADER + text)
    return {
        "_target_": COMPLETE_THE_LOOK,
        "path": str(tmp_path / "raw_test.tsv"),
        "pictures": str(tmp_path / "boards"),
        "image_pattern": "{signature:.2}/{signature}.jpg",
        "on_bad_item": "skip",
    }


def test_a_list_is_downloaded_and_the_rest_is_told(
    server: PictureServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("/0.jpg", only_status(404))
    server.on("/1.jpg", only_status(404))
    server.on("/2.jpg", picture(b"<html>"))
    server.on("/3.jpg", only_status(500))
    settings = server.config(urls=listed(tmp_path, server, 8), folder=str(tmp_path / "shop"))
    downloaded = download_listed(settings, QUICK)
    assert left_in(tmp_path / "shop") == ["4.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert downloaded.status == 1
    print_download(downloaded)
    printed = capsys.readouterr().out
    assert f"4 of 8 pictures are in {tmp_path / 'shop'}: 4 new, " in printed
    assert "2 gone:\n  2 x status 404 Not Found, such as 0.jpg\n" in printed
    assert "1 refused:\n  1 x is no picture: it starts with b'<html>', such as 2.jpg" in printed
    assert "1 failed:\n  1 x status 500 Internal Server Error, such as 3.jpg" in printed
    assert f"picture: {tmp_path / 'shop' / '.downloads.jsonl'}\n" in printed
    assert "The same command again goes on" in printed
    # without `failed` the same words would leave out those that failed
    assert "try_again=[failed,refused]" in printed

    server.on("/3.jpg", picture())
    again = download_listed(settings, QUICK)
    assert (again.status, again.report.num_new) == (0, 1)  # gone and refused are no fault
    print_download(again)
    assert "The same command again" not in capsys.readouterr().out


def test_a_catalogue_says_what_it_needs_and_where_it_goes(
    boards: dict[str, Any], tmp_path: Path
) -> None:
    wanted, folder = wanted_pictures(DownloadSchema(data=boards))
    assert folder == tmp_path / "boards"
    assert [picture.name for picture in wanted] == [f"00/{name}.jpg" for name in SIGNATURES]
    assert wanted[0].url == f"https://i.pinimg.com/400x/00/01/5b/{SIGNATURES[0]}.jpg"
    _, elsewhere = wanted_pictures(DownloadSchema(data=boards, folder=str(tmp_path / "b")))
    assert elsewhere == tmp_path / "b"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither data= nor urls= say what to download; expected one"),
        ({"urls": "a.csv", "data": {"_target_": "x"}}, "both data= and urls="),
        ({"urls": "a.csv"}, "names no folder; expected one; add folder=FOLDER"),
        ({"urls": "no.csv", "folder": "x"}, r"urls=no\.csv cannot be read"),
        ({"data": {"_target_": "a.b.folder"}}, "data=folder says no URLs of pictures; expected"),
        ({"requests_per_s": 0}, "requests_per_s is 0; expected a number above 0"),
    ],
)
def test_a_config_that_does_not_say_what_is_wanted(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        download_listed(DownloadSchema(**settings))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pictures": "???"}, r"data\.pictures is not set"),
        ({"pictures": None}, "is no folder to download into"),
        ({"pictures": "boards.zip"}, r"data\.pictures=boards\.zip is no folder"),
        ({"more": 1}, r"data\.more is no argument"),
        ({"max_rows": 0}, "max_rows is 0; expected at least 1"),
        ({"image_pattern": "1.jpg"}, "expected the whole signature in it"),
        ({"image_pattern": ".{signature}.jpg"}, "is hidden or the system's own"),
    ],
)
def test_a_catalogue_that_cannot_be_downloaded(
    boards: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        wanted_pictures(DownloadSchema(data=boards | changed))


def test_a_catalogue_without_its_file(boards: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.tsv"):
        wanted_pictures(DownloadSchema(data=boards | {"path": "no.tsv"}))


def test_lists_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.TSV"
    path.write_text("url\tname\nhttps://a.example.org/1\t007.jpg\n")
    assert read_list(str(path)) == [WantedPicture("007.jpg", "https://a.example.org/1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,link\n1.jpg,x\n", r"lacks the column\(s\) \['url'\] among \['name', 'link'\]"),
        ("name,url\n1.jpg\n", r"has 1 bad row\(s\), first line 2: has 1 field"),
        (
            "name,url\n1.jpg,x\n../2.jpg,y\n",
            r"urls=.*list\.csv, line 3: picture path '\.\./2\.jpg'",
        ),
        ("", "cannot be read"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_list(str(tmp_path / "list.csv"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_gently(
    server: PictureServer, tmp_path: Path, number: signal.Signals
) -> None:
    def tell_to_stop(handler: Handler) -> None:
        os.kill(os.getpid(), number)
        picture()(handler)

    server.on("/2.jpg", tell_to_stop)
    before = signal.getsignal(number)
    settings = server.config(
        requests_per_s=50.0, urls=listed(tmp_path, server, 60), folder=str(tmp_path / "shop")
    )
    downloaded = download_listed(settings, replace(QUICK, max_connections=1))
    assert downloaded.status == 128 + number
    assert signal.getsignal(number) is before
    num_done = len(downloaded.report.of("saved"))
    assert 3 <= num_done <= 30
    assert num_done == len(server.asked) == len(left_in(tmp_path / "shop"))
    assert len(downloaded.report.not_tried) == 60 - num_done
    assert (tmp_path / "shop" / "2.jpg").read_bytes() == jpeg()


def test_many_reasons_are_cut_and_alike_ones_are_one(
    server: PictureServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        answer = only_status(302, Location=f"https://elsewhere.example.org/{number}?x=1")
        server.on(f"/{number}.jpg", answer if number < 8 else only_status(440 + number))
    settings = server.config(urls=listed(tmp_path, server, 20), folder=str(tmp_path / "shop"))
    print_download(download_listed(settings, replace(QUICK, max_tries=1)))
    printed = capsys.readouterr().out
    assert "20 refused:\n  8 x redirected to elsewhere.example.org; expected" in printed
    assert printed.count(" x ") == MAX_REASONS
    assert "  ... and 5 further reasons, in the manifest\n" in printed


def test_reasons_are_one_line_without_the_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        "empty.jpg": "", "file.jpg": "ftp://a.example.org/1.jpg",
        "plain.jpg": "http://a.example.org/1.jpg", "odd.jpg": "http://a.example.org/ä b.jpg",
    }  # fmt: skip
    path = tmp_path / "list.csv"
    path.write_text("name;url\n" + "".join(f"{name};{url}\n" for name, url in rows.items()))
    downloaded = download_listed(DownloadSchema(urls=str(path), folder=str(tmp_path / "shop")))
    first = downloaded.report.records[0]
    torn = replace(first, name="torn.jpg", status="failed", error="so:\nit \x1b[2J")
    report = replace(downloaded.report, records=(*downloaded.report.records, torn))
    print_download(replace(downloaded, report=report))
    printed = capsys.readouterr().out
    assert "  2 x it is not https; expected https, or 'a.example.org' among http" in printed
    assert "  1 x '' is no URL; expected one as https://host/path, such as empty.jpg\n" in printed
    assert "  1 x it has the scheme 'ftp'; expected" in printed
    assert "  1 x so: it \N{REPLACEMENT CHARACTER}[2J, such as torn.jpg\n" in printed


def test_the_status_says_whether_something_is_left(server: PictureServer, tmp_path: Path) -> None:
    report = server.load(tmp_path)
    assert Downloaded(report, 0).status == 0
    left = replace(report, not_tried=("1.jpg",))
    assert Downloaded(left, 0).status == 1
    assert Downloaded(left, signal.SIGTERM).status == 143
