from pathlib import Path

import pytest

from tests.catalog.shops import one_refused, refuses, saved
from visual_search.catalog.readers.hm import hm
from visual_search.catalog.splits import assign_splits

HEADER = (
    "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
    "colour_group_name,index_group_name,detail_desc\n"
)
BLACK = (
    "0108775015,0108775,Strap top,253,Vest top,Garment Upper body,Black,Ladieswear,"
    '"Jersey top, with ""narrow"" straps."\n'
)
WHITE = "0108775044,0108775,Strap top,253,Vest top,Garment Upper body,White,Ladieswear,\n"
BRA = "0110065001,0110065,OP T-shirt (Idro),306,Bra,Underwear,Black,Ladieswear,Microfibre bra\n"
IDS = ["0108775015", "0108775044", "0110065001"]


def shop(root: Path, rows: str) -> Path:
    pictures = {f"images/{item_id[:3]}/{item_id}.jpg": item_id for item_id in IDS}
    return saved(root, pictures | {"articles.csv": HEADER + rows})


def test_articles_become_items_and_colours_of_a_product_stay_together(tmp_path: Path) -> None:
    shop(tmp_path / "h-and-m", BLACK + WHITE + BRA)
    catalog = hm(tmp_path)
    columns = catalog.table.to_dict("list")
    assert columns["item_id"] == IDS  # the zero in front stays
    assert columns["image"][2] == "h-and-m/images/011/0110065001.jpg"
    assert columns["category"] == ["Vest top", "Vest top", "Bra"]
    assert columns["group"] == ["0108775", "0108775", "0110065"]
    assert columns["split"] == ["", "", ""]
    assert columns["detail_desc"] == ['Jersey top, with "narrow" straps.', "", "Microfibre bra"]
    assert catalog.attributes == HEADER.strip().split(",")[1:]
    assert catalog.name == "hm"
    assert catalog.source.load(columns["image"][2]) == b"0110065001"
    # the CRC-32 of 0108775 is divisible by 2, that of 0110065 by 3
    for divisor, expected in ((2, ["test", "test", "train"]), (3, ["train", "train", "test"])):
        rule = {"method": "crc32", "val_fraction": 0, "test_fraction": 0, "seed": 0}
        drawn = assign_splits(catalog, **rule, divisor=divisor)  # type: ignore[arg-type]
        assert list(drawn.table["split"]) == expected


BAD_ROWS = {
    BRA.replace("0110065001", "0110065002"): r"line 3: no picture 'images/011/0110065002\.jpg'",
    BRA.replace("0110065001", "110065001"): "line 3: the article_id is '110065001'; expected ten",
    BRA.replace("0110065001", "../0110065"): "line 3: the article_id is '../0110065'; expected ten",
    BRA.replace("Bra,", ","): "line 3: the category is empty",
    "0110065001,0110065": r"line 3: has 2 field\(s\); the header has 9",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = shop(tmp_path, BLACK + row.strip() + "\n" + WHITE)
    assert one_refused(BAD_ROWS[row], hm, root) == IDS[:2]


def test_another_category_and_what_is_no_such_catalogue(tmp_path: Path) -> None:
    refuses(FileNotFoundError, "nowhere", hm, tmp_path / "nowhere")
    refuses(FileNotFoundError, r"there is no articles\.csv in .*Kaggle", hm, tmp_path)
    root = shop(tmp_path, BLACK + BRA)
    assert hm(root, category="product_group_name").categories == ["Garment Upper body", "Underwear"]
    assert hm(root, category="colour_group_name").categories == ["Black"]
    message = r"data\.category is 'group'; expected one of"
    refuses(ValueError, message, hm, root, category="group")
    refuses(ValueError, "on_bad_item is 'drop'", hm, root, on_bad_item="drop")
    for text, message in (
        (HEADER, "gives no item"),
        (HEADER.replace("product_code,", ""), r"articles\.csv\) has no column \['product_code'\]"),
        (b"\xff\n", r"articles\.csv\): line 1 is not UTF-8"),
    ):
        refuses(ValueError, message, hm, saved(root, {"articles.csv": text}))
