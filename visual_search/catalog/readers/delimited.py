"""Text tables, as CSV: whatever separates their fields, whatever encodes them, read whole.

The one place where a file of rows becomes texts. What the file does not say itself (its separator,
its encoding, lines above its header) is found out, and told as a `Choice`; no line vanishes: each
is the header, a row, a line above the header that is named, or refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from visual_search.catalog.catalog import Choice, RefusedItem

SEPARATORS = (",", ";", "\t", "|")
MAX_TEXT_BYTES = 2**31  # of a table, as text
MAX_VALUES = 50_000_000  # of a table: in memory each takes several times its text

_AROUND = " \t\r\n\ufeff"  # a name of a column
_SAMPLE_LINES = 200  # that separator and number of columns are told from
_HEAD_RECORDS = 20  # among which the header is looked for
_EXCEL = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE | re.DOTALL)
_SEPARATOR_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_BYTE_ORDER_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Mend = Callable[[str, int, str], list[str]]
"""Fields of a line that breaks the rules of CSV, by (line, number of columns, separator)."""


@dataclass(frozen=True)
class RawTable:
    """The texts of a table as they stand in the file.

    Attributes:
        columns: Names of the columns, each once.
        rows: One list of texts a row, as long as ``columns``.
        places: Where each row stands, as ``line 12``.
        refused: Rows that could not be told apart into fields.
        choices: What was found out about the file.
        lists: Of columns whose cells hold several texts by the file's own word, as JSON's lists do,
            the texts of each row; ``rows`` holds them joined.
    """

    columns: list[str]
    rows: list[list[str]]
    places: list[str]
    refused: tuple[RefusedItem, ...] = ()
    choices: tuple[Choice, ...] = ()
    lists: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)

    def named(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields where each row stands, and its texts by column."""
        for place, texts in zip(self.places, self.rows, strict=True):
            yield place, dict(zip(self.columns, texts, strict=True))


@dataclass(frozen=True)
class _Record:
    """What csv makes of the lines ``first`` to ``end - 1``, counted from 0."""

    first: int
    end: int
    fields: list[str]
    reason: str = ""

    @property
    def place(self) -> str:
        if self.end - self.first <= 1:
            return f"line {self.first + 1}"
        return f"lines {self.first + 1}-{self.end}"


