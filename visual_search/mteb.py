"""Writes a catalogue, under a protocol, as an image-retrieval task of mteb.

``python -m visual_search.mteb data=folder data.root=my_pictures out=my_task``; ``--help`` lists
what can be set.
"""

from __future__ import annotations

from pathlib import Path

from visual_search import called_as_well
from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import MtebSchema, TrainSchema
from visual_search.wording import many


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("mteb", mteb_command)


def mteb_command(settings: MtebSchema) -> None:
    """Writes the task that the composed config describes, and prints how to ask it.

    Raises:
        ConfigError: No data or no folder is named, the folder holds something, a setting is wrong.
        ValueError: The protocol cannot be met, or has more pairs than mteb could read.
    """
    from visual_search.atomic import scratch_folder
    from visual_search.retrieval.measure import identity
    from visual_search.retrieval.protocol import fingerprint
    from visual_search.runs.mteb_task import task_name, write_task
    from visual_search.runs.parts import Parts
    from visual_search.views.progress import progress_bar

    if "_target_" not in settings.data or not settings.out:
        missing = "data" if settings.out else "folder"
        raise ConfigError(
            f"no {missing} is named; expected a catalogue and a new folder: give data=folder "
            "data.root=my_pictures out=my_task (--help lists both)"
        )
    out = Path(settings.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out={out} holds something already; expected a new folder: choose one")
    parts = Parts(
        TrainSchema(
            data=settings.data,
            split=settings.split,
            pictures=settings.pictures,
            protocol=settings.protocol,
        ),
        bound_left_out=True,
    )
    parts.check_measuring(settings.query_split)
    catalog, protocol = parts.cached.catalog, parts.protocol
    selection = parts.sides(settings.query_split).selection
    sides = identity(catalog.table, protocol, selection, catalog.source.content_keys)
    revision = fingerprint([sides["gallery"], sides["queries"], sides["protocol"]])[:12]
    name = task_name(catalog, protocol)
    with (
        scratch_folder(out.absolute().parent, out.name) as folder,
        progress_bar("Writing pictures", " pictures") as advance,
    ):
        write_task(folder, name, catalog, protocol, selection, revision, advance)
        folder.chmod(0o755)
        folder.replace(out)
    print(
        f"{name}: {many(len(selection.query_rows), 'query', 'queries')} in "
        f"{many(len(selection.gallery_rows), 'gallery item')}, revision {revision}. Measure on it "
        f"what mteb knows: python {out / 'task.py'} openai/clip-vit-base-patch32"
    )


if __name__ == "__main__":
    main()
else:
    called_as_well(__name__)
