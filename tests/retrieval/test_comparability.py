from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from visual_search.retrieval.comparability import (
    COMMAND,
    NotComparableError,
    check_comparable,
    identity_of,
)

SETTINGS = {"k": 5, "gallery": {"splits": ["train", "val"], "max_per_category": 1000, "seed": 0}}
ALL = (  # of SETTINGS, as overrides
    "'protocol.gallery.splits=[train,val]' protocol.gallery.max_per_category=1000 "
    "protocol.gallery.seed=0"
)
SHOP = {
    "data": "shop",
    "gallery": "a" * 64,
    "queries": "b" * 64,
    "protocol": "c" * 64,
    "protocol_name": "gallery_query",
    "protocol_settings": SETTINGS,
    "k": 5,
    "num_gallery": 11029,
    "num_queries": 1196,
}


def message_of(identities, paths=None):
    with pytest.raises(NotComparableError) as caught:
        check_comparable(identities, paths)
    return str(caught.value)


def commands_of(message):
    return [line.strip() for line in message.splitlines() if line.startswith("    ")]


def test_runs_that_were_measured_alike_pass():
    check_comparable({"A": SHOP, "B": {**SHOP, "pictures": "other"}, "C": dict(SHOP)})
    check_comparable({})
    assert issubclass(NotComparableError, ValueError)


@pytest.mark.parametrize(
    ("changes", "words", "overrides"),
    [
        (
            {"protocol": "d" * 64, "protocol_name": "leave_one_out"},
            ["the protocol is leave_one_out, expected gallery_query"],
            f"protocol=gallery_query {ALL}",
        ),
        (
            {"gallery": "d" * 64, "num_gallery": 10000},
            ["the gallery holds 10,000 items, expected 11,029", "or another split", "the path"],
            "data=shop",
        ),
        (
            {"queries": "d" * 64},
            ["it asks other queries (sha256 dddddddddd, expected bbbbbbbbbb)"],
            "data=shop",
        ),
        (
            {"queries": "d" * 64, "num_queries": 7},
            ["it asks 7 queries, expected 1,196"],
            "data=shop",
        ),
        (
            {"gallery": "d" * 64},
            ["the gallery holds other items (sha256 dddddddddd, expected aaaaaaaaaa)"],
            "data=shop",
        ),
        ({"k": 10}, ["k is 10, expected 5"], "protocol=gallery_query protocol.k=5"),
        (
            {
                "protocol": "d" * 64,
                "protocol_settings": {
                    "k": 5,
                    "gallery": {"splits": ["train"], "max_per_category": 500, "seed": 0},
                },
            },
            [
                "the protocol's gallery.splits is [train], expected [train,val]",
                "the protocol's gallery.max_per_category is 500, expected 1000",
            ],
            "protocol=gallery_query 'protocol.gallery.splits=[train,val]' "
            "protocol.gallery.max_per_category=1000",
        ),
        (
            {"protocol": "d" * 64},
            ["the protocol gallery_query has other rules (sha256 dddddddddd, expected cccc"],
            "protocol=gallery_query",
        ),
        (
            {"protocol": "d" * 64, "k": 10, "protocol_settings": {**SETTINGS, "k": 10}},
            ["k is 10, expected 5"],
            "protocol=gallery_query protocol.k=5",
        ),
        (
            {
                "data": "other",
                "gallery": "d" * 64,
                "num_gallery": 3,
                "queries": "e" * 64,
                "protocol": "f" * 64,
                "protocol_name": "leave_one_out",
                "k": 1,
            },
            [
                "data is other, expected shop",
                "the gallery holds 3 items, expected 11,029",
                "it asks other queries",
                "the protocol is leave_one_out, expected gallery_query",
                "k is 1, expected 5",
            ],
            f"data=shop protocol=gallery_query {ALL} protocol.k=5",
        ),
        (
            {
                "gallery": "c" * 64,
                "num_gallery": 9,
                "protocol_settings": {
                    **SETTINGS,
                    "gallery": {**SETTINGS["gallery"], "splits": ["train"]},
                },
            },
            ["gallery holds 9 items", "protocol's gallery.splits is [train], expected [train,val]"],
            "protocol=gallery_query 'protocol.gallery.splits=[train,val]'",
        ),
    ],
)
def test_all_that_differs_is_named_with_the_command_that_mends_it(changes, words, overrides):
    message = message_of({"A": SHOP, "B": {**SHOP, **changes}}, {"B": "outputs/b"})
    assert message.startswith("run 'B' was not measured as 'A':")
    assert all(word in message for word in words), message
    assert commands_of(message) == [f"{COMMAND} run=outputs/b {overrides}"]
    named = message.count(", expected ")
    assert named == len([word for word in words if word not in ("or another split", "the path")])


def test_other_items_by_another_protocol_need_no_other_data():
    other = {"gallery": "d" * 64, "protocol": "e" * 64, "protocol_name": "leave_one_out"}
    message = message_of({"A": SHOP, "B": {**SHOP, **other}})
    assert commands_of(message) == [f"{COMMAND} run=B protocol=gallery_query {ALL}"]


def test_the_odd_run_out_is_named_wherever_it_stands():
    odd = {**SHOP, "k": 1}
    for identities in (
        {"odd": odd, "A": SHOP, "B": SHOP},
        {"A": SHOP, "odd": odd, "B": SHOP},
        {"A": SHOP, "B": SHOP, "odd": odd},
    ):
        message = message_of(identities)
        assert message.startswith("run 'odd' was not measured as 'A':\nk is 1, expected 5.")
        assert len(commands_of(message)) == 1
    both = message_of({"A": SHOP, "B": odd, "C": {**SHOP, "k": 2}})
    assert len(commands_of(both)) == 2


def test_an_older_run_is_refused_with_its_own_message():
    older = identity_of({"k": 5, "num_gallery": 3, "num_queries": 4})
    assert older == {}
    message = message_of({"A": SHOP, "B": older, "C": {"gallery": "x"}}, {"B": "outputs/b"})
    assert message.startswith("run(s) 'B', 'C' do not say which gallery, queries and protocol")
    assert commands_of(message) == [f"{COMMAND} run=outputs/b", f"{COMMAND} run=C"]


@pytest.mark.parametrize(
    "path", ["a b", "it's; rm -rf x", 'say "hi"', "a=b,c", "$HOME", "héllo", "[x]", "a\\b"]
)
def test_shell_and_hydra_read_back_the_path(path):
    message = message_of({"A": SHOP, "B": {**SHOP, "k": 1}}, {"B": path})
    words = shlex.split(commands_of(message)[0])
    assert words[:3] == COMMAND.split()
    override = OverridesParser.create().parse_override(words[3])
    value = override.value()
    assert (override.key_or_group, getattr(value, "text", value)) == ("run", path)


def test_identity_takes_sizes_and_k_along():
    assert identity_of({"identity": {"data": "x"}, "k": 5, "num_queries": 3, "other": 1}) == {
        "data": "x",
        "k": 5,
        "num_queries": 3,
    }
    assert identity_of({"identity": None, "k": 5}) == {}
