"""What the routes share: settings, bundles by name, the searcher, the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visual_search.serving.metrics import ServeMetrics
from visual_search.serving.problems import Problem
from visual_search.serving.searching import Searcher
from visual_search.serving.served_bundle import ServedBundle, distinct_names
from visual_search.serving.settings import ServeSettings

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle


@dataclass(frozen=True)
class Service:
    """One application's state."""

    settings: ServeSettings
    bundles: Mapping[str, ServedBundle]
    metrics: ServeMetrics
    searcher: Searcher

    @classmethod
    def of(cls, bundles: Sequence[Bundle], settings: ServeSettings) -> Service:
        """Puts bundles to service, under distinct names.

        Raises:
            ValueError: There is no bundle.
        """
        if not bundles:
            raise ValueError("bundles is empty; expected at least one; open one with Bundle.open")
        metrics = ServeMetrics()
        names = distinct_names([bundle.name for bundle in bundles])
        served = {
            name: ServedBundle(name, bundle, settings, metrics)
            for name, bundle in zip(names, bundles, strict=True)
        }
        return cls(settings, served, metrics, Searcher(settings, metrics))

    def named(self, names: Sequence[str]) -> list[ServedBundle]:
        """Returns bundles by name, all of them where no name is given.

        Raises:
            Problem: There is no such bundle.
        """
        for name in names:
            if name not in self.bundles:
                raise Problem(
                    "no-such-bundle",
                    f"There is no bundle {name[:100]!r}; expected one of {list(self.bundles)}; "
                    "GET /api/bundles lists them.",
                )
        return [self.bundles[name] for name in names or self.bundles]

    def one(self, name: str | None) -> ServedBundle:
        """Returns a bundle by name, the first one where no name is given.

        Raises:
            Problem: There is no such bundle.
        """
        return self.named([name] if name else list(self.bundles)[:1])[0]

    def columns(self) -> tuple[str, ...]:
        """The columns of all bundles, "category" first."""
        return tuple(
            dict.fromkeys(
                column
                for served in self.bundles.values()
                for column in served.snapshot.bundle.columns
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads the encoders, looks for newer generations, and at the end finishes what waits."""
        await asyncio.gather(*(self.searcher.run(one.warm) for one in self.bundles.values()))
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await asyncio.to_thread(self.searcher.close)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            for served in self.bundles.values():
                await asyncio.to_thread(served.refresh)
