"""A recorded helm, kubectl and cosign: executables on PATH that keep a release's history in a file and do as they are told.

`Cluster.script` says how the next calls end; `calls` has every command line. The canary is one of them, too.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMON = {"--namespace", "--timeout", "--wait", "--description", "--cleanup-on-fail", "--history-max"}
FLAGS = {
    # Those of ours that helm 4.3.1 has, from its --help: a flag that is made up or gone fails as it would there.
    "helm history": ["--namespace", "--max", "--output"],
    "helm upgrade": sorted(COMMON | {"--install", "--values", "--set-string", "--version"}),
    "helm rollback": sorted(COMMON),
    "helm pull": ["--version", "--destination"],
    "helm uninstall": ["--namespace", "--timeout", "--wait"],
}
PROGRAM = """#!{python} -IS
import json, pathlib, sys, time
home, name, argv = pathlib.Path({home!r}), pathlib.Path(sys.argv[0]).name, sys.argv[1:]
stdin = sys.stdin.read() if "-" in argv else ""
with (home / "calls").open("a") as calls:
    calls.write(json.dumps([name, *argv]) + "\\n")
state = json.loads((home / "state").read_text())
history, script, flags = state["history"], state["script"], {flags!r}
verb = argv[0] if name != "kubectl" else next(word for word in argv if word in ("create", "get", "delete"))
key = f"{{name}} {{verb}}" if name != "canary" else "canary"
unknown = [word for word in argv if word.startswith("--") and word not in flags.get(key, [word])]
if unknown:
    sys.exit("Error: unknown flag: " + unknown[0])
how = script.get(key, [])
now = how.pop(0) if how else "ok"

def save():
    (home / "state").write_text(json.dumps(state))

def add(status, description, was="superseded"):
    for revision in history:
        if status == "deployed" and revision["status"] == "deployed":
            revision["status"] = was
    number = history[-1]["revision"] + 1 if history else 1
    history.append({{"revision": number, "updated": state["now"], "status": status, "chart": "qwen3-vl-0.1.0",
                    "app_version": "0.1.0", "description": description}})

def option(word):
    return argv[argv.index(word) + 1]

if now == "hang":
    if key in ("helm upgrade", "helm rollback"):
        add("pending-" + verb, "in progress")
    save()
    print("hanging", flush=True)
    time.sleep(300)
if key == "canary":
    pathlib.Path(option("--report")).write_text('{{"golden":' if now == "cut" else json.dumps({{"golden": "demo", "reasons": [], "now": None, "before": None}}))
    print("canary: good" if now == "ok" else f"canary: BAD: {{now}}")
elif key == "helm history":
    if now != "ok":
        print(f"Error: {{now}}", file=sys.stderr)
    elif not history:
        print("Error: release: not found", file=sys.stderr)
        now = "none"
    else:
        print(json.dumps(history))
elif key == "helm upgrade":
    if now == "ok":
        add("deployed", option("--description"))
    elif now != "render":
        add("pending-upgrade" if now == "pending" else "failed", f"Upgrade failed: {{now}}")
        print(f"Error: UPGRADE FAILED: {{now}}", file=sys.stderr)
    else:
        print("Error: values don't meet the specifications of the schema", file=sys.stderr)
elif key == "helm rollback":
    if now == "ok":
        for revision in history:
            if revision["status"].startswith("pending"):
                revision["status"] = "failed"
        add("deployed", option("--description"))
    else:
        add("failed", f"Rollback failed: {{now}}")
        print(f"Error: {{now}}", file=sys.stderr)
elif key == "helm pull":
    print("Pulled: " + argv[1].removeprefix("oci://") + ":" + option("--version"))
    print("Digest: " + now if now != "ok" else "Digest: sha256:" + "d" * 64)
    now = "ok"
elif key == "helm uninstall":
    history.clear()
elif key == "cosign verify":
    if now != "ok":
        print(f"Error: {{now}}", file=sys.stderr)
elif key == "kubectl create":
    state["entries"].append(json.loads(stdin))
    if now != "ok":
        print(f"error: {{now}}", file=sys.stderr)
elif key == "kubectl get":
    print("\\n".join(state["listed"]))
save()
sys.exit(0 if now == "ok" else 1)
"""


class Cluster:
    """What the scripts see instead of a cluster."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "cluster"
        self.bin = self.home / "bin"
        self.bin.mkdir(parents=True)
        for name in ("helm", "kubectl", "cosign", "canary"):
            program = self.bin / name
            program.write_text(PROGRAM.format(python=sys.executable, home=str(self.home), flags=FLAGS))
            program.chmod(0o755)
        (self.home / "calls").touch()
        self.write(history=[], script={}, entries=[], listed=[], now="2026-11-22T08:00:00.000000001Z")

    def write(self, **changes):
        file = self.home / "state"
        state = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(state | changes))

    @property
    def state(self):
        return json.loads((self.home / "state").read_text())

    @property
    def calls(self):
        return [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]

    def verbs(self):
        """What was changed or looked at, in order: queries left out."""
        shown = []
        for name, *words in self.calls:
            if name == "canary":
                shown.append("canary")
            elif name == "helm" and words[0] != "history":
                shown.append(" ".join(words[:3]) if words[0] == "rollback" else words[0])
        return shown

    def released(self, *statuses):
        """Begin with revisions in these states."""
        self.write(
            history=[
                {"revision": number, "updated": "2026-11-20T08:00:00Z", "status": status, "chart": "qwen3-vl-0.1.0",
                 "app_version": "0.1.0", "description": f"v0.{number}.0 {number:012x}"}
                for number, status in enumerate(statuses, start=1)
            ]
        )  # fmt: skip

    def environ(self, **more):
        return {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", **more}
