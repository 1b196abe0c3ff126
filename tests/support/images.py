"""Building the images for real, where no image can be pulled: buildah, on a Debian base of the tests' own.

The base stands in for python:3.11-slim: a minimal Debian with Python, made once by debootstrap from the mirror that this
machine's apt uses. With PYTHON_DIGEST in the environment, as in CI, it is the real one, pulled by that digest. Where pip finds packages is this machine's business too: its settings go into the build as a secret,
its folders as mounts, so neither is in an image.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.containers import ROOT, STORE, podman, storage, tool

BASE = "docker.io/library/python:3.11-slim"
"""What the Dockerfiles name."""
PACKAGES = "python3,python3-venv,ca-certificates"
PRUNED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log")
"""What Docker's slim images leave out, too."""
BASE_DEADLINE_S, BUILD_DEADLINE_S = 900, 1800

PIP_SETTINGS = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "proxy", "timeout", "no-index")


@dataclass(frozen=True)
class Mirror:
    """Where Debian packages come from here."""

    url: str
    suite: str


def mirror() -> Mirror:
    """Ask apt. Raises RuntimeError when it knows no Debian."""
    fields = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    argv = [tool("apt-get"), "indextargets", "--format", fields, "Created-By: Packages", "Label: Debian"]
    lines = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    # "-updates" and "-backports" come on top of a suite.
    found = [line.split() for line in lines if line.endswith(" main") and "-" not in line.split()[1]]
    if not found:
        raise RuntimeError(
            "apt knows no Debian mirror here: run this on Debian, after `apt-get update`, or set PYTHON_DIGEST"
        )
    return Mirror(found[0][0], found[0][1])


def base() -> str:
    """Digest of the base; it is made when the store has none, unless the environment names the real one."""
    if os.geteuid() != 0:
        raise PermissionError("debootstrap and buildah's chroot need root: run this with sudo, or in a container")
    if given := os.environ.get("PYTHON_DIGEST"):
        return given
    if not podman("images", "--quiet", BASE).strip():
        _bootstrap(mirror())
    return podman("images", "--digests", "--format", "{{.Digest}}", BASE).split()[0]


def _bootstrap(source: Mirror) -> None:
    with tempfile.TemporaryDirectory(prefix="base-", dir=_made(STORE)) as folder:
        root = Path(folder, "root")
        argv = [tool("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", source.suite, str(root), source.url]
        _run(argv, BASE_DEADLINE_S)
        for pruned in PRUNED:
            shutil.rmtree(root / pruned)
            (root / pruned).mkdir()
        (root / "etc" / "apt" / "sources.list").write_text("")  # which mirror it was is nobody's business
        archive = Path(folder, "base.tar")
        _run(["tar", "-C", str(root), "-cf", str(archive), "."], BASE_DEADLINE_S)
        podman("import", str(archive), BASE, deadline_s=BASE_DEADLINE_S)


def pip_settings() -> dict[str, str]:
    """How pip finds packages here; what the environment says wins, as for pip itself."""
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    lines = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    pairs = [line.partition("=") for line in lines]
    pairs.sort(key=lambda pair: pair[0].startswith(":env:"))
    values = {name.rpartition(".")[2]: str(ast.literal_eval(value)) for name, _, value in pairs}
    return {name: values[name] for name in PIP_SETTINGS if name in values}


def folders(settings: dict[str, str]) -> list[str]:
    """Paths of this machine that the settings name, so that pip needs them during the build."""
    words = " ".join(settings.get(name, "") for name in ("index-url", "extra-index-url", "find-links", "cert")).split()
    paths = [urlsplit(word).path for word in words if word.startswith(("/", "file:"))]
    # An index is often a folder of links to the files beside it.
    near = [str(Path(path).parent) if Path(path).name == "simple" else path for path in paths]
    return sorted({path for path in near if Path(path).exists()})


def build(dockerfile: str, tag: str, **arguments: str) -> str:
    """Build an image of the repository as the Dockerfile's header says; return its name."""
    digest = base()
    settings = pip_settings()
    with tempfile.TemporaryDirectory(prefix="build-") as folder:
        secret, sources = Path(folder, "pip.conf"), Path(folder, "sources.list")
        lines = [f"{name} = {' '.join(value.split())}" for name, value in settings.items()]
        secret.write_text("\n".join(["[global]", *lines, ""]))
        volumes = [f"{path}:{path}:ro" for path in folders(settings)]
        if not os.environ.get("PYTHON_DIGEST"):  # the real base knows where its packages are
            source = mirror()
            sources.write_text(f"deb {source.url} {source.suite} main\n")
            volumes.append(f"{sources}:/etc/apt/sources.list:ro")
        words = ["bud", "--isolation", "chroot", "--format", "docker", "--secret", f"id=pip,src={secret}"]
        words += [f"--volume={volume}" for volume in volumes]
        given = {"PYTHON_DIGEST": digest, **arguments}
        words += [f"--build-arg={name}={value}" for name, value in given.items()]
        _run([*storage("buildah"), *words, "--file", dockerfile, "--tag", tag, str(ROOT)], BUILD_DEADLINE_S)
    podman("image", "prune", "--force")  # the one that had the tag before
    return f"localhost/{tag}"


def _run(argv: list[str], deadline_s: float) -> None:
    done = subprocess.run(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=deadline_s, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{Path(argv[0]).name} ended with {done.returncode}:\n{done.stdout[-6000:]}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
