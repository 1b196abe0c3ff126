"""The load test's own chart: valid in every release, and restricted as the product's pods are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.load import __main__ as cli
from loadtest.load import scenario
from tests.chart.test_pod_security import violations
from tests.support import chart
from tests.support.schemas import faults

CHART = chart.ROOT / "loadtest" / "cluster" / "chart"
PLAIN: dict[str, Any] = {"image": f"registry.example.com/load@{chart.DIGEST}", "url": "http://vision-gateway:80"}
MANY = {
    **PLAIN,
    "scenario": "ramp",
    "perS": 2.5,
    "lastsS": 1800,
    "workers": 7,
    "args": ["--at-least-per-s", "40"],
    "resultsClaim": "reports",
    "nodeSelector": {"pool": "cpu"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
}


def jobs(values):
    manifests = chart.parse(chart.render_text(values, chart=CHART))
    return manifests, {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Job"}


def arguments(job):
    return job["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("values", [PLAIN, MANY])
def test_every_manifest_is_valid_in_every_release(values):
    manifests, found = jobs(values)
    assert faults({"load": manifests}) == []
    assert set(found) == {"shop-master", "shop-generators"}


@pytest.mark.parametrize("values", [PLAIN, MANY])
def test_every_pod_is_restricted_and_its_root_is_read_only(values):
    for job in jobs(values)[1].values():
        pod = job["spec"]["template"]
        assert violations(pod) == []
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["spec"]["containers"])
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert job["spec"]["backoffLimit"] == 0


def test_the_master_s_options_are_those_of_the_command(monkeypatch):
    """The command itself reads them; it prints what it would run."""
    seen = []
    monkeypatch.setattr(cli, "_run", lambda parsed: seen.append(parsed) or 0)
    found = jobs(MANY)[1]
    assert cli.main(arguments(found["shop-master"])) == 0
    (parsed,) = seen
    assert (parsed.scenario, parsed.url, parsed.per_s, parsed.lasts_s) == ("ramp", PLAIN["url"], 2.5, 1800)
    assert (parsed.expect_workers, parsed.at_least_per_s) == (7, 40)
    plain = arguments(jobs(PLAIN)[1]["shop-master"])
    assert "--per-s" not in plain
    assert "--lasts-s" not in plain


def test_the_master_expects_as_many_generators_as_there_are():
    for values in (PLAIN, MANY):
        _, found = jobs(values)
        options = arguments(found["shop-master"])
        expected = int(options[options.index("--expect-workers") + 1])
        assert expected == found["shop-generators"]["spec"]["parallelism"]
        assert expected == found["shop-generators"]["spec"]["completions"]


def test_generators_find_the_master_by_its_service():
    manifests, found = jobs(PLAIN)
    (service,) = [one for one in manifests if one["kind"] == "Service"]
    assert service["metadata"]["name"] in arguments(found["shop-generators"])
    labels = found["shop-master"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    others = found["shop-generators"]["spec"]["template"]["metadata"]["labels"]
    assert not service["spec"]["selector"].items() <= others.items()


def test_the_key_is_a_secret_s():
    for job in jobs(PLAIN)[1].values():
        (variable,) = job["spec"]["template"]["spec"]["containers"][0]["env"]
        assert variable["name"] == "LOAD_KEY"
        assert "secretKeyRef" in variable["valueFrom"]


def test_the_report_stays_where_there_is_a_claim():
    volumes = jobs(MANY)[1]["shop-master"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "results", "persistentVolumeClaim": {"claimName": "reports"}} in volumes


@pytest.mark.parametrize(
    "wrong", [{"image": ""}, {"url": ""}, {"url": "host:80"}, {"workers": 0}, {"scenario": "stedy"}, {"worker": 3}]
)
def test_a_fault_is_refused_before_a_cluster_is_asked(wrong):
    with pytest.raises(chart.Refused):
        chart.render_text({**PLAIN, **wrong}, chart=CHART)


def test_every_scenario_can_be_chosen():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert sorted(schema["properties"]["scenario"]["enum"]) == scenario.names()
