"""No secret in a ConfigMap, an argument or a plain variable; what is generated is right, and made once."""

from __future__ import annotations

import base64
import json
import re

import pytest

from gateway.keys import hash_secret, parse_ring, utc_now
from tests.support import chart
from tests.support.api_server import serving

SECRETIVE = re.compile(r"(PASSWORD|SECRET|TOKEN|API_KEY|ACCESS_KEY|REDIS_URL)")


def data(manifests, suffix):
    secret = chart.only(manifests, "Secret", suffix)
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def test_generated_secrets_stand_nowhere_else():
    for values, preset in chart.SAMPLES.values():
        text = chart.render_text(values, preset)
        secrets = [
            base64.b64decode(value).decode()
            for one in chart.kind(chart.parse(text), "Secret")
            for name, value in one["data"].items()
            if name != "keys.json"
        ]
        for secret in secrets:
            assert secret not in text


def test_variables_that_hold_secrets_come_from_secrets(manifests):
    for name, pod in chart.pod_templates(manifests).items():
        for one in chart.containers(pod):
            for variable in one.get("env", []):
                # The bundled Redis' address refers to the variable with the password.
                value = re.sub(r"\$\([A-Z_]+\)", "", variable.get("value", ""))
                if SECRETIVE.search(variable["name"]) and not value.startswith("redis://:@"):
                    assert "secretKeyRef" in variable.get("valueFrom", {}), (name, variable)


def test_the_generated_key_opens_the_generated_key_file():
    generated = data(chart.plain(), "-keys")
    key = parse_ring(generated["keys.json"]).find(generated["first-key"], utc_now())
    assert key is not None
    assert key.tenant == "default"
    assert hash_secret(generated["first-key"]) == key.sha256
    assert re.fullmatch(r"sk-[A-Za-z0-9]{43}", generated["first-key"])


def test_the_gateway_gets_the_hashes_and_never_the_key():
    pod = chart.pod_templates(chart.plain())[f"{chart.RELEASE}-qwen3-vl-gateway"]
    volume = next(one for one in pod["spec"]["volumes"] if one["name"] == "keys")
    assert volume["secret"]["items"] == [{"key": "keys.json", "path": "keys.json"}]


def test_secrets_of_ones_own_take_the_place_of_generated_ones():
    values = {"keys": {"existingSecret": "mine", "existingSecretKey": "file"}, "secrets": {"existingSecret": "ours"}}
    manifests = chart.plain(values)
    assert chart.kind(manifests, "Secret") == []
    pod = chart.pod_templates(manifests)[f"{chart.RELEASE}-qwen3-vl-gateway"]
    volume = next(one for one in pod["spec"]["volumes"] if one["name"] == "keys")
    assert volume["secret"] == {"secretName": "mine", "items": [{"key": "file", "path": "keys.json"}]}
    refs = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for other in chart.pod_templates(manifests).values()
        for one in chart.containers(other)
        for variable in one.get("env", [])
        if "valueFrom" in variable
    }
    assert refs == {"ours"}


def test_only_the_fetching_container_has_the_storages_credentials():
    engine = chart.pod_templates(chart.render(preset="t4"))[f"{chart.RELEASE}-qwen3-vl-engine-t4"]
    fetch, serve = chart.containers(engine)
    assert fetch["envFrom"] == [{"secretRef": {"name": "weights-s3"}}]
    assert "AWS_REGION" in chart.environment(fetch)
    assert "envFrom" not in serve
    assert not any(name.startswith("AWS_") for name in chart.environment(serve))


def test_an_engine_that_streams_its_weights_has_them_itself():
    values = chart.at("pools.l4.weights", {"fetch": False, "model": "s3://models/x", "credentialsSecret": "weights-s3"})
    (serve,) = chart.containers(chart.pod_templates(chart.plain(values))[f"{chart.RELEASE}-qwen3-vl-engine-l4"])
    assert serve["envFrom"] == [{"secretRef": {"name": "weights-s3"}}]


def test_valkey_reads_its_password_from_memory():
    manifests = chart.plain()
    redis = chart.only(manifests, "StatefulSet", "-redis")["spec"]["template"]["spec"]
    assert "requirepass" not in str(chart.only(manifests, "ConfigMap", "-redis"))
    assert next(one for one in redis["volumes"] if one["name"] == "tmp")["emptyDir"]["medium"] == "Memory"
    assert redis["containers"][0]["args"][0].count("$REDISCLI_AUTH") == 1


@pytest.fixture
def in_cluster(tmp_path):
    """Render before a cluster that has these Secrets."""
    secrets = []
    with serving(secrets, tmp_path) as kubeconfig:

        def go(*there, values=None):
            secrets[:] = there
            for one in there:
                # As Helm marks what it has sent.
                owner = {"meta.helm.sh/release-name": chart.RELEASE, "meta.helm.sh/release-namespace": chart.NAMESPACE}
                one["metadata"]["annotations"] = owner
            file = tmp_path / "values.json"
            file.write_text(json.dumps(chart.merged(chart.PLAIN, values or {})))
            argv = [
                "template",
                chart.RELEASE,
                str(chart.CHART),
                "--namespace",
                chart.NAMESPACE,
                "--dry-run=server",
                "--disable-openapi-validation",
            ]
            done = chart.run_helm(
                *argv,
                "--values",
                str(file),
                environ={"KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path), "HELM_CACHE_HOME": str(tmp_path)},
            )
            return chart.kind(chart.parse(done.stdout), "Secret")

        yield go


def test_what_is_there_is_left_alone(in_cluster):
    """An upgrade does not send it at all: keys that were added or revoked by hand stay as they are."""
    first = in_cluster()
    assert in_cluster(*first) == []
    assert [one["data"] for one in in_cluster()] != [one["data"] for one in first]


def test_generated_secrets_belong_to_no_revision():
    """`helm rollback` sends a revision's objects again, but no hooks: an old key file would bring revoked keys back."""
    made = chart.kind(chart.plain(), "Secret")
    assert len(made) == 2
    for one in made:
        assert one["metadata"]["annotations"] == {"helm.sh/hook": "pre-install,pre-upgrade"}
    assert "rollback" not in str(made)


def test_an_upgrade_makes_only_what_is_missing(in_cluster):
    keys, shared = in_cluster()
    del shared["data"]["redis-password"]
    shared["data"]["added"] = "eA=="
    (after,) = in_cluster(keys, shared)
    assert set(after["data"]) == {"tenant-secret", "engine-api-key", "redis-password", "added"}
    assert shared["data"].items() <= after["data"].items()
    keys["data"] = {"other": "eA=="}
    after, _ = in_cluster(keys, shared)
    assert set(after["data"]) == {"first-key", "keys.json", "other"}
