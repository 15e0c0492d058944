"""A download that is killed in the middle, and the same one again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.catalog.picture_server import Answer, Handler, PictureServer, jpeg, left_in, picture
from tests.catalog.shops import CHECKOUT, saved
from visual_search.catalog.downloads.manifest import MANIFEST_NAME, read_manifest

# Run by the tests in a process of its own, which is killed; loads little, to start quickly.
DOWNLOAD = """
import json, sys
from visual_search.catalog.downloads.settings import WantedPicture
from visual_search.catalog.downloads.download import download_pictures
from visual_search.config.schemas import DownloadSchema
from visual_search.download import request_settings
wanted, folder, settings = json.loads(sys.argv[1])
settings = request_settings(DownloadSchema(**settings))
download_pictures([WantedPicture(*one) for one in wanted], folder, settings=settings)
"""


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_was(server: PictureServer) -> None:
    wanted, folder = server.wanted(60), server.folder
    killed = threading.Event()

    def held(number: int) -> Answer:
        def answer(handler: Handler) -> None:
            killed.wait(300)
            picture(jpeg(number))(handler)

        return answer

    for number, want in enumerate(wanted):
        server.on(f"/{want.name}", picture(jpeg(number)) if number < 20 else held(number))
    config = asdict(server.config(requests_per_s=100.0))
    content = json.dumps([[(want.name, want.url) for want in wanted], str(folder), config])
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, content], cwd=CHECKOUT)
    try:
        deadline = time.monotonic() + 300
        while len(read_manifest(folder / MANIFEST_NAME)) < 10:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        killed.set()
    assert process.returncode == -signal.SIGKILL
    known = read_manifest(folder / MANIFEST_NAME)
    there = {path.name for path in folder.glob("*.jpg") if not path.name.startswith(".")}
    assert 10 <= len(known) < 60
    assert set(known) <= there
    server.asked.clear()
    report = server.download(wanted, requests_per_s=500.0, max_connections=4)
    missing = {want.name for want in wanted} - there
    assert sorted(server.paths) == sorted(f"/{name}" for name in missing)
    assert len(report.of("saved")) == 60
    assert report.num_new == len(server.paths) >= 1
    assert left_in(folder) == sorted(want.name for want in wanted)
    for number, want in enumerate(wanted):
        assert (folder / want.name).read_bytes() == jpeg(number)


def test_a_torn_manifest_is_mended_and_half_pictures_are_removed(server: PictureServer) -> None:
    wanted, folder = server.wanted(4, "a/{}.jpg"), server.folder
    server.download(wanted, max_connections=1)
    manifest = folder / MANIFEST_NAME
    last = json.loads(manifest.read_text().splitlines()[-1])["name"]  # threads save: any may be it
    manifest.write_bytes(manifest.read_bytes()[:-20])
    (folder / last).unlink()
    stem = Path(last).stem
    half, kept = f"a/.{stem}.0123abcd.tmp.jpg", f"a/.{stem}.tmp.jpg"
    saved(folder, {half: jpeg()[:100], kept: "somebody else's"})
    server.asked.clear()
    assert server.download(wanted).is_complete
    assert server.paths == [f"/{last}"]
    assert [(folder / half).exists(), (folder / kept).exists()] == [False, True]
    assert len(manifest.read_text().splitlines()) == 4
