"""What a request asks for, read from a form, JSON or an address and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.requests import Request

from visual_search.bundle.products import ByProduct
from visual_search.serving.limits import MAX_FIELDS, media_type, read_body, read_form
from visual_search.serving.problems import Problem
from visual_search.serving.settings import ServeSettings

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_FIELDS = ("image", "item", "k", "where", "products", "bundle")
Where = Mapping[str, tuple[str, ...]]
_NO_FILTER = "There is nothing here to filter by in this way. Start over, or choose other filters."


@dataclass(frozen=True)
class Query:
    """What is looked for: a picture, or what is like an item.

    Attributes:
        image: An encoded picture as it was uploaded.
        image_name: The name of its file, for display.
        item_id: The item; looked for only where there is no picture.
        k: Neighbours.
        where: Column -> accepted values.
        products: How products of several pictures are found; see `Bundle.search`.
        bundles: Names of the bundles to search; none means the caller's default.
    """

    k: int
    image: bytes | None = None
    image_name: str = ""
    item_id: str | None = None
    where: Where = field(default_factory=dict)
    products: ByProduct = "best"
    bundles: tuple[str, ...] = ()


async def read_query(
    request: Request,
    settings: ServeSettings,
    columns: Iterable[str] = (),
    *,
    strict: bool = False,
) -> Query:
    """Returns what a form or JSON asks for.

    Args:
        request: A request whose body was not read.
        settings: Limits and the default number of neighbours.
        columns: Known columns, for names that hold a colon.
        strict: A program asks, by a form too: what would not be looked at is refused. JSON is
            always a program's; a page's form may hold a picture beside the item that it replaces.

    Raises:
        Problem: The body is of another kind, too large, or a value cannot be used.
    """
    kind = media_type(request)
    if kind in FORM_TYPES:
        async with read_form(request, settings, max_files=1) as form:
            image, name = await _image(form, settings)
            texts = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
            return _query(texts, settings, columns, image=image, image_name=name, strict=strict)
    if kind == "application/json":
        return _query(
            _json_fields(await read_body(request, settings)), settings, columns, strict=True
        )
    raise Problem(
        "wrong-media-type",
        f"The request's Content-Type is {kind[:100]!r}; expected multipart/form-data with a file "
        "'image', or application/json with an 'item'; set the header.",
    )


def query_of(
    parameters: QueryParams, settings: ServeSettings, columns: Iterable[str] = ()
) -> Query:
    """Returns what an address asks for.

    Raises:
        Problem: A value cannot be used.
    """
    return _query(parameters.multi_items(), settings, columns)


def parse_where(texts: Sequence[str], columns: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Returns filters written as ``column:value``; values of one column are alternatives.

    Raises:
        Problem: There is no colon, or no column before it.

    Example:
        >>> parse_where(["category:Hats", "size:a:b", "category:Shoes"])
        {'category': ('Hats', 'Shoes'), 'size': ('a:b',)}
    """
    longest_first = sorted(columns, key=len, reverse=True)
    found: dict[str, dict[str, None]] = {}  # a dict of None keeps the order and no value twice
    for text in texts:
        known = next((name for name in longest_first if text.startswith(f"{name}:")), None)
        column = known if known is not None else text.partition(":")[0]
        if not column or ":" not in text:
            raise Problem(
                "invalid",
                f"where is {text[:100]!r}; expected column:value, such as category:Shoes; repeat "
                "it for further values.",
                for_people=_NO_FILTER,
            )
        found.setdefault(column, {})[text[len(column) + 1 :]] = None
    return {column: tuple(values) for column, values in found.items()}


def parse_count(name: str, text: str, *, least: int, most: int) -> int:
    """Returns a whole number within its bounds.

    Raises:
        Problem: It is none, or outside.
    """
    try:
        number = int(text) if len(text) <= 20 else None
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise Problem(
            "invalid",
            f"{name} is {text[:40]!r}; expected a whole number from {least} to {most}; leave it "
            "out for the default.",
            for_people=f"Ask for {least} to {most} results." if name == "k" else "",
        )
    return number


def parse_products(text: str) -> ByProduct:
    """Returns how products of several pictures are found; by the best one where nothing is said.

    Raises:
        Problem: It is another word.
    """
    for word in get_args(ByProduct):
        if text.strip() in ("", word):
            return word  # type: ignore[no-any-return]
    raise Problem(
        "invalid",
        f"products is {text[:40]!r}; expected one of {list(get_args(ByProduct))}; leave it out for "
        "the default.",
        for_people="There is no such way to find products. Choose one of the list.",
    )


def chosen_products(products: ByProduct) -> str | None:
    """Returns what an address has to say of it: nothing where it is the default."""
    return None if products == "best" else products


def check_columns(where: Where, columns: Sequence[str]) -> None:
    """Checks that a bundle has what is filtered by.

    Raises:
        Problem: It has no such column.
    """
    unknown = [column for column in where if column not in columns]
    if unknown:
        raise Problem(
            "invalid",
            f"where names {unknown[0][:100]!r}; expected one of {list(columns)}; GET /api/bundles "
            "lists the columns and their values.",
            for_people=_NO_FILTER,
        )