def read_csv(
    data: bytes,
    separator: str | None = None,
    encoding: str | None = None,
    *,
    name: str = "",
    needed: Sequence[str] = (),
    mend: Mend | None = None,
) -> RawTable:
    r"""Returns texts of a table of separated fields; what is no row of it stands in ``refused``.

    A quote that is opened and not closed would swallow the rows behind it: where a field would hold
    whole rows, only the line with the quote is refused, and these are read as the rows that they
    are.

    Args:
        data: The file's bytes.
        separator: What separates the fields: one character, or ``tab``; None finds it out.
        encoding: A name that Python knows, as ``cp1252``; None finds it out: UTF-8, UTF-16 and
            UTF-32 are certain, another one is taken where its letters make words and those of no
            other do as well.
        name: The file's; in a ``.tsv`` a tab separates.
        needed: Columns that it is to have: the line with them is the header.
        mend: Gives the fields of a line that csv cannot tell apart, or too few of them.

    Raises:
        ValueError: The encoding or separator is none or cannot be found out, there is no header, it
            is unreadable, or it names a column twice; or there are over 50 million values or lines.

    Example:
        >>> table = read_csv(b"Summer 2024\nsku;type\n7;Hats\n")
        >>> table.columns, table.rows, table.places
        (['sku', 'type'], [['7', 'Hats']], ['line 3'])
        >>> [choice.key for choice in table.choices]
        ['data.separator', '']
    """
    text, chosen = decode(data, encoding)
    choices = [] if chosen is None else [chosen]
    if text.count("\n") + text.count("\r") - text.count("\r\n") > MAX_VALUES:
        raise ValueError(
            f"the table has over {MAX_VALUES:,} lines; expected fewer: split it, or take out those "
            "that are empty"
        )
    lines = list(io.StringIO(text, newline=""))  # ends at \n, \r\n and \r, and keeps them
    start = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    excel = _EXCEL.fullmatch(lines[start]) if start < len(lines) else None
    if excel is not None:
        start += 1
    usual = "\t" if name.lower().endswith(".tsv") else ","
    if separator is not None:
        sign = _separator_of_word(separator)
    else:
        sign = excel[1] if excel is not None else _find_separator(lines, start, usual, needed)
        if sign != usual:
            why = "as its line 'sep=' says" if excel is not None else "as its lines are cut best"
            setting = "tab" if sign == "\t" else sign
            shown = setting if sign == "\t" else repr(sign)
            choices.append(Choice("data.separator", shown, why, setting))
    header, above = _find_header(lines, start, sign, needed)
    if above:
        choices.append(
            Choice("", f"{_span(above)} above the header left out", _short(lines, above))
        )
    columns = column_names(header.fields)
    rows: list[list[str]] = []
    places: list[str] = []
    refused: list[RefusedItem] = []
    for record in _records(lines, header.end, sign, len(columns)):
        if (len(rows) + len(refused)) * len(columns) > MAX_VALUES:
            raise ValueError(
                f"the table has over {MAX_VALUES:,} values in {len(columns)} column(s); expected "
                "at most that: split it, or leave out the columns that are not needed"
            )
        fields, reason = record.fields, record.reason
        if mend is not None and (reason or len(fields) != len(columns)):
            mended = mend(lines[record.first].rstrip("\r\n"), len(columns), sign)
            if len(mended) == len(columns) and record.end - record.first == 1:
                fields, reason = mended, ""
        if not reason and len(fields) != len(columns):
            reason = (
                f"has {len(fields)} field(s); the header has {len(columns)}; quote the fields that "
                "hold a separator, a quote or a line break"
            )
        if not reason and any("\0" in field for field in fields):
            reason = "holds a NUL character; expected text: write the table anew"
        if reason:
            refused.append(RefusedItem(record.place, "", reason))
        else:
            rows.append(fields)
            places.append(record.place)
    return RawTable(columns, rows, places, tuple(refused), tuple(choices))


