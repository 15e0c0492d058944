"""A search in a folder, from Python: without torch, as the shop asks it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from visual_search.bundle.bundle import Bundle, Hit
    from visual_search.bundle.products import ByProduct


class OpenedBundle:
    """A bundle that is open; made by `open_bundle`.

    Args:
        bundle: What it asks; `bundle.Bundle` has more.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def __len__(self) -> int:
        return len(self.bundle)

    def __repr__(self) -> str:
        return f"OpenedBundle({self.bundle.place!r}): {self.bundle.holding}"

    def search(
        self,
        picture: str | os.PathLike[str] | bytes | Image.Image,
        k: int = 5,
        *,
        where: Mapping[str, str | Sequence[str]] | None = None,
        products: ByProduct = "best",
    ) -> list[Hit]:
        """Returns the products that look most like a picture, the nearest first.

        Args:
            picture: A file, its bytes, or a Pillow image.
            k: How many; fewer come back only where fewer are left.
            where: Column -> the value that it has to have, or several: any of them.
            products: Of several pictures each, found once: by the ``best`` of them, or by their
                ``mean``; ``all`` gives every picture. See `bundle.Bundle.search`.

        Raises:
            FileNotFoundError: There is no such file.
            PictureError: It is damaged, or too large.
            ValueError: A column is none of the bundle's, ``k`` is below 1, or ``products`` is
                another word.
        """
        import numpy as np

        from visual_search.api.given import encoded
        from visual_search.catalog.images import PictureError

        try:
            decoded = self.bundle.encoder.decode(encoded(picture, 0))
        except PictureError as error:
            name = picture if isinstance(picture, str | os.PathLike) else "the picture"
            raise PictureError(f"{name}: {error}") from error
        embedding = self.bundle.encoder.embed(np.stack([decoded]))
        return self.bundle.search(embedding, k, where=_several(where), products=products)[0]

    def similar(
        self,
        item_id: str,
        k: int = 5,
        *,
        where: Mapping[str, str | Sequence[str]] | None = None,
        products: ByProduct = "best",
    ) -> list[Hit]:
        """Returns the products that look most like one of the bundle's own, without itself.

        Args:
            item_id: Of the item: where products have several pictures, of the picture that asks.
            k: As `search`.
            where: As `search`.
            products: As `search`; ``all`` leaves out that picture alone.

        Raises:
            KeyError: There is no such item.
        """
        embedding = self.bundle.embedding_of(item_id)[None]
        found = self.bundle.search(
            embedding, k, where=_several(where), exclude_ids=[item_id], products=products
        )
        return found[0]


def _several(where: Mapping[str, str | Sequence[str]] | None) -> dict[str, list[str]]:
    return {
        column: [values] if isinstance(values, str) else list(values)
        for column, values in (where or {}).items()
    }


def open_bundle(folder: str | os.PathLike[str]) -> OpenedBundle:
    """Opens a bundle, and checks its files against their hashes.

    Args:
        folder: That ``python -m visual_search.export`` made; or the address of its copy on object
            storage, ``s3://bucket/shop``, which is copied to this machine, once.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: A file is not what was written.
        StorageError: Object storage does not answer, or refuses.
    """
    from visual_search.bundle.bundle import Bundle

    return OpenedBundle(Bundle.open(folder))
