"""A reader: a shop's own export becomes a catalogue."""

import json
from pathlib import Path

from visual_search import builder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers import conclude
from visual_search.catalog.readers.sources import open_source


@builder("data")
def shop_json(path: str, pictures: str) -> Catalog:
    """Returns the catalogue of ``[{"sku": ..., "type": ..., "photo": ...}, ...]``.

    Args:
        path: The export.
        pictures: The folder or zip of the photos.
    """
    products = json.loads(Path(path).read_text(encoding="utf-8"))
    columns = {
        "item_id": [str(product["sku"]) for product in products],
        "image": [product["photo"] for product in products],
        "category": [product["type"] for product in products],
        "group": [str(product["sku"]) for product in products],
        "split": ["" for _ in products],  # conf/split decides
    }
    source = open_source(pictures)
    return conclude("shop_json", columns, source, refused=[], on_bad_item="error", origin=path)
