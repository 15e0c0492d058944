"""The wheel: built from the checkout, installed elsewhere, used from a third folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from visual_search.bundle.model_card import requirements
from visual_search.runs.serving_wheel import serving_wheel

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "visual_search"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "pyproject.toml").is_file(), reason="a wheel is built from a checkout only"
    ),
]


def _wheel(project: Path, folder: Path) -> Path:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    _run([*build, project], folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the package and the example's plug-in, and others' packages."""
    folder = tmp_path_factory.mktemp("installed")
    _run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    plug_in = tmp_path_factory.mktemp("plug_in")
    shutil.copytree(ROOT / "examples" / "my_lab", plug_in / "my_lab")  # built where it may write
    wheels = [wheel, _wheel(plug_in / "my_lab", tmp_path_factory.mktemp("wheel"))]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pip += ["--python", str(folder / "bin" / "python"), "install", "--no-index", "--no-deps"]
    _run([*pip, "--ignore-installed", *wheels], folder)
    return folder


def _run(command: list[str | Path], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    configs = {
        f"visual_search/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "conf").rglob("*.yaml")
    }
    pages = {
        path.relative_to(ROOT).as_posix()
        for folder in ("views/templates", "views/vendor", "serving/templates", "serving/static")
        for path in (PACKAGE / folder).rglob("*")
        if path.is_file()
    }
    assert len(configs) > 20
    assert len(pages) >= 20
    drawn = {"visual_search/catalog/synthetic/products.txt"}
    assert names == modules | configs | pages | drawn


def test_installed_command_finds_the_configs_that_came_with_it(
    installed: Path, tmp_path: Path
) -> None:
    python = installed / "bin" / "python"
    code = "from visual_search.config.builders import config_folder; print(config_folder())"
    found = Path(_run([python, "-c", code], tmp_path).strip())
    assert found.is_relative_to(installed.resolve())
    assert found.parts[-2:] == ("visual_search", "conf")

    text = _run([python, "-m", "visual_search.train", "--help"], tmp_path)
    assert re.search(r"experiment: [^:]*baseline,[^:]*conv_mixer,[^:]*plus_layer", text)
    assert not list(tmp_path.iterdir())  # asking leaves nothing behind


def test_an_installed_plug_in_trains_sweeps_and_searches_from_any_folder(
    installed: Path, tmp_path: Path
) -> None:
    command = installed / "bin" / "visual-search"
    small = "experiment=conv_mixer model.width=8 pictures.size_px=32 budget=smoke trainer=cpu"
    small += " data=synthetic data.items_per_category=16 data.image_size_px=32 callbacks=none"
    small += " data.categories=[Belts,Dresses,Hats,Shoes] trainer.enable_progress_bar=false"
    small += " floors=false near_duplicates=false"
    text = _run([command, "train", "-m", "model.depth=1,2", *small.split()], tmp_path)
    assert "2 jobs: 2 trained." in text
    assert "mAP@5" in text
    first, second = sorted(tmp_path.glob("outputs/conv_mixer/*/status.json"))
    assert '"finished"' in first.read_text(encoding="utf-8")
    assert first.parent.name != second.parent.name

    _run([command, "export", f"run={first.parent}", "out=shop"], tmp_path)
    text = _run([command, "search", "bundle=shop", "item=belts-00001", "k=3"], tmp_path)
    assert len(re.findall(r"\b(?:belts|dresses|hats|shoes)-\d{5}\b", text)) == 4, text


# What another environment would not have: refused here as if it were not installed.
ALONE = """
import importlib.metadata as metadata, re, runpy, sys

needed, todo = set(), {requirements!r}
while todo:
    name = re.match("[A-Za-z0-9._-]+", todo.pop())[0].lower().replace("_", "-")
    if name not in needed:
        needed.add(name)
        try:
            found = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            found = ["faiss-gpu"] if name == "faiss-cpu" else []  # has its place here
        todo += [one for one in found if "extra ==" not in one]
owners = metadata.packages_distributions()

class Refused:
    def find_spec(self, name, path=None, target=None):
        owned = {{one.lower().replace("_", "-") for one in owners.get(name.partition(".")[0], [])}}
        if owned and not owned & needed:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Refused())
sys.argv = ["search", "bundle={bundle}", "item=dresses-00000", "k=3"]
runpy.run_module("visual_search.search", run_name="__main__", alter_sys=True)
import visual_search.serve, visual_search.serving.server
assert "torch" not in sys.modules and "pandas" not in sys.modules
print(visual_search.__file__)
"""


def test_a_bundle_is_searched_where_only_what_it_carries_and_names_is_installed(
    tmp_path: Path,
) -> None:
    carried = serving_wheel()
    (tmp_path / carried.file).write_bytes(carried.content)
    text = requirements("flat", carried.requirement)
    (tmp_path / "requirements.txt").write_text(text, encoding="utf-8")
    names = [line for line in text.splitlines() if line[0].isalpha()]
    assert carried.requirement in names

    folder = tmp_path / "environment"
    _run([sys.executable, "-m", "venv", "--without-pip", folder], tmp_path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pip += ["--python", str(folder / "bin" / "python"), "install", "--no-index", "--no-deps"]
    own = tmp_path / "own.txt"  # its first lines, which say where the package lies
    own.write_text("\n".join(text.splitlines()[:3]), encoding="utf-8")
    _run([*pip, "-r", own], folder)  # from another folder
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    shop = shutil.copytree(ROOT / "tests" / "data" / "earlier" / "shop", tmp_path / "shop")
    code = ALONE.format(requirements=names, bundle=shop)
    said = _run([folder / "bin" / "python", "-c", code], tmp_path)
    assert "dresses-00000" in said
    assert said.splitlines()[-1].startswith(str(folder))
