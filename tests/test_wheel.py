"""The wheel: built from the checkout, installed elsewhere, used from a third folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "visual_search"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "pyproject.toml").is_file(), reason="a wheel is built from a checkout only"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        folder,
    )
    (path,) = folder.glob("visual_search-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the installed package, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    _run([*pip, "--no-index", "--no-deps", "--target", folder, wheel], folder)
    return folder


def _run(command: list[str | Path], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **environment},
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
    code = "from visual_search.config.builders import config_folder; print(config_folder())"
    found = _run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(installed))
    assert Path(found.strip()) == installed.resolve() / "visual_search" / "conf"

    train: list[str | Path] = [sys.executable, "-m", "visual_search.train"]
    text = _run([*train, "--help"], tmp_path, PYTHONPATH=str(installed))
    assert re.search(r"experiment: [^:]*baseline,[^:]*plus_layer", text)
    assert not list(tmp_path.iterdir())  # asking leaves nothing behind


def test_installed_console_script_runs_an_experiment_from_any_folder(
    installed: Path, tmp_path: Path
) -> None:
    overrides = (
        "experiment=cross_entropy model.width=4 pictures.size_px=32 budget=smoke trainer=cpu"
    )
    overrides += " data=synthetic data.items_per_category=16 data.image_size_px=32 callbacks=none"
    overrides += " floors=false near_duplicates=false trainer.enable_progress_bar=false"
    text = _run(
        [sys.executable, installed / "bin" / "visual-search", "train", *overrides.split()],
        tmp_path,
        PYTHONPATH=str(installed),
    )
    (status,) = tmp_path.glob("outputs/cross_entropy/*/status.json")
    assert '"finished"' in status.read_text(encoding="utf-8")
    assert "mAP@5" in text
