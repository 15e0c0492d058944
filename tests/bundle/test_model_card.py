from __future__ import annotations

from visual_search.bundle.model_card import model_card
from visual_search.wording import END_OF_ISOLATE, ISOLATE

CHECKED = {"num_pictures": 1, "largest_difference": 0.0, "allowed_difference": 1e-4, "k": 1}


def test_names_of_a_catalogue_are_names_on_its_card() -> None:
    hebrew = "\u05db\u05d5\u05d1\u05e2"
    counts = {hebrew: 3, "<b>Coats</b>": 2, "plus_size": 1}
    facts = {"experiment": "one", "run": "0123", "catalog": "shop", "export_check": CHECKED}
    card = model_card("shop", facts, counts, ["category", "a|b"])
    assert f"{ISOLATE}{hebrew}{END_OF_ISOLATE} (3)" in card, "else its number goes to another side"
    assert "<b>" not in card
    assert "plus_size (1)" in card


def test_of_thousands_of_categories_a_card_names_the_largest() -> None:
    counts = {f"Kind {n}": n for n in range(1, 3001)}
    facts = {"experiment": "one", "run": "0123", "catalog": "shop", "export_check": CHECKED}
    card = model_card("shop", facts, counts, ["category"])
    assert "3,000 categories: Kind 3000 (3,000)" in card
    assert "Kind 1 (1)" not in card
    assert len(card) < 5000
