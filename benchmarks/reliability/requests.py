"""Many requests at once beside writers: each answer right, and the bundle whole at the end."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.reliability.servers import BEARER, Answer, Client, RunningServer, server
from benchmarks.serve import in_ms
from tests.serving.drawn_bundle import COLOURS, SHAPES, drawn, write_bundle
from tests.serving.running import FORM, form
from visual_search.bundle.bundle import Bundle

IN_FLIGHT = 32
NUM_WRITERS = 2
NUM_ITEMS = 96  # that stay: four shapes in six colours, four of each
K = 12
OF_A_COLOUR = NUM_ITEMS // len(COLOURS)
MAX_LOSSES = 100  # that are written down one by one


class Writers:
    """Adds and removes items of its own all the time; knows what is so for certain.

    Attributes:
        num_writes: Changes that were made.
        losses: What was answered wrongly.
    """

    def __init__(self, running: RunningServer) -> None:
        self._running, self._stop = running, threading.Event()
        self.num_writes = 0
        self.losses: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._gone: set[str] = set()

    def known(self) -> tuple[frozenset[str], frozenset[str]]:
        """Returns ids that are there and ids that are gone, before a request begins."""
        with self._lock:
            return frozenset(self._there), frozenset(self._gone)

    def stop(self) -> None:
        """Lets each writer finish what it is at."""
        self._stop.set()

    def write(self, number: int) -> None:
        """Adds items, and removes one that was added before for each beyond six."""
        client, own, n = Client(self._running.address), list[str](), 0
        while not self._stop.is_set():
            n += 1
            item_id = f"writer {number}/{n}"
            texts = {"item_id": item_id, "category": "Hats", "colour": "red"}
            picture = drawn("Hats", "red", shift=n % 50)
            body = form([("items", json.dumps([texts]))], picture)
            if self._made(client.ask("POST", "/api/items", body, FORM | BEARER), 201, item_id):
                own.append(item_id)
                with self._lock:
                    self._there.add(item_id)
            if len(own) > 6:
                item_id = own.pop(0)
                with self._lock:
                    self._there.discard(item_id)  # from now on it may be gone
                path = f"/api/items/{quote(item_id, safe='')}"
                if self._made(client.ask("DELETE", path, headers=BEARER), 200, item_id):
                    with self._lock:
                        self._gone.add(item_id)

    def _made(self, answer: Answer, status: int, item_id: str) -> bool:
        with self._lock:
            self.num_writes += 1
            if answer.status != status:
                seen = f"{answer.status}: {answer.body[:300]!r}"
                self.losses.append({"point": f"a write of {item_id}", "seen": seen})
        return answer.status == status


class Asker:
    """Asks one thing after the other, each for another reason, and looks at the answers."""

    def __init__(self, running: RunningServer, writers: Writers, seed: int) -> None:
        self._running, self._writers, self._seed = running, writers, seed
        self._clients = threading.local()
        self._kinds: tuple[Callable[[Client, random.Random], str], ...] = (
            self.by_picture, self.by_item, self.filtered, self.page_of_items, self.thumbnail,
            self.page, self.healthy, self.by_picture_filtered,
        )  # fmt: skip

    def ask(self, number: int) -> tuple[str, str, float]:
        """Returns the kind of the request, what was wrong with its answer, and its seconds."""
        if not hasattr(self._clients, "one"):
            self._clients.one = Client(self._running.address)
        kind = self._kinds[number % len(self._kinds)]
        draw = random.Random(f"{self._seed} {number}")
        began = time.perf_counter()
        try:
            wrong = kind(self._clients.one, draw)
        except (ValueError, KeyError, TypeError) as error:
            wrong = f"an answer of another form: {error}"
        return kind.__name__, wrong, time.perf_counter() - began

    def by_picture(self, client: Client, draw: random.Random) -> str:
        """Finds k items like a picture."""
        _, gone = self._writers.known()
        return hits(client.search(picture(draw), k=str(K)), K, gone)

    def by_item(self, client: Client, draw: random.Random) -> str:
        """Finds k items like another, without itself."""
        _, gone = self._writers.known()
        item_id = f"p{draw.randrange(NUM_ITEMS)}"
        return hits(client.search(item=item_id, k=str(K)), K, gone | {item_id})

    def filtered(self, client: Client, draw: random.Random) -> str:
        """The colours that nobody writes have as many items as they had."""
        item_id, colour = f"p{draw.randrange(NUM_ITEMS)}", draw.choice(["blue", "sand"])
        _, gone = self._writers.known()
        answer = client.search(item=item_id, k="100", where=f"colour:{colour}")
        own = list(COLOURS)[int(item_id[1:]) // 4 % len(COLOURS)] == colour
        wanted = OF_A_COLOUR - own
        wrong = hits(answer, wanted, gone | {item_id})
        if not wrong and len(answer.json()["hits"]) != wanted:
            return f"{len(answer.json()['hits'])} hits, expected {wanted}"
        return wrong

    def by_picture_filtered(self, client: Client, draw: random.Random) -> str:
        """Finds k hats, whatever the picture shows."""
        _, gone = self._writers.known()
        answer = client.search(picture(draw), k=str(K), where="category:Hats")
        wrong = hits(answer, K, gone)
        others = set() if wrong else {hit["category"] for hit in answer.json()["hits"]} - {"Hats"}
        return f"hits of {others}" if others else wrong

    def page_of_items(self, client: Client, draw: random.Random) -> str:
        """Lists 20 items of the catalogue."""
        start = draw.randrange(NUM_ITEMS - 20)
        _, gone = self._writers.known()
        answer = client.ask("GET", f"/api/items?start={start}&limit=20")
        if answer.status != 200:
            return not_right(answer)
        found = [item["item_id"] for item in answer.json()["items"]]
        return ids_are_right(found, 20, gone)

    def thumbnail(self, client: Client, draw: random.Random) -> str:
        """Gets a picture of an item that stays, or of a writer's newest."""
        there, _ = self._writers.known()
        some = [f"p{draw.randrange(NUM_ITEMS)}", *sorted(there)[-1:]]
        item_id = draw.choice(some)
        path = f"/api/items/{quote(item_id, safe='')}/thumbnail"
        answer = client.ask("GET", path)
        if answer.status == 404 and item_id not in self._writers.known()[0]:
            return "" if item_id.startswith("writer") else not_right(answer)
        is_picture = answer.kind == "image/jpeg" and answer.body[:2] == b"\xff\xd8"
        return "" if answer.status == 200 and is_picture else not_right(answer)

    def page(self, client: Client, draw: random.Random) -> str:
        """Gets the page of an item, whole."""
        answer = client.ask("GET", f"/?item=p{draw.randrange(NUM_ITEMS)}", headers={"accept": "*"})
        whole = answer.kind == "text/html" and answer.body.rstrip().endswith(b"</html>")
        return "" if answer.status == 200 and whole else not_right(answer)

    def healthy(self, client: Client, draw: random.Random) -> str:
        """Asks whether the server is well."""
        answer = client.ask("GET", "/healthz")
        return "" if answer.status == 200 else not_right(answer)


