"""Pictures in terminals that can show them: the protocols of kitty and of iTerm2."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

Protocol = Literal["kitty", "iterm"]

_KITTY_CHUNK = 4096  # most bytes of base64 in one escape sequence


def picture_protocol(environment: Mapping[str, str], *, is_terminal: bool) -> Protocol | None:
    """Returns the way in which a terminal takes pictures; None where it takes none.

    Args:
        environment: Its variables, as ``os.environ``.
        is_terminal: Whether the output goes to a terminal at all.

    Example:
        >>> picture_protocol({"TERM": "xterm-kitty"}, is_terminal=True)
        'kitty'
        >>> picture_protocol({"TERM_PROGRAM": "WezTerm", "TERM": "xterm"}, is_terminal=True)
        'iterm'
        >>> picture_protocol({"TERM": "xterm-kitty"}, is_terminal=False) is None
        True
    """
    if not is_terminal or environment.get("TMUX"):  # tmux swallows both
        return None
    if "kitty" in environment.get("TERM", "") or environment.get("TERM_PROGRAM") == "ghostty":
        return "kitty"
    if environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm", "vscode", "mintty"):
        return "iterm"
    return None


def inline_picture(png: bytes, protocol: Protocol) -> str:
    r"""Returns what, printed, shows a PNG in the terminal.

    Example:
        >>> inline_picture(b"ab", "iterm")
        '\x1b]1337;File=inline=1;size=2;preserveAspectRatio=1:YWI=\x07\n'
        >>> inline_picture(b"ab", "kitty")
        '\x1b_Ga=T,f=100,m=0;YWI=\x1b\\\n'
    """
    text = base64.b64encode(png).decode()
    if protocol == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{text}\a\n"
    chunks = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        more = int(number < len(chunks) - 1)
        keys = f"a=T,f=100,m={more}" if number == 0 else f"m={more}"
        parts.append(f"\x1b_G{keys};{chunk}\x1b\\")
    return "".join(parts) + "\n"
