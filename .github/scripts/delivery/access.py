"""The way to the cluster: a kubeconfig without any long-lived secret, or the one that was given.

A cluster that trusts GitHub's OIDC issuer (Kubernetes' structured authentication; EKS, AKS and GKE have their own names
for it) takes the run's identity token. It lives for minutes and a deployment may take longer, so helm and kubectl ask
for a fresh one whenever they need it, through an exec plugin: `python3 -m delivery token`.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delivery.record import stamp
from serving.exchange import NoExchange, request

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 10.0
API_VERSION = "client.authentication.k8s.io/v1"


class NoAccess(Exception):
    """There is no way to the cluster; the message says what to set."""


def kubeconfig(environ: Mapping[str, str]) -> str:
    """Make the kubeconfig's text (JSON is YAML). Raises NoAccess."""
    server, audience = environ.get("KUBE_SERVER", ""), environ.get("KUBE_AUDIENCE", "")
    if not audience:
        if given := environ.get("KUBE_CONFIG", ""):
            return given
        raise NoAccess(
            "set the environment's variables KUBE_SERVER, KUBE_CA and KUBE_AUDIENCE (OIDC), or its secret KUBE_CONFIG"
        )
    if not server.startswith("https://"):
        raise NoAccess(f"KUBE_SERVER is {server!r}: it has to begin with https://")
    try:
        base64.b64decode(environ.get("KUBE_CA", ""), validate=True)
    except binascii.Error:
        raise NoAccess("KUBE_CA is not base64: take certificate-authority-data of a kubeconfig") from None
    scripts = Path(__file__).resolve().parents[1]
    plugin: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "command": sys.executable,
        "args": ["-m", "delivery", "token"],
        "env": [
            {"name": "PYTHONPATH", "value": f"{scripts}:{scripts.parents[1]}"},
            {"name": "KUBE_AUDIENCE", "value": audience},
        ],
        "interactiveMode": "Never",
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "cluster",
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "github"}}],
            "clusters": [
                {
                    "name": "cluster",
                    "cluster": {"server": server, "certificate-authority-data": environ.get("KUBE_CA", "")},
                }
            ],
            "users": [{"name": "github", "user": {"exec": plugin}}],
        }
    )


def write_kubeconfig(environ: Mapping[str, str]) -> None:
    """Write it for this user only, where KUBECONFIG says. Raises NoAccess."""
    if not environ.get("KUBECONFIG"):
        raise NoAccess("KUBECONFIG does not say where to write")
    text = kubeconfig(environ)
    path = Path(environ["KUBECONFIG"])
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")


def token(environ: Mapping[str, str]) -> str:
    """Ask GitHub for the run's identity token; return what an exec plugin prints. Raises NoAccess."""
    url, bearer = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not bearer:
        raise NoAccess("no identity token can be had: the job needs `permissions: id-token: write`")
    url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"audience": environ.get("KUBE_AUDIENCE", "")})
    try:
        status, answer = request("GET", url, {"authorization": f"bearer {bearer}"}, None, TIMEOUT_S)
        value = json.loads(answer)["value"]
        claims = json.loads(base64.urlsafe_b64decode(value.split(".")[1] + "=="))
        expires = int(claims["exp"])
    except NoExchange as exc:
        raise NoAccess(f"GitHub gives no identity token: {exc}") from exc
    except (ValueError, LookupError, TypeError, AttributeError):
        raise NoAccess(f"GitHub gives no identity token: status {status}") from None
    credential = {"token": value, "expirationTimestamp": stamp(expires)}
    return json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "status": credential})
