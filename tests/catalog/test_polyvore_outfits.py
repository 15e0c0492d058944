import json
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.shops import one_refused, refuses, saved, zipped
from visual_search.catalog.readers.polyvore_outfits import polyvore_outfits

CATEGORIES = '11,sweater,tops\n48,"hat, beanie",hats\n41,sneakers,shoes\n'


def texts(number: Any, semantic: str, **more: Any) -> dict[str, Any]:
    long = {"description": "soft", "catgeories": ["Tops"], "related": ["Knitwear"]}
    return {"url_name": "wool knit", "title": "", "category_id": number,
            "semantic_category": semantic, **long} | more  # fmt: skip


METADATA = {
    "154249722": texts("11", "tops", title="Rollkragen für Ärzte\n"),
    "188425631": texts(48, "hats"),
    "183179503": texts("41", ""),  # of which the list of categories knows more
    "199": texts("11", "tops"),
    "200": texts("7", "bags"),
}
IDS = list(METADATA)


def outfit(set_id: str, *items: str) -> dict[str, Any]:
    placed = [{"item_id": item, "index": place} for place, item in enumerate(items, 1)]
    return {"set_id": set_id, "items": placed}


TRAIN = [outfit("210", IDS[0], IDS[1]), outfit("211", IDS[0])]
VALID = [outfit("212", IDS[2])]
TEST = [outfit("213", IDS[1], IDS[3]), outfit("214", IDS[3], IDS[4])]


def polyvore(root: Path, test: Any = TEST, **changed: str) -> Path:
    saved(root, [f"images/{item}.jpg" for item in IDS])
    lists = {"train": TRAIN, "valid": VALID, "test": test}
    outfits = {f"nondisjoint/{name}.json": json.dumps(one) for name, one in lists.items()}
    outfits |= {f"disjoint/{name}.json": json.dumps(one[-1:]) for name, one in lists.items()}
    known = {"polyvore_item_metadata.json": json.dumps(METADATA), "categories.csv": CATEGORIES}
    return saved(root, outfits | known | changed)


def test_items_of_outfits_are_split_once(tmp_path: Path) -> None:
    root = polyvore(tmp_path / "a")
    catalog = polyvore_outfits(root)
    assert catalog.table.to_dict("list") == {
        "item_id": IDS,
        "image": [f"images/{item}.jpg" for item in IDS],
        "category": ["tops", "hats", "shoes", "tops", "bags"],
        "group": ["210", "210", "212", "213", "214"],
        "split": ["train", "train", "val", "test", "test"],
        "title": ["Rollkragen für Ärzte", *["wool knit"] * 4],
        "semantic_category": ["tops", "hats", "shoes", "tops", "bags"],
        "fine_category": ["sweater", "hat, beanie", "sneakers", "sweater", ""],
        "outfits": ["210 211", "210", "212", "213 214", "214"],
    }
    assert [str(one) for one in catalog.choices] == [
        "1 item of outfits of several splits: each is of the first: train, val, test"
    ]
    assert catalog.source.load("images/199.jpg") == b"images/199.jpg"
    disjoint = polyvore_outfits(zipped(root, tmp_path / "a.zip", "b/"), version="disjoint")
    assert disjoint.table["item_id"].tolist() == [IDS[0], *IDS[2:]]
    assert (disjoint.table["outfits"][0], disjoint.choices) == ("211", ())
    reason = "outfit 214: the category is empty"
    assert one_refused(reason, polyvore_outfits, root, category="fine_category") == IDS[:4]


BAD = [
    (outfit("9", "777"), r"777: nondisjoint/test\.json, outfit 9: polyvore_item_meta.* no entry"),
    ({"set_id": "9"}, r"nondisjoint/test\.json, entry 3: is \{'set_id': '9'\}; expected an object"),
    ({"set_id": "9", "items": [{"index": 1}]}, r"outfit 9 has the items .*expected an item_id"),
    ({"set_id": None, "items": []}, "entry 3: is "),
    (7, "entry 3: is 7; expected an object with set_id and items"),
]


@pytest.mark.parametrize(("entry", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_outfit_is_refused_and_named(tmp_path: Path, entry: Any, reason: str) -> None:
    assert one_refused(reason, polyvore_outfits, polyvore(tmp_path, [*TEST, entry])) == IDS


def test_a_missing_picture_and_what_is_no_such_data(tmp_path: Path) -> None:
    read = polyvore_outfits
    root = polyvore(tmp_path / "a")
    (root / "images/200.jpg").unlink()
    assert one_refused(r"outfit 214: no picture 'images/200\.jpg'", read, root) == IDS[:4]
    refuses(ValueError, r"data\.version is 'joint'; .*did you mean 'disjoint'", read, root,
            version="joint")  # fmt: skip
    refuses(ValueError, r"data\.category is 'tops'", read, root, category="tops")
    refuses(ValueError, "on_bad_item is 'drop'", read, root, on_bad_item="drop")
    message = r"no polyvore_item_metadata\.json in .*unpacked"
    refuses(FileNotFoundError, message, read, saved(tmp_path / "b", ["x"]))
    for name, text, message in (
        ("categories.csv", "11,tops\n", r"has the row \['11', 'tops'\]; expected number, fine"),
        ("polyvore_item_metadata.json", "[]", "holds no object; expected item -> its texts"),
        ("polyvore_item_metadata.json", "{", "is no JSON"),
        ("nondisjoint/valid.json", "{}", r"nondisjoint/valid\.json in .* holds no list"),
    ):
        refuses(ValueError, message, read, polyvore(tmp_path / "c", **{name: text}))
    for name in ("categories.csv", "nondisjoint/valid.json"):
        (polyvore(tmp_path / "d") / name).unlink()
        refuses(FileNotFoundError, f"there is no {name} in .*unpacked", read, tmp_path / "d")
