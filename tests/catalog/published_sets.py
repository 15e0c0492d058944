"""Small sets in the layouts of published ones, with pictures that can be told apart."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.catalog.shops import saved


def drawn(seed: int, width: int = 48, height: int = 48) -> bytes:
    """A JPEG of coarse colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(file, "JPEG", quality=95)
    return file.getvalue()


def with_pictures(
    root: Path, texts: dict[str, bytes | str], names: Iterable[str], width: int = 48
) -> Path:
    """Writes listings, and of each name a picture of its own."""
    pictures = {name: drawn(seed, width) for seed, name in enumerate(dict.fromkeys(names))}
    return saved(root, texts | pictures)


def stanford_online_products(root: Path) -> list[str]:
    """24 products of three pictures in two categories."""
    texts: dict[str, bytes | str] = {}
    names = []
    for split, products in (("train", range(1, 13)), ("test", range(13, 25))):
        rows = ["image_id class_id super_class_id path"]
        for product in products:
            folder = ("mug", "lamp")[product % 2]
            for number in range(3):
                names.append(f"{folder}_final/{product}_{number}.JPG")
                rows.append(f"{len(names)} {product} {product % 2 + 1} {names[-1]}")
        texts[f"Ebay_{split}.txt"] = "\n".join(rows) + "\n"
    with_pictures(root, texts, names)
    return [f"data.root={root}", "protocol=instance"]


def coco(root: Path) -> list[str]:
    """40 photos with a dress and a shoe each."""
    categories = [{"id": 1, "name": "dress"}, {"id": 2, "name": "shoe"}]
    texts: dict[str, bytes | str] = {}
    photos = []
    for split, numbers in (("train", range(1, 25)), ("val", range(25, 41))):
        images = [
            {"id": one, "file_name": f"{one}.jpg", "width": 96, "height": 48} for one in numbers
        ]
        boxes = [
            {"id": 2 * one + place, "image_id": one, "category_id": place + 1,
             "bbox": [48 * place, 0, 48, 48], "iscrowd": 0}
            for one in numbers for place in (0, 1)
        ]  # fmt: skip
        content = {"images": images, "annotations": boxes, "categories": categories}
        texts[f"annotations/instances_{split}2020.json"] = json.dumps(content)
        photos += [f"{split}2020/{one}.jpg" for one in numbers]
    with_pictures(root, texts, photos, width=96)
    return [f"data.root={root}"]


def deepfashion_consumer2shop(root: Path) -> list[str]:
    """24 products, each with two photos of a buyer and one of the shop."""
    rows, names = [], []
    for product in range(24):
        folder = f"img/DRESSES/{('Dress', 'Skirt')[product % 2]}/id_{product:08}"
        shop = f"{folder}/shop_01.jpg"
        split = "train" if product < 8 else "val" if product < 16 else "test"
        for number in (1, 2):
            consumer = f"{folder}/comsumer_{number:02}.jpg"
            rows.append(f"{consumer} {shop} id_{product:08} {split}")
            names += [consumer, shop]
    header = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    text = f"{len(rows)}\n{header}\n" + "\n".join(rows) + "\n"
    with_pictures(root / "Img", {}, names)
    saved(root, {"Eval/list_eval_partition.txt": text})
    return [f"data.root={root}", "protocol=published", "protocol.relevance=[product]"]


