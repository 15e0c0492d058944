import re
from pathlib import Path

import pytest

from visual_search.catalog.catalog import BadItemsError
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


def shop(root: Path, rows: str, *ids: str, inner: str = "") -> Path:
    for item_id in ids:
        folder = root / inner / "images" / item_id[:3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{item_id}.jpg").write_bytes(item_id.encode())
    (root / inner / "articles.csv").write_text(HEADER + rows, encoding="utf-8")
    return root


ALL = ("0108775015", "0108775044", "0110065001")


def test_articles_become_items(tmp_path: Path) -> None:
    catalog = hm(shop(tmp_path, BLACK + WHITE + BRA, *ALL, inner="h-and-m"))
    columns = catalog.table.to_dict("list")
    assert columns["item_id"] == list(ALL)  # the zero in front stays
    assert columns["image"][2] == "h-and-m/images/011/0110065001.jpg"
    assert columns["category"] == ["Vest top", "Vest top", "Bra"]
    assert columns["group"] == ["0108775", "0108775", "0110065"]
    assert columns["split"] == ["", "", ""]
    assert columns["detail_desc"] == ['Jersey top, with "narrow" straps.', "", "Microfibre bra"]
    assert catalog.attributes == HEADER.strip().split(",")[1:]
    assert catalog.name == "hm"
    assert catalog.source.load(columns["image"][2]) == b"0110065001"


def test_the_colours_of_a_product_stay_together(tmp_path: Path) -> None:
    catalog = hm(shop(tmp_path, BLACK + WHITE + BRA, *ALL))
    drawn = [
        assign_splits(catalog, method="crc32", divisor=d, val_fraction=0, test_fraction=0, seed=0)
        for d in (2, 3)
    ]
    splits = [list(each.table["split"]) for each in drawn]
    # the CRC-32 of 0108775 is divisible by 2, that of 0110065 by 3
    assert splits == [["test", "test", "train"], ["train", "train", "test"]]


def test_another_category(tmp_path: Path) -> None:
    root = shop(tmp_path, BLACK + BRA, *ALL)
    assert hm(root, category="product_group_name").categories == ["Garment Upper body", "Underwear"]
    assert hm(root, category="colour_group_name").categories == ["Black"]
    with pytest.raises(ValueError, match=r"data\.category is 'group'; expected one of"):
        hm(root, category="group")


BAD_ROWS = {
    BRA.replace("0110065001", "0110065002"): r"line 3: no picture 'images/011/0110065002\.jpg'",
    BRA.replace("0110065001", "110065001"): "line 3: the article_id is '110065001'; expected ten",
    BRA.replace("0110065001", "../0110065"): "line 3: the article_id is '../0110065'; expected ten",
    BLACK: "line 3: the id stands in line 2 already",
    BRA.replace("Bra,", ","): "line 3: the category is empty",
    "0110065001,0110065": r"line 3: has 2 field\(s\); the header has 9",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = shop(tmp_path, BLACK + row.strip() + "\n" + WHITE, *ALL)
    with pytest.raises(BadItemsError, match=r"^1 bad item\(s\)") as caught:
        hm(root)
    (item,) = caught.value.refused
    said = f"{item.item_id}: {item.reason}" if item.item_id == "line 3" else item.reason
    assert re.search(BAD_ROWS[row], said)
    catalog = hm(root, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["0108775015", "0108775044"]
    assert catalog.refused == (item,)


def test_what_is_no_such_catalogue(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        hm(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no articles\.csv in .*Kaggle"):
        hm(tmp_path)
    root = shop(tmp_path, "", *ALL)
    with pytest.raises(ValueError, match="gives no item"):
        hm(root)
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        hm(root, on_bad_item="drop")  # type: ignore[arg-type]
    (root / "articles.csv").write_text("article_id,product_type_name,product_group_name\n")
    with pytest.raises(ValueError, match=r"articles\.csv\) has no column \['product_code'\]"):
        hm(root)
    (root / "articles.csv").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"articles\.csv\): line 1 is not UTF-8"):
        hm(root)
