"""docs/shop.md, typed: from a shop's export to a served search by the commands that are printed."""

from __future__ import annotations

import contextlib
import csv
import html
import json
import re
import shlex
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.composing import typed
from tests.processes import Command
from visual_search.check import main as check
from visual_search.runs.parts import Parts

PAGE = Path(__file__).parents[1] / "docs" / "shop.md"
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
KINDS = ("Shoes", "Bags", "Hats", "Coats")
QUICK = {
    "check": ["pictures.size_px=32", "pictures.cache_dir=cache"],
    "train": ["budget=smoke", "model.name=test_resnet", "model.weights=null",
              "model.embedding_dim=16",
              "pictures.size_px=32", "pictures.cache_dir=cache", "callbacks=none",
              "near_duplicates=false", "trainer.accelerator=cpu"],
    "export": ["items=all", "pictures.cache_dir=cache"],
    "search": [],
    "serve": [f"port={PORT}"],
}  # fmt: skip


def lines(text: str) -> list[str]:
    """The commands that stand by themselves on a line."""
    found = [line.strip() for line in text.splitlines()]
    return [line for line in found if line.startswith("python -m visual_search.")]


def shop(folder: Path) -> None:
    """Sixty products with one to three pictures, in a cell with | between them, as shops write."""
    (folder / "photos").mkdir()
    rows = ["SKU;Title;Type;Price;Pictures"]
    for number in range(60):
        kind, names = KINDS[number % 4], []
        rng = np.random.default_rng(number)
        for view in range(1 + number % 3):
            names.append(f"photos/{number:03d}_{view}.JPG")
            pixels = rng.integers(0, 60, (40, 40, 3)) + 45 * (number % 4)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / names[-1])
        rows.append(
            f"{number:03d};{kind} {number};Women > Clothing > {kind};{number},90;{'|'.join(names)}"
        )
    (folder / "export.csv").write_text("\n".join(rows) + "\n")


def check_products(run: Path, said: str) -> None:
    """Looks for the number over products, the run's and every floor's, wherever numbers stand."""
    summary = json.loads((run / "metrics" / "summary.json").read_text())
    products = summary["products"]
    names = [floor["name"] for floor in products["floors"]]
    assert names == [floor["name"] for floor in summary["floors"]]
    assert all(0 < floor["micro"] <= 1 for floor in products["floors"])
    printed = " ".join(said.split())
    assert f"{products['title']} {products['mean']:.3f} [" in printed
    assert products["standing"] in printed
    page = (run / "report.html").read_text()
    assert html.escape(products["standing"]) in page
    for floor in products["floors"]:
        assert f"{floor['micro']:.3f}" in said
        assert f"{floor['micro']:.3f}" in page


def opened(url: str, process: Command) -> Any:
    """Asks a server once it answers."""
    for _ in range(2_000):
        with contextlib.suppress(urllib.error.URLError):
            return urllib.request.urlopen(url, timeout=60)
        assert process.is_running(), process.said("err")
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


