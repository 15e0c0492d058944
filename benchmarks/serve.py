"""What the service adds to the encoder and the index alone, and how many searches it answers.

In one run, taken in turns so that a noisy machine disturbs all alike:

- alone: a loop in this process decodes a picture, embeds it and searches, one after the other;
- service: one client sends the same pictures to a server in a process of its own;
- nothing: the same client asks the same server for ``/healthz``: what it costs to ask another
  process at all, which grows by far where others use the machine;
- clients: so many clients at once, each with a connection that it keeps.

The first three are timed picture by picture, in turns; the service aims to add at most 3 ms at the
median. That holds on a machine with nothing else to do.

``python benchmarks/serve.py --bundle DIR [--clients 32] [--rounds 5] [--json FILE]``
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from visual_search.bundle.bundle import Bundle
from visual_search.catalog.images import PictureLimits
from visual_search.runs.machine import processor_facts
from visual_search.runs.run import environment

BOUNDARY = "a-boundary-of-the-benchmark"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
NUM_PICTURES = 40
K = 12
AIM_MS = 3.0


def pictures_of(bundle: Bundle, folder: Path | None) -> list[bytes]:
    """Encoded pictures: of a folder, or the bundle's own thumbnails."""
    if folder is not None:
        files = sorted(path for path in folder.iterdir() if path.is_file())[:NUM_PICTURES]
        return [path.read_bytes() for path in files]
    step = max(1, len(bundle) // NUM_PICTURES)
    thumbnails = [bundle.thumbnail(one) for one in bundle.item_ids()[::step][:NUM_PICTURES]]
    found = [thumbnail for thumbnail in thumbnails if thumbnail]
    if not found:
        raise SystemExit("the bundle holds no thumbnails; name a folder of pictures: --pictures")
    return found


def serve_from(folder: Path, max_searches: int, ready: Connection) -> None:
    """Runs the server; its own process, so that its interpreter is not the client's."""
    from visual_search.config.schemas import ServeSchema
    from visual_search.serve import server_settings
    from visual_search.serving.server import serve

    settings = server_settings(ServeSchema(port=0, max_searches=max_searches))
    serve([folder], settings, on_ready=ready.send)


def form_of(picture: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="k"\r\n\r\n{K}\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def search_alone(bundle: Bundle, picture: bytes, stages: dict[str, list[float]]) -> float:
    encoder = bundle.encoder
    started = time.perf_counter()
    decoded = encoder.decode(picture, PictureLimits())
    after_decode = time.perf_counter()
    embedding = encoder.embed(decoded[None])
    after_embed = time.perf_counter()
    hits = bundle.search(embedding, K)[0]
    ended = time.perf_counter()
    assert len(hits) == min(K, len(bundle))
    stages["decode"].append(after_decode - started)
    stages["embed"].append(after_embed - after_decode)
    stages["search"].append(ended - after_embed)
    return ended - started


def search_by_service(connection: http.client.HTTPConnection, form: bytes) -> float:
    started = time.perf_counter()
    connection.request("POST", "/api/search", form, HEADERS)
    answer = connection.getresponse()
    body = answer.read()
    ended = time.perf_counter()
    if answer.status != 200:
        raise SystemExit(f"the service answered {answer.status}: {body[:300]!r}")
    return ended - started


def ask_for_nothing(connection: http.client.HTTPConnection) -> float:
    started = time.perf_counter()
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    return time.perf_counter() - started


def many_clients(
    address: str, forms: Sequence[bytes], num_clients: int
) -> tuple[float, list[float]]:
    """Searches a second, and the seconds of each search."""
    seconds: list[list[float]] = [[] for _ in range(num_clients)]
    together = threading.Barrier(num_clients + 1)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.connect()
        together.wait()
        for position in range(len(forms)):
            form = forms[(number + position) % len(forms)]
            seconds[number].append(search_by_service(connection, form))
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(num_clients)]
    for thread in threads:
        thread.start()
    together.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    everything = [one for times in seconds for one in times]
    if len(everything) != num_clients * len(forms):
        raise SystemExit(f"{len(everything)} of {num_clients * len(forms)} searches were answered")
    return len(everything) / elapsed, everything


def in_ms(seconds: Sequence[float]) -> dict[str, float]:
    ranked = sorted(seconds)
    return {
        "p50": 1000 * statistics.median(ranked),
        "p99": 1000 * ranked[min(len(ranked) - 1, round(0.99 * (len(ranked) - 1)))],
    }


def measure(bundle: Bundle, address: str, pictures: list[bytes], arguments: Any) -> dict[str, Any]:
    forms = [form_of(picture) for picture in pictures]
    stages: dict[str, list[float]] = {"decode": [], "embed": [], "search": []}
    alone, service, nothing, rates, busy = [], [], [], [], []
    for round_number in range(arguments.rounds + 1):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.connect()
        for picture, form in zip(pictures, forms, strict=True):
            alone.append(search_alone(bundle, picture, stages))
            service.append(search_by_service(connection, form))
            nothing.append(ask_for_nothing(connection))
        connection.close()
        rate, seconds = many_clients(address, forms, arguments.clients)
        rates.append(rate)
        busy += seconds
        if round_number == 0:  # it warmed up
            for times in (alone, service, nothing, rates, busy, *stages.values()):
                times.clear()
    return {
        "alone_ms": in_ms(alone) | {f"{name}_p50": in_ms(s)["p50"] for name, s in stages.items()},
        "alone_per_second": 1 / statistics.median(alone),
        "service_ms": in_ms(service),
        "nothing_ms": in_ms(nothing),
        "service_adds_ms_at_p50": in_ms(service)["p50"] - in_ms(alone)["p50"],
        "clients": arguments.clients,
        "clients_ms": in_ms(busy),
        "clients_per_second": statistics.median(rates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--pictures", type=Path, help="a folder; otherwise the thumbnails")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    pictures = pictures_of(bundle, arguments.pictures)
    here, there = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    server = context.Process(
        target=serve_from, args=(arguments.bundle, 2 * arguments.clients, there)
    )
    started = time.perf_counter()
    server.start()
    try:
        if not here.poll(120):
            raise SystemExit("the server did not start within 120 s")
        address = urlsplit(here.recv()).netloc
        seconds_to_start = time.perf_counter() - started
        numbers = measure(bundle, address, pictures, arguments)
    finally:
        server.terminate()
        server.join(30)
    numbers |= {
        "seconds_to_start": seconds_to_start,
        "num_items": len(bundle),
        "embedding_dim": bundle.dim,
        "image_size_px": bundle.encoder.image_size_px,
        "kind": bundle.manifest.index.plan["kind"],
        "num_pictures": len(pictures),
        "mean_picture_bytes": round(statistics.fmean(map(len, pictures))),
        "environment": processor_facts() | {"packages": environment()["packages"]},
    }
    report(numbers)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


def report(numbers: dict[str, Any]) -> None:
    alone, service, busy = (numbers[f"{way}_ms"] for way in ("alone", "service", "clients"))
    print(
        f"\n{numbers['num_items']:,} items x {numbers['embedding_dim']}, {numbers['kind']}; "
        f"pictures of {numbers['mean_picture_bytes']:,} bytes; "
        f"the server answered after {numbers['seconds_to_start']:.1f} s"
    )
    print(f"{'':28}{'p50':>9}{'p99':>9}{'searches/s':>12}")
    rate = numbers["alone_per_second"]
    print(f"{'alone, one after the other':28}{alone['p50']:9.2f}{alone['p99']:9.2f}{rate:12.0f}")
    for stage in ("decode", "embed", "search"):
        print(f"{'  ' + stage:28}{alone[f'{stage}_p50']:9.2f}")
    rate = 1000 / service["p50"]
    print(f"{'service, one client':28}{service['p50']:9.2f}{service['p99']:9.2f}{rate:12.0f}")
    nothing = numbers["nothing_ms"]
    print(f"{'  /healthz':28}{nothing['p50']:9.2f}{nothing['p99']:9.2f}")
    name = f"service, {numbers['clients']} clients"
    rate = numbers["clients_per_second"]
    print(f"{name:28}{busy['p50']:9.2f}{busy['p99']:9.2f}{rate:12.0f}")
    print(f"the service adds {numbers['service_adds_ms_at_p50']:.2f} ms at p50; aim: {AIM_MS:g} ms")


if __name__ == "__main__":
    main()
