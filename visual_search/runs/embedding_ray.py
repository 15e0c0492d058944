"""Embeds shards on many machines by Ray: the driver hands out numbers of shards, actors write them.

An actor holds the network and takes a shard after the other: reads, decodes, embeds, and writes it
whole or not at all. A shard that two of them write is the same twice, so one whose actor has died
is simply handed out again. Nothing but numbers passes through Ray: pictures and shards lie on
storage that every node sees.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from visual_search.config.builders import ConfigError
from visual_search.config.plugins import VARIABLE
from visual_search.runs.embedding_shards import ShardFolder
from visual_search.runs.embedding_stores import open_store
from visual_search.wording import many

if TYPE_CHECKING:
    from types import ModuleType

    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.runs.embedding_networks import NetworkPlace

_STORE_BYTES = 128 * 2**20  # of Ray's object store, through which only numbers pass
_BEAT_SECONDS = 5.0  # between two looks at what nobody reported
_START_SECONDS = 300.0  # until the first actor has its network
_SEEN_SECONDS = 90.0  # until a network disk shows a file that another node wrote
_TRIES = 3  # of one shard: what kills an actor so often is the shard


Nodes = Sequence[Mapping[str, float]]
"""``CPU`` and ``GPU`` of each node of a cluster."""


@dataclass(frozen=True)
class ActorSize:
    """What an actor takes.

    Attributes:
        num_cpus: At least one.
        num_gpus: 1, or 0.
    """

    num_cpus: int
    num_gpus: int

    def places(self, nodes: Nodes) -> int:
        """Returns how many such actors have room; a CPU stays free on every node.

        Example:
            >>> ActorSize(1, 0).places([{"CPU": 9}, {"CPU": 5}, {}])
            12
        """
        found = 0
        for node in nodes:
            room = max(0, int(node.get("CPU", 0)) - 1) // self.num_cpus
            found += min(room, int(node.get("GPU", 0))) if self.num_gpus else room
        return found


def actor_size(nodes: Nodes, accelerator: str) -> ActorSize:
    """Returns what an actor takes on a cluster, which has room for one.

    A CPU has to stay free: Ray waits without a word for one that its own actors hold.

    Args:
        nodes: Of the cluster.
        accelerator: ``auto`` takes the GPUs where there are some, an actor each; ``gpu`` and
            ``cuda`` ask for them; ``cpu`` leaves them alone, and an actor takes one CPU.

    Raises:
        ConfigError: There is no room, or no GPU and one was asked for.

    Example:
        >>> actor_size([{"CPU": 9}, {"CPU": 5}], "auto")
        ActorSize(num_cpus=1, num_gpus=0)
        >>> actor_size([{"CPU": 4}, {"CPU": 17, "GPU": 2}], "auto")
        ActorSize(num_cpus=8, num_gpus=1)
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    there = f"{many(len(nodes), 'node')} with {sum(cpus)} CPU(s) and {sum(gpus)} GPU(s)"
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise ConfigError(
            f"trainer.accelerator={accelerator}; expected auto, cpu or gpu with engine=ray: set it"
        )
    if accelerator != "cpu" and any(gpus):
        each = min((cpu - 1) // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu)
        if each >= 1:
            return ActorSize(each, 1)
        raise ConfigError(
            f"the cluster has {there}; expected a CPU for each GPU and one that stays free on each "
            "node: start Ray with more --num-cpus, or set trainer.accelerator=cpu"
        )
    if accelerator in ("gpu", "cuda"):
        raise ConfigError(
            f"trainer.accelerator={accelerator}, and the cluster has {there}; expected a GPU: set "
            "trainer.accelerator=auto or cpu"
        )
    size = ActorSize(1, 0)
    if not size.places(nodes):
        raise ConfigError(
            f"the cluster has {there}; expected a node with two CPUs at least, since one stays "
            "free (Ray waits for ever for one that actors hold): start Ray with more --num-cpus, "
            "or take engine=local"
        )
    return size


def embed_with_ray(
    job: EmbeddingJob,
    place: NetworkPlace,
    address: str | None,
    on_progress: Callable[[int, int], None],
) -> None:
    """Embeds and writes the missing shards of a job on a Ray cluster.

    Args:
        job: What is to be embedded; its folder and pictures are seen by every node.
        place: The network, and where it computes.
        address: Of the cluster that is joined, as ``auto`` or ``10.0.0.1:6379``; None starts one
            of this machine's cores, which nobody else reaches.
        on_progress: Called with (items embedded, items to embed).

    Raises:
        ConfigError: Ray is not installed, the cluster is not there, or has no room.
        BadItemsError: A picture cannot be used, and that is an error.
        RuntimeError: No actor starts, a shard's actors die again and again, or what a node wrote
            is not seen here.
    """
    with _cluster(address) as ray:
        nodes = _nodes(ray)
        size = actor_size(nodes, place.trainer.accelerator)
        print(
            f"Ray: room for {many(size.places(nodes), 'actor')} on {many(len(nodes), 'node')}, "
            f"{many(size.num_cpus, 'CPU')}{' and a GPU' * size.num_gpus} each."
        )
        _Foreman(ray, job, place, size).work(on_progress)


class ShardActor:
    """What an actor does: opens the network once, then embeds a shard after the other."""

    def open(self, job: EmbeddingJob, place: NetworkPlace) -> None:
        """Loads the network.

        Args:
            job: Which shards it takes is told one by one.
            place: The network, and where it computes.
        """
        from visual_search.runs.embedding_networks import open_network
        from visual_search.runs.parts import quieten

        if place.run is not None:
            quieten()
        if not open_store(job.folder).names():
            raise RuntimeError(
                f"node {os.uname().nodename} sees no {job.folder}; expected out=DIR on storage "
                "that every node sees, under one path: give such a one"
            )
        self._job = job
        self._network = open_network(place)

    def embed(self, number: int) -> int:
        """Embeds and writes a shard; gives its number."""
        self._network.embed(self._job.of_shard(number), None)
        return number


def _nodes(ray: ModuleType) -> Nodes:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class _Foreman:
    """Hands out the shards, also to nodes that come later, and again those of actors that died."""

    def __init__(
        self, ray: ModuleType, job: EmbeddingJob, place: NetworkPlace, size: ActorSize
    ) -> None:
        self._ray = ray
        self._job = job
        self._shards = ShardFolder(job.folder, job.settings)
        self._size = size
        self._places, self._counted = 0, -math.inf  # room on the nodes, and when it was counted
        accelerator = "gpu" if size.num_gpus else "cpu"
        trainer = replace(place.trainer, accelerator=accelerator, devices=1, strategy="auto")
        pictures = job.pictures
        if pictures.num_threads is None:
            from visual_search.catalog.streaming import num_reading

            threads = num_reading(pictures.source, size.num_cpus)
            pictures = replace(pictures, num_threads=threads)
        self._job_ref = ray.put(replace(job, pictures=pictures, missing=()))
        self._place = replace(place, trainer=trainer, num_threads=size.num_cpus)
        self._actor = ray.remote(ShardActor).options(
            num_cpus=size.num_cpus,
            num_gpus=size.num_gpus,
            max_restarts=0,
            runtime_env={"env_vars": {VARIABLE: os.environ.get(VARIABLE, "")}},
        )
        self._waiting = deque(job.missing)
        self._starting: dict[Any, Any] = {}  # what an actor's opening gives -> the actor
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int]] = {}  # what it will give -> the actor, its shard
        self._unseen: dict[int, float] = {}  # shard -> when it was reported
        self._deaths: Counter[int | None] = Counter()  # by shard; None: before the first

    def work(self, on_progress: Callable[[int, int], None]) -> None:
        """Comes back when every shard is written."""
        done, total, started = 0, self._job.num_items, time.monotonic()
        while self._waiting or self._busy or self._unseen:
            self._hire()
            while self._idle and self._waiting:
                actor, number = self._idle.pop(), self._waiting.popleft()
                self._busy[actor.embed.remote(number)] = (actor, number)
            if self._busy or (self._waiting and self._starting):
                refs = [*self._busy, *self._starting]
                ended, _ = self._ray.wait(refs, num_returns=1, timeout=_BEAT_SECONDS)
            else:
                ended = []
                time.sleep(_BEAT_SECONDS / 10)
            for ref in ended:
                if ref in self._starting:
                    self._welcome(ref)
                else:
                    done += self._finish(ref)
                    on_progress(done, total)
            self._look()
            if not self._busy and not self._idle and self._waiting:
                if time.monotonic() - started > _START_SECONDS:
                    raise RuntimeError(self._nobody())
            else:
                started = time.monotonic()

    def _hire(self) -> None:
        """Starts actors for the shards that nobody has; the places of the dead are filled."""
        if time.monotonic() - self._counted >= _BEAT_SECONDS:
            self._places = self._size.places(_nodes(self._ray))
            self._counted = time.monotonic()
        there = len(self._starting) + len(self._idle) + len(self._busy)
        wanted = min(self._places, len(self._waiting) + len(self._busy))
        for _ in range(wanted - there):
            actor = self._actor.remote()
            self._starting[actor.open.remote(self._job_ref, self._place)] = actor

    def _welcome(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        if self._outcome(ref, None):
            self._idle.append(actor)
        else:
            self._ray.kill(actor)

    def _finish(self, ref: Any) -> int:
        """Returns the items of the shard that was written; none where its actor has died."""
        actor, number = self._busy.pop(ref)
        if not self._outcome(ref, number):
            self._ray.kill(actor)  # where it was only out of reach, its place is free again
            self._waiting.appendleft(number)
            return 0
        self._idle.append(actor)
        self._unseen[number] = time.monotonic()
        return self._job.settings.num_rows(number)

    def _outcome(self, ref: Any, number: int | None) -> bool:
        """Returns whether an actor did what it was to do, and False where it has died.

        Raises:
            RuntimeError: So many have died of the same.
        """
        errors = self._ray.exceptions
        try:
            self._ray.get(ref)
        except errors.RayTaskError as error:
            raise error.cause from None  # what the actor raised
        except errors.RayError as error:
            reason = " ".join(str(error).split())[:200]
        else:
            return True
        self._deaths[number] += 1
        what = "before its first shard" if number is None else f"with shard {number:05d}"
        if self._deaths[number] >= _TRIES * (max(1, self._places) if number is None else 1):
            raise RuntimeError(
                f"{self._deaths[number]} actors have ended {what}, the last so: {reason}; expected "
                "it to be written: look at the memory of the nodes and at Ray's logs (/tmp/ray)"
            )
        print(f"An actor has ended {what}; another one takes over. ({reason})", file=sys.stderr)
        return False

    def _look(self) -> None:
        """Looks whether the shards that were reported are seen here.

        Raises:
            RuntimeError: One is not, after a while.
        """
        for number, reported in list(self._unseen.items()):
            if self._shards.record(number) is not None:
                del self._unseen[number]
            elif time.monotonic() - reported > _SEEN_SECONDS:
                raise RuntimeError(
                    f"a node has written shard {number:05d}, and it is not in {self._job.folder} "
                    "here; expected out=DIR on storage that every node sees: give such a one"
                )

    def _nobody(self) -> str:
        free = self._ray.available_resources()
        return (
            f"no actor has started within {_START_SECONDS:.0f} s: one takes {self._size.num_cpus} "
            f"CPU(s) and {self._size.num_gpus} GPU(s), of which the cluster has "
            f"{free.get('CPU', 0):.0f} and {free.get('GPU', 0):.0f} free; expected room for one: "
            "end what else uses the cluster, or add nodes"
        )


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[ModuleType]:
    """Joins a cluster, or starts one on this machine, and leaves it at the end."""
    if address is None:
        _keep_to_this_machine()
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"engine=ray needs a package that is not installed ({error}); expected the extra "
            "'ray'; run: pip install 'visual-search[ray]'"
        ) from error
    from visual_search.catalog.streaming import usable_cores

    own: dict[str, Any] = {}
    if address is None:
        # One more than there are: the one that stays free need not be a real one.
        own = {"num_cpus": usable_cores() + 1, "object_store_memory": _STORE_BYTES}
        own["include_dashboard"] = False
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray.address={address}: {' '.join(str(error).split())[:300]}; expected a cluster that "
            "runs and whose token this user has: start one with `ray start --head`, or leave the "
            "address out for one of this machine's cores"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _keep_to_this_machine() -> None:
    """Has a cluster of one's own listen on the loopback device, with a token that nobody knows."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # what has it take 127.0.0.1
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