def picture(draw: random.Random) -> bytes:
    return drawn(draw.choice(SHAPES), draw.choice(list(COLOURS)), shift=draw.randrange(50))


def not_right(answer: Answer) -> str:
    return f"{answer.status} {answer.kind}: {answer.body[:300]!r}"


def hits(answer: Answer, wanted: int, gone: frozenset[str]) -> str:
    """Says what is wrong with the answer to a search; nothing where nothing is."""
    if answer.status != 200:
        return not_right(answer)
    found = answer.json()["hits"]
    distances = [hit["squared_distance"] for hit in found]
    if distances != sorted(distances):
        return f"the distances fall: {distances}"
    return ids_are_right([hit["item_id"] for hit in found], wanted, gone)


def ids_are_right(found: list[str], wanted: int, gone: frozenset[str]) -> str:
    if len(found) != wanted:
        return f"{len(found)} items, expected {wanted}"
    if len(set(found)) != len(found):
        return f"twice the same: {found}"
    if known := gone & set(found):
        return f"{sorted(known)} had been removed before it was asked, or is the item itself"
    return ""


def run_requests(number: int, seed: int) -> list[dict[str, Any]]:
    """Asks so many requests, `IN_FLIGHT` of them at once, beside `NUM_WRITERS` writers."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder), num_items=NUM_ITEMS)
        with server(bundle) as running, ThreadPoolExecutor(IN_FLIGHT + NUM_WRITERS) as threads:
            writers = Writers(running)
            writing = [threads.submit(writers.write, n) for n in range(NUM_WRITERS)]
            began = time.perf_counter()
            try:
                asker = Asker(running, writers, seed)
                results = list(threads.map(asker.ask, range(number)))
                seconds = time.perf_counter() - began
            finally:
                writers.stop()
            for one in writing:
                one.result()
            peak = running.memory_mib()
        at_the_end = bundle_is_right(bundle, writers)
    losses = [
        {"point": f"request {n} ({kind})", "seen": wrong}
        for n, (kind, wrong, _) in enumerate(results)
        if wrong
    ]
    searches = [s for kind, _, s in results if kind in ("by_picture", "by_picture_filtered")]
    written = writers.losses + [{"point": "the bundle", "seen": one} for one in at_the_end]
    return [
        {
            "kind": "requests beside writers", "tried": number, "in_flight": IN_FLIGHT,
            "survived": number - len(losses), "lost": len(losses), "losses": losses[:MAX_LOSSES],
            "left": dict(Counter(kind for kind, wrong, _ in results if not wrong)),
            "requests_per_second": number / seconds, "peak_mib": peak,
            "all_ms": in_ms([s for *_, s in results]), "picture_searches_ms": in_ms(searches),
        },
        {
            "kind": "writes beside requests", "tried": writers.num_writes,
            "survived": writers.num_writes - min(len(written), writers.num_writes),
            "lost": min(len(written), writers.num_writes), "losses": written[:MAX_LOSSES],
        },
    ]  # fmt: skip


def bundle_is_right(folder: Path, writers: Writers) -> list[str]:
    """Says what is wrong with the bundle after the server has stopped."""
    there, _ = writers.known()
    wanted = {f"p{n}" for n in range(NUM_ITEMS)} | there
    bundle = Bundle.open(folder)
    found = bundle.item_ids()
    wrong = [] if set(found) == wanted else [f"it holds {sorted(set(found) ^ wanted)[:5]} wrongly"]
    if len(found) != len(set(found)):
        wrong.append("it holds items twice")
    return wrong
