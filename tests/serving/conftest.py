from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import GridEncoder, drawn_bundle
from tests.serving.running import TOKEN, client
from visual_search.bundle import indexing


@pytest.fixture(scope="package", autouse=True)
def real_encoder() -> Iterator[object]:
    """Puts `GridEncoder` in the place of encoders, and gives what makes these."""
    with pytest.MonkeyPatch.context() as patch:
        real = indexing.make_encoder
        patch.setattr(indexing, "make_encoder", GridEncoder)
        yield real


@pytest.fixture(scope="package")
def one() -> Iterator[TestClient]:
    """A client of a bundle with an item whose texts are HTML; nothing changes it."""
    with client(drawn_bundle(evil=True), max_pixels=1_000_000) as found:
        yield found


@pytest.fixture(scope="package")
def writer() -> Iterator[TestClient]:
    """A client that may write, had it the token."""
    with client(write_token=TOKEN, max_upload_bytes=100_000) as found:
        yield found
