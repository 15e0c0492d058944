"""Connections whose other end does not come along: each is waited for only so long.

uvicorn waits for ever for a request's head, for a client that does not read its answer, and for
one that does not close. A thousand connections that send nothing would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)


class BoundedConnection(H11Protocol):
    """HTTP/1.1 that gives up whoever keeps it waiting.

    A head has to be whole in time, however it trickles in; so has every part of an answer to be
    taken; who was told that the connection ends is not waited for either. Where there are as many
    connections as are held, a new one takes the place of one that keeps the server waiting: of the
    address with the most of them, the one that has done so for longest. So nobody is kept out by
    another address, and behind a proxy, where all come from one, none that is busy is lost.

    Args:
        wait_seconds: Longest wait for a head, or for a part of an answer to be taken.
        max_connections: Connections that are held at the same time.
        further: What uvicorn gives to a protocol.
    """

    def __init__(self, *, wait_seconds: float, max_connections: int, **further: Any) -> None:
        super().__init__(**further)
        self._wait_seconds = wait_seconds
        self._max_connections = max_connections
        self._timer: asyncio.TimerHandle | None = None
        self._since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection, another one's place if need be."""
        super().connection_made(transport)
        self._wait()
        held = [
            one for one in self.connections if isinstance(one, BoundedConnection) and one.is_held
        ]
        if len(held) > self._max_connections:
            self._take_a_place(held)

    def _take_a_place(self, held: list[BoundedConnection]) -> None:
        of_address = Counter(one.address for one in held)
        waiting = [one for one in held if one is not self and one.waits_for_client]
        if waiting:
            longest = max(
                waiting,
                key=lambda one: (of_address[one.address], not one.is_answering, -one._since),
            )
            longest.transport.abort()
        else:
            self.transport.write(_FULL)
            self.transport.close()

    @property
    def is_held(self) -> bool:
        """Whether the connection is not about to end."""
        return not self.transport.is_closing()

    @property
    def address(self) -> str:
        """Whom it comes from, without a port."""
        return self.client[0] if self.client else ""

    @property
    def is_answering(self) -> bool:
        """Whether there is a request whose answer is not out."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waits_for_client(self) -> bool:
        """Whether the next move is the client's: a request, more of its body, reading on."""
        return not self.is_answering or self.cycle.more_body or self.flow.write_paused

    def data_received(self, data: bytes) -> None:
        """Reads on; a part of a head does not give it more time."""
        super().data_received(data)
        if self.is_answering and self.is_held:
            self._stop_waiting()
        elif self._timer is None or not self.is_held:
            self._wait()

    def on_response_complete(self) -> None:
        """Goes on to the next request."""
        super().on_response_complete()
        self._since = self.loop.time()
        if not self.is_answering or not self.is_held:
            self._wait()

    def pause_writing(self) -> None:
        """Waits until the client has taken some of the answer."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Writes on."""
        super().resume_writing()
        if self.is_answering and self.is_held:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_waiting()
        super().connection_lost(exc)
        self._stop_waiting()

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection without a further request, whether or not the answer was taken."""
        super().timeout_keep_alive_handler()
        self._wait()

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self._wait_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()
