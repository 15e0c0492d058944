"""Serves bundles on a page and an API: drop a picture, see similar products.

``python -m visual_search.serve bundle=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, get_args

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, one_of
from visual_search.config.schemas import ServeSchema
from visual_search.wording import many

if TYPE_CHECKING:
    from visual_search.serving.settings import ServeSettings

TOKEN_VARIABLE = "VISUAL_SEARCH_TOKEN"
# Keys that the server is not told
_OPENED = ("bundle", "bundles", "index", "url", "collection", "verify")


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("serve", serve_command)


def serve_command(settings: ServeSchema) -> None:
    """Opens the bundles that are named and serves them until the process is told to stop.

    Args:
        settings: The composed ``conf/serve.yaml``.

    Raises:
        ConfigError: No bundle is named, or the extra is not installed.
        ValueError: A bundle is damaged, or a setting is out of range.
    """
    try:
        import fastapi  # noqa: F401
        import onnxruntime  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; expected the extra 'serve'; run: "
            "pip install 'visual-search[serve]'"
        ) from error
    from visual_search.bundle.bundle import Bundle, Verify
    from visual_search.bundle.remote import address_of
    from visual_search.runs.vector_database import searched_through
    from visual_search.serving.server import serve
    from visual_search.views.progress import progress_bar

    folders = [*([settings.bundle] if settings.bundle else []), *settings.bundles]
    if not folders:
        raise ConfigError(
            "no bundle is named; expected bundle=DIR, or bundles=[DIR,DIR] to see two side by side"
        )
    for folder in folders if os.environ.get(TOKEN_VARIABLE) else ():
        if address := address_of(folder):
            raise ConfigError(
                f"{address} is on object storage, where items are neither added nor removed, and "
                f"{TOKEN_VARIABLE} allows both; expected a folder, or no token: unset the variable"
            )
    verify = one_of("verify", settings.verify, get_args(Verify))
    chosen = server_settings(settings, os.environ.get(TOKEN_VARIABLE) or None)
    through = searched_through(settings.index, settings.url, settings.collection)
    if through is not None and len(folders) > 1:
        raise ConfigError(
            f"index={settings.index} with {len(folders)} bundles; expected one: a collection has "
            "the items of one bundle"
        )
    with progress_bar("Copying", " files") as advance:
        opened = [
            Bundle.open(folder, verify=verify, through=through, on_progress=advance)
            for folder in folders
        ]

    def tell(address: str) -> None:
        names = ", ".join(f"{bundle.name} ({many(len(bundle), 'item')})" for bundle in opened)
        print(f"{names}\n  {address}\n  {address.rstrip('/')}/docs  the API; Ctrl+C stops")
        if chosen.write_token:
            print(f"  items may be added and removed with the token in {TOKEN_VARIABLE}")

    serve(opened, chosen, on_ready=tell)


def server_settings(settings: ServeSchema, write_token: str | None = None) -> ServeSettings:
    """Returns what of a config the server is told.

    Args:
        settings: The composed ``conf/serve.yaml``.
        write_token: Who sends it may write; no file holds it.

    Raises:
        ValueError: A setting is out of range.
    """
    from visual_search.serving.settings import ServeSettings

    told = {name: value for name, value in vars(settings).items() if name not in _OPENED}
    told["trusted_hosts"] = tuple(settings.trusted_hosts)
    return ServeSettings(**told, write_token=write_token)


if __name__ == "__main__":
    main()
