"""A server over a bundle on object storage: names, newer generations, and storage that is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.uploads import upload
from tests.serving.drawn_bundle import drawn, drawn_bundle
from tests.serving.running import ALLOWED, HTML, TOKEN, client, wait_until
from tests.storage.s3_server import SECRET, S3Server
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.writing import remove_items
from visual_search.storage import bucket as requests


def test_it_is_served_under_its_name_and_followed_through_a_failure(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(requests, "ATTEMPTS", 1)
    requests._connection.cache_clear()
    folder = drawn_bundle("coats").folder
    address = upload(s3, folder, "served")
    bundle = Bundle.open(address)
    with client(bundle, write_token=TOKEN, refresh_seconds=0.05) as one:
        assert "coats" in one.get("/", headers=HTML).text
        hits = one.post("/api/search", files={"image": drawn("Bags", "green")}).json()["hits"]
        assert hits[0]["item_id"] == "p10"
        assert 'visual_search_items{bundle="coats"} 48.0' in one.get("/metrics").text

        def has_failed_twice() -> bool:
            return 'refresh_failures_total{bundle="coats"} 2.0' in one.get("/metrics").text

        with s3.disturbed(lambda method, path, before: "busy"):
            wait_until(has_failed_twice)
            assert one.get("/healthz").status_code == 200  # nobody misses anything
            assert one.get("/api/items/p7").status_code == 200
        remove_items(folder, ["p7"])
        upload(s3, folder, "served")
        wait_until(lambda: one.get("/api/items/p7").status_code == 404)
        assert 'visual_search_generation{bundle="coats"} 2.0' in one.get("/metrics").text
        refused = one.delete("/api/items/p8", headers=ALLOWED)
        assert (refused.status_code, refused.json()["type"]) == (422, "/docs#problem-invalid")
        assert f"{address} is on object storage" in refused.json()["detail"]
        assert one.get("/api/items/p8").status_code == 200
    told = [one.message for one in caplog.records if one.name.startswith("visual_search")]
    assert len([one for one in told if "cannot be read" in one]) == 1
    assert SECRET not in caplog.text


def test_copies_are_where_the_cache_is(s3: S3Server, tmp_path: Path) -> None:
    folder = Bundle.open(upload(s3, drawn_bundle().folder, "served-copies")).folder
    assert folder.is_relative_to(tmp_path / "copies" / "visual_search" / "objects")
