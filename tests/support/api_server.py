"""As much of a Kubernetes API server as Helm's `lookup` asks for: discovery, and objects by kind and name."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = {
    "v1": ("Secret", "Service", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim", "Pod"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "leaderworkerset.x-k8s.io/v1": ("LeaderWorkerSet",),
    "keda.sh/v1alpha1": ("ScaledObject",),
}


def _plural(kind):
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")


def _resources(version):
    listed = [
        {"name": _plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
        for kind in KINDS[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


def _group(version):
    one = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [one], "preferredVersion": one}


GROUPS = [version for version in KINDS if "/" in version]
DISCOVERY = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in GROUPS]},
    "/api/v1": _resources("v1"),
    **{f"/apis/{version}": _resources(version) for version in GROUPS},
}
MISSING = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


@contextlib.contextmanager
def serving(objects, folder):
    """Serve these manifests; gives the path of a kubeconfig. `objects` may change meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            body = DISCOVERY.get(path)
            if body is None:
                wanted = path.split("/")[-2:]
                body = next((one for one in objects if [_plural(one["kind"]), one["metadata"]["name"]] == wanted), None)
            self.send_response(200 if body else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body or MISSING).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    config = folder / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "users": [{"name": "x", "user": {}}],
            }
        )
    )
    try:
        yield config
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
