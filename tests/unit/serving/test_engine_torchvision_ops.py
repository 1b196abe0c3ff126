"""The hook in real interpreters, with tiny packages that stand in for torch and torchvision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TORCH = """
class library:
    defined = []
    class Library:
        def __init__(self, *words): assert words == ("torchvision", "FRAGMENT")
        def define(self, schema): library.defined.append(schema.partition("(")[0])
class ops:
    loaded = []
    @staticmethod
    def load_library(path):
        if "unloadable" in open(path).read(): raise OSError(path)
        ops.loaded.append(path)
"""


@pytest.fixture
def interpreter(tmp_path):
    """Run code with the hook armed; `extension` is the content of torchvision's compiled part, None for none."""

    def run(code, extension):
        (tmp_path / "torch.py").write_text(TORCH)
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text("import torch; seen = list(torch.library.defined)")
        if extension is not None:
            (package / "_C.so").write_text(extension)
        armed = "from serving.engine import torchvision_ops as hook; hook.arm(); hook.arm(); import sys\n"
        done = subprocess.run(
            [sys.executable, "-c", armed + code],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("extension", ["unloadable: links CUDA", None])
def test_the_operators_are_defined_before_torchvisions_own_code_runs(interpreter, extension):
    assert interpreter("import torchvision; print(torchvision.seen)", extension) == "['nms', 'qnms']"


def test_it_is_inert_where_the_wheels_match(interpreter):
    assert interpreter("import torchvision; print(torchvision.seen)", "loadable") == "[]"


def test_torch_is_not_imported_before_torchvision_is(interpreter):
    assert interpreter("import json; print('torch' in sys.modules)", None) == "False"


def test_asking_whether_torchvision_is_there_imports_nothing(interpreter):
    code = "import importlib.util as u; print(u.find_spec('torchvision') is not None, 'torch' in sys.modules)"
    assert interpreter(code, None) == "True False"


def test_arming_twice_arms_once(interpreter):
    assert interpreter("print(sum(type(f).__name__ == '_Finder' for f in sys.meta_path))", None) == "1"


def test_a_missing_torchvision_stays_missing(monkeypatch):
    from serving.engine import torchvision_ops

    monkeypatch.setattr(torchvision_ops.PathFinder, "find_spec", lambda *_: None)
    assert torchvision_ops._Finder.find_spec("torchvision") is None
