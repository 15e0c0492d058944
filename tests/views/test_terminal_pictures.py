"""Pictures in terminals: which can show them, and what is sent."""

from __future__ import annotations

import base64
import re

import pytest

from visual_search.views.terminal_pictures import inline_picture, picture_protocol


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"), ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"), ({}, None),
        ({"TERM_PROGRAM": "Apple_Terminal", "TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/a,1,0"}, None),
    ],
)  # fmt: skip
def test_terminals_are_known_by_what_they_say(
    environment: dict[str, str], expected: str | None
) -> None:
    assert picture_protocol(environment, is_terminal=True) == expected
    assert picture_protocol(environment, is_terminal=False) is None


def test_kitty_gets_pieces_of_4096_that_make_the_picture() -> None:
    png = bytes(range(256)) * 40
    sent = inline_picture(png, "kitty")
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert all(len(data) <= 4096 for _, data in pieces)
    assert [keys for keys, _ in pieces] == ["a=T,f=100,m=1", "m=1", "m=1", "m=0"]
    assert base64.b64decode("".join(data for _, data in pieces)) == png
