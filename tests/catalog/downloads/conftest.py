"""The server that the tests of downloads ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalog.picture_server import PictureServer


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with PictureServer() as running:
        yield running
