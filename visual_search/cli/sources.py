"""What a builder takes, and what its docstring says of it, by its source: importing may load torch.

A docstring's entries are read here for schemas as well.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator

from visual_search.config.plugins import OWN, here, source_of


def arguments(target: str) -> list[ast.arg]:
    """Returns a builder's arguments; none for a dataclass, whose fields are numbers.

    Args:
        target: Full name of a function or class, as a config's ``_target_`` has it.
    """
    for node in _lineage(target):
        methods = node.body if isinstance(node, ast.ClassDef) else [node]
        for method in methods:
            if isinstance(method, ast.FunctionDef) and method.name in (node.name, "__init__"):
                return [*method.args.args, *method.args.kwonlyargs]
    return []


def docstrings(target: str) -> list[str]:
    """Returns what a builder says of itself, and what its bases say, as far as they are ours."""
    return [text for node in _lineage(target) if (text := ast.get_docstring(node))]


def entries(docstring: str) -> dict[str, str]:
    r"""Returns what a docstring says of each argument and attribute, in one line.

    Args:
        docstring: In Google style, with or without the indentation that it has in the source.

    >>> entries("Trains.\n\nArgs:\n    lr: How quickly\n        it learns.\n    a, b: ``x``.")
    {'lr': 'How quickly it learns.', 'a': 'x.', 'b': 'x.'}
    """
    found: dict[str, str] = {}
    names: list[str] = []
    is_entry = False
    for line in inspect.cleandoc(docstring).splitlines():
        if line and not line.startswith(" "):
            is_entry, names = line in ("Args:", "Attributes:"), []
        elif is_entry and (start := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)):
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: text.replace("`", "") for name, text in found.items()}


def _lineage(target: str) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Returns the syntax of a function, or of a class and those that it inherits from."""
    found = _definition(target)
    if found:
        module, node = found
        yield node
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            if isinstance(base, ast.Name):
                yield from _lineage(f"{module}.{base.id}")


@functools.cache
def _definition(target: str) -> tuple[str, ast.FunctionDef | ast.ClassDef] | None:
    """Returns the module where a function or class of ours or a plug-in is, and its syntax."""
    module, _, name = target.rpartition(".")
    path = source_of(module) if module.partition(".")[0] in (OWN, *here()) else None
    if path is None or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    # Of a whole module Python takes ten times as long to read as of one function.
    if found := re.search(rf"^(?:def|class) {name}\b.*?(?=^[^\s)]|\Z)", text, re.M | re.S):
        (node,) = ast.parse(found[0]).body
        assert isinstance(node, ast.FunctionDef | ast.ClassDef)
        return module, node
    alias = re.search(rf"^{name} = (?:(?:\w+\.)*builder\(.+?\)\()?(\w+)\)?$", text, re.M)
    if alias and alias[1] != name:
        return _definition(f"{module}.{alias[1]}")
    for statement in ast.parse(text).body:
        imported = statement.names if isinstance(statement, ast.ImportFrom) else []
        if isinstance(statement, ast.ImportFrom) and name in [one.name for one in imported]:
            return _definition(f"{statement.module}.{name}")
    return None
