"""The code that a run was built from, which is a part of its result as the settings are.

Of a builder that is what it reaches within its own package: its definition, what that names, and so
on through the package's modules, lazy imports included. Comments, docstrings, blank lines and where
lines break count for nothing; neither do names that stand in annotations alone, nor definitions
beside it that it never names. Nothing is imported: the source is read.

What the catalogue's reader does is in the catalogue's fingerprint. What is left of this package
(the training loop, metrics) changes numbers with a release alone, which `NUMBERS` tells.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import json
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from visual_search import builder
from visual_search.config.builders import GROUPS, OTHERS
from visual_search.config.plugins import OWN, here, source_of
from visual_search.config.schemas import Node, TrainSchema

# Release of this package -> what its runs give otherwise than before. Each is a new run's.
NUMBERS: dict[str, str] = {}

Code = dict[str, str]
"""A part's key in the config -> ten hexadecimal digits of the code that builds it."""

UNKNOWN_CODE = "unknown"  # of a run of a version that kept no record of it

# A catalogue is known by what was read; the rest computes or shows what is known otherwise.
_NOT_OF_A_RUN = ("data", "callbacks", "embedder", *OTHERS)
_MARK = (OWN, builder.__name__)  # above a builder
_OPENS, _CLOSES = (  # of a string with expressions in it, which Python 3.12 and newer take apart
    {getattr(tokenize, f"{kind}STRING_{end}", None) for kind in "FT"} - {None}
    for end in ("START", "END")
)


def code_of_run(settings: TrainSchema, callbacks: Node) -> Code:
    """Returns the code of every part that decides a run's result.

    Args:
        settings: Of the run.
        callbacks: Those of its callbacks that decide it.
    """
    groups = [group for group in GROUPS if group not in _NOT_OF_A_RUN]
    nodes = {group: getattr(settings, group) for group in groups}
    nodes |= {f"callbacks.{name}": node for name, node in callbacks.items()}
    found = {key: code_of(str(node.get("_target_", ""))) for key, node in nodes.items() if node}
    if NUMBERS:
        found[OWN] = list(NUMBERS)[-1]
    return {key: code for key, code in found.items() if code}


def short_code(code: Code) -> str:
    """Returns seven hexadecimal digits of the code of all parts together."""
    return hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()[:7]


def code_of(target: str) -> str:
    """Returns ten hexadecimal digits of a builder's code, and nothing of a library's.

    Args:
        target: Full name, as a config's ``_target_`` has it.
    """
    package = target.partition(".")[0]
    if package not in (OWN, *here()):  # of a library, whose version is known
        return ""
    lines: dict[tuple[str, int], str] = {}
    module, _, name = target.rpartition(".")
    waiting, seen = [(module, name)], set()
    while waiting:
        module, name = place = waiting.pop()
        if place in seen or module.partition(".")[0] != package or (module, name) == _MARK:
            continue
        seen.add(place)
        read = _module(module)
        if read is None:
            continue
        if name in read.imports:
            waiting.append(read.imports[name])
            if name not in read.bound:  # else it is given another value on top
                continue
        if name and name not in read.bound and _module(f"{module}.{name}") is not None:
            waiting.append((f"{module}.{name}", ""))
            continue
        for statement in read.reached(name):
            lines[module, statement] = read.texts[statement]
            waiting += read.names_in(statement)
    # Where a definition stands counts for nothing: another one above moves it.
    text = "\x00".join(sorted(lines.values()))
    return hashlib.sha256(text.encode()).hexdigest()[:10] if lines else ""


def changes(before: Code, now: Code, settings: TrainSchema) -> str:
    """Returns the parts whose code differs as people call them, or what a release changed.

    Args:
        before: Of an earlier run with the same settings.
        now: Of this one.
        settings: Of both.
    """
    names = []
    for key in [key for key in {**before, **now} if before.get(key) != now.get(key)]:
        if key == OWN:
            known = list(NUMBERS)
            since = known.index(before[OWN]) + 1 if before.get(OWN) in known else 0
            said = "; ".join(f"{release}: {NUMBERS[release]}" for release in known[since:])
            names.append(f"{OWN} ({said})")
        else:
            group, _, name = key.partition(".")
            node: Node = getattr(settings, group)
            names.append(str((node[name] if name else node)["_target_"]).rpartition(".")[2])
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} changed"


