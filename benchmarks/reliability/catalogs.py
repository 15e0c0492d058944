"""Catalogues and embeddings that were made to do harm."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.serving.drawn_bundle import COLOURS, SHAPES, drawn

HEAD = "item_id,image,category,note\n"
BOMB = 3 * 2**30  # bytes, of zeros


@dataclass(frozen=True)
class Given:
    """Something to open.

    Attributes:
        kind: Of the table's row.
        name: What is wrong with it.
        how: A name of `opening.WAYS`.
        path: Where it lies.
        more: Further arguments of the way.
    """

    kind: str
    name: str
    how: str
    path: Path
    more: dict[str, Any] = field(default_factory=dict)


def lines(number: int = 12, note: str = "plain") -> str:
    rows = [f"i{n},p/{n}.jpg,{SHAPES[n % 4]},{note}\n" for n in range(number)]
    return HEAD + "".join(rows)


def picture(number: int) -> bytes:
    return drawn(SHAPES[number % 4], list(COLOURS)[number % 6], shift=number, side=48)


def with_pictures(folder: Path) -> Path:
    (folder / "p").mkdir(parents=True)
    for n in range(12):
        (folder / "p" / f"{n}.jpg").write_bytes(picture(n))
    return folder


def hostile_catalogs(place: Path) -> Iterator[Given]:
    """Returns tables, Parquet files, zips, tars and folders, each with one thing wrong."""
    yield from _tables(place / "tables")
    yield from _parquets(place / "parquets")
    yield from _zips(place / "zips")
    yield from _tars(place / "tars")
    yield from _folders(place / "folders")


def _tables(place: Path) -> Iterator[Given]:
    text = lines()
    bodies = {
        "a quote that is never closed": text.replace("plain", '"plain', 1).encode(),
        "a quote that swallows rows": text.replace("plain", '"plain', 1).encode() + b'x,y,z,"\n',
        "quotes alone": HEAD.encode() + b'"' * 100_000,
        "NUL bytes": text.replace("plain", "a\0b").encode(),
        "an id of NUL": text.replace("i3,", "\0,").encode(),
        "a line of 100 MB": HEAD.encode() + b"x" * 100_000_000,
        "a field of 100 MB in quotes": HEAD.encode() + b'i0,p/0.jpg,Hats,"' + b"x" * 10**8 + b'"\n',
        "100,000 columns": (",".join(f"c{n}" for n in range(100_000)) + "\n" + text).encode(),
        "a million empty lines": HEAD.encode() + b"\n" * 1_000_000 + text.encode(),
        "commas alone": HEAD.encode() + b"," * 3_000_000,
        "no line": b"",
        "a header alone": HEAD.encode(),
        "UTF-16": text.encode("utf-16"),
        "UTF-16 cut within a letter": text.encode("utf-16")[:-1],
        "half a UTF-8 letter": text.encode() + b"i99,p/1.jpg,Caf\xc3",
        "bytes of chance": np.random.default_rng(0).bytes(50_000),
        "the same id in all rows": text.replace("i", "1").encode(),
        "a header twice": HEAD.encode() + text.encode(),
        "paths out of the folder": text.replace("p/", "../../../etc/").encode(),
        "absolute paths": text.replace("p/", "/etc/").encode(),
        "a path of 100,000 letters": text.replace("p/3", "p" * 100_000).encode(),
        "pictures that are the table": text.replace("p/3.jpg", "products.csv").encode(),
        "formulas": text.replace("plain", "=cmd|' /C calc'!A0").encode(),
        "right-to-left and control signs": text.replace("plain", "\u202e\x1b[2Jx\x07").encode(),
        "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "a zip by the name of a CSV": b"PK\x03\x04" + bytes(400),
        "deep JSON": b"[" * 500_000,
    }
    for n, (name, body) in enumerate(bodies.items()):
        path = with_pictures(place / f"{n:02d}") / "products.csv"
        path.write_bytes(body)
        yield Given("catalogue: tables", name, "catalogue", path, {"reader": "table"})
    for name, make in (("a pipe", os.mkfifo), ("a folder of nothing", os.mkdir)):
        path = with_pictures(place / name.replace(" ", "-")) / "products.csv"
        make(path)
        yield Given("catalogue: tables", name, "catalogue", path, {"reader": "table"})


def _parquets(place: Path) -> Iterator[Given]:
    texts = {
        "item_id": [f"i{n}" for n in range(12)],
        "image": [f"p/{n}.jpg" for n in range(12)],
        "category": [SHAPES[n % 4] for n in range(12)],
    }
    rows = 200
    many = {k: [f"{v[0]}{n}" for n in range(rows)] for k, v in texts.items()}
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 20_000_000])
    nested = pa.array([[[[1]]]] * 12)
    tables = {
        "one text of 20 MB in 200 rows": pa.table(many | {"note": shared}),
        "one category of 20 MB in 200 rows": pa.table({**many, "category": shared}),
        "one id of 20 MB in 200 rows": pa.table({**many, "item_id": shared}),
        "ids that are lists": pa.table({**texts, "item_id": nested}),
        "a category of bytes": pa.table({**texts, "category": [b"\xff\xfe"] * 12}),
        "nulls alone": pa.table({k: pa.nulls(12) for k in texts}),
        "pictures that are numbers": pa.table({**texts, "image": list(range(12))}),
        "times and decimals": pa.table({**texts, "when": pa.array(range(12), pa.timestamp("ns"))}),
        "3,000 columns": pa.table(texts | {f"c{n}": ["x"] * 12 for n in range(3_000)}),
        "no row": pa.table({k: pa.array([], pa.string()) for k in texts}),
    }
    for n, (name, table) in enumerate(tables.items()):
        path = with_pictures(place / f"{n:02d}") / "products.parquet"
        pq.write_table(table, path, compression="zstd")
        yield Given("catalogue: Parquet", name, "catalogue", path, {"reader": "table"})
    whole = io.BytesIO()
    pictures = pa.array([{"bytes": picture(n), "path": f"{n}.jpg"} for n in range(12)])
    pq.write_table(pa.table({"image": pictures, "label": texts["category"]}), whole)
    data = whole.getvalue()
    rng = np.random.default_rng(0)
    damaged = {"cut in half": data[: len(data) // 2], "its last bytes alone": data[-200:]}
    for n in range(24):
        changed = bytearray(data)
        end = len(data) if n % 2 else 600  # the footer, where the lengths stand, or anywhere
        for at in rng.integers(1, end, 1 + n % 4):
            changed[-int(at)] ^= int(rng.integers(1, 256))
        damaged[f"bytes changed, {n}"] = bytes(changed)
    for n, (name, body) in enumerate(damaged.items()):
        path = place / f"pictures-{n:02d}.parquet"
        path.write_bytes(body)
        yield Given("catalogue: Parquet", name, "catalogue", path, {"reader": "parquet"})


def _zips(place: Path) -> Iterator[Given]:
    place.mkdir(parents=True)

    def zipped(name: str, table: str = lines(), **more: bytes | str) -> Path:
        path = place / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("products.csv", table)
            for n in range(12):
                archive.writestr(f"p/{n}.jpg", picture(n))
            for member, body in more.items():
                archive.writestr(member, body)
        return path

    whole = zipped("whole.zip").read_bytes()
    paths = {
        "paths out of the zip": zipped("out.zip", **{"../../evil.txt": b"x", "/etc/evil": b"x"}),
        "names of NUL and signs": zipped("names.zip", **{"a\\..\\b.jpg": b"x", "\x1b[2J": b"x"}),
        "a zip in a zip": zipped("nested.zip", **{"inner.zip": whole}),
        "no picture there": zipped("none.zip", table=lines().replace("p/", "q/")),
        "two tables": zipped("tables.zip", **{"more.csv": lines()}),
    }
    bomb = place / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("products.csv", "p/0.jpg"):
            with archive.open(name, "w", force_zip64=True) as member:
                for _ in range(BOMB // 2**26):
                    member.write(bytes(2**26))
    paths["a table of 3 GiB of zeros"] = bomb
    big = place / "picture-bomb.zip"
    with zipfile.ZipFile(big, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("products.csv", lines())
        for n in range(12):
            with archive.open(f"p/{n}.jpg", "w", force_zip64=True) as member:
                member.write(picture(n))
                for _ in range(BOMB // 2**26 if n == 3 else 0):
                    member.write(bytes(2**26))
    paths["a picture of 3 GiB of zeros"] = big
    for name, path in paths.items():
        yield Given("catalogue: zips and tars", name, "catalogue", path, {"reader": "table"})
    rng = np.random.default_rng(1)
    for n in range(20):
        changed = bytearray(whole)
        end = len(whole) if n % 2 else 900  # the list of members lies at the end
        for at in rng.integers(1, end, 1 + n % 4):
            changed[-int(at)] ^= int(rng.integers(1, 256))
        path = place / f"changed-{n}.zip"
        path.write_bytes(bytes(changed) if n else whole[: len(whole) // 2])
        name = f"bytes changed, {n}" if n else "cut in half"
        yield Given("catalogue: zips and tars", name, "catalogue", path, {"reader": "table"})


def _tars(place: Path) -> Iterator[Given]:
    place.mkdir(parents=True)

    def tarred(name: str, *more: tuple[tarfile.TarInfo, bytes], sparse: int = 0) -> Path:
        path = place / name
        with tarfile.open(path, "w") as archive:
            for n in range(12):
                for suffix, body in (("jpg", picture(n)), ("cls", SHAPES[n % 4].encode())):
                    info = tarfile.TarInfo(f"{n:04d}.{suffix}")
                    info.size = len(body)
                    archive.addfile(info, io.BytesIO(body))
            for info, body in more:
                info.size = len(body) if info.isreg() else 0
                archive.addfile(info, io.BytesIO(body))
        if sparse:
            os.truncate(path, sparse)
        return path

    def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        return info

    whole = tarred("whole.tar").read_bytes()
    large = tarfile.TarInfo("0099.jpg")
    large.size = 8 * 2**30  # says so, and has nothing
    said = place / "large.tar"
    said.write_bytes(whole.rstrip(b"\0").ljust(len(whole) // 512 * 512, b"\0")[:-10240])
    with said.open("ab") as file:
        file.write(large.tobuf())
    paths = {
        "paths out of the tar": tarred("out.tar", (member("../../evil.jpg"), picture(0))),
        "a link to a file of the system": tarred(
            "link.tar", (member("0099.jpg", tarfile.SYMTYPE, "/etc/hostname"), b"")
        ),
        "a device": tarred("device.tar", (member("0099.jpg", tarfile.CHRTYPE), b"")),
        "a pipe": tarred("pipe.tar", (member("0099.jpg", tarfile.FIFOTYPE), b"")),
        "deep JSON beside a picture": tarred("json.tar", (member("0001.json"), b"[" * 300_000)),
        "a category of 50 MB": tarred(
            "category.tar", (member("0099.jpg"), picture(0)), (member("0099.cls"), b"x" * 5 * 10**7)
        ),
        "a member that says 8 GiB": said,
        "4 GiB of nothing behind it": tarred("sparse.tar", sparse=4 * 2**30),
    }
    for name, path in paths.items():
        yield Given("catalogue: zips and tars", name, "catalogue", path, {"reader": "webdataset"})
    rng = np.random.default_rng(2)
    for n in range(16):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole) if n % 2 else 1024, 1 + n % 4):
            changed[int(at)] ^= int(rng.integers(1, 256))
        path = place / f"changed-{n}.tar"
        path.write_bytes(bytes(changed) if n else whole[: len(whole) // 2 + 100])
        name = f"bytes changed, {n}" if n else "cut in half"
        more = {"reader": "webdataset"}
        yield Given("catalogue: zips and tars", f"tar: {name}", "catalogue", path, more)


def _folders(place: Path) -> Iterator[Given]:
    def made(name: str) -> Path:
        root = place / name
        for n in range(12):
            path = root / SHAPES[n % 4] / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(n))
        return root

    pipe = made("pipe")
    os.mkfifo(pipe / "Hats" / "99.jpg")
    yield Given("catalogue: folders", "a pipe", "catalogue", pipe, {"reader": "folder"})
    loop = made("loop")
    (loop / "Hats" / "99.jpg").symlink_to("99.jpg")
    (loop / "Hats" / "again").symlink_to("..")
    yield Given("catalogue: folders", "links to itself", "catalogue", loop, {"reader": "folder"})
    out = made("out")
    (out / "Hats" / "99.jpg").symlink_to("/etc/hostname")
    (out / "Socks").symlink_to("/etc")
    yield Given("catalogue: folders", "links out of it", "catalogue", out, {"reader": "folder"})
    names = made("names")
    for name in (b"\xff\xfe.jpg", b"a\nb.jpg", b"\x1b[2J.jpg", b"x" * 240 + b".jpg"):
        Path(os.fsdecode(os.fsencode(names / "Hats") + b"/" + name)).write_bytes(picture(1))
    yield Given("catalogue: folders", "odd names", "catalogue", names, {"reader": "folder"})
    sparse = made("sparse")
    os.truncate(sparse / SHAPES[3] / "3.jpg", 8 * 2**30)
    yield Given(
        "catalogue: folders", "a picture of 8 GiB", "catalogue", sparse, {"reader": "folder"}
    )
    deep = made("deep")
    level = deep / "Hats"
    for _ in range(300):
        level /= "deeper"
    os.makedirs(level)
    (level / "99.jpg").write_bytes(picture(1))
    yield Given("catalogue: folders", "300 folders deep", "catalogue", deep, {"reader": "folder"})


def hostile_embeddings(place: Path) -> Iterator[Given]:
    """Returns embeddings from outside, each with one thing wrong."""
    place.mkdir(parents=True)
    ids = place / "ids.txt"
    ids.write_text("".join(f"i{n}\n" for n in range(12)))
    values = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)

    def npy(array: Any, **more: Any) -> bytes:
        file = io.BytesIO()
        np.save(file, array, **more)
        return file.getvalue()

    whole = npy(values)
    holes = values.copy()
    holes[3, 3] = np.nan
    bodies = {
        "cut in half": whole[: len(whole) // 2],
        "emptied": b"",
        "objects": npy(np.array([{}]), allow_pickle=True),
        "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "not a number": npy(holes),
        "endless": npy(np.full((12, 8), np.inf)),
        "text": npy(values.astype(str)),
        "whole numbers": npy((values * 10).astype(np.int64)),
        "one dimension": npy(values.ravel()),
        "three dimensions": npy(values[:, :, None]),
        "a row more than ids": npy(np.vstack([values, values[:1]])),
        "says it has a billion rows": whole.replace(b"(12, 8)", b"(10**9,8)"),
        "says it has 10^12 numbers": whole.replace(b"(12, 8), }        ", b"(1000000000, 8), }"),
        "a header of brackets": whole.replace(b"(12, 8)", b"((((((("),
        "a header that calls": whole.replace(b"(12, 8)", b"exit(3)"),
        "the largest numbers": npy(np.full((12, 8), 3e38, np.float32)),
    }
    for n, (name, body) in enumerate(bodies.items()):
        path = place / f"{n:02d}.npy"
        path.write_bytes(body)
        more = {"ids": str(ids)}
        yield Given("embeddings and shards", name, "embeddings", path, more)
    odd = {
        "ids twice": "i0\n" * 12, "no ids": "", "ids of NUL": "a\0\n" * 12,
        "a line of 50 MB": "x" * 50_000_000,
    }  # fmt: skip
    for n, (name, text) in enumerate(odd.items()):
        path = place / f"ids-{n}.npy"
        path.write_bytes(whole)
        path.with_suffix(".txt").write_text(text)
        more = {"ids": str(path.with_suffix(".txt"))}
        yield Given("embeddings and shards", name, "embeddings", path, more)
    lists = pa.array([list(map(float, row)) for row in values])
    ragged = pa.array([[1.0] * (1 + n % 3) for n in range(12)])
    names = [f"i{n}" for n in range(12)]
    tables = {
        "lists of other lengths": {"item_id": names, "embedding": ragged},
        "texts as embeddings": {"item_id": names, "embedding": names},
        "the same id twice": {"item_id": ["i"] * 12, "embedding": lists},
        "no id": {"embedding": lists},
    }
    for n, (name, columns) in enumerate(tables.items()):
        path = place / f"table-{n}.parquet"
        pq.write_table(pa.table(columns), path)
        yield Given("embeddings and shards", name, "embeddings", path)
