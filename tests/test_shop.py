"""docs/shop.md, typed: from a shop's export to a served search by the commands that are printed."""

from __future__ import annotations

import contextlib
import html
import json
import re
import shlex
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processes import Command

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