def decode(data: bytes, encoding: str | None = None) -> tuple[str, Choice | None]:
    """Returns the text of a file, without a byte-order mark, and the encoding where it was chosen.

    Args:
        data: The file's bytes.
        encoding: A name that Python knows; None finds it out.

    Raises:
        ValueError: It is no text in this encoding, ``encoding`` is none, or it cannot be found out.

    Example:
        >>> text, chosen = decode("Jäckchen".encode("cp1252"))
        >>> print(text, chosen)
        Jäckchen data.encoding=cp1252 (it is no UTF-8; reads 'Jäckchen')
    """
    if encoding is not None:
        return _decode_as(data, encoding), _contradiction(data, encoding)
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decode_as(data, name), _encoding(name, "as its first bytes say")
    wide = _wide(data)
    if wide:
        why = "every second byte is 0"
        return _decode_as(data, wide).removeprefix("\ufeff"), _encoding(wide, why)
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        at = error.start
    start = data.rfind(b"\n", 0, at) + 1
    around = data[start:].partition(b"\n")[0]
    line = data.count(b"\n", 0, at) + 1
    if found := _likely_encoding(data):
        shown = _word_at(
            around.decode(found, "replace"), len(data[start:at].decode(found, "ignore"))
        )
        return data.decode(found), _encoding(found, f"it is no UTF-8; reads {shown!r}")
    readings = []
    for name in ("cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "mac_roman"):
        try:
            readings.append(f"{name} {around.decode(name).strip()[:60]!r}")
        except UnicodeDecodeError:
            continue
    raise ValueError(
        f"line {line} is not UTF-8 (byte {data[at]:#04x}), and its encoding is not certain; "
        "expected it by name: give data.encoding, or save the file as UTF-8 (the line would be "
        f"{', '.join(readings)})"  # mac_roman reads any bytes
    )


def check_names(columns: Sequence[str]) -> None:
    """Refuses a header that names a column twice.

    Raises:
        ValueError: It does.
    """
    twice = sorted(name for name, number in Counter(columns).items() if number > 1)
    if twice:
        raise ValueError(f"the column(s) {twice} stand twice; expected each name once: rename one")


def read_lines(data: bytes) -> list[str]:
    r"""Returns the lines of a list of texts that are not blank, each as it is, in any encoding.

    Only ``\n``, ``\r\n`` and ``\r`` end a line, so that a text keeps the rarer signs that it holds.

    Raises:
        ValueError: The encoding cannot be found out.

    Example:
        >>> read_lines(b"1.10\r\n\r\n 7E5\n")
        ['1.10', ' 7E5']
    """
    lines = io.StringIO(decode(data)[0], newline="")
    return [line.rstrip("\r\n") for line in lines if line.strip()]


def _contradiction(data: bytes, encoding: str) -> Choice | None:
    """Says that a file which is told to be in another encoding reads as UTF-8: it hardly would."""
    if codecs.lookup(encoding).name == "utf-8" or data.isascii() or _wide(data):
        return None
    text = _reads(data, "utf-8")
    if text is None or text == _reads(data, encoding):
        return None
    at = next(n for n, sign in enumerate(text) if not sign.isascii())
    start = text.rfind("\n", 0, at) + 1
    line = text[start : text.find("\n", at) % (len(text) + 1)]
    return Choice(
        "data.encoding",
        encoding,
        f"as it is set, but the file is likely UTF-8 and reads {_word_at(line, at - start)!r}: "
        "leave data.encoding out",
    )


def _encoding(name: str, why: str) -> Choice:
    return Choice("data.encoding", name, why, name)


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        text = data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeError as error:
        at = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = data.count(b"\n", 0, at) + 1
        raise ValueError(
            f"line {line} is no text in {encoding} ({error}); expected another data.encoding, or "
            "the file in UTF-8"
        ) from error
    except (LookupError, AttributeError) as error:
        raise ValueError(
            f"data.encoding={encoding} is no encoding of text; expected one that Python knows, as "
            "utf-8, cp1252, utf-16"
        ) from error
    if not isinstance(text, str):
        raise ValueError(f"data.encoding={encoding} gives no text; expected utf-8, cp1252 or such")
    return text


def _wide(data: bytes) -> str:
    """Returns UTF-16 without its mark by name, which ASCII in it betrays, or nothing."""
    head = data[:2048]
    if len(head) < 4 or b"\0" not in head:
        return ""
    pairs = len(head) // 2
    even, odd = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if odd > 0.7 * pairs and not even:
        return "utf-16-le"
    return "utf-16-be" if even > 0.7 * pairs and not odd else ""


_LETTERS = r"[^\W\d_]"
_STRANGE = re.compile(
    r"[\x80-\x9f]"  # control characters
    # within a word a sign: inverted ones, currencies, fractions, low quotes, daggers
    rf"|(?<={_LETTERS})[\xa1-\xb6\xb8-\xbf\xd7\xf7\u201a\u201e\u2020\u2021\u2030\u0192\u02c6"
    rf"\u02dc\u20ac](?={_LETTERS})"
    r"|(?<=[a-z\xe0-\xf6\xf8-\xff])[\xc0-\xd6\xd8-\xde\u0160\u017d\u0178\u0152]"  # a capital late
    r"|[\xc0-\xd6\xd8-\xf6\xf8-\xff]{3,}|\xff"  # three accented letters in a row, a y with dots
)


# What tables are written in that are no Unicode; the others that chardet knows read the same texts,
# or nobody writes tables in them.
_ENCODINGS = {
    codecs.lookup(name).name: name
    for name in (
        *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
        *("iso8859-2", "koi8-r", "koi8-u", "mac_roman", "cp437", "cp850", "cp852", "cp866"),
        *("cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
    )
}
_MAX_SAMPLE_BYTES = 2**17
# Measured on tables of 4 to 60 rows in 26 languages: 4 of 100 are mistaken, nearly all in Estonian
# (for Western) and Hungarian, and 1 is asked for; with one row it is 17, and 44 are asked for.
_MIN_WORDS, _MIN_LEAD = 4, 1.05
# Western text has words in most of its neighbours' encodings, too: they have to fit far better.
_NEAR_WESTERN = ("cp1250", "cp1254", "cp1257")
_MIN_NEAR_LEAD, _MIN_NEAR_CONFIDENCE = 1.3, 0.05


def _likely_encoding(data: bytes) -> str:
    """Returns the encoding of bytes that are no Unicode, or nothing where it is not certain."""
    import chardet

    lines = [line for line in data.splitlines() if not line.isascii()]
    sample = b"\n".join(lines)[:_MAX_SAMPLE_BYTES]
    words = {word for word in re.split(rb"[^0-9A-Za-z\x80-\xff]+", sample) if not word.isascii()}
    fits: dict[str, float] = {}  # the best first
    if len(words) >= _MIN_WORDS:
        for one in chardet.detect_all(sample, ignore_threshold=True):
            name = _ENCODINGS.get(_python_name(str(one["encoding"])))
            if name is not None and _sampled(sample, name) is not None:
                fits.setdefault(name, one["confidence"])
    western = _reads(data, "cp1252")
    if western is not None and _is_western(western):
        near = max(
            (name for name in _NEAR_WESTERN if name in fits), key=fits.__getitem__, default=""
        )
        is_near = (
            fits.get(near, 0.0) >= _MIN_NEAR_CONFIDENCE
            and fits.get(near, 0.0) >= _MIN_NEAR_LEAD * fits.get("cp1252", 0.0)
            and _reads(data, near) is not None
        )
        return near if is_near else "cp1252"
    best = next((name for name in fits if _reads(data, name) is not None), "")
    if not best:
        return ""
    text = _sampled(sample, best)
    rivals = [fits[name] for name in fits if _sampled(sample, name) != text]
    return best if all(fits[best] >= _MIN_LEAD * rival for rival in rivals) else ""


def _python_name(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return ""


def _reads(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _sampled(data: bytes, encoding: str) -> str | None:
    """Returns the text of what may end within a letter."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return None


def _is_western(text: str) -> bool:
    """Returns whether what was read as Windows-1252 makes words; another encoding hardly would."""
    return _STRANGE.search(text) is None


def _word_at(line: str, at: int) -> str:
    start = line.rfind(" ", 0, at) + 1
    fields = re.split(r'[,;|\t"]', line[start:])
    return next((field.strip() for field in fields if not field.isascii()), line[start:])[:40]


def _separator_of_word(separator: str) -> str:
    sign = _SEPARATOR_WORDS.get(separator.lower(), separator)
    if len(sign) != 1 or sign in '"\r\n':
        raise ValueError(
            f"data.separator is {separator!r}; expected one character, as ',' or ';', or one of "
            f"{list(_SEPARATOR_WORDS)}"
        )
    return sign


def _plain_records(lines: Sequence[str], start: int, sign: str) -> list[_Record]:
    """Returns the first records as csv cuts them, nothing looked into."""
    end = min(len(lines), start + _SAMPLE_LINES)
    return list(_cut(lines[:end], start, sign))


def _num_columns(records: Sequence[_Record]) -> int:
    """Returns the number of fields that most records have, of those with two or more; else 1."""
    counts = Counter(len(r.fields) for r in records if not r.reason and len(r.fields) > 1)
    return max(counts, key=lambda count: (counts[count], count)) if counts else 1


def _find_separator(lines: Sequence[str], start: int, usual: str, needed: Sequence[str]) -> str:
    """Returns the sign by which the lines have the needed columns, or are cut most evenly."""

    def score(sign: str) -> tuple[int, bool, float, int]:
        records = _plain_records(lines, start, sign)
        width = _num_columns(records)
        filled = [record for record in records if record.fields or record.reason]
        if width == 1 or not filled:
            return 0, False, 0.0, 1
        share = sum(len(record.fields) == width for record in filled) / len(filled)
        found = max(len(_named(record.fields, needed)) for record in filled[:_HEAD_RECORDS])
        return found, len(filled[0].fields) == width, share, width

    return max((usual, *(sign for sign in SEPARATORS if sign != usual)), key=score)


def header_place(rows: Sequence[Sequence[str] | None], needed: Sequence[str], width: int) -> int:
    """Returns which of the first rows is the header: the one with the columns that are needed.

    Where none has them it is the first that is filled as one; a title above it has one cell, or few
    where a spreadsheet fills up its row.

    Args:
        rows: The first ones; None for one that cannot be told apart into fields.
        needed: Names of columns; none where nobody named any.
        width: How many columns there are.

    Example:
        >>> header_place([["Summer 2024", "", ""], ["sku", "type", "photo"]], [], 3)
        1
    """
    head = rows[:_HEAD_RECORDS]
    for place, fields in enumerate(head):
        if needed and fields is not None and _named(fields, needed) == set(needed):
            return place
    for place, fields in enumerate(head):
        if fields is None:
            return place
        if sum(map(bool, map(str.strip, fields))) > max(1, width // 3):
            return place if len(fields) == width else 0
    return 0


def column_names(fields: Sequence[str]) -> list[str]:
    """Returns the names of a header, white space around them removed; the empty by their place.

    Raises:
        ValueError: One stands twice.

    Example:
        >>> column_names([" sku ", ""])
        ['sku', 'column_2']
    """
    # pandas writes its index under an empty name, and published headers end in commas
    names = [field.strip(_AROUND) or f"column_{n}" for n, field in enumerate(fields, 1)]
    check_names(names)
    return names


def _named(fields: Sequence[str], needed: Sequence[str]) -> set[str]:
    return {field.strip(_AROUND) for field in fields} & set(needed)


def _find_header(
    lines: Sequence[str], start: int, sign: str, needed: Sequence[str]
) -> tuple[_Record, list[int]]:
    """Returns the record that is the header, and the lines above it that hold something."""
    records = [r for r in _plain_records(lines, start, sign) if r.fields or r.reason]
    if not records:
        raise ValueError("the table is empty; expected a header line with the names of the columns")
    width = _num_columns(records)
    header = records[header_place([None if r.reason else r.fields for r in records], needed, width)]
    usual = _Usual.of(lines, header.end, sign, max(width, 2))
    swallowed = _whole_rows(lines, header, sign, usual)
    if header.reason or swallowed:
        reason = header.reason or "opens a quote that is not closed in it"
        raise ValueError(
            f"the header is unreadable: {header.place} {reason}; mend line {header.first + 1}"
        )
    return header, [n for n in range(start, header.first) if lines[n].strip()]


def _records(lines: Sequence[str], start: int, sign: str, width: int) -> Iterator[_Record]:
    """Returns the records from a line on; one that swallows whole rows ends with its first line."""
    usual = _Usual.of(lines, start, sign, width)
    while start < len(lines):
        for record in _cut(lines, start, sign):
            start = record.end
            swallowed = _whole_rows(lines, record, sign, usual)
            if swallowed:
                until = f"closed in line {record.end}"
                if "end of data" in record.reason:
                    until = "never closed"
                elif record.reason:
                    until = f"not closed before line {record.end}"
                reason = (
                    f"opens a quote that is {until}, and would hold {len(swallowed)} whole row(s) "
                    f"({_span(swallowed)}), which are read as rows; close the quote, or write two "
                    "where it is an inch sign"
                )
                yield _Record(record.first, record.first + 1, [], reason)
                start = record.first + 1
                break
            if record.fields or record.reason:
                yield record


def _cut(lines: Sequence[str], start: int, sign: str) -> Iterator[_Record]:
    # strict: a quote that is never closed is an error, and does not swallow the rest of the table
    reader = csv.reader((lines[n] for n in range(start, len(lines))), delimiter=sign, strict=True)
    while True:
        first = start + reader.line_num
        fields, reason = [], ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"is malformed ({error})"
        yield _Record(first, max(start + reader.line_num, first + 1), fields, reason)


@dataclass(frozen=True)
class _Usual:
    """What rows have in common, by which a line within a field is known as one.

    Attributes:
        width: Number of columns.
        num_spaced: Fields that begin with a blank: in prose one follows every comma.
        looks: Of each column whether its values of one line are filled, and hold blanks; None where
            they differ or are fewer than five.
    """

    width: int
    num_spaced: int
    looks: tuple[tuple[bool, bool] | None, ...]

    @classmethod
    def of(cls, lines: Sequence[str], start: int, sign: str, width: int) -> _Usual:
        """Looks at the first rows behind a line."""
        rows = [r.fields for r in _plain_records(lines, start, sign) if len(r.fields) == width]
        spaced = sorted(map(_num_spaced, rows)) or [0]
        looks: list[tuple[bool, bool] | None] = []
        for values in zip(*rows, strict=True):
            seen = [_look(value) for value in values if "\n" not in value]
            looks.append(seen[0] if len(seen) >= 5 and len(set(seen)) == 1 else None)
        return cls(width, spaced[len(spaced) // 2], tuple(looks) or (None,) * width)

    def has(self, fields: Sequence[str]) -> bool:
        """Returns whether fields are as many as a row's, and blanks follow no more of its signs."""
        return len(fields) == self.width and _num_spaced(fields) <= self.num_spaced

    def looks_like(self, fields: Sequence[str]) -> bool:
        """Returns whether they are filled, and hold blanks, where all rows are or do."""
        pairs = zip(self.looks, fields, strict=True)
        return all(look is None or look == _look(field) for look, field in pairs)


def _whole_rows(lines: Sequence[str], record: _Record, sign: str, usual: _Usual) -> list[int]:
    """Returns the lines behind a record's first one that are rows by themselves."""
    inner = range(record.first + 1, record.end)
    alone = {n: _alone(lines[n], sign) for n in inner}
    rows = [n for n in inner if usual.has(alone[n])]
    if record.reason or len(record.fields) != usual.width:
        return rows
    # by the rules it is one row; if it is not, the line that closes the quote is a row as well
    rows = [n for n in rows if usual.looks_like(alone[n])]
    # unless the quote that is open since the first field is closed before any separator
    last = record.end - 1
    plain = lines[record.first].startswith('"') and lines[last].split(sign)[0].endswith('"')
    certain = (last in rows and not plain) or 2 <= len(rows) >= len(inner) / 2
    return rows if certain else []


def _look(field: str) -> tuple[bool, bool]:
    return field.strip() != "", " " in field.strip()


def _alone(line: str, sign: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=sign), [])
    except csv.Error:  # a field over the limit of the module
        return []


def _num_spaced(fields: Sequence[str]) -> int:
    return sum(field[:1] == " " for field in fields)


def _span(numbers: Sequence[int]) -> str:
    """Returns lines, counted from 0, in words."""
    if len(numbers) == 1:
        return f"line {numbers[0] + 1}"
    return f"lines {numbers[0] + 1}-{numbers[-1] + 1}"


def _short(lines: Sequence[str], numbers: Sequence[int]) -> str:
    shown = "; ".join(repr(lines[n].strip()[:60]) for n in numbers[:3])
    return shown + ("; ..." if len(numbers) > 3 else "")