@dataclass(frozen=True, eq=False)
class _Module:
    """A source file, by its statements.

    Attributes:
        name: Of the module.
        package: What its relative imports start from.
        statements: At its top, without imports and docstrings.
        texts: What counts of each.
        bound: Name -> numbers of the statements that give it a value.
        always: Numbers of those that run whatever is taken from the module.
        imports: Name -> module and name there, empty for the module itself.
        stars: Modules of which all is imported.
    """

    name: str
    package: str
    statements: list[ast.stmt] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    bound: dict[str, list[int]] = field(default_factory=dict)
    always: list[int] = field(default_factory=list)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    stars: list[tuple[str, str]] = field(default_factory=list)

    def reached(self, name: str) -> list[int]:
        """Returns the numbers of the statements behind a name; all of them where it is unknown."""
        if name not in self.bound:
            return list(range(len(self.statements)))
        return sorted({*self.always, *self.bound[name]})

    def names_in(self, number: int) -> Iterator[tuple[str, str]]:
        """Returns what a statement names, by module and name."""
        yield from self.stars
        for node in _without_annotations(self.statements[number]):
            if isinstance(node, ast.Name) and (node.id in self.bound or node.id in self.imports):
                yield self.name, node.id
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from _imported(node, self.package).values()


def _module(name: str) -> _Module | None:
    path = source_of(name)
    if path is None or not path.is_file():
        return None
    facts = path.stat()
    return _read(name, path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=512)
def _read(name: str, path: Path, *_: int) -> _Module:
    """Returns a file by its statements; the further arguments tell when it has changed."""
    with tokenize.open(path) as file:
        source = file.read()
    read = _Module(name, name if path.name == "__init__.py" else name.rpartition(".")[0])
    tree, logical_lines = ast.parse(source), _logical_lines(source)
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            read.imports.update(_imported(statement, read.package))
            if "*" in read.imports:
                read.stars.append(read.imports.pop("*"))
        elif not (_is_docstring(statement, tree) or _is_for_type_checkers(statement)):
            for one in _bound_by(statement):
                read.bound.setdefault(one, []).append(len(read.statements))
            if not isinstance(
                statement, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
            ):
                read.always.append(len(read.statements))
            read.statements.append(statement)
            read.texts.append(_text(statement, logical_lines))
    return read


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, tuple[str, str]]:
    """Returns the names that an import gives, and what they are: a module, or a name in one."""
    if isinstance(node, ast.Import):
        return {one.asname or one.name.partition(".")[0]: (one.name, "") for one in node.names}
    base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
    module = ".".join(filter(None, [base if node.level else "", node.module or ""]))
    return {
        one.asname or one.name: (module, "" if one.name == "*" else one.name) for one in node.names
    }


def _without_annotations(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _without_annotations(child)


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """Returns the names to which a statement at a module's top gives values."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):  # below an `if` or a `try`
                yield node.name


def _is_for_type_checkers(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and not statement.orelse
        and ast.unparse(statement.test).rpartition(".")[2] == "TYPE_CHECKING"
    )


def _is_docstring(node: ast.AST, parent: ast.AST) -> bool:
    body = getattr(parent, "body", None)
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and isinstance(body, list)
        and body[0] is node
    )


def _text(statement: ast.stmt, lines: dict[int, str]) -> str:
    """Returns what counts of a statement's source."""
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(one.lineno for one in decorators)])
    said = {
        child.lineno
        for node in ast.walk(statement)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for child in node.body[:1]
        if _is_docstring(child, node) and child.lineno > node.lineno  # not beside other code
    }
    last = statement.end_lineno or first
    return "\n".join(lines[n] for n in range(first, last + 1) if n in lines and n not in said)


def _logical_lines(source: str) -> dict[int, str]:
    """Returns the logical lines by their first row: depth and tokens, without comments."""
    found: dict[int, str] = {}
    rows = source.splitlines(keepends=True)
    depth, words, row, opened = 0, list[str](), 0, list[tuple[int, int]]()
    for kind, text, start, end, _ in tokenize.generate_tokens(io.StringIO(source).readline):
        if kind in _OPENS:
            opened.append(start)
        if kind in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if kind == tokenize.INDENT else -1
        elif kind == tokenize.NEWLINE:
            found[row] = f"{depth} {' '.join(words)}"
            words, row = [], 0
        elif kind in _CLOSES and len(opened) == 1:
            words.append(_between(rows, opened.pop(), end))
        elif kind in _CLOSES:
            opened.pop()
        elif not opened and kind not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            words.append(text)
            row = row or start[0]
        if opened:
            row = row or start[0]
    return found


def _between(rows: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return rows[start[0] - 1][start[1] : end[1]]
    inner = rows[start[0] : end[0] - 1]
    return "".join([rows[start[0] - 1][start[1] :], *inner, rows[end[0] - 1][: end[1]]])