def deepfashion2(root: Path) -> list[str]:
    """Two parts of 12 pairs, each of a user's photo and one of the shop."""
    texts: dict[str, bytes | str] = {}
    names = []
    for part in ("train", "validation"):
        for photo in range(24):
            garment = {"category_name": ("skirt", "vest")[photo // 2 % 2], "style": 1}
            garment |= {"bounding_box": [4, 4, 44, 44], "scale": 1}
            content = {"source": ("user", "shop")[photo % 2], "pair_id": photo // 2 + 1}
            texts[f"{part}/annos/{photo:06}.json"] = json.dumps(content | {"item1": garment})
            names.append(f"{part}/image/{photo:06}.jpg")
    with_pictures(root, texts, names)
    return [f"data.root={root}", "protocol=published", "protocol.relevance=[product]"]


def amazon_berkeley_objects(root: Path) -> list[str]:
    """40 products of three pictures in two categories."""
    rows, listings = ["image_id,height,width,path"], []
    for product in range(40):
        images = [f"{product:02}-{number}" for number in range(3)]
        rows += [f"{image},48,48,{image[:2]}/{image}.jpg" for image in images]
        listing = {"item_id": f"B{product:03}", "domain_name": "amazon.com"}
        listing |= {"product_type": [{"value": ("SHOES", "CHAIR")[product % 2]}]}
        names = [{"language_tag": "en_US", "value": f"Ärmel {product}"}]
        listing |= {"item_name": names, "main_image_id": images[0], "other_image_id": images[1:]}
        listings.append(json.dumps(listing))
    with_pictures(
        root,
        {
            "listings/metadata/listings_0.json.gz": gzip.compress("\n".join(listings).encode()),
            "images/metadata/images.csv.gz": gzip.compress("\n".join(rows).encode()),
        },
        [f"images/small/{row.rpartition(',')[2]}" for row in rows[1:]],
    )
    return [f"data.root={root}", "protocol=instance"]


def lookbench(root: Path) -> list[str]:
    """24 queries of 24 products, two pictures of each in the gallery, and others beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds = iter(range(1000))

    def write(name: str, products: Iterable[str]) -> None:
        rows = [
            {
                "image": {"bytes": drawn(next(seeds)), "path": None},
                "category": ("Dress", "Schuh für Ärzte")[int(product) % 2],
                "main_attribute": ("solid", "floral")[int(product) // 2 % 2],
                "other_attributes": ["long"],
                "bbox": [0, 0, 48, 48],
                "item_ID": product,
                "difficulty": "easy",
            }
            for product in products
        ]
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), root / name)

    write("v20251201/real_studio_flat/query.parquet", map(str, range(24)))
    write("v20251201/real_studio_flat/gallery.parquet", [str(place // 2) for place in range(48)])
    write("v20251201/noise/noise_0.parquet", map(str, range(100, 110)))
    write("v20251201/aigen_studio/query.parquet", map(str, range(200, 203)))
    return [f"data.path={root}", "protocol=published", "protocol.relevance=[group]"]


def polyvore_outfits(root: Path) -> list[str]:
    """60 outfits of two items, without one in two."""
    texts: dict[str, bytes | str] = {"categories.csv": "1,boot,shoes\n2,tote,bags\n"}
    metadata = {}
    for split, numbers in (("train", range(30)), ("valid", range(30, 45)), ("test", range(45, 60))):
        outfits = []
        for number in numbers:
            ids = [f"{number}{place}" for place in (1, 2)]
            placed = [{"item_id": one, "index": place} for place, one in enumerate(ids, 1)]
            outfits.append({"set_id": str(number), "items": placed})
            for place, one in enumerate(ids):
                above = ("shoes", "bags")[place]
                metadata[one] = {"title": "Größe", "category_id": place + 1}
                metadata[one] |= {"semantic_category": above, "url_name": above}
        texts[f"disjoint/{split}.json"] = json.dumps(outfits)
    texts["polyvore_item_metadata.json"] = json.dumps(metadata)
    with_pictures(root, texts, [f"images/{one}.jpg" for one in metadata])
    return [f"data.root={root}", "data.version=disjoint"]


def shopee(root: Path) -> list[str]:
    """30 products with three postings each."""
    rows = ["posting_id,image,image_phash,title,label_group"]
    images = [f"{place:032x}.jpg" for place in range(90)]
    rows += [
        f'train_{place},{image},94974f937d4c2433,"Sepatu ""Ä"", merah",{249114794 + place // 3}'
        for place, image in enumerate(images)
    ]
    texts: dict[str, bytes | str] = {"train.csv": "\n".join(rows), "test.csv": rows[0]}
    with_pictures(root, texts, [f"train_images/{image}" for image in images])
    return [f"data.path={root}", "protocol=instance", "protocol.relevance=[group]"]


SETS = {
    written.__name__: written
    for written in (
        amazon_berkeley_objects,
        coco,
        deepfashion2,
        deepfashion_consumer2shop,
        lookbench,
        polyvore_outfits,
        shopee,
        stanford_online_products,
    )
}
