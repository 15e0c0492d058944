from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import visual_search.knn
import visual_search.retrieval

ROOMS = {
    room.__name__: (room, sorted(module.name for module in pkgutil.iter_modules(room.__path__)))
    for room in (visual_search.knn, visual_search.retrieval)
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOMS)
def test_no_module_of_the_room_loads_torch_or_faiss(name):
    modules = ROOMS[name][1]
    assert len(modules) >= 18, modules  # this test walks files: it has to find them
    imports = "; ".join(f"import {name}.{module}" for module in modules)
    heavy = "{'torch', 'lightning', 'faiss', 'matplotlib', 'umap'}"
    code = f"import sys; import {name}; {imports}; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.slow
def test_searching_loads_faiss_but_not_torch():
    code = (
        "import sys, numpy as np; from visual_search.knn.gallery_index import EmbeddingIndex; "
        "EmbeddingIndex.build(np.eye(3, dtype=np.float32), ['a', 'b', 'c'], device='gpu')"
        ".search(np.eye(3, dtype=np.float32), 1); print('faiss' in sys.modules, "
        "'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True False"
