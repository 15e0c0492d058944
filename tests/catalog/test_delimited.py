"""Text tables: every line is a row, the header, a named line above it, or refused by its number."""

from __future__ import annotations

import pytest

from tests.catalog.shops import refuses
from visual_search.catalog.readers.delimited import RawTable, decode, read_csv, read_lines

HEADER = "item_id,title,category,image\n"
NEEDED = ("item_id", "category", "image")


def rows(first: int, last: int, line: str = "{0},Title {0},Hats,{0}.jpg\n") -> str:
    return "".join(line.format(number) for number in range(first, last + 1))


def read(text: str, **arguments: object) -> RawTable:
    return read_csv(text.encode(), needed=NEEDED, **arguments)  # type: ignore[arg-type]


def ids(table: RawTable) -> list[str]:
    return [row[0] for row in table.rows]


QUOTES = {
    "closed in a later row": '1,"Title 1,Hats,1.jpg\n' + rows(2, 8) + '9,Bag 27",Hats,9.jpg\n',
    "closed in the next row": '1,"Title 1,Hats,1.jpg\n2,Bag 27",Hats,2.jpg\n' + rows(3, 9),
    "met by a quote": '1,"Title 1,Hats,1.jpg\n2,"Bag, 27",Hats,2.jpg\n' + rows(3, 9),
    "never closed": '1,"Title 1,Hats,1.jpg\n' + rows(2, 9),
    "in the first column": '"1,Title 1,Hats,1.jpg\n' + rows(2, 9),
    "in the last column": '1,Title 1,Hats,"1.jpg\n' + rows(2, 9),
}


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("case", QUOTES)
def test_a_quote_that_is_not_closed_costs_its_own_line_alone(case: str, sign: str) -> None:
    table = read((HEADER + QUOTES[case]).replace(",", sign))
    assert ids(table) == [str(number) for number in range(2, 10)]
    (refused,) = table.refused
    assert refused.item_id == "line 2"
    assert "quote" in refused.reason
    assert "line" in refused.reason


@pytest.mark.parametrize("name", ["a\nb", "a\n\nb", "two\nshort\nlines"])
def test_the_first_column_may_hold_a_line_break(name: str) -> None:
    table = read(HEADER + f'"{name}",Title 1,Hats,1.jpg\n' + rows(2, 9))
    assert ids(table) == [name, *map(str, range(2, 10))]
    assert table.refused == ()


def test_every_field_may_stand_in_quotes_and_several_be_open() -> None:
    quoted = rows(1, 8, '"{0}","Title {0}","Hats","{0}.jpg"\n')
    table = read(HEADER + quoted + '"a,b",Title 9,Hats,9.jpg\n')
    assert (ids(table), table.refused) == ([*map(str, range(1, 9)), "a,b"], ())
    text = HEADER + '1,"Title,Hats,1.jpg\n' + rows(2, 3) + '4,"Title,Hats,4.jpg\n' + rows(5, 9)
    table = read(text)
    assert ids(table) == ["2", "3", "5", "6", "7", "8", "9"]
    assert [item.item_id for item in table.refused] == ["line 2", "line 5"]


@pytest.mark.parametrize(
    "field",
    [
        *('"two\nlines"', '"prose, of\nred, green, blue, black\nand more"'),
        *('"as ""many""\r\n\r\ncommas, here"', '"a list\nred,green,blue,black\nand more"'),
    ],
)
def test_a_field_of_several_lines_is_one_field(field: str) -> None:
    table = read(f"{HEADER}1,{field},Hats,1.jpg\n" + rows(2, 4))
    assert ids(table) == ["1", "2", "3", "4"]
    assert table.rows[0][1] == field[1:-1].replace('""', '"')
    assert not table.refused


def test_a_header_that_opens_a_quote_is_unreadable() -> None:
    for text in ('"a"b,c\n1,2\n', 'item_id,"title,category,image\n' + rows(1, 3)):
        refuses(ValueError, r"the header is unreadable.*line 1", read, text)


