"""Pictures whose URLs stand in a table: fetched once, politely, and read from then on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.picture_server import PictureServer, jpeg, only_status, picture
from tests.catalog.shops import refuses, saved, zipped
from tests.composing import typed
from visual_search.catalog.readers.table import table
from visual_search.config.builders import build

NUM = 12


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with PictureServer() as running:
        yield running


def shop(folder: Path, server: PictureServer) -> Path:
    """A table with a URL in each row, two in the second; the third is gone, the last is a file."""
    rows = [f"{n};{('Hats', 'Shoes')[n % 2]};{server.url(f'/p/{n}.jpg?v=1')}" for n in range(NUM)]
    rows[1] += f"|{server.url('/p/more.jpg')}"
    rows.append(f"{NUM};Hats;own.jpg")
    for n in range(NUM):
        server.on(f"/p/{n}.jpg?v=1", picture(jpeg(n)))
    server.on("/p/2.jpg?v=1", only_status(404))
    server.on("/p/more.jpg", picture(jpeg(50)))
    saved(folder, {"own.jpg": jpeg(99), "feed.csv": "sku;type;photo\n" + "\n".join(rows)})
    return folder / "feed.csv"


def local(server: PictureServer, **more: object) -> dict[str, Any]:
    hosts = [server.place]
    return {"http_hosts": hosts, "private_hosts": hosts, "requests_per_s": 1000.0, **more}


def test_they_are_fetched_once_and_read_from_then_on(tmp_path: Path, server: PictureServer) -> None:
    path = shop(tmp_path, server)
    seen: list[tuple[int, int]] = []
    download = local(server)
    node = {"_target_": "visual_search.catalog.readers.table.table", "path": str(path)}
    node |= {"download": download, "on_bad_item": "skip_any"}
    catalog = build("data", node, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (NUM + 1, NUM + 1)
    assert catalog.products == ["0", "1", "1", *(str(n) for n in range(3, NUM + 1))]
    assert catalog.source.load(catalog.table["image"][2]) == jpeg(50)
    assert catalog.source.load(catalog.table["image"][1]) == jpeg(1)
    assert all(name.startswith("url_pictures/") for name in catalog.table["image"][:-1])
    (gone,) = catalog.refused
    assert (gone.item_id, "gone, status 404" in gone.reason) == ("2", True)
    told = "\n".join(map(str, catalog.choices))
    assert "12 of 13 pictures" in told
    assert "1 gone" in told
    assert "data.further_pictures=true" in told
    asked = len(server.paths)
    assert asked == NUM + 1
    # neither with the setting nor without is anything asked again
    for again in (download, False):
        named = table(path, on_bad_item="skip_any", download=again, **catalog.settings)
        assert named.fingerprint() == catalog.fingerprint()
        assert [item.item_id for item in named.refused] == ["2"]
    assert len(server.paths) == asked
    path = path.rename(tmp_path / "of_another_day.csv")
    named = table(path, on_bad_item="skip_any", download=download, **catalog.settings)
    assert (named.fingerprint(), len(server.paths)) == (catalog.fingerprint(), asked)
    shutil.rmtree(tmp_path / "url_pictures")
    named = table(path, on_bad_item="skip_any", **catalog.settings)
    assert (len(named), len(named.refused)) == (1, NUM + 1)
    assert "data.download=true" in named.refused[0].reason


def test_what_may_not_be_asked_is_refused_by_its_host(
    tmp_path: Path, server: PictureServer
) -> None:
    path = shop(tmp_path, server)
    catalog = table(path, download=True, on_bad_item="skip_any")
    assert (len(catalog), len(catalog.refused), server.paths) == (1, NUM + 1, [])
    assert f"data.download={{http_hosts: [{server.place}]}}" in catalog.refused[0].reason
    # an address of the own network, where it is named for http alone
    only_http = local(server) | {"private_hosts": []}
    catalog = table(path, download=only_http, on_bad_item="skip_any")
    assert (len(catalog), server.paths) == (1, [])
    catalog = table(path, download=local(server), on_bad_item="skip_any")
    assert len(catalog) == 1  # a refusal holds until it is asked for again
    again = local(server, try_again=["failed", "refused"])
    assert len(table(path, download=again, on_bad_item="skip_any")) == NUM + 1


def test_settings_that_are_none_are_named(tmp_path: Path, server: PictureServer) -> None:
    path = shop(tmp_path, server)
    for download, message in (
        ({"hosts": []}, r"data\.download has the setting\(s\) \['hosts'\]"),
        ({"max_bytes": 0}, "max_bytes is 0"),
        ({"http_hosts": "a.example"}, "is the text 'a.example'"),
    ):
        refuses(ValueError, message, table, path, download=download)
    packed = zipped(tmp_path, tmp_path.parent / f"{tmp_path.name}.zip")
    refuses(ValueError, "unpack the zip", table, packed, download=True)
    catalog = table(packed, on_bad_item="skip_any")
    assert (len(catalog), "unpack the zip" in catalog.refused[0].reason) == (1, True)
    overrides = [
        "data=table",
        f"data.path={path}",
        f"data.download={{http_hosts: [{server.place}]}}",
    ]
    assert typed("train", *overrides).data["download"] == {"http_hosts": [server.place]}


def test_a_url_without_its_scheme_is_one(tmp_path: Path) -> None:
    rows = "".join(f"{n},{('Hats', 'Shoes')[n % 2]},//cdn.example/{n}.jpg\n" for n in range(8))
    saved(tmp_path, {"feed.csv": "sku,type,photo\n" + rows})
    refuses(
        ValueError, r"//cdn\.example.*is a URL.*data\.download=true", table, tmp_path / "feed.csv"
    )
