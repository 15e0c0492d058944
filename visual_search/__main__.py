"""The console script: ``visual-search <command> [overrides]``.

``visual-search train seed=1`` does what ``python -m visual_search.train seed=1`` does, and so for
every command. Help and tab completion of commands load nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import runpy
import sys
from collections.abc import Sequence

from visual_search.config.plugins import take_names

# A command is the module visual_search.<command>, whose main() reads sys.argv.
COMMANDS = {
    "check": "Checks a catalogue before training: rows, pictures, copies, leaks, categories.",
    "train": "Trains an encoder on a catalogue, builds its index, measures retrieval.",
    "evaluate": "Measures a finished run, or any embeddings, by any protocol on any catalogue.",
    "compare": "Compares finished runs on the same queries: differences, intervals, tests.",
    "compress": "Measures a finished run's gallery in fewer bytes: quantised, projected, cut.",
    "download": "Downloads the pictures that a catalogue or a list of URLs names, resumably.",
    "export": "Makes a finished run into a search bundle: ONNX encoder, index, items.",
    "search": "Searches a bundle for what looks like a picture or an item.",
    "index": "Adds products to a bundle, removes them, builds its index anew.",
    "serve": "Serves bundles on a page and an API.",
    "embed": "Writes embeddings of any catalogue by a finished run, in shards, resumably.",
    "mteb": "Writes a catalogue and its protocol as an image-retrieval task of mteb.",
    "leaderboard": "Ranks all finished runs of the same data and protocol, floors among them.",
    "board": "Opens TensorBoard over all runs, each by its name.",
}

# Which command answers Hydra's "print the completion script"; every command's script is the same.
ANY_COMMAND = "train"

HELP = """\
visual-search: train image encoders on a catalogue, index them, measure how well they search.

Usage:
  visual-search COMMAND [KEY=VALUE ...]
  visual-search COMMAND --help

Commands:
{commands}

Tab completion of commands, groups, options and keys:
  eval "$(visual-search -sc install=bash)"     bash; zsh after: autoload -U bashcompinit && \
bashcompinit
  visual-search -sc install=fish | source      fish
"""


def main() -> None:
    """Starts the command that ``sys.argv`` names; status 2 where it names none."""
    arguments = sys.argv[1:]
    if not arguments:
        print(_help(), file=sys.stderr)
        raise SystemExit(2)
    first, rest = arguments[0], arguments[1:]
    if first in ("-h", "--help"):
        print(_help())
    elif first == "--version":
        print(importlib.import_module("visual_search").__version__)
    elif first in ("-sc", "--shell-completion"):
        _complete(arguments)
    elif first not in COMMANDS:
        print(f"error: {_explain(first)}", file=sys.stderr)
        raise SystemExit(2)
    elif rest and rest[0] in ("-sc", "--shell-completion"):
        _complete(rest)
    else:
        sys.argv = [sys.argv[0], *rest]
        # Not a plain call: Lightning starts further processes as `python -m <__main__'s name>`,
        # which has to be the command for them too.
        runpy.run_module(f"visual_search.{first}", run_name="__main__", alter_sys=True)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    return HELP.format(commands="\n".join(lines)).rstrip()


def _explain(word: str) -> str:
    known = ", ".join(COMMANDS)
    if word.startswith("-"):
        return (
            f"unknown option {word!r}; expected a command first ({known}), its options after it; "
            "see visual-search --help"
        )
    if "=" in word:
        return (
            f"{word!r} is an override, and no command is given; expected one of {known} before it, "
            f"as in: visual-search {ANY_COMMAND} {word}"
        )
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "see visual-search --help"
    return f"{word!r} is no command; expected one of {known}; {hint}"


def _complete(arguments: Sequence[str]) -> None:
    """Answers a shell that asks for its completion script, or for what may follow a line.

    A shell gives the line in ``COMP_LINE`` and calls with ``-sc query=<shell>``. The first word
    after the program is a command; what follows it is Hydra's, which must not see the command.
    """
    command = ANY_COMMAND
    if any(argument.startswith("query=") for argument in arguments):
        words, last = _split_line(os.environ.get("COMP_LINE", ""), os.environ.get("COMP_POINT", ""))
        if not words:
            separator = "\n" if "query=fish" in arguments else " "
            print(separator.join(name for name in COMMANDS if name.startswith(last)))
            return
        command = words[0]
        if command not in COMMANDS:
            return
        with contextlib.suppress(ValueError):  # a plug-in that is not there: ours are offered
            words = take_names(word.strip("'") for word in words)
        os.environ["COMP_LINE"] = " ".join(["visual-search", *words[1:], last])
    sys.argv = [sys.argv[0], *arguments]
    importlib.import_module(f"visual_search.{command}").main()


def _split_line(line: str, point: str) -> tuple[list[str], str]:
    """Returns the finished words after the program up to the cursor, and the unfinished one.

    >>> _split_line("visual-search train mod", "23")
    (['train'], 'mod')
    >>> _split_line("visual-search tr", "")
    ([], 'tr')
    """
    if point.isdigit():
        line = line[: int(point)]
    words = line.split(" ")
    return [word for word in words[1:-1] if word], words[-1] if len(words) > 1 else ""


if __name__ == "__main__":
    main()
