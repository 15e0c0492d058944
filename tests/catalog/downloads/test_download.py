"""What a download leaves: pictures, a manifest, a report; and what it does not ask for again."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from tests.catalog.picture_server import Handler, PictureServer, jpeg, only_status, picture
from tests.catalog.shops import refuses, saved
from visual_search.catalog.downloads.manifest import MANIFEST_NAME, Manifest, read_manifest
from visual_search.catalog.downloads.report import DownloadProgress
from visual_search.catalog.downloads.settings import WantedPicture


def test_pictures_are_saved_as_they_came_and_recorded(server: PictureServer) -> None:
    wanted, folder = server.wanted(12, "boards/{}.jpg"), server.folder / "shop"
    for number, want in enumerate(wanted):
        server.on(f"/{want.name}", picture(jpeg(number)))
    report = server.download(wanted, folder)
    assert report.num_wanted == report.num_new == len(report.of("saved")) == 12
    assert (report.is_complete, report.was_stopped, report.given_up) == (True, False, {})
    assert [record.name for record in report.records] == [want.name for want in wanted]
    assert report.num_new_bytes == sum(len(jpeg(number)) for number in range(12))
    held = read_manifest(report.manifest)
    for number, want in enumerate(wanted):
        assert (folder / want.name).read_bytes() == jpeg(number)
        record = held[want.name]
        assert (record.url, record.size, record.tries) == (want.url, len(jpeg(number)), 1)
        assert record.sha256 == hashlib.sha256(jpeg(number)).hexdigest()
        assert record.error == ""
    assert sorted(server.paths) == sorted(f"/{want.name}" for want in wanted)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(".")} == {f"{n}.jpg" for n in range(12)}


def test_names_and_urls_with_any_letters(server: PictureServer) -> None:
    wanted = [WantedPicture("zwei ü.jpg", server.url("/zwei ü.jpg?größe=4 x#top"))]
    assert server.download(wanted).is_complete
    assert server.paths == ["/zwei%20%C3%BC.jpg?gr%C3%B6%C3%9Fe=4%20x"]
    assert (server.folder / "zwei ü.jpg").read_bytes() == jpeg()
    assert server.headers[0]["Host"] == server.place
    assert server.headers[0]["User-Agent"] == "visual-search"


def test_what_is_there_is_not_asked_for_again(server: PictureServer) -> None:
    wanted = server.wanted(6)
    server.download(wanted)
    (server.folder / "1.jpg").unlink()
    (server.folder / "2.jpg").write_bytes(b"cut")
    wanted[3] = WantedPicture("3.jpg", server.url("/elsewhere.jpg"))
    server.asked.clear()
    report = server.download(wanted)
    assert sorted(server.paths) == ["/1.jpg", "/2.jpg", "/elsewhere.jpg"]
    assert (report.num_new, len(report.of("saved"))) == (3, 6)
    assert read_manifest(report.manifest)["3.jpg"].url == server.url("/elsewhere.jpg")
    server.asked.clear()
    again = server.download(wanted)
    assert (again.num_new, again.num_new_bytes, server.paths) == (0, 0, [])
    # a changed file of the same size is found by its hash
    (server.folder / "0.jpg").write_bytes(bytes(len(jpeg())))
    for check_saved, paths in (("size", []), ("sha256", ["/0.jpg"])):
        server.download(wanted, check_saved=check_saved)
        assert server.paths == paths


def test_a_picture_that_lay_there_before_is_taken_as_it_is(server: PictureServer) -> None:
    saved(server.folder, {"0.jpg": jpeg(7), "1.jpg": "<html>"})  # no picture: loaded
    report = server.download(2)
    assert server.paths == ["/1.jpg"]
    first, second = report.records
    assert (first.tries, first.size, report.num_new) == (0, len(jpeg(7)), 1)
    assert (server.folder / "0.jpg").read_bytes() == jpeg(7)
    assert second.tries == 1


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_tried_again_only_when_asked(server: PictureServer, status: int) -> None:
    server.on("/0.jpg", only_status(status))
    report = server.download(3)
    (record,) = report.of("gone")
    assert (record.name, record.tries, record.size) == ("0.jpg", 1, 0)
    assert f"status {status}" in record.error
    assert (len(report.of("saved")), report.is_complete) == (2, True)
    assert not (server.folder / "0.jpg").exists()
    server.asked.clear()
    again = server.download(3)
    assert (server.paths, len(again.of("gone"))) == ([], 1)
    server.on("/0.jpg", picture())
    asked = server.download(3, try_again=("gone",))
    assert (server.paths, len(asked.of("saved")), asked.num_new) == (["/0.jpg"], 3, 1)


@pytest.mark.parametrize("status", [403, 400, 204])
def test_other_final_answers_are_not_tried_again(server: PictureServer, status: int) -> None:
    server.on("/0.jpg", only_status(status, Content_Length=2 if status != 204 else None))
    (record,) = server.load().records
    assert (record.status, len(server.asked)) == ("refused", 1)
    assert f"status {status}" in record.error


def test_progress_tells_done_total_rate_and_estimate(server: PictureServer) -> None:
    server.load()  # picture 0 is there when the others are asked for
    server.on("/4.jpg", only_status(404))
    told: list[DownloadProgress] = []
    threads = set()

    def note(progress: DownloadProgress) -> None:
        told.append(progress)
        threads.add(threading.current_thread())

    server.download(5, on_progress=note)
    assert [(progress.done, progress.total) for progress in told] == [(n, 5) for n in range(1, 6)]
    assert threads == {threading.current_thread()}
    assert (told[0].pictures_per_s, told[0].remaining_s) == (0.0, None)
    for progress in told[1:]:
        assert progress.pictures_per_s > 0
        assert progress.remaining_s == pytest.approx((5 - progress.done) / progress.pictures_per_s)
    assert (told[-1].num_saved, told[-1].num_gone, told[-1].remaining_s) == (4, 1, 0.0)
    assert told[-1].bytes_per_s > 0


def test_rates_are_of_what_came_last(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visual_search.catalog.downloads.download._RATE_OVER_S", 0.0)
    told: list[DownloadProgress] = []
    server.download(3, on_progress=told.append)  # the last alone, in the shortest time
    assert (told[-1].pictures_per_s, told[-1].bytes_per_s) == (1000, 1000 * len(jpeg()))


def test_a_stop_finishes_what_is_under_way_and_keeps_the_rest(server: PictureServer) -> None:
    released = threading.Event()

    def slow(handler: Handler) -> None:
        released.wait(60)
        picture()(handler)

    for want in server.wanted(30):
        server.on(f"/{want.name}", slow)

    def should_stop() -> bool:
        if len(server.paths) < 3:
            return False
        threading.Timer(0.2, released.set).start()  # all three are held until it has stopped
        return True

    report = server.download(30, max_connections=3, should_stop=should_stop)
    assert (report.was_stopped, report.is_complete) == (True, False)
    num_done = len(report.of("saved"))
    assert num_done == len(server.paths) >= 3
    assert num_done + len(report.not_tried) == 30
    assert len(report.not_tried) >= 1
    rest = server.download(30, max_connections=3)
    assert (rest.num_new, len(rest.of("saved"))) == (30 - num_done, 30)
    assert len(server.paths) == 30


def test_an_interrupt_ends_what_is_under_way_and_keeps_the_manifest(server: PictureServer) -> None:
    held = threading.Event()
    server.on("/1.jpg", lambda handler: held.wait(60) and None)

    def interrupt(progress: DownloadProgress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.download(2, on_progress=interrupt)
    assert [t.name for t in threading.enumerate() if t.name.startswith("download")] == []
    assert list(read_manifest(server.folder / MANIFEST_NAME)) == ["0.jpg"]
    held.set()


def test_a_picture_twice_counts_once_and_nothing_is_a_report_too(server: PictureServer) -> None:
    report = server.download(server.wanted(2) * 2)
    assert (report.num_wanted, len(server.asked)) == (2, 2)
    told: list[DownloadProgress] = []
    report = server.download([], on_progress=told.append)
    assert (report.num_wanted, report.records, report.is_complete) == (0, (), True)
    assert [(progress.done, progress.total) for progress in told] == [(0, 0)]


def test_names_that_are_in_each_others_way_or_lead_out_are_refused(server: PictureServer) -> None:
    def wanted(*names: str) -> list[Any]:
        urls = [f"https://pictures.example.org/{n}.jpg" for n in range(len(names))]
        return [WantedPicture(*each) for each in zip(names, urls, strict=True)]

    refuses(ValueError, "expected one URL a name", server.download, wanted("a.jpg", "a.jpg"))
    message = r"'a\.jpg' is a picture, and a folder in the name"
    refuses(ValueError, message, server.download, wanted("a.jpg", "a.jpg/b.jpg"))
    outside, shop = server.folder / "outside", server.folder / "shop"
    for folder in (outside, shop):
        folder.mkdir()
    (shop / "boards").symlink_to(outside)
    refuses(ValueError, "a link that leads out of", server.download, wanted("boards/1.jpg"), shop)
    assert not list(outside.iterdir())


def test_a_folder_that_is_not_writable_or_in_use_ends_the_download(server: PictureServer) -> None:
    (server.folder / "0.jpg" / "in_the_way").mkdir(parents=True)
    refuses(OSError, r"0\.jpg", server.download, 1)
    assert read_manifest(server.folder / MANIFEST_NAME) == {}
    with Manifest(server.folder):
        refuses(ValueError, "another process downloads into", server.download, 0)
    assert server.download(0).is_complete  # it is free again
