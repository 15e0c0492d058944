from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.serving.drawn_bundle import COLOURS, SHAPES, drawn, drawn_bundle
from tests.serving.running import FORM, ask, client, form, listening, search, wait_until
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.manifest import MANIFEST_FILE
from visual_search.bundle.writing import remove_items


@contextmanager
def all_wait(bundle: Bundle, port: int, pictures: list[bytes]) -> Iterator[list[Any]]:
    """Searches for pictures at once; none is answered before the block ends."""
    encoder: Any = bundle.encoder
    encoder.gate = threading.Event()
    with ThreadPoolExecutor(len(pictures)) as threads:
        asked = [threads.submit(search, port, image) for image in pictures]
        running = f"visual_search_searches_running {len(pictures)}.0"
        wait_until(lambda: running in ask(port, "GET", "/metrics").body.decode())
        yield asked
        encoder.gate.set()


def test_nothing_is_lost_or_mixed_up_among_32_clients() -> None:
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    pictures = [drawn(*kinds[n % len(kinds)], shift=n) for n in range(32)]
    bundle = drawn_bundle()
    batches: list[int] = bundle.encoder.batches  # type: ignore[attr-defined]
    with listening(bundle) as port:
        alone = [search(port, image).json()["hits"] for image in pictures]
        assert max(batches) == 1
        batches.clear()
        with all_wait(bundle, port, pictures) as asked:
            pass
        answers = [one.result(120).json()["hits"] for one in asked]
    assert len({str(one) for one in alone}) == 32  # each has an answer of its own
    assert answers == alone
    assert sum(batches) == 32
    assert 1 < max(batches) <= 16


def test_overload_is_answered_503_with_a_time_to_come_back() -> None:
    bundle, image = drawn_bundle(), drawn("Hats", "red")
    with listening(bundle, max_searches=4, num_threads=2) as port:
        with all_wait(bundle, port, [image] * 4) as taken:
            refused = search(port, image)
            page = ask(port, "POST", "/", form([], image), {**FORM, "accept": "text/html"})
            assert ask(port, "GET", "/healthz").status == 200  # it is busy, not broken
        assert [one.result(120).status for one in taken] == [200] * 4
        assert search(port, image).status == 200
        metrics = ask(port, "GET", "/metrics").body.decode()
    assert (refused.status, page.status) == (503, 503)
    assert refused.headers["retry-after"] == page.headers["retry-after"] == "1"
    assert refused.json()["type"] == "/docs#problem-overloaded"
    assert b"The server is busy" in page.body
    assert "visual_search_searches_refused_total 2.0" in metrics


def test_a_newer_generation_is_served_soon_and_one_that_cannot_be_opened_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bundle = drawn_bundle()
    manifest = bundle.folder / MANIFEST_FILE
    with client(bundle, refresh_seconds=0.1) as one:

        def has_failed_twice() -> bool:
            return 'refresh_failures_total{bundle="drawn"} 2.0' in one.get("/metrics").text

        kept = manifest.read_text()
        manifest.write_text("{")
        wait_until(has_failed_twice)
        answer = one.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
        assert one.post("/api/search", data={"item": "p7"}).status_code == 200
        manifest.write_text(kept)
        remove_items(bundle.folder, ["p7"])
        wait_until(lambda: one.get("/api/items/p7").status_code == 404)
        health = one.get("/healthz").json()["bundles"]["drawn"]
        assert health == {"is_healthy": True, "generation": 2, "num_items": 47}
        assert 'visual_search_generation{bundle="drawn"} 2.0' in one.get("/metrics").text
    assert caplog.text.count(MANIFEST_FILE) == 1, "the same failure is told once"


def test_a_newer_encoder_is_used_with_its_own_embeddings() -> None:
    bundle, newer = drawn_bundle(), drawn_bundle(num_items=12)
    encoder: Any = bundle.encoder
    files = {"image": drawn("Bags", "blue")}
    with client(bundle, refresh_seconds=0.05) as one:
        one.post("/api/search", files=files)
        assert encoder.batches == [1, 1]  # at the start, then for the search
        os.rename(bundle.folder, bundle.folder.with_name("old"))
        os.rename(newer.folder, bundle.folder)
        wait_until(lambda: len(one.get("/api/items").json()["items"]) == 12)
        assert one.post("/api/search", files=files).status_code == 200
        assert encoder.batches == [1, 1]
