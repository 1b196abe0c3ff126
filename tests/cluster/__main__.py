"""`python -m tests.cluster`: the chart from install to uninstall, in the cluster of KUBECONFIG.

Each step says what must hold, every command that it runs, and what was seen. With --no-pods only what an API server without
nodes can show: admission, server-side apply, upgrade, rollback, uninstall.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import api_steps, pod_steps
from tests.cluster.cluster import CHART, TOOLS, Cluster, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Step = Callable[[Cluster], str]

HERE = Path(__file__).parent
WITHOUT_PODS: dict[str, Step] = {
    "cluster": api_steps.reachable,
    "namespace": api_steps.namespace,
    "presets": api_steps.presets_are_taken,
    "install": functools.partial(api_steps.install, wait=False),
    "admission": api_steps.pods_are_admitted,
    "diff": api_steps.no_defaults_fight,
    "same-again": api_steps.same_again,
    "autoscaling": api_steps.autoscaling_on_and_off,
    "upgrade": functools.partial(api_steps.upgrade, wait=False),
    "refused-upgrade": api_steps.refused_upgrade,
    "rollback": functools.partial(api_steps.rollback, wait=False),
    "uninstall": api_steps.uninstall,
}
WITH_PODS: dict[str, Step] = {
    **WITHOUT_PODS,
    "nodes": pod_steps.two_nodes,
    "install": functools.partial(api_steps.install, wait=True),
    "question": pod_steps.question,
    "upgrade": pod_steps.upgrade_under_load,
    "rollback": pod_steps.rollback_under_load,
    "drain": pod_steps.drain_a_node,
}
ORDER = (
    "cluster", "nodes", "namespace", "presets", "install", "admission", "diff", "question", "same-again", "autoscaling", "upgrade",
    "refused-upgrade", "rollback", "drain", "uninstall",
)  # fmt: skip
NEEDS = {"nodes": "drain"}
"""A step that is of use to another only."""


def steps(*, pods: bool, skip: Sequence[str] = ()) -> list[tuple[str, Step]]:
    """The steps in their order."""
    chosen = WITH_PODS if pods else WITHOUT_PODS
    left_out = {*skip, *(name for name, other in NEEDS.items() if other in skip)}
    return [(name, chosen[name]) for name in ORDER if name in chosen and name not in left_out]


def run(cluster: Cluster, todo: Sequence[tuple[str, Step]], *, keep: bool) -> int:
    """Take the steps; return an exit code. A namespace that was made here is taken away whatever happens, unless kept."""
    made = False
    try:
        for name, step in todo:
            began = time.monotonic()
            cluster.say(f"{name}: must hold: {' '.join((getattr(step, 'func', step).__doc__ or '').split())}")
            seen = step(cluster)
            made = made or name == "namespace"
            cluster.say(f"{name}: seen: {seen}")
            cluster.say(f"{name}: ok ({time.monotonic() - began:.0f} s)")
    except Failed as exc:
        cluster.say(f"{name}: FAILED: {exc}")
        if made:
            cluster.explain()
        return 1
    finally:
        # Never one that was there before.
        if made and not keep:
            cluster.run(
                [str(TOOLS / "kubectl"), "delete", "namespace", cluster.namespace, "--ignore-not-found", "--wait=false"]
            )
    cluster.say(f"{len(todo)} steps hold")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--no-pods", action="store_true", help="only what needs an API server")
    parser.add_argument(
        "--namespace", default="qwen3-vl-test", help="made and taken away; must not exist (default: %(default)s)"
    )
    parser.add_argument("--release", default="vision", help="default: %(default)s")
    parser.add_argument(
        "--values", type=Path, action="append", help="instead of ci/minimal.yaml and tests/cluster/values.yaml"
    )
    parser.add_argument("--timeout-s", type=int, default=900, help="for each wait (default: %(default)s)")
    parser.add_argument("--skip", action="append", default=[], choices=ORDER, help="leave a step out; may be repeated")
    parser.add_argument("--keep", action="store_true", help="leave the namespace as it is")
    asked = parser.parse_args(argv)
    values = asked.values or [CHART / "ci" / "minimal.yaml", HERE / "values.yaml"]
    cluster = Cluster(asked.namespace, asked.release, values, asked.timeout_s)
    return run(cluster, steps(pods=not asked.no_pods, skip=asked.skip), keep=asked.keep)


if __name__ == "__main__":
    sys.exit(main())
