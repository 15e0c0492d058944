"""What Prometheus may ask: counters and histograms in a registry of the application's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds. A search takes milliseconds, an upload over a phone's network seconds.
_BUCKETS = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1.0, 2.5, 5.0, 10.0)  # fmt: skip
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class ServeMetrics:
    """The numbers of one application; two applications in a process do not share any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "visual_search_"
        self.requests = Counter(
            f"{name}http_requests", "Requests by route, method and status.",
            ["route", "method", "status"], registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            f"{name}http_request_seconds", "Seconds from a request's first line to its last byte.",
            ["route"], buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            f"{name}stage_seconds", "Seconds of a search's stages, waiting for a turn included.",
            ["bundle", "stage"], buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.batch_pictures = Histogram(
            f"{name}encoder_batch_pictures", "Pictures that the encoder took at once.",
            ["bundle"], buckets=_BATCHES, registry=self.registry,
        )  # fmt: skip
        self.queue_length = Gauge(
            f"{name}encoder_queue_length", "Jobs that wait for the encoder.",
            ["bundle"], registry=self.registry,
        )  # fmt: skip
        self.searches_running = Gauge(
            f"{name}searches_running", "Searches that are read, decoded, embedded or searched.",
            registry=self.registry,
        )  # fmt: skip
        self.refused = Counter(
            f"{name}searches_refused", "Searches answered 503 because too many were running.",
            registry=self.registry,
        )  # fmt: skip
        self.items = Gauge(
            f"{name}items", "Items that can be found.", ["bundle"], registry=self.registry
        )
        self.generation = Gauge(
            f"{name}generation", "Generation of the bundle that is served.",
            ["bundle"], registry=self.registry,
        )  # fmt: skip
        self.refresh_failures = Counter(
            f"{name}refresh_failures", "Newer generations that could not be opened.",
            ["bundle"], registry=self.registry,
        )  # fmt: skip

    @contextmanager
    def stage(self, bundle: str, stage: str, seconds: dict[str, float]) -> Iterator[None]:
        """Measures a stage of a search, for Prometheus and into ``seconds``."""
        started = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - started
        self.stage_seconds.labels(bundle, stage).observe(seconds[stage])

    def written(self, queue_lengths: dict[str, int]) -> bytes:
        """Returns everything in Prometheus' text format."""
        for bundle, length in queue_lengths.items():
            self.queue_length.labels(bundle).set(length)
        return generate_latest(self.registry)


class CountRequests:
    """Counts and times every request, by the route's pattern and never by its address.

    A label for every address would let anybody fill the memory.
    """

    def __init__(self, app: ASGIApp, metrics: ServeMetrics, clock: Callable[[], float]) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._clock()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(self._clock() - started)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
