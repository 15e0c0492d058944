from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.drawn_bundle import (
    COLOURS,
    SHAPES,
    DrawnBundle,
    GridEncoder,
    drawn,
    drawn_bundle,
    next_generation,
)
from tests.serving.running import FORM, ask, client, form, listening, wait_until

NUM_CLIENTS = 32


def different_pictures() -> list[bytes]:
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    return [drawn(*kinds[n % len(kinds)], shift=n) for n in range(NUM_CLIENTS)]


def test_nothing_is_lost_or_mixed_up_among_32_clients() -> None:
    encoder = GridEncoder(seconds=0.01)
    bundle = drawn_bundle(encoder=encoder)
    pictures = different_pictures()
    assert len(set(pictures)) == NUM_CLIENTS
    with listening(bundle) as port:

        def search(image: bytes) -> Any:
            answer = ask(port, "POST", "/api/search", form([("k", "10")], image), FORM)
            assert answer.status == 200
            return [(hit["item_id"], hit["squared_distance"]) for hit in answer.json()["hits"]]

        alone = [search(image) for image in pictures]
        assert max(encoder.batches) == 1
        encoder.batches.clear()
        encoder.gate = threading.Event()  # until several wait for it, however slowly they come

        def four_times(image: bytes) -> list[Any]:
            return [search(image) for _ in range(4)]

        with ThreadPoolExecutor(NUM_CLIENTS) as threads:
            asked = [threads.submit(four_times, image) for image in pictures]
            running = f"visual_search_searches_running {NUM_CLIENTS}.0"
            wait_until(lambda: running in ask(port, "GET", "/metrics").body.decode())
            encoder.gate.set()
            answers = [one.result(120) for one in asked]
    assert len({str(one) for one in alone}) == NUM_CLIENTS  # each has an answer of its own
    for expected, got in zip(alone, answers, strict=True):
        assert got == [expected] * 4
    assert sum(encoder.batches) == 4 * NUM_CLIENTS
    assert 1 < max(encoder.batches) <= 16


def test_overload_is_answered_503_with_a_time_to_come_back() -> None:
    encoder = GridEncoder()
    bundle, image = drawn_bundle(encoder=encoder), drawn("Hats", "red")
    with listening(bundle, max_searches=4, num_threads=2) as port:
        encoder.gate = threading.Event()
        encoder.entered.clear()
        with ThreadPoolExecutor(4) as threads:
            taken = [threads.submit(ask, port, "POST", "/api/search", form([], image), FORM)
                     for _ in range(4)]  # fmt: skip
            running = "visual_search_searches_running 4.0"
            wait_until(lambda: running in ask(port, "GET", "/metrics").body.decode())
            refused = ask(port, "POST", "/api/search", form([], image), FORM)
            page = ask(port, "POST", "/", form([], image), {**FORM, "accept": "text/html"})
            assert ask(port, "GET", "/healthz").status == 200  # it is busy, not broken
            encoder.gate.set()
            assert [one.result(120).status for one in taken] == [200] * 4
        assert ask(port, "POST", "/api/search", form([], image), FORM).status == 200
        metrics = ask(port, "GET", "/metrics").body.decode()
    assert (refused.status, page.status) == (503, 503)
    assert refused.headers["retry-after"] == page.headers["retry-after"] == "1"
    assert refused.json()["type"] == "/docs#problem-overloaded"
    assert b"The server is busy" in page.body
    assert "visual_search_searches_refused_total 2.0" in metrics


def test_a_newer_generation_of_another_writer_is_served_soon() -> None:
    bundle = drawn_bundle()
    with client(bundle, refresh_seconds=0.05) as one:
        assert one.get("/api/items/p7").status_code == 200
        bundle.newer = lambda: next_generation(bundle, without="p7")
        wait_until(lambda: one.get("/api/items/p7").status_code == 404)
        health = one.get("/healthz").json()["bundles"]["drawn"]
        assert health == {"is_healthy": True, "generation": 2, "num_items": 47}
        assert 'visual_search_generation{bundle="drawn"} 2.0' in one.get("/metrics").text


def test_a_generation_that_cannot_be_opened_leaves_the_old_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bundle = drawn_bundle()
    attempts = []

    def damaged() -> DrawnBundle:
        attempts.append(1)
        if len(attempts) < 4:
            raise ValueError("embeddings.npy is damaged")
        return next_generation(bundle, without="p7")

    with client(bundle, refresh_seconds=0.05) as one:
        bundle.newer = damaged
        wait_until(lambda: one.get("/healthz").status_code == 503)
        assert one.get("/healthz").json()["status"] == "failing"
        assert one.post("/api/search", data={"item": "p7"}).status_code == 200
        wait_until(lambda: one.get("/healthz").status_code == 200)
        assert 'refresh_failures_total{bundle="drawn"} 3.0' in one.get("/metrics").text
    assert caplog.text.count("embeddings.npy is damaged") == 1


def test_a_newer_encoder_is_used_with_its_own_embeddings() -> None:
    bundle = drawn_bundle()
    newer = drawn_bundle(encoder=GridEncoder(), num_items=12)
    image = drawn("Bags", "blue")
    with client(bundle, refresh_seconds=0.05) as one:
        one.post("/api/search", files={"image": image})
        assert bundle.encoder.batches == [1, 1]  # at the start, then for the search
        bundle.newer = lambda: newer
        wait_until(lambda: len(one.get("/api/items").json()["items"]) == 12)
        assert one.post("/api/search", files={"image": image}).status_code == 200
        assert bundle.encoder.batches == [1, 1]
        assert newer.encoder.batches == [1]
