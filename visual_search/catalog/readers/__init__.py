"""One file a source: each reader turns one layout of data into a validated ``Catalog``.

================================  ==================================================================
``folder.py``                     a sub-folder a category
``product_folders.py``            whether its folders of pictures are products
``table.py``                      a table in a file, with pictures beside it
``parquet.py``                    Parquet with the pictures inside
``webdataset.py``                 tars in which the files of a sample share a name
``open_metric_learning.py``       the CSV of Open Metric Learning
``fashion_mnist.py``              70,000 gray pictures
``fashion_product_images.py``     a shop's catalogue with attributes (Kaggle)
``fashion_product_styles.py``     the JSON of each product in its large edition
``hm.py``                         H&M's articles (Kaggle)
``deepfashion_inshop.py``         In-shop Clothes Retrieval
``deepfashion_consumer2shop.py``  buyers' photos that ask for a shop's
``deepfashion2.py``               garments on photos of shops and buyers, a JSON a photo
``stanford_online_products.py``   products of a marketplace, of several pictures
``amazon_berkeley_objects.py``    listings of a marketplace, with all of their pictures
``coco.py``                       annotations as COCO's: Fashionpedia
``polyvore_outfits.py``           items of which people have made outfits
``complete_the_look.py``          item boxes on collage boards (Pinterest)
``shop_the_look.py``              products, and the scenes that show them (Pinterest)
``delimited.py``                  text tables: whatever separates and encodes their fields
``json_rows.py``                  JSON lines, and lists of objects
``json_files.py``                 listings that are published as JSON
``workbook.py``                   Excel's workbooks
``feed.py``                       feeds in XML
``table_files.py``                which file is the table, and its texts by its suffix
``columns.py``                    which column says what, where nobody has told
``shop_exports.py``               exports of shop systems, known by their columns
``products.py``                   what a table says of its products, with all their pictures
``category_levels.py``            categories that are paths: a level each, and one to go by
``url_pictures.py``               pictures whose URLs stand in a table
``row_blocks.py``                 data that is larger than memory, some rows or a file at a time
``parquet_columns.py``            columns of Parquet as texts and numbers, bounded
``listings.py``                   what readers of published listings share
``deepfashion.py``                what DeepFashion's benchmarks share
``pinterest.py``                  what Pinterest's formats share
``picture_names.py``              what a picture may be called, and another spelling of it
``sources.py``                    where pictures come from: a folder, a zip, arrays
``object_source.py``              the same: object storage
``parquet_source.py``             the same: Parquet files
``tar_source.py``                 the same: tar archives
``crops.py``                      a picture and a box on it, in fractions
``pixel_crops.py``                the same, in pixels
================================  ==================================================================

A reader loads no picture. It checks what the listing can tell (ids, categories, paths, missing
files); a picture that does not decode is found when the cache is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import pandas as pd

from visual_search.catalog.catalog import BadItemsError, Catalog, Choice, PictureSource, RefusedItem
from visual_search.catalog.identity import id_problem

OnBadItem = Literal["error", "skip", "skip_any"]


def check_on_bad_item(on_bad_item: str) -> None:
    """Refuses any other word than ``error``, ``skip`` and ``skip_any``.

    Raises:
        ValueError: The word is another one.
    """
    if on_bad_item not in get_args(OnBadItem):
        raise ValueError(
            f"on_bad_item is {on_bad_item!r}; expected 'error' (stop and list the bad items) or "
            "'skip' (leave them out, counted and listed; to train, at most a tenth of all), or "
            "'skip_any' (any number of them)"
        )


def conclude(
    name: str,
    columns: Mapping[str, Sequence[str]],
    source: PictureSource,
    refused: Sequence[RefusedItem],
    *,
    on_bad_item: OnBadItem,
    origin: str,
    choices: Sequence[Choice] = (),
) -> Catalog:
    """Returns the catalogue of the good items, or stops because of the bad ones.

    Items whose ids could not be found again are bad, whatever the reader says.

    Args:
        name: Short name of the data.
        columns: Texts of the good items by column, all of one length.
        source: Loads the pictures.
        refused: The items that were left out.
        on_bad_item: ``error`` stops when there is a refused item; ``skip`` goes on, and
            ``skip_any`` however many there are.
        origin: What was read, for messages.
        choices: What the reader found out or chose by itself.

    Raises:
        BadItemsError: Items were refused and ``on_bad_item`` is ``error``.
        ValueError: No item is left.
    """
    columns, refused = without_bad_ids(columns, refused)
    if refused and on_bad_item == "error":
        raise BadItemsError(refused, origin)
    if not columns["item_id"]:
        reasons = "".join(f"\n  {r.item_id!r} ({r.image}): {r.reason}" for r in refused[:10])
        raise ValueError(
            f"{origin} gives no item ({len(refused)} refused); expected at least one{reasons}"
        )
    return Catalog(name, pd.DataFrame(columns), source, tuple(refused), tuple(choices))


def without_bad_ids(
    columns: Mapping[str, Sequence[str]], refused: Sequence[RefusedItem]
) -> tuple[Mapping[str, Sequence[str]], list[RefusedItem]]:
    """Returns items without those whose ids could not be found again, and these with the refused.

    Args:
        columns: Texts of the items by column.
        refused: Others that were left out.
    """
    problems = [id_problem(item_id) for item_id in columns["item_id"]]
    if not any(problems):
        return columns, list(refused)
    named = zip(columns["item_id"], columns["image"], problems, strict=True)
    bad = [
        RefusedItem(item_id, image, f"the id {problem}")
        for item_id, image, problem in named
        if problem
    ]
    good = {
        column: [text for text, problem in zip(texts, problems, strict=True) if not problem]
        for column, texts in columns.items()
    }
    return good, [*refused, *bad]
