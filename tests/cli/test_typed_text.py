"""Text that is typed reaches the command as it was typed, whatever Hydra would make of it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.composing import composed, settings_of
from visual_search.cli.command_line import check_overrides
from visual_search.cli.typed_text import as_typed, kind_of
from visual_search.config.builders import GROUPS, ConfigError, register_schema
from visual_search.config.schemas import SCHEMAS

# Numbers, booleans and nulls of Hydra's and YAML's, and what Hydra's grammar has no place for.
TEXTS = (
    *("1.10", "7E5", "1_000", "TRUE", "+5", "1e400", "-0", "007", ".5", "5.", "NaN", "Inf", "NULL"),
    *("0x1F", "2024-01-01", "12:30:45", "~", "yes", "Größe #1/a=b, c[1].csv", "Preis (€)", "a;b!"),
    *(
        '5" pipe',
        "O'Neill",
        "[x",
        "{y",
        "choice(a,b)",
        " 1.10 ",
        "C:\\new\\",
        "a\\\\",
        "\u200fאב",
        "?",
    ),
)
UNTYPED = ("${seed}", "\\${x}", "${", "a ${oc.env:HOME}")  # text in the keys of items alone


def test_an_item_is_the_text_that_was_typed() -> None:
    for text in (*TEXTS, *UNTYPED):
        [override] = as_typed("search", [f"item={text}"])
        value = OverridesParser.create().parse_override(override).value()
        assert OmegaConf.create({"item": value})["item"] == text
    plain = [text for text in (*TEXTS, *UNTYPED) if "," not in text]
    several = settings_of("index", f"item=[{','.join(plain)}]")["item"]
    assert several == [text.strip() for text in plain]


def test_columns_and_their_texts_are_what_was_typed() -> None:
    plain = [text for text in (*TEXTS, *UNTYPED) if not set(text) & set(",:") and text != " 1.10 "]
    pairs = ", ".join(f"{text}: {text}" for text in plain)
    given = settings_of("index", f"attributes={{{pairs}}}")["attributes"]
    assert given == {text.strip(): text.strip() for text in plain}
    where = settings_of("search", f"where={{colour: [{', '.join(plain)}]}}")["where"]
    assert where == {"colour": [text.strip() for text in plain]}


def test_quotes_hold_what_would_mean_something_otherwise() -> None:
    asked = settings_of(
        "search", 'item="null"', 'where={"a:b, c": "38,5", size: [1e3, "x, y"]}', "category=null"
    )
    assert asked["item"] == "null"
    assert asked["where"] == {"a:b, c": "38,5", "size": ["1e3", "x, y"]}
    assert asked["category"] is None  # nothing is given


def _keys_of_text(schema: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Returns every key of a schema that holds text by its own annotation, with that."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key = f"{prefix}{field.name}"
        nested = [
            one
            for one in (hints[field.name], *typing.get_args(hints[field.name]))
            if dataclasses.is_dataclass(one)
        ]
        for one in nested:
            yield from _keys_of_text(one, f"{key}.")
        if str(field.type) in ("str", "str | None", "list[str]", "list[str] | None"):
            yield key, str(field.type)


@pytest.mark.parametrize("command", sorted(SCHEMAS))
def test_every_key_of_text_of_every_command_is_taken_as_typed(command: str) -> None:
    choices = {"evaluate": ["split=hash"], "embed": ["split=hash"]}.get(command, [])
    keys = dict(_keys_of_text(SCHEMAS[command]))
    assert keys
    given, expected = [], {}
    for position, (key, kind) in enumerate(keys.items()):
        text = TEXTS[position % len(TEXTS)]
        if "list" in kind:
            text = text.replace(",", "").strip()
        given.append(f"{key}=[{text},b]" if "list" in kind else f"{key}={text}")
        expected[key] = [text, "b"] if "list" in kind else text
    config = composed(command, *choices, *(f"++{one}" for one in given))
    found = {key: OmegaConf.select(config, key) for key in keys}
    assert {
        key: list(value) if "list" in keys[key] else value for key, value in found.items()
    } == expected


def test_text_of_the_builders_is_taken_as_typed() -> None:
    settings = settings_of(
        "train",
        "data=table",
        "data.path=/tmp/Größe #1/a.csv",
        "data.item_id=1e3",
        "data.attributes=[1.10,Preis (€)]",
        "data.image_pattern=images/{id}.jpg",
        "protocol=cross_domain",
        "protocol.column=1e3",
        "protocol.query_value=TRUE",
        "protocol.gallery_value=null ",
        "protocol.relevance=[1e3,007]",
        "objective=cross_entropy",
        "objective.column=7E5",
        "++callbacks.feature_maps.item_ids=[1.10,7E5]",
        "split.test_categories=[1e3]",
        "sampler=per_category",
        "sampler.categories_per_batch=4",
        "trainer.max_epochs=1_0",
    )
    data, protocol = settings["data"], settings["protocol"]
    assert data["path"] == "/tmp/Größe #1/a.csv"
    assert (data["item_id"], data["attributes"]) == ("1e3", ["1.10", "Preis (€)"])
    assert data["image_pattern"] == "images/{id}.jpg"
    assert (protocol["column"], protocol["query_value"]) == ("1e3", "TRUE")
    assert protocol["relevance"] == ["1e3", "007"]
    assert settings["objective"]["column"] == "7E5"
    assert settings["callbacks"]["feature_maps"]["item_ids"] == ["1.10", "7E5"]
    assert settings["split"]["test_categories"] == ["1e3"]
    # Numbers stay numbers.
    assert settings["sampler"]["categories_per_batch"] == 4
    assert settings["trainer"]["max_epochs"] == 10


def test_a_run_to_change_takes_text_for_any_reader() -> None:
    settings = settings_of("evaluate", "+data.path=/tmp/a #1.csv", "embedding.layer=1.10")
    assert settings["data"]["path"] == "/tmp/a #1.csv"
    assert settings_of("evaluate", "+data.split=false")["data"]["split"] is False
    assert settings["embedding"]["layer"] == "1.10"


def test_a_reference_to_another_key_is_followed_where_there_is_one() -> None:
    asked = settings_of("train", "name=of_seed_${seed}", "seed=3", "outputs=/tmp/${a b")
    assert (asked["name"], asked["outputs"]) == ("of_seed_3", "/tmp/${a b")


def test_jobs_of_a_multirun_take_their_texts_as_typed() -> None:
    register_schema()
    given = [
        "-m",
        "item=1.10,[TRUE,1e3]",
        'category="a,b",c',
        "where={size: 1e3},{size: 2, b: [c,d]}",
    ]
    typed = as_typed("search", given)
    check_overrides("search", typed)
    parsed = OverridesParser.create().parse_overrides(typed[1:])
    for override, expected in zip(
        parsed,
        (
            ["1.10", ["TRUE", "1e3"]],
            ["a,b", "c"],
            [{"size": "1e3"}, {"size": "2", "b": ["c", "d"]}],
        ),
        strict=True,
    ):
        key = override.get_key_element()
        jobs = [f"{key}={value}" for value in override.sweep_string_iterator()]
        # A job's override is composed by Hydra itself, without another look at what was typed.
        assert [settings_of("search", job)[key] for job in jobs] == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("where=Red", "where=Red"),
        ("where={colour}", "'colour'"),
        ("where={size: 38,5}", "'5'"),
        ("where={a: 1, a: 2}", "'a'"),
        ("item=[a,,b]", "[a,,b]"),
        ("item=[a,b],[c]", "-m"),
        ("image=\udcff.jpg", "image"),
    ],
)
def test_what_cannot_be_read_is_named(given: str, named: str) -> None:
    with pytest.raises(ConfigError, match="expected") as error:
        as_typed("search", [given])
    assert named in str(error.value)


def test_every_group_of_builders_is_known_by_its_text() -> None:
    for command, schema in SCHEMAS.items():
        for field in dataclasses.fields(schema):
            if field.name in GROUPS:
                assert kind_of(command, field.name) is None  # a choice of a file, no text
    assert kind_of("train", "model.name") is not None
    assert kind_of("train", "model.embedding_dim") is None
    assert kind_of("train", "trainer.devices") is None


def test_a_column_with_a_dot_before_it_is_asked_for_in_braces() -> None:
    with pytest.raises(ConfigError, match=re.escape("'where={Preis (€): ...}'")):
        as_typed("search", ["bundle=shop", "where.Preis (€)=19.90"])
