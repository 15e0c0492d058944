"""Writes the embeddings of a catalogue by a finished run's network, in shards (Parquet).

``python -m visual_search.embed run=PATH out=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, told_as_config
from visual_search.config.schemas import EmbedSchema
from visual_search.runs.moved import merged_settings, telling_moved_data
from visual_search.wording import many, shown

if TYPE_CHECKING:
    from lightning import Trainer

    from visual_search.catalog.catalog import Catalog
    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.runs.embedding_shards import ShardFolder, ShardManifest
    from visual_search.runs.run import Run
    from visual_search.training.module import EncoderModule


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
        folder: Where they lie.
        manifest: Content of its ``manifest.json``.
        num_written: Shards that were written now; the others were there.
    """

    folder: Path
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
    """
    import visual_search.training.trainer  # noqa: F401 - Lightning, loud again once imported
    from visual_search.runs.embedding_networks import new_trainer_of
    from visual_search.runs.embedding_shards import ShardFolder
    from visual_search.runs.finished import finished_run
    from visual_search.runs.parts import check_hardware, load_module, quieten
    from visual_search.runs.run import Run
    from visual_search.training.distributed import restore_num_threads
    from visual_search.training.shards import others_wait

    if not settings.run or not settings.out:
        name, what = ("out", "new") if settings.run else ("run", "finished run's")
        raise ConfigError(f"no folder is named for {name}; expected a {what} one: give {name}=PATH")
    check_hardware(**vars(settings.trainer))
    _check_numbers(settings)
    run = finished_run(settings.run)
    helps = int(os.environ.get("LOCAL_RANK", "0")) > 0  # started by the first process
    place = Run(Path(settings.out))  # a folder that one command works in
    if place.folder.resolve() == run.folder.resolve():
        raise ConfigError(f"out={settings.out} is the run's own folder; expected a new one")
    restore_num_threads()
    quieten()
    if not helps:
        place.lock()
    try:
        read = None if helps else _read(run, settings)
        trainer = new_trainer_of(run, settings.trainer)
        module = load_module(run)
        if read is None:
            _embed(None, module, trainer, settings.loader.batch_size)
            return None
        catalog, on_bad_item = read
        job = _new_job(run, place.folder, settings, catalog, on_bad_item, module, trainer)
        if job.missing or others_wait(trainer):
            _embed(job, module, trainer, settings.loader.batch_size)
        shards = ShardFolder(job.folder, job.settings)
        return EmbeddedCatalog(job.folder, shards.conclude(catalog.refused), len(job.missing))
    finally:
        place.unlock()


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


def check_columns(catalog: Catalog) -> None:
    """Refuses attributes under names that a shard uses itself.

    Raises:
        ConfigError: Names one of them.
    """
    from visual_search.runs.embedding_shards import CONTENT_KEY, EMBEDDING

    taken = {CONTENT_KEY, EMBEDDING} & set(catalog.attributes)
    if taken:
        raise ConfigError(
            f"catalogue {catalog.name!r} has an attribute {min(taken)!r}, which a shard uses "
            "itself; expected another name: rename the column, or leave it out with "
            "data.attributes"
        )


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


def _read(run: Run, settings: EmbedSchema) -> tuple[Catalog, str]:
    """Returns the catalogue that is to be embedded, and what becomes of a bad picture of it."""
    from visual_search.runs.parts import Parts

    own = run.settings()
    merged = merged_settings(own, settings.data, settings.split, own.pictures.cache_dir)
    with telling_moved_data("embed", run, merged.data, settings.data):
        catalog = Parts(merged).catalog
        check_columns(catalog)
    return catalog, merged.data.get("on_bad_item", "error")


def _new_job(
    run: Run,
    folder: Path,
    settings: EmbedSchema,
    catalog: Catalog,
    on_bad_item: str,
    module: EncoderModule,
    trainer: Trainer,
) -> EmbeddingJob:
    """Lists the items in the folder, claims it for these settings, and finds what is missing."""
    from visual_search.atomic import atomic_path
    from visual_search.catalog.streaming import ItemPictures, usable_cores
    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.runs.embedding_listing import LISTING_FILE, write_listing
    from visual_search.runs.embedding_shards import ShardFolder, ShardSettings
    from visual_search.runs.run import run_label
    from visual_search.training.module import weights_fingerprint

    with atomic_path(folder / LISTING_FILE) as temporary:
        listed = write_listing(temporary, [catalog.table], settings.shard_size)
        shards = ShardFolder(
            folder,
            ShardSettings(
                run=run_label(run.folder),
                model_hash=weights_fingerprint(module.model),
                preprocessing_hash=module.preprocessing.fingerprint(),
                embedding_hash=module.head.fingerprint(),
                precision=str(trainer.precision),
                dim=module.head.embedding_dim,
                catalog=catalog.name,
                catalog_fingerprint=listed.fingerprint,
                columns=listed.columns,
                num_items=listed.num_items,
                shard_size=settings.shard_size,
            ),
        )
        with told_as_config():
            shards.claim()
    loader = settings.loader
    pictures = ItemPictures(
        catalog.source,
        catalog.name,
        size_px=module.preprocessing.image_size_px,
        fit=module.preprocessing.fit,
        batch_size=loader.batch_size,
        num_threads=loader.num_threads or max(1, usable_cores() // trainer.num_devices),
        stops_at_bad_item=on_bad_item == "error",
    )
    return EmbeddingJob(folder, shards.settings, pictures, _missing(shards))


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


def _embed(
    job: EmbeddingJob | None, module: EncoderModule, trainer: Trainer, batch_size: int
) -> None:
    """Embeds and writes the missing shards, in as many processes as the trainer starts.

    Args:
        job: None in a further process, which is told by the first.
        module: The run's.
        trainer: Of this process.
        batch_size: Pictures a step.
    """
    from visual_search.training.devices import memory_told
    from visual_search.training.shards import ShardEmbedder
    from visual_search.views.progress import progress_bar

    with progress_bar("Embedding", " pictures") as advance:
        embedder = ShardEmbedder(module, job, advance if trainer.is_global_zero else None)
        with memory_told(batch_size, trainer.strategy.root_device):
            trainer.predict(embedder, return_predictions=False)
    trainer.strategy.barrier("shards")  # the others may still be writing theirs


if __name__ == "__main__":
    main()
