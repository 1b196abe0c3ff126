"""The cluster behind a KUBECONFIG, by helm and kubectl: the seam of the runner. Every command is printed before it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "qwen3-vl"
TOOLS = ROOT / ".cache" / "chart"
INSTANCE = "app.kubernetes.io/instance"
KINDS = (
    "deployments.apps,statefulsets.apps,services,secrets,configmaps,serviceaccounts,persistentvolumeclaims,"
    "poddisruptionbudgets.policy,networkpolicies.networking.k8s.io,horizontalpodautoscalers.autoscaling"
)
"""What a release of the tests is made of."""
WATCHED = {
    "Deployment", "StatefulSet", "Service", "Secret", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim", "PodDisruptionBudget",
    "NetworkPolicy", "HorizontalPodAutoscaler",
}  # fmt: skip


class Failed(Exception):
    """Something that must hold does not; the message says what and where to look."""


def execute(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Run a command; return its exit code, its output and what it complained about: kubectl warns beside the JSON asked for."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@dataclass
class Cluster:
    """One release in one namespace."""

    namespace: str
    release: str
    values: Sequence[Path]
    timeout_s: int
    run: Callable[..., tuple[int, str, str]] = execute
    has: Callable[[str], bool] = lambda name: (TOOLS / name).exists()
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic
    said: list[str] = field(default_factory=list)
    complained: str = ""
    """What the last command wrote to its standard error."""

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        self.said.append(text)
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # a command line tool

    def tool(self, name: str, *words: str, stdin: str | None = None, quiet: bool = False) -> str:
        """Run helm or kubectl in the namespace. Raises Failed for any exit code but 0."""
        if not quiet:
            self.say(f"    {name} {' '.join(words)}")
        code, output, self.complained = self.run([str(TOOLS / name), "--namespace", self.namespace, *words], stdin)
        if code:
            raise Failed(f"{name} {' '.join(words)} ended with {code}:\n{(output + self.complained).strip()}")
        return output

    def kubectl(self, *words: str, stdin: str | None = None, quiet: bool = False) -> str:
        """Run kubectl."""
        return self.tool("kubectl", *words, stdin=stdin, quiet=quiet)

    def helm(self, *words: str, stdin: str | None = None) -> str:
        """Run helm."""
        return self.tool("helm", *words, stdin=stdin)

    def upgrade(self, changes: Mapping[str, Any] | None = None, *, wait: bool, install: bool = False) -> None:
        """`helm install` or `helm upgrade`, with `changes` over the values."""
        files = [word for path in self.values for word in ("--values", str(path))]
        until = ["--wait", "--timeout", f"{self.timeout_s}s"] if wait else []
        verb = "install" if install else "upgrade"
        self.helm(verb, self.release, str(CHART), *files, "--values", "-", *until, stdin=json.dumps(changes or {}))

    def objects(self, kinds: str = KINDS, *, quiet: bool = False) -> dict[str, dict[str, Any]]:
        """Everything of the release, by kind and name; Helm's own records and what controllers add are left out."""
        selector = f"{INSTANCE}={self.release}"
        found = json.loads(self.kubectl("get", kinds, "--selector", selector, "--output", "json", quiet=quiet))["items"]
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}

    def explain(self) -> None:
        """Print what may tell why a step failed: pods, the last events, the ends of their logs. Never Secrets."""
        selector = f"{INSTANCE}={self.release}"
        for words in (
            ("get", "pods", "--output", "wide"),
            ("get", "events", "--sort-by", ".lastTimestamp"),
            ("logs", "--selector", selector, "--all-containers", "--prefix", "--tail", "20", "--ignore-errors"),
        ):
            _, output, complaint = self.run([str(TOOLS / "kubectl"), "--namespace", self.namespace, *words], None)
            self.say("\n".join(f"    | {line}" for line in (output + complaint).strip().splitlines()[-60:]))

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds. Raises Failed when it does not in time."""
        deadline = self.clock() + self.timeout_s
        while not holds():
            if self.clock() > deadline:
                raise Failed(f"{what}: not within {self.timeout_s} s")
            self.sleep(1.0)
