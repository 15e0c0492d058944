"""The server that the tests of downloads ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog.picture_server import PictureServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PictureServer]:
    """What is downloaded goes to ``server.folder``, the test's own."""
    with PictureServer(tmp_path) as running:
        yield running
