"""Writes the embeddings of a catalogue by a run's or a bundle's network, in shards (Parquet).

``python -m visual_search.embed run=PATH out=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, one_of, told_as_config
from visual_search.config.schemas import EmbedSchema
from visual_search.launcher import is_first_process, launch
from visual_search.wording import many, shown

if TYPE_CHECKING:
    from visual_search.runs.embedding_data import EmbeddingData
    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.runs.embedding_networks import Network, NetworkPlace
    from visual_search.runs.embedding_shards import ShardFolder, ShardManifest
    from visual_search.runs.embedding_stores import ShardStore
    from visual_search.runs.run import Run
    from visual_search.storage.uris import ObjectUri
    from visual_search.training.processes import Processes

Engine = Literal["local", "ray"]


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("embed", embed_command)


def embed_command(settings: EmbedSchema) -> None:
    """Embeds the catalogue that the composed config names, and prints where the shards lie."""
    embedded = embed_catalog(settings)
    if embedded is not None:
        print_embedded(embedded)


@dataclass(frozen=True)
class EmbeddedCatalog:
    """A finished folder of shards.

    Attributes:
        folder: Where they lie, as it was named.
        manifest: Content of its ``manifest.json``.
        num_written: Shards that were written now; the others were there.
    """

    folder: Path | ObjectUri
    manifest: ShardManifest
    num_written: int


def embed_catalog(settings: EmbedSchema) -> EmbeddedCatalog | None:
    """Writes the embeddings of every item of a catalogue, or what is missing of them.

    Args:
        settings: The composed ``conf/embed.yaml``.

    Returns:
        The finished folder; None in a further process, which only helps the first one.

    Raises:
        ConfigError: No finished run or no folder is named, a setting is wrong, or the folder holds
            something else.
        BadItemsError: Pictures are missing or do not decode, and ``data.on_bad_item`` is ``error``.
        StorageError: Object storage, where out lies, does not answer or refuses.
    """
    from visual_search.runs.embedding_networks import open_network
    from visual_search.runs.embedding_stores import open_store
    from visual_search.training.processes import joined_processes

    engine = one_of("engine", settings.engine, get_args(Engine))
    run = _checked(settings, engine)
    launched = launch()
    are_several = not is_first_process() or (launched is not None and launched.num_processes > 1)
    if are_several and (engine == "ray" or run is None):
        raise ConfigError(
            f"engine={engine} {'of a bundle ' * (run is None)}was started in several processes; "
            "expected one: start it without torchrun or srun, engine=ray starts its own"
        )
    store = open_store(settings.out or "")
    with joined_processes(settings.trainer.accelerator) as processes:
        if not is_first_process():
            if processes.wait():
                open_network(_place(run, settings, engine)).embed(None, None)
            return None
        with store.locked():
            return _lead(run, store, settings, engine, processes)


def _lead(
    run: Run | None, store: ShardStore, settings: EmbedSchema, engine: Engine, processes: Processes
) -> EmbeddedCatalog:
    """The work of the first process, or the only one, which tells the others what is missing."""
    from visual_search.runs.embedding_data import read_data
    from visual_search.runs.embedding_networks import open_network
    from visual_search.runs.embedding_ray import embed_with_ray
    from visual_search.runs.embedding_shards import ShardFolder
    from visual_search.storage.uris import place_of
    from visual_search.views.progress import progress_bar

    data = read_data(run, settings.data, settings.split)
    place = _place(run, settings, engine)
    here = place if engine == "local" else place.on_cpu()
    network = open_network(here)
    job = _new_job(store, settings, data, network, engine)
    with progress_bar("Embedding", " pictures") as advance:
        if engine == "local":
            processes.call()
            network.embed(job, advance)
        elif job.missing:
            embed_with_ray(job, place, settings.ray.address, advance)
    manifest = ShardFolder(store.place, job.settings).conclude(data.refused)
    return EmbeddedCatalog(place_of(settings.out or ""), manifest, len(job.missing))


def _checked(settings: EmbedSchema, engine: Engine) -> Run | None:
    """Returns the finished run whose network embeds; None where a bundle's does.

    Raises:
        ConfigError: Settings are missing, wrong, or do not go together.
    """
    from visual_search.storage.uris import place_of

    if bool(settings.run) == bool(settings.bundle):
        both = "both are named" if settings.run else "neither run nor bundle is named"
        raise ConfigError(
            f"{both}; expected the folder of a finished run or of a bundle, whose network embeds: "
            "give run=PATH or bundle=PATH"
        )
    if not settings.out:
        raise ConfigError("no folder is named for out; expected a new one: give out=PATH")
    with told_as_config():
        out = place_of(settings.out)
    _check_numbers(settings)
    run = None
    if settings.run:
        import visual_search.training.trainer  # noqa: F401 - Lightning, loud again once imported
        from visual_search.runs.finished import finished_run
        from visual_search.runs.parts import check_hardware, quieten
        from visual_search.training.distributed import restore_num_threads

        if engine == "local":
            check_hardware(**vars(settings.trainer))
        run = finished_run(settings.run)
        restore_num_threads()
        quieten()
    elif not settings.data or settings.split is not None:
        what = "no data is named" if not settings.data else "split is named"
        raise ConfigError(
            f"{what} with bundle={settings.bundle}; expected the catalogue to embed, with the "
            "splits that it has: give data=folder data.root=PATH or such, and no split"
        )
    own = Path(settings.run or settings.bundle or "").resolve()
    if isinstance(out, Path) and out.resolve() == own:
        raise ConfigError(
            f"out={settings.out} is the {'run' if run else 'bundle'}'s own folder; expected a new "
            "one"
        )
    return run


def _place(run: Run | None, settings: EmbedSchema, engine: Engine) -> NetworkPlace:
    """Returns which network embeds and where; on other machines in a precision that is said here.

    Every actor has to compute as the others do, whatever each of their machines would choose.
    """
    from visual_search.bundle.remote import address_of
    from visual_search.runs.embedding_networks import NetworkPlace

    trainer = settings.trainer
    if run is None:
        bundle = settings.bundle or ""
        return NetworkPlace(None, address_of(bundle) or str(Path(bundle).absolute()), trainer)
    if engine == "ray" and trainer.precision == "auto":
        trainer = replace(trainer, precision=str(run.summary().get("precision") or "32-true"))
    return NetworkPlace(str(run.folder.absolute()), None, trainer)


def _check_numbers(settings: EmbedSchema) -> None:
    """Refuses numbers that make no shards, batches or threads.

    Raises:
        ConfigError: Names the first.
    """
    loader = settings.loader
    for key, value in (
        ("shard_size", settings.shard_size),
        ("loader.batch_size", loader.batch_size),
        ("loader.num_threads", 1 if loader.num_threads is None else loader.num_threads),
    ):
        if value < 1:
            raise ConfigError(f"{key}={value}; expected at least 1: set it")


def print_embedded(embedded: EmbeddedCatalog) -> None:
    """Prints what lies where, and what was refused."""
    manifest = embedded.manifest
    there = len(manifest["shards"]) - embedded.num_written
    print(
        f"{many(manifest['num_items'], 'item')} of {shown(manifest['catalog'])}, "
        f"{many(manifest['dim'], 'number')} each, in {many(len(manifest['shards']), 'shard')}: "
        f"{embedded.folder / 'manifest.json'}"
        + (f" ({there:,} {'was' if there == 1 else 'were'} there before)" if there else "")
    )
    refused = manifest["refused"]
    if refused:
        print(f"Left out: {many(len(refused), 'bad item')}, listed in the manifest:")
    for item in refused[:10]:
        print(shown(f"  {item['item_id']!r} ({item['image']}): {item['reason']}"))
    if len(refused) > 10:
        print(f"  ... and {len(refused) - 10:,} more")


def _new_job(
    store: ShardStore,
    settings: EmbedSchema,
    data: EmbeddingData,
    network: Network,
    engine: Engine,
) -> EmbeddingJob:
    """Lists the items in the folder, claims it for these settings, and finds what is missing."""
    from visual_search.catalog.streaming import ItemPictures, num_reading, usable_cores
    from visual_search.runs.embedding_data import list_items
    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.runs.embedding_listing import LISTING_FILE
    from visual_search.runs.embedding_shards import ShardFolder, ShardSettings

    facts = network.facts
    with store.writing(LISTING_FILE) as temporary:
        listed = list_items(temporary, data, settings.shard_size)
        shards = ShardFolder(
            store.place,
            ShardSettings(
                run=facts.name,
                model_hash=facts.model_hash,
                preprocessing_hash=facts.preprocessing_hash,
                embedding_hash=facts.embedding_hash,
                precision=network.precision,
                dim=facts.dim,
                catalog=data.name,
                catalog_fingerprint=listed.fingerprint,
                columns=listed.columns,
                num_items=listed.num_items,
                shard_size=settings.shard_size,
            ),
        )
        with told_as_config():
            shards.claim()
    loader, num_threads = settings.loader, settings.loader.num_threads
    if num_threads is None and engine == "local":
        cores = max(1, usable_cores() // network.num_processes)
        num_threads = num_reading(data.source, cores)
    pictures = ItemPictures(
        data.source,
        data.name,
        size_px=facts.size_px,
        fit=facts.fit,
        batch_size=loader.batch_size,
        num_threads=num_threads,
        stops_at_bad_item=data.stops_at_bad_item,
    )
    return EmbeddingJob(store.place, shards.settings, pictures, _missing(shards))


def _missing(shards: ShardFolder) -> tuple[int, ...]:
    """Returns the numbers of the shards to write, ascending."""
    from visual_search.views.progress import progress_bar

    shards.sweep()
    with progress_bar("Looking at finished shards", " shards") as advance:
        finished = shards.finished(advance)
    num_shards = shards.settings.num_shards
    missing = tuple(number for number in range(num_shards) if number not in finished)
    if finished and missing:
        print(
            f"Finished: {len(finished):,} of {many(num_shards, 'shard')}; going on "
            f"with {missing[0]:05d}."
        )
    return missing


if __name__ == "__main__":
    main()