SEPARATED = {
    ";": "item_id;price, EUR;category;image\n" + rows(1, 5, "{0};{0},90;Hats;{0}.jpg\n"),
    "|": "item_id|title|category|image\n" + rows(1, 5, "{0}|a; b, c|Hats|{0}.jpg\n"),
    "\t": "item_id\ttitle\tcategory\timage\n" + rows(1, 5, "{0}\ta, b; c\tHats\t{0}.jpg\n"),
    ",": "item_id,title,category,image\n" + rows(1, 5, "{0},a; b; c,Hats,{0}.jpg\n"),
}


@pytest.mark.parametrize("sign", SEPARATED)
def test_the_separator_is_found_out_and_said(sign: str) -> None:
    table = read(SEPARATED[sign], name="products.txt")
    assert (len(table.columns), ids(table)) == (4, ["1", "2", "3", "4", "5"])
    said = {choice.key: choice.value for choice in table.choices}
    assert said == ({} if sign == "," else {"data.separator": {"\t": "tab"}.get(sign, repr(sign))})
    told = read(SEPARATED[sign], separator={"\t": "tab"}.get(sign, sign))
    assert (told.rows, told.choices) == (table.rows, ())
    # without the names of the columns, and as the header alone
    assert read_csv(SEPARATED[sign].encode()).columns == table.columns
    assert read(SEPARATED[sign].partition("\n")[0]).columns == table.columns


def test_what_a_spreadsheet_says_of_its_separator() -> None:
    for line in ("sep=;\r\n", '"sep=;"\n', "SEP=;\n"):
        table = read(line + "item_id;category;image\n" + rows(1, 3, "{0};Hats;{0}.jpg\n"))
        assert (ids(table), table.places[0]) == (["1", "2", "3"], "line 3")
        assert [choice.key for choice in table.choices] == ["data.separator"]


@pytest.mark.parametrize(
    "above",
    [
        *("Export of the summer collection\n", "\n\nSummer,,,\n\n"),
        *("Shop:,Example\nDate:,2024-05-01\n", "This is, as you see, all of it\n"),
    ],
)
def test_lines_above_the_header_are_named(above: str) -> None:
    table = read(above + HEADER + rows(1, 4))
    assert (table.columns, ids(table)) == (HEADER.strip().split(","), ["1", "2", "3", "4"])
    (choice,) = table.choices
    assert above.strip().split("\n")[0] in str(choice)


def test_rows_of_another_length_or_with_a_nul_are_refused_whatever_their_number() -> None:
    table = read(HEADER + "1,a\n" + rows(2, 3) + "4,a,b,c,d\n'5, 6',a,Hats,5.jpg\n,,\n7,\0,b,c\n")
    assert ids(table) == ["2", "3"]
    assert [item.item_id for item in table.refused] == [f"line {n}" for n in (2, 5, 6, 7, 8)]


def test_every_kind_of_line_end_and_no_other() -> None:
    text = HEADER + "1,a\x0bb\x85c\u2028d,Hats,1.jpg\r\n2,Title,Hats,2.jpg\r3,Title,Hats,3.jpg"
    table = read("\ufeff" + text)
    assert (ids(table), table.rows[0][1]) == (["1", "2", "3"], "a\x0bb\x85c\u2028d")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_read_whatever_its_form(encoding: str) -> None:
    text = HEADER + rows(1, 9, "{0},Größe {0} €,Hats,{0}.jpg\n")
    table = read_csv(text.encode(encoding))
    assert table.rows == read(text).rows
    assert [choice.key for choice in table.choices] == (
        [] if encoding == "utf-8-sig" else ["data.encoding"]
    )


