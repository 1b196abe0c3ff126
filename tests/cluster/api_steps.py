"""Steps that need an API server and nothing else: no pod has to run."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.cluster.cluster import CHART, TOOLS, WATCHED, Failed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.cluster import Cluster

CHANGE = {"drain": {"seconds": 25}, "gateway": {"settings": {"log_level": "debug"}}}
"""An upgrade that gives gateways and engines new pods."""
BAD = {"gateway": {"terminationGracePeriodSeconds": 1}}
RESTRICTED = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]

OLDEST = (1, 29)
"""Kubernetes, as in Chart.yaml."""


def reachable(cluster: Cluster) -> str:
    """helm, kubectl and an API server that is new enough are there."""
    missing = [name for name in ("helm", "kubectl") if not cluster.has(name)]
    if missing:
        raise Failed(f"no {' and no '.join(missing)} in {TOOLS}: run `make chart-tools`")
    try:
        answer = json.loads(cluster.kubectl("version", "--output", "json", "--request-timeout", "20s"))
    except (Failed, ValueError) as exc:
        raise Failed(
            f"no API server answers: set KUBECONFIG to a cluster that may be changed, or make one with "
            f"`kind create cluster --config tests/cluster/kind.yaml` ({exc})"
        ) from exc
    server = answer.get("serverVersion", {})
    major, minor = (int(re.sub(r"\D", "", server.get(part, "")) or 0) for part in ("major", "minor"))
    if (major, minor) < OLDEST:
        raise Failed(f"Kubernetes {major}.{minor} is too old: the chart needs {OLDEST[0]}.{OLDEST[1]}")
    context = cluster.kubectl("config", "current-context").strip()
    return f"Kubernetes {server.get('gitVersion', 'of no version')}, context {context}"


def namespace(cluster: Cluster) -> str:
    """A namespace that admits nothing but restricted pods."""
    cluster.kubectl("create", "namespace", cluster.namespace)
    cluster.kubectl("label", "namespace", cluster.namespace, *RESTRICTED)
    return f"{cluster.namespace} with {', '.join(RESTRICTED)}"


def presets_are_taken(cluster: Cluster) -> str:
    """Every preset passes the API server's validation as it is rendered, and it warns of nothing (a dry run)."""
    served = set(cluster.kubectl("api-versions").split())
    presets, taken, unknown = sorted((CHART / "ci").glob("*.yaml")), 0, set()
    for preset in presets:
        words = ("template", cluster.release, str(CHART), "--values", str(preset))
        manifests = parsed(cluster.helm(*words))
        unknown |= {one["kind"] for one in manifests if one["apiVersion"] not in served}
        # The pod of `helm test` needs an account that is not there yet: the step "admission" has it.
        sent = [one for one in manifests if one["apiVersion"] in served and one["kind"] != "Pod"]
        apply = ("apply", "--server-side", "--field-manager=helm", "--dry-run=server", "--filename", "-")
        cluster.kubectl(*apply, stdin=a_list(sent))
        if "Warning:" in cluster.complained:
            raise Failed(f"preset {preset.stem}: {cluster.complained.strip()}")
        taken += len(sent)
    left_out = f"; not known here, so left out: {', '.join(sorted(unknown))}" if unknown else ""
    return f"{taken} objects of {len(presets)} presets taken without a warning{left_out}"


def install(cluster: Cluster, *, wait: bool) -> str:
    """Everything that was rendered is there, generated Secrets too."""
    cluster.upgrade(wait=wait, install=True)
    there = cluster.objects()
    for one in [*rendered(cluster), *hooks(cluster, "pre-install")]:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in WATCHED and name not in there:
            raise Failed(f"{name} was rendered and is not there")
    return f"{len(there)} objects: {', '.join(sorted(there))}"


def rendered(cluster: Cluster) -> list[dict[str, Any]]:
    """What Helm sent to the API server."""
    return parsed(cluster.helm("get", "manifest", cluster.release))


def parsed(text: str) -> list[dict[str, Any]]:
    """Helm's YAML; by libyaml, as dashboards are long."""
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]


def a_list(manifests: Sequence[Mapping[str, Any]]) -> str:
    """The manifests for kubectl's standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def hooks(cluster: Cluster, event: str) -> list[dict[str, Any]]:
    """What Helm sends at an event alone."""
    sent = parsed(cluster.helm("get", "hooks", cluster.release))
    return [one for one in sent if event in one["metadata"]["annotations"]["helm.sh/hook"].split(",")]


def pods_are_admitted(cluster: Cluster) -> str:
    """Each pod that a workload or `helm test` would make passes the API server's admission, Pod Security included."""
    pods = {one["metadata"]["name"]: pod for one in rendered(cluster) if (pod := pods_of(one))}
    account = next(iter(pods.values()))["spec"]["serviceAccountName"]
    for one in hooks(cluster, "test"):
        if one["kind"] == "Pod":
            # Its own account is made with it.
            spec = {**one["spec"], "serviceAccountName": account}
            pods[one["metadata"]["name"]] = {"metadata": {"labels": one["metadata"]["labels"]}, "spec": spec}
    for name, template in pods.items():
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**template["metadata"], "name": f"{name}-dry-run"}
        cluster.kubectl("create", "--dry-run=server", "--filename", "-", stdin=json.dumps(pod))
    return f"admitted: {', '.join(sorted(pods))}"


def no_defaults_fight(cluster: Cluster) -> str:
    """What the API server holds is what was sent: a server-side diff finds nothing."""
    sent = rendered(cluster)
    for one in sent:
        # Helm adds these when it sends.
        mine = {"meta.helm.sh/release-name": cluster.release, "meta.helm.sh/release-namespace": cluster.namespace}
        one["metadata"]["annotations"] = one["metadata"].get("annotations", {}) | mine
    cluster.kubectl("diff", "--server-side", "--field-manager=helm", "--filename", "-", stdin=a_list(sent))
    return f"no difference in {len(sent)} objects"


