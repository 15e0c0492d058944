"""What a download leaves: pictures, a manifest, a report; and what it does not ask for again."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.picture_server import PictureServer, jpeg, only_status, picture
from visual_search.catalog.downloads.manifest import MANIFEST_NAME, Manifest, read_manifest
from visual_search.catalog.downloads.report import DownloadProgress
from visual_search.catalog.downloads.settings import WantedPicture


def test_pictures_are_saved_as_they_came_and_recorded(
    server: PictureServer, tmp_path: Path
) -> None:
    wanted = server.wanted(12, "boards/{}.jpg")
    for number, want in enumerate(wanted):
        server.on(f"/{want.name}", picture(jpeg(number)))
    report = server.download(wanted, tmp_path / "shop")
    assert report.num_wanted == report.num_new == len(report.of("saved")) == 12
    assert report.is_complete
    assert not report.was_stopped
    assert not report.given_up
    assert [record.name for record in report.records] == [want.name for want in wanted]
    assert report.num_new_bytes == sum(len(jpeg(number)) for number in range(12))
    held = read_manifest(report.manifest)
    for number, want in enumerate(wanted):
        assert (tmp_path / "shop" / want.name).read_bytes() == jpeg(number)
        record = held[want.name]
        assert (record.url, record.size, record.tries) == (want.url, len(jpeg(number)), 1)
        assert record.sha256 == hashlib.sha256(jpeg(number)).hexdigest()
        assert record.error == ""
    assert sorted(server.paths) == sorted(f"/{want.name}" for want in wanted)
    names = {path.name for path in (tmp_path / "shop").rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(".")} == {f"{n}.jpg" for n in range(12)}


def test_names_and_urls_with_any_letters(server: PictureServer, tmp_path: Path) -> None:
    wanted = [WantedPicture("zwei ü.jpg", server.url("/zwei ü.jpg?größe=4 x#top"))]
    report = server.download(wanted, tmp_path)
    assert server.paths == ["/zwei%20%C3%BC.jpg?gr%C3%B6%C3%9Fe=4%20x"]
    assert (tmp_path / "zwei ü.jpg").read_bytes() == jpeg()
    assert server.headers[0]["Host"] == server.place
    assert server.headers[0]["User-Agent"] == "visual-search"
    assert report.is_complete


def test_what_is_there_is_not_asked_for_again(server: PictureServer, tmp_path: Path) -> None:
    wanted = server.wanted(6)
    server.download(wanted, tmp_path)
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "2.jpg").write_bytes(b"cut")
    wanted[3] = WantedPicture("3.jpg", server.url("/elsewhere.jpg"))
    server.asked.clear()
    report = server.download(wanted, tmp_path)
    assert sorted(server.paths) == ["/1.jpg", "/2.jpg", "/elsewhere.jpg"]
    assert (report.num_new, len(report.of("saved"))) == (3, 6)
    assert read_manifest(report.manifest)["3.jpg"].url == server.url("/elsewhere.jpg")
    server.asked.clear()
    again = server.download(wanted, tmp_path)
    assert (again.num_new, again.num_new_bytes, server.paths) == (0, 0, [])


@pytest.mark.parametrize(("check_saved", "num_asked"), [("size", 0), ("sha256", 1)])
def test_a_changed_file_of_the_same_size_is_found_by_its_hash(
    server: PictureServer, tmp_path: Path, check_saved: str, num_asked: int
) -> None:
    server.load(tmp_path)
    (tmp_path / "0.jpg").write_bytes(bytes(len(jpeg())))
    server.asked.clear()
    server.load(tmp_path, check_saved=check_saved)
    assert len(server.asked) == num_asked


def test_a_picture_that_lay_there_before_is_taken_as_it_is(
    server: PictureServer, tmp_path: Path
) -> None:
    (tmp_path / "0.jpg").write_bytes(jpeg(7))
    (tmp_path / "1.jpg").write_bytes(b"<html>")  # no picture: loaded
    report = server.download(server.wanted(2), tmp_path)
    assert server.paths == ["/1.jpg"]
    first, second = report.records
    assert (first.tries, first.size, report.num_new) == (0, len(jpeg(7)), 1)
    assert (tmp_path / "0.jpg").read_bytes() == jpeg(7)
    assert second.tries == 1


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_counted_and_tried_again_only_when_asked(
    server: PictureServer, tmp_path: Path, status: int
) -> None:
    server.on("/0.jpg", only_status(status))
    wanted = server.wanted(3)
    report = server.download(wanted, tmp_path)
    (record,) = report.of("gone")
    assert (record.name, record.tries, record.size) == ("0.jpg", 1, 0)
    assert f"status {status}" in record.error
    assert len(report.of("saved")) == 2
    assert report.is_complete
    assert not (tmp_path / "0.jpg").exists()
    server.asked.clear()
    again = server.download(wanted, tmp_path)
    assert (server.paths, len(again.of("gone"))) == ([], 1)
    server.on("/0.jpg", picture())
    asked = server.download(wanted, tmp_path, try_again=("gone",))
    assert (server.paths, len(asked.of("saved")), asked.num_new) == (["/0.jpg"], 3, 1)


@pytest.mark.parametrize(
    ("status", "outcome"), [(403, "refused"), (400, "refused"), (204, "refused")]
)
def test_other_final_answers_are_not_tried_again(
    server: PictureServer, tmp_path: Path, status: int, outcome: str
) -> None:
    server.on("/0.jpg", only_status(status, Content_Length=2 if status != 204 else None))
    report = server.load(tmp_path)
    assert [record.status for record in report.records] == [outcome]
    assert len(server.asked) == 1
    assert f"status {status}" in report.records[0].error


def test_progress_tells_done_total_rate_and_estimate(server: PictureServer, tmp_path: Path) -> None:
    server.load(tmp_path)  # picture 0 is there when the others are asked for
    server.on("/4.jpg", only_status(404))
    told: list[DownloadProgress] = []
    threads = set()

    def note(progress: DownloadProgress) -> None:
        told.append(progress)
        threads.add(threading.current_thread())

    wanted = server.wanted(5)
    server.download(wanted, tmp_path, on_progress=note)
    assert [progress.done for progress in told] == [1, 2, 3, 4, 5]
    assert {progress.total for progress in told} == {5}
    assert threads == {threading.current_thread()}
    assert (told[0].pictures_per_s, told[0].remaining_s) == (0.0, None)
    for progress in told[1:]:
        assert progress.pictures_per_s > 0
        assert progress.remaining_s == pytest.approx((5 - progress.done) / progress.pictures_per_s)
    assert (told[-1].num_saved, told[-1].num_gone, told[-1].remaining_s) == (4, 1, 0.0)
    assert told[-1].bytes_per_s > 0


def test_a_stop_finishes_what_is_under_way_and_keeps_the_rest_for_later(
    server: PictureServer, tmp_path: Path
) -> None:
    released = threading.Event()

    def slow(handler: object) -> None:
        released.wait(60)
        picture()(handler)  # type: ignore[arg-type]

    wanted = server.wanted(30)
    for want in wanted:
        server.on(f"/{want.name}", slow)

    def should_stop() -> bool:
        if len(server.paths) < 3:
            return False
        threading.Timer(0.2, released.set).start()  # all three are held until it has stopped
        return True

    settings: dict[str, Any] = {"max_connections": 3}
    report = server.download(wanted, tmp_path, **settings, should_stop=should_stop)
    assert report.was_stopped
    assert not report.is_complete
    num_done = len(report.of("saved"))
    assert num_done == len(server.paths) >= 3
    assert num_done + len(report.not_tried) == 30
    assert len(report.not_tried) >= 1
    rest = server.download(wanted, tmp_path, **settings)
    assert (rest.num_new, len(rest.of("saved"))) == (30 - num_done, 30)
    assert len(server.paths) == 30


def test_an_interrupt_ends_requests_under_way_and_keeps_the_manifest(
    server: PictureServer, tmp_path: Path
) -> None:
    held = threading.Event()
    server.on("/1.jpg", lambda handler: held.wait(60) and None)

    def interrupt(progress: DownloadProgress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.download(server.wanted(2), tmp_path, on_progress=interrupt)
    assert [t.name for t in threading.enumerate() if t.name.startswith("download")] == []
    assert list(read_manifest(tmp_path / MANIFEST_NAME)) == ["0.jpg"]
    held.set()


def test_the_same_picture_twice_counts_once(server: PictureServer, tmp_path: Path) -> None:
    report = server.download(server.wanted(2) * 2, tmp_path)
    assert (report.num_wanted, len(server.asked)) == (2, 2)


def test_nothing_wanted_is_a_report_too(server: PictureServer, tmp_path: Path) -> None:
    told: list[DownloadProgress] = []
    report = server.download([], tmp_path, on_progress=told.append)
    assert (report.num_wanted, report.records, report.is_complete) == (0, (), True)
    assert [(progress.done, progress.total) for progress in told] == [(0, 0)]


def test_wanted_pictures_that_are_in_each_others_way(server: PictureServer, tmp_path: Path) -> None:
    one = WantedPicture("a.jpg", "https://pictures.example.org/1.jpg")
    other = WantedPicture("a.jpg", "https://pictures.example.org/2.jpg")
    with pytest.raises(ValueError, match="expected one URL a name; give the second another name"):
        server.download([one, other], tmp_path)
    below = WantedPicture("a.jpg/b.jpg", "https://pictures.example.org/2.jpg")
    with pytest.raises(ValueError, match=r"'a\.jpg' is a picture, and a folder in the name"):
        server.download([one, below], tmp_path)


def test_a_linked_folder_does_not_lead_out(server: PictureServer, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "shop" / "boards")
    wanted = [WantedPicture("boards/1.jpg", "https://pictures.example.org/1.jpg")]
    with pytest.raises(ValueError, match="a link that leads out of"):
        server.download(wanted, tmp_path / "shop")
    assert not list((tmp_path / "outside").iterdir())


def test_a_picture_that_cannot_be_written_ends_the_download(
    server: PictureServer, tmp_path: Path
) -> None:
    (tmp_path / "0.jpg" / "in_the_way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"0\.jpg"):
        server.download(server.wanted(1), tmp_path)
    assert read_manifest(tmp_path / MANIFEST_NAME) == {}


def test_two_downloads_into_one_folder_are_refused(server: PictureServer, tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(ValueError, match="another process downloads into"):
        server.download([], tmp_path)
    assert server.download([], tmp_path).is_complete  # it is free again