def _query(
    fields: Sequence[tuple[str, str]],
    settings: ServeSettings,
    columns: Iterable[str],
    *,
    image: bytes | None = None,
    image_name: str = "",
    strict: bool = False,
) -> Query:
    by_name: dict[str, list[str]] = {}
    for name, value in fields:
        by_name.setdefault(name, []).append(value)
    if strict:
        _check_fields(by_name, has_image=image is not None)
    k = by_name.get("k", [""])[-1].strip()
    item_id = by_name.get("item", [""])[-1]
    return Query(
        k=parse_count("k", k, least=1, most=settings.max_k) if k else settings.default_k,
        image=image,
        image_name=image_name,
        item_id=item_id if item_id.strip() and image is None else None,
        where=parse_where([text for text in by_name.get("where", []) if text], columns),
        products=parse_products(by_name.get("products", [""])[-1]),
        bundles=tuple(dict.fromkeys(name for name in by_name.get("bundle", []) if name)),
    )


def check_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Refuses what a request names and nobody would look at: without it the answer is another one.

    Raises:
        Problem: A name is not among those that are known.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Problem(
            "invalid",
            f"The field {unknown[0][:100]!r} is not known; expected {list(known)}; correct it, or "
            "write a filter as where=column:value.",
        )


def _check_fields(by_name: Mapping[str, Sequence[str]], *, has_image: bool) -> None:
    check_names(by_name, _FIELDS)
    for name in ("item", "k", "products", "bundle"):
        if len(by_name.get(name, ())) > 1:
            raise Problem(
                "invalid",
                f"The field {name!r} has {len(by_name[name])} values; expected one; send a request "
                "for each.",
            )
    item_id = by_name.get("item", [""])[0]
    if has_image and item_id.strip():
        raise Problem(
            "invalid",
            f"There are a picture and the item {item_id[:100]!r}; expected one of them; leave the "
            "other out.",
        )


async def _image(form: FormData, settings: ServeSettings) -> tuple[bytes | None, str]:
    """Returns the uploaded file and its name; none where a form's field was left empty."""
    upload = form.get("image")
    if isinstance(upload, str) and upload:
        raise Problem(
            "invalid",
            "'image' is a text; expected a file's content; with curl write -F image=@picture.jpg. "
            "Addresses are not fetched.",
            for_people="Give a picture's file; addresses of pictures are not looked up.",
        )
    if not isinstance(upload, UploadFile):
        return None, ""
    data = await read_upload(upload, settings)
    return (data, upload.filename or "") if data or upload.filename else (None, "")


async def read_upload(upload: UploadFile, settings: ServeSettings) -> bytes:
    """Returns an uploaded file's bytes.

    Raises:
        Problem: There are more than `ServeSettings.max_upload_bytes`.
    """
    size = upload.size or 0
    if size > settings.max_upload_bytes:
        raise Problem(
            "too-large",
            f"The picture has {size:,} bytes; expected at most {settings.max_upload_bytes:,}; "
            "save it smaller.",
        )
    return await upload.read()


def read_json(data: bytes, *, numbers_as_text: bool = False) -> Any:
    """Returns what JSON holds.

    Args:
        data: The body.
        numbers_as_text: Gives ``19.90`` as the text that was written, and not as 19.9.

    Raises:
        Problem: It is no JSON, or names something twice, so that one of both would be lost.
    """
    number = str if numbers_as_text else None
    try:
        return json.loads(
            data,
            object_pairs_hook=_once_each,
            parse_constant=_no_number,
            parse_float=number,
            parse_int=number,
        )
    except (ValueError, RecursionError) as error:
        raise Problem(
            "bad-request", f"The body is no JSON ({error}); expected an object; see /docs."
        ) from error


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise Problem(
                "invalid",
                f"The JSON names {name[:100]!r} twice in one object; expected it once; several "
                "values are a list.",
            )
        found[name] = value
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _json_fields(data: bytes) -> list[tuple[str, str]]:
    """Returns a JSON object as the fields of a form: ``where`` may be a list or an object."""
    given = read_json(data, numbers_as_text=True)
    if not isinstance(given, dict):
        raise Problem(
            "invalid",
            f"The JSON is a {type(given).__name__}; expected an object such as "
            '{"item": "15970", "k": 5}.',
        )
    fields: list[tuple[str, str]] = []
    for name, value in given.items():
        if name == "where" and isinstance(value, dict):
            starts = [(f"{column}:", texts) for column, texts in value.items()]
        else:
            starts = [("", value)]
        for start, texts in starts:
            for text in texts if isinstance(texts, list) else [texts]:
                if not isinstance(text, str):
                    raise Problem(
                        "invalid",
                        f"The field {name[:100]!r} holds a {type(text).__name__}; expected text, a "
                        "number or a list of them.",
                    )
                fields.append((name, f"{start}{text}"))
                if len(fields) > MAX_FIELDS:
                    raise Problem(
                        "invalid",
                        f"The JSON holds more than {MAX_FIELDS} values; expected at most as many, "
                        "as in a form; name fewer.",
                    )
    return fields
