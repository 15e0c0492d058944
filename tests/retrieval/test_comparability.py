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

GALLERY = {"splits": ["train", "val"], "max_per_category": 1000, "seed": 0}
SETTINGS = {"k": 5, "gallery": GALLERY}
SPLITS = "'protocol.gallery.splits=[train,val]'"
ALL = f"{SPLITS} protocol.gallery.max_per_category=1000 protocol.gallery.seed=0"  # of SETTINGS
SHOP = {
    "data": "shop", "gallery": "a" * 64, "queries": "b" * 64, "protocol": "c" * 64, "k": 5,
    "protocol_name": "gallery_query", "protocol_settings": SETTINGS,
    "num_gallery": 11029, "num_queries": 1196,
}  # fmt: skip
OTHER = "d" * 64
LEAVE_ONE_OUT = {"protocol": OTHER, "protocol_name": "leave_one_out"}
TO_5 = "protocol=gallery_query protocol.k=5"


def message_of(identities, paths=None):
    with pytest.raises(NotComparableError) as caught:
        check_comparable(identities, paths)
    return str(caught.value)


def commands_of(message):
    return [line.strip() for line in message.splitlines() if line.startswith("    ")]


def with_gallery(**changes):
    return {"protocol_settings": {"k": 5, "gallery": {**GALLERY, **changes}}}


def test_runs_that_were_measured_alike_pass():
    check_comparable({"A": SHOP, "B": {**SHOP, "pictures": "other"}, "C": dict(SHOP)})
    check_comparable({})
    assert issubclass(NotComparableError, ValueError)


@pytest.mark.parametrize(
    ("changes", "differs", "overrides"),
    [
        (LEAVE_ONE_OUT, ["protocol is leave_one_out, expected gallery_query"],
         f"protocol=gallery_query {ALL}"),
        # a name that comes before the other's: nothing of its settings counts as the same
        ({"protocol": OTHER, "protocol_name": "cold_start"},
         ["protocol is cold_start, expected gallery_query"], f"protocol=gallery_query {ALL}"),
        ({"gallery": OTHER, "num_gallery": 10000},
         ["gallery holds 10,000 items, expected 11,029"], "data=shop"),
        ({"queries": OTHER}, ["asks other queries (sha256 dddddddddd, expected bbbbbbbbbb)"],
         "data=shop"),
        ({"queries": OTHER, "num_queries": 7}, ["asks 7 queries, expected 1,196"], "data=shop"),
        ({"gallery": OTHER}, ["gallery holds other items (sha256 dddddddddd, expected aaaaaaaaaa)"],
         "data=shop"),
        ({"k": 10}, ["k is 10, expected 5"], TO_5),
        ({"protocol": OTHER, **with_gallery(splits=["train"], max_per_category=500)},
         ["gallery.splits is [train], expected [train,val]",
          "gallery.max_per_category is 500, expected 1000"],
         f"protocol=gallery_query {SPLITS} protocol.gallery.max_per_category=1000"),
        ({"protocol": OTHER}, ["gallery_query has other rules (sha256 dddddddddd, expected cccc"],
         "protocol=gallery_query"),
        ({"protocol": OTHER, "k": 10, "protocol_settings": {**SETTINGS, "k": 10}},
         ["k is 10, expected 5"], TO_5),
        ({**LEAVE_ONE_OUT, "data": "other", "gallery": OTHER, "num_gallery": 3, "queries": OTHER,
          "k": 1},
         ["data is other, expected shop", "gallery holds 3 items, expected 11,029",
          "asks other queries", "protocol is leave_one_out, expected gallery_query",
          "k is 1, expected 5"],
         f"data=shop protocol=gallery_query {ALL} protocol.k=5"),
        ({**LEAVE_ONE_OUT, "gallery": OTHER},  # of the same data
         ["gallery holds other items", "protocol is leave_one_out, expected gallery_query"],
         f"protocol=gallery_query {ALL}"),
        ({"gallery": OTHER, "num_gallery": 9, **with_gallery(splits=["train"])},
         ["gallery holds 9 items", "gallery.splits is [train], expected [train,val]"],
         f"protocol=gallery_query {SPLITS}"),
    ],
)  # fmt: skip
def test_all_that_differs_is_named_with_the_command_that_mends_it(changes, differs, overrides):
    message = message_of({"A": SHOP, "B": {**SHOP, **changes}}, {"B": "outputs/b"})
    assert message.startswith("run 'B' was not measured as 'A':")
    assert all(words in message for words in differs), message
    assert message.count(", expected ") == len(differs)
    assert commands_of(message) == [f"{COMMAND} run=outputs/b {overrides}"]
    assert ("give the path and the split" in message) == (overrides == "data=shop")


def test_the_odd_run_out_is_named_wherever_it_stands():
    odd = {**SHOP, "k": 1}
    for order in ("oAB", "AoB", "ABo"):
        message = message_of({name: odd if name == "o" else SHOP for name in order})
        assert message.startswith("run 'o' was not measured as 'A':\nk is 1, expected 5.")
        assert len(commands_of(message)) == 1
    assert len(commands_of(message_of({"A": SHOP, "B": odd, "C": {**SHOP, "k": 2}}))) == 2


def test_an_older_run_says_nothing_and_is_refused_with_its_own_message():
    held = {"identity": {"data": "x"}, "k": 5, "num_queries": 3, "other": 1}
    assert identity_of(held) == {"data": "x", "k": 5, "num_queries": 3}
    assert identity_of({"identity": None, "k": 5}) == {}
    older = identity_of({"k": 5, "num_gallery": 3, "num_queries": 4})
    assert older == {}
    message = message_of({"A": SHOP, "B": older, "C": {"gallery": "x"}}, {"B": "outputs/b"})
    assert "'B', 'C'" in message
    assert "'A'" not in message
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
