"""Two presets as they are rendered, whole: what a change does to manifests is to be read in the diff."""

from __future__ import annotations

import os
import re

import pytest

from tests.support import chart

GOLDEN = chart.ROOT / "tests" / "chart" / "golden"
GENERATED = re.compile(r"^  (first-key|keys\.json|tenant-secret|engine-api-key|redis-password): .*$", re.MULTILINE)
DASHBOARD = re.compile(r"^  (\S+\.json): \|-\n(?:    .*\n)+", re.MULTILINE)
"""Their source lies in files/dashboards, and is read there."""


@pytest.mark.parametrize("preset", ["minimal", "production"])
def test_a_preset_is_rendered_as_it_was(preset):
    text = GENERATED.sub(r"  \1: (generated)", chart.render_text(preset=preset))
    text = DASHBOARD.sub(r"  \1: (files/dashboards)\n", text)
    file = GOLDEN / f"{preset}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.is_file(), f"no {file}: write it with UPDATE_GOLDEN=1 and read it before you commit it"
    assert text == file.read_text(), f"{file.name} differs: if that is meant, UPDATE_GOLDEN=1 writes it anew"
