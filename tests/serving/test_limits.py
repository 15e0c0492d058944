from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import GridEncoder, drawn, drawn_bundle
from tests.serving.running import ALLOWED, FORM, TOKEN, client
from visual_search.bundle import indexing
from visual_search.catalog.images import PictureLimits
from visual_search.serving import searching

LIMIT = 100_000
MEGABYTE = 2**20


def test_a_picture_of_the_largest_size_passes_and_a_larger_one_does_not(
    writer: TestClient,
) -> None:
    image = drawn("Hats", "red")
    exact = image + bytes(LIMIT - len(image))  # JPEG readers stop at its end
    assert writer.post("/api/search", files={"image": exact}).status_code == 200
    answer = writer.post("/api/search", files={"image": exact + b"x"})
    assert answer.status_code == 413
    assert "has 100,001 bytes; expected at most 100,000" in answer.json()["detail"]
    announced = writer.post("/api/search", content=bytes(3 * MEGABYTE), headers=FORM)
    assert announced.status_code == 413
    assert "has 3,145,728 bytes or more" in announced.json()["detail"], "it was not read"


class Crowded(GridEncoder):
    """An encoder beside which other pictures take all pixels, as long as its gate is closed."""

    def decode(self, data: bytes, limits: PictureLimits) -> NDArray[np.uint8]:
        if self.gate is None:
            return super().decode(data, limits)
        with limits.budget.share(limits.budget.total_px):
            return super().decode(data, limits)


def test_a_picture_that_finds_no_room_is_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searching, "PIXELS_PATIENCE_S", 0.05)
    monkeypatch.setattr(indexing, "make_encoder", Crowded)
    bundle, files = drawn_bundle(), {"image": drawn("Hats", "red")}
    items = {"items": '[{"item_id": "new", "category": "Hats"}]'}
    with client(bundle, write_token=TOKEN) as one:
        assert one.post("/api/search", files=files).status_code == 200
        bundle.encoder.gate = threading.Event()  # type: ignore[attr-defined]
        answers = [
            one.post("/api/search", files=files),
            one.post("/api/items", files=files, data=items, headers=ALLOWED),
        ]
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "64,000,000 pixels" in answer.json()["detail"]