@pytest.mark.parametrize(
    "text",
    [
        *("Jäckchen, \u201eneu\u201c \u2013 5 €", "Crème brûlée à l\u2019été"),
        *("AZÚL NIÑO", "Größe 42 ½ \u00d7 3°"),
    ],
)
def test_western_text_is_read_and_shown(text: str) -> None:
    found, choice = decode(text.encode("cp1252"))
    assert (found, choice.value if choice else "") == (text, "cp1252")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Куртка женская", "cp1251"),
        ("Żółta sukienka, łódź", "cp1250"),
        ("Příliš žluťoučký kůň", "iso8859-2"),
        ("Jäckchen für Größe", "mac_roman"),
        ("Jäckchen für Größe", "cp850"),
        ("ジャケット", "shift_jis"),
        ("女士外套", "gb18030"),
        ("재킷", "euc_kr"),
        ("Παλτό", "cp1253"),
    ],
)
def test_what_is_not_certain_is_asked_for(text: str, encoding: str) -> None:
    data = f"{HEADER}1,{text},Hats,1.jpg\n".encode(encoding)
    with pytest.raises(ValueError, match=r"line 2 .*data\.encoding") as caught:
        decode(data)
    usual = ("cp1250", "cp1251", "gb18030", "shift_jis", "mac_roman")  # in these it is shown
    assert (f"{encoding} '1,{text},Hats,1.jpg'" in str(caught.value)) == (encoding in usual)
    assert decode(data, encoding) == (data.decode(encoding), None)


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("Gömlek, İpek Eşarp, Büyük Beden, Yeşil Şapka, Çocuk Eldiveni, Güneş Gözlüğü", "cp1254"),
        ("Żółta sukienka, Płaszcz, Spódnica, Bluza męska, Buty skórzane, Rękawiczki", "cp1250"),
        ("Женская куртка, Шапка, Ботинки, Платье, Юбка, Сумка", "cp1251"),
        ("Женская куртка, Шапка, Ботинки, Платье, Юбка, Сумка", "koi8-r"),
        ("Παλτό, Παπούτσια, Γυναικεία ρούχα, Τσάντα, Φούστα", "cp1253"),
        ("ジャケット, 靴, バッグ, 婦人服, スカート, 帽子, 手袋", "cp932"),
        ("女士外套, 鞋子, 包包, 连衣裙, 裙子, 腰带, 帽子, 手套", "gb18030"),
        ("재킷, 신발, 가방, 여성 의류, 치마, 모자", "cp949"),
        ("Jäckchen, Größe 42, Schuhe für Männer, Mäntel, Röcke, Gürtel, Mütze", "mac_roman"),
        ("Zapatos señora, Pantalón, Cinturón, Vestido de algodón, niño", "cp1252"),
        ("Calças, Blusão, Vestido de verão, Calção de banho, Chapéu", "cp1252"),
    ],
)
def test_an_encoding_is_found_by_the_words_that_it_makes(words: str, encoding: str) -> None:
    lines = "".join(f"{n},{word},{word},{n}.jpg\n" for n, word in enumerate(3 * words.split(", ")))
    text, choice = decode((HEADER + lines).encode(encoding))
    assert (text, choice.setting if choice else "") == (HEADER + lines, encoding)


def test_a_file_that_is_utf8_in_spite_of_its_setting_is_told() -> None:
    data = (HEADER + rows(1, 3, "{0},Größe {0},Hats,{0}.jpg\n")).encode()
    text, choice = decode(data, "cp1252")
    assert "GrÃ¶ÃŸe" in text
    assert "'Größe 1'" in str(choice)
    assert decode(data, "utf-8") == (data.decode(), None)
    assert decode(HEADER.encode(), "cp1252") == (HEADER, None)


def test_a_wrong_setting_is_named() -> None:
    for settings, message in (
        ({"encoding": "latin-9000"}, r"data\.encoding=latin-9000"),
        ({"encoding": "hex"}, r"data\.encoding=hex"),
        ({"encoding": "ascii"}, r"line 2 .* ascii"),
        ({"separator": ";;"}, r"data\.separator is ';;'"),
    ):
        refuses(ValueError, message, read, HEADER + "1,é,Hats,1.jpg\n", **settings)


def test_rows_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visual_search.catalog.readers.delimited.MAX_VALUES", 16)
    assert len(read(HEADER + rows(1, 4)).rows) == 4
    for more in (rows(1, 6), "1\n" * 6):  # rows that are refused are kept as well
        refuses(ValueError, "over 16 values in 4 column", read, HEADER + more)
    refuses(ValueError, "over 16 lines", read, HEADER + "\r\n" * 16)
    assert not read(HEADER + "\r\n" * 15).rows


def test_a_list_keeps_its_texts() -> None:
    assert read_lines("\ufeff 1.10 \r\n\r\nä\u2028b\r7E5".encode()) == [" 1.10 ", "ä\u2028b", "7E5"]
    assert read_lines("a\nb\n".encode("utf-16")) == ["a", "b"]