def inputs(folder: Path) -> dict[str, bool]:
    """Writes 24 products in all the ways of `docs/shop.md`: name -> whether with all pictures."""
    fields = ("SKU", "Title", "Type", "Price", "Pictures")
    rows, tree = [], folder / "tree"
    for number in range(24):
        kind, names = KINDS[number % 4], []
        for view in range(1 + number % 3):
            names.append(f"photos/{number:03d}_{view}.jpg")
            pixels = np.random.default_rng([number, view]).integers(0, 255, (24, 24, 3))
            for path in (folder / names[-1], tree / kind / f"P{number}" / f"{view}.jpg"):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
        title = f"Jäckchen, „neu“: {number} €"
        rows.append((f"A{number:03d}", title, kind, f"{number},90", names))

    def text(name: str, lines: Iterable[Sequence[str]], sep: str, **more: str) -> None:
        with (folder / name).open("w", newline="", encoding=more.get("encoding", "utf-8")) as file:
            file.write(more.get("head", ""))
            csv.writer(file, delimiter=sep).writerows(lines)

    cells = [(*row, "|".join(names)) for *row, names in rows]
    singles = [fields, *((*row, names[0]) for *row, names in rows)]
    text("cell.csv", [fields, *cells], ";")
    text("pipe.csv", singles, "|")
    text("excel.csv", singles, ";", head="sep=;\n")
    text("titled.csv", singles, ",", head="Export of the summer collection\n")
    text("windows.csv", singles, ";", encoding="cp1252")
    text("tabs.txt", singles, "\t", encoding="utf-8-sig")
    text("comma.csv", [[one.replace("Price", "Price, EUR") for one in singles[0]], *singles[1:]],
         ";")  # fmt: skip
    numbered = [[*row, *names, *[""] * (3 - len(names))] for *row, names in rows]
    text("numbered.csv", [[*fields[:4], "image_1", "image_2", "image_3"], *numbered], ",")
    text("rows.csv", [fields, *([*row, name] for *row, names in rows for name in names)], ",")
    lines = [json.dumps(dict(zip(fields, row, strict=True))) for row in rows]
    (folder / "export.jsonl").write_text("\n".join(lines) + "\n")
    head = ("Handle", "Title", "Body (HTML)", "Vendor", "Type", "Tags", "Variant SKU", "Image Src",
            "Image Position")  # fmt: skip
    shopify = [
        [f"handle-{sku}", *([title, "", "Acme", kind, "a, b", sku] if at == 0 else [""] * 6), name,
         str(at + 1)]
        for sku, title, kind, _, names in rows
        for at, name in enumerate(names)
    ]  # fmt: skip
    text("shopify.csv", [head, *shopify], ",")
    head = ("id", "title", "product_type", "price", "image_link", "additional_image_link")
    feed = [(*row, names[0], ",".join(names[1:])) for *row, names in rows]
    text("merchant.tsv", [head, *feed], "\t")
    items = ["".join(f"<g:{one}>{html.escape(value)}</g:{one}>"
                     for one, value in zip(head, row, strict=True) if value)
             for row in feed]  # fmt: skip
    (folder / "merchant.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<rss '
        'xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel>'
        + "".join(f"<item>{item}</item>" for item in items)
        + "</channel></rss>\n"
    )
    one_each = ("pipe.csv", "excel.csv", "titled.csv", "windows.csv", "tabs.txt", "comma.csv")
    several = ("cell.csv", "numbered.csv", "rows.csv", "export.jsonl", "shopify.csv",
               "merchant.tsv", "merchant.xml", "tree")  # fmt: skip
    return dict.fromkeys(one_each, False) | dict.fromkeys(several, True)


@pytest.mark.slow
def test_check_prints_what_reads_every_input_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, several in inputs(tmp_path).items():
        data = ["data=table", f"data.path={name}"]
        if name == "tree":
            data = ["data=folder", f"data.root={name}"]
        monkeypatch.setattr(sys, "argv", ["check", *data, *QUICK["check"]])
        with pytest.raises(SystemExit):  # so few items can tell next to nothing
            check()
        printed = lines(capsys.readouterr().out)
        assert printed, name
        asked = typed("train", *shlex.split(printed[0])[3:])
        catalog = Parts(asked).whole
        assert (len(catalog), catalog.categories) == (48 if several else 24, sorted(KINDS)), name
        assert len(set(catalog.products or catalog.table["item_id"])) == 24, name
        assert not catalog.settings, name  # all of it is named
        assert (catalog.products is not None) == several, name
        if name not in ("tree", "shopify.csv"):
            titles = catalog.table["Title" if "Title" in catalog.attributes else "title"]
            assert titles[0] == "Jäckchen, „neu“: 0 €", name


@pytest.mark.slow
def test_every_command_of_the_page_is_what_the_one_before_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shop(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    typed = [line for block in blocks for line in lines(block)]
    assert [line.split()[2].rpartition(".")[2] for line in typed] == list(QUICK)
    printed = [typed[0]]
    run = ""
    for line in typed:
        if run:
            line = re.sub(r"outputs/best_pretrained/\w+", run, line)
        words = set(shlex.split(line))
        assert words in [set(shlex.split(one)) - set(QUICK["check"]) for one in printed], printed
        command, *arguments = shlex.split(line)[2:]
        name = command.rpartition(".")[2]
        process = Command(name, [*arguments, *QUICK[name]])
        if name == "serve":
            break
        status, said, errors = process.end()
        assert status == (1 if name == "check" else 0), errors
        printed += lines(said)
        if name == "train":
            (run,) = re.findall(r"run=(outputs/best_pretrained/\w+)", said)
            check_products(Path(run), said)
        if name == "export":
            assert "| mAP@5 over products |" in Path("shop/model_card.md").read_text()
    try:
        with opened(f"http://127.0.0.1:{PORT}/api/items?limit=3", process) as answer:
            assert len(json.load(answer)["items"]) == 3
        process.send(signal.SIGTERM)
        process.end()
    finally:
        if process.is_running():
            process.send(signal.SIGKILL)
