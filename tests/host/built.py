"""What is deployed: the real gateway and the tests' engine, one image of each per version, in a local registry."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tomllib
from typing import TYPE_CHECKING

from tests.host.processes import answers, process, run
from tests.support import images
from tests.support.containers import ROOT, STORE, podman, storage, tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOLDEN = ROOT / "serving" / "canary" / "golden" / "demo.toml"
PUSH_DEADLINE_S = 240
VERSIONS = {
    "v1": {},
    "v2": {},
    "v3": {"ANSWERS": "wrong"},
    "v4": {"COLD_START_S": "3"},
}
"""Engines by version, with what differs in their environment."""


def build(folder: Path) -> None:
    """The images: the real gateway and the engine of the tests, each flattened to one layer, then one per version.

    They stay in .cache/containers, and are built anew when something changed that is in them.
    """
    inputs = _inputs()
    if podman("images", "--quiet", "--filter", f"label=inputs={inputs}").strip():
        return
    base = images.build("gateway/Dockerfile", "host-gateway:real", VERSION="0.0.test", REVISION="0" * 40)
    context = folder / "engine"
    context.mkdir()
    shutil.copy(ROOT / "tests" / "host" / "engine.py", context)
    golden = tomllib.loads(GOLDEN.read_text())
    (context / "answers.json").write_text(json.dumps({case["question"]: case["equals"] for case in golden["case"]}))
    engine = f'FROM {images.BASE}@{images.base()}\nCOPY engine.py answers.json /\nENTRYPOINT ["python3", "-B", "/engine.py"]\nCMD ["run"]\n'
    _bud(context, "host-engine:flat", engine, "--squash")
    _bud(context, "host-gateway:flat", f"FROM {base}\n", "--squash")
    for version, environ in VERSIONS.items():
        lines = "".join(f"ENV {name}={value}\n" for name, value in {"VERSION": version, **environ}.items())
        for kind in ("gateway", "engine"):
            text = f"FROM localhost/host-{kind}:flat\n{lines if kind == 'engine' else ''}LABEL version={version}\n"
            _bud(context, f"host-{kind}:{version}", text)
    _bud(context, "host-built:last", f"FROM scratch\nLABEL inputs={inputs}\n")
    podman("image", "prune", "--force")


def _inputs() -> str:
    """Digest of all that the images are made of."""
    paths = [
        *(ROOT / "gateway").rglob("*.py"),
        *(ROOT / "requirements").glob("*.lock"),
        ROOT / "gateway" / "Dockerfile",
    ]
    digest = hashlib.sha256(json.dumps(VERSIONS).encode())
    for path in [*sorted(paths), ROOT / "tests" / "host" / "engine.py", GOLDEN]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bud(context: Path, tag: str, dockerfile: str, *options: str) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    run(*storage("buildah"), "bud", "--isolation", "chroot", "--format", "docker", *options, "--tag", tag, str(context))


def push(registry: str, folder: Path) -> dict[tuple[str, str], str]:
    """Push every version; return the names that a deployment is told."""
    found = {}
    for kind in ("gateway", "engine"):
        for version in VERSIONS:
            name = f"{registry}/host/{kind}"
            digest = STORE / "digest"
            podman("push", "--tls-verify=false", "--digestfile", str(digest), f"localhost/host-{kind}:{version}",
                   f"{name}:{version}", deadline_s=PUSH_DEADLINE_S,
                   environ={"TMPDIR": str(folder)})  # fmt: skip
            found[kind, version] = f"{name}@{digest.read_text().strip()}"
    return found


@contextlib.contextmanager
def registry(folder: Path, port: int) -> Iterator[None]:
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with process([tool("docker-registry"), "serve", str(config)], folder / "registry.log",
                 lambda: answers(f"http://127.0.0.1:{port}/v2/")):  # fmt: skip
        yield