def same_again(cluster: Cluster) -> str:
    """An upgrade with the same values changes nothing: no generation moves, no generated secret is made anew."""
    before = cluster.objects()
    cluster.upgrade(wait=False)
    after = cluster.objects()
    same_objects(before, after)
    for name, one in before.items():
        if one["metadata"].get("generation") != after[name]["metadata"].get("generation"):
            raise Failed(f"{name} was changed by an upgrade with the same values")
    same_secrets(before, after)
    return f"{len(before)} objects with the uid and generation that they had"


def autoscaling_on_and_off(cluster: Cluster) -> str:
    """An autoscaler that is turned on finds the replicas that there were, and can be turned off again."""
    name, before = gateway_of(cluster)
    replicas = before["spec"]["replicas"]
    # No room: it must not act, or turning it off would be a conflict that is meant.
    scaling = {"kind": "hpa", "minReplicas": replicas, "maxReplicas": replicas}
    cluster.upgrade({"gateway": {"autoscaling": scaling}}, wait=False)
    on = cluster.objects()
    cluster.upgrade(wait=False)
    off = cluster.objects()
    scaler = name.replace("Deployment/", "HorizontalPodAutoscaler/")
    if scaler not in on or scaler in off:
        raise Failed(f"{scaler} is {'there' if scaler in on else 'not there'} while on, {scaler in off} while off")
    for state, there in (("on", on), ("off", off)):
        if there[name]["spec"]["replicas"] != replicas:
            raise Failed(
                f"{name} has {there[name]['spec']['replicas']} replicas with autoscaling {state}, not {replicas}"
            )
    same_objects(before={name: before}, after=off)
    return f"{name} kept its {replicas} replicas"


def upgrade(cluster: Cluster, *, wait: bool) -> str:
    """An upgrade changes the pods, and neither makes an object anew nor a secret."""
    before = cluster.objects()
    cluster.upgrade(CHANGE, wait=wait)
    after = cluster.objects()
    same_objects(before, after)
    same_secrets(before, after)
    changed = [name for name, one in after.items() if pods_of(one) != pods_of(before[name])]
    if not any(name.startswith("Deployment/") for name in changed):
        raise Failed("the upgrade changed no Deployment")
    return f"new pods of {', '.join(sorted(changed))}; {len(before)} objects with the uid that they had, secrets as they were"


def refused_upgrade(cluster: Cluster) -> str:
    """Values that do not go together are refused before anything is changed."""
    before = cluster.objects()
    try:
        cluster.upgrade(BAD, wait=False)
    except Failed as exc:
        if "These values do not go together" not in str(exc):
            raise
        told = next(line for line in str(exc).splitlines() if line.startswith("- "))
    else:
        raise Failed("helm took values that do not go together")
    generations = {name: one["metadata"].get("generation") for name, one in cluster.objects().items()}
    if generations != {name: one["metadata"].get("generation") for name, one in before.items()}:
        raise Failed("a refused upgrade changed something")
    return f"refused: {told}"


def rollback(cluster: Cluster, *, wait: bool) -> str:
    """A rollback to the first revision brings its pods back, and makes nothing anew."""
    before = cluster.objects()
    until = ["--wait", "--timeout", f"{cluster.timeout_s}s"] if wait else []
    cluster.helm("rollback", cluster.release, "1", *until)
    after = cluster.objects()
    same_objects(before, after)
    same_secrets(before, after)
    first = [
        one
        for one in parsed(cluster.helm("get", "manifest", cluster.release, "--revision", "1"))
        if one["kind"] == "Deployment"
    ]
    for one in first:
        now = after[f"Deployment/{one['metadata']['name']}"]["spec"]["template"]["spec"]
        if now["terminationGracePeriodSeconds"] != one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]:
            raise Failed(f"Deployment/{one['metadata']['name']} is not as in revision 1")
    return f"pods of {len(first)} Deployments as in revision 1; no object made anew, secrets as they were"


def uninstall(cluster: Cluster) -> str:
    """Nothing of the release is left but generated Secrets, as they were, and the claim of the bundled Redis."""
    before = {name: one for name, one in cluster.objects().items() if name.startswith("Secret/")}
    cluster.helm("uninstall", cluster.release)

    def gone() -> bool:
        kept = ("PersistentVolumeClaim/data-", "Secret/")
        return not [name for name in cluster.objects(quiet=True) if not name.startswith(kept)]

    cluster.wait_for("everything of the release is gone", gone)
    after = cluster.objects()
    same_objects(before, after)
    same_secrets(before, after)
    return f"left: {', '.join(sorted(after)) or 'nothing'}"


def gateway_of(cluster: Cluster) -> tuple[str, dict[str, Any]]:
    """The gateway's Deployment and its name as in `objects`."""
    return next((name, one) for name, one in cluster.objects("deployments.apps").items() if name.endswith("-gateway"))


def same_objects(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise Failed for an object that is gone, or was made anew under its name."""
    for name, one in before.items():
        if name not in after:
            raise Failed(f"{name} is gone")
        if one["metadata"]["uid"] != after[name]["metadata"]["uid"]:
            raise Failed(f"{name} was made anew")


def same_secrets(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise Failed for a secret with another content; never print one."""
    for name, one in before.items():
        if name.startswith("Secret/") and one["data"] != after[name]["data"]:
            raise Failed(f"{name} was generated anew")


def pods_of(one: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pod template of a workload, None for anything else."""
    template: dict[str, Any] | None = one["spec"].get("template") if isinstance(one.get("spec"), dict) else None
    return template
