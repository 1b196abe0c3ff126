"""What the schemas of Kubernetes releases and of custom resources say about manifests (manifest_schemas.py, its own Python)."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import yaml

from tests.support import chart

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CRDS = yaml.safe_load((chart.ROOT / "tests" / "chart" / "crds.yaml").read_text())


def faults(manifests: dict[str, list[dict[str, Any]]], versions: list[str] = VERSIONS) -> list[str]:
    """Each fault with the name of its sample, the object and the release; empty when there is none."""
    done = subprocess.run(
        [chart.TOOLS / "python", chart.ROOT / "tests" / "support" / "manifest_schemas.py"],
        input=json.dumps({"versions": versions, "crds": CRDS, "manifests": manifests}),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found
