"""Golden files: `UPDATE_GOLDEN=1 pytest tests/unit/serving` writes them anew; read the diff before you commit it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture
def golden():
    def compare(name, text):
        file = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        assert file.is_file(), f"no {file}: write it with UPDATE_GOLDEN=1 and read it before you commit it"
        assert text == file.read_text(), f"{file.name} differs: if that is meant, UPDATE_GOLDEN=1 writes it anew"

    return compare
