from __future__ import annotations

import pkgutil
import re
import subprocess
import sys

import pytest

import visual_search.retrieval as room

MODULES = sorted(module.name for module in pkgutil.iter_modules(room.__path__))


@pytest.mark.slow
def test_no_module_of_the_room_loads_torch_or_faiss():
    assert len(MODULES) >= 22, MODULES  # this test walks files: it has to find them
    imports = "; ".join(f"import visual_search.retrieval.{name}" for name in MODULES)
    heavy = "{'torch', 'lightning', 'faiss', 'matplotlib', 'umap'}"
    code = (
        f"import sys; import visual_search.retrieval; {imports}; print({heavy} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_the_map_names_every_module_once():
    named = re.findall(r"^``(\w+)\.py`` ", room.__doc__, re.MULTILINE)
    assert sorted(named) == MODULES


@pytest.mark.slow
def test_searching_loads_faiss_but_not_torch():
    code = (
        "import sys, numpy as np; from visual_search.retrieval.index import EmbeddingIndex; "
        "EmbeddingIndex.build(np.eye(3, dtype=np.float32), ['a', 'b', 'c'], device='gpu')"
        ".search(np.eye(3, dtype=np.float32), 1); print('faiss' in sys.modules, "
        "'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True False"
