"""checkov over every preset: each finding that is left has its reason here, and no reason stands here without a finding.

It does not look into a LeaderWorkerSet; its pods are made by the same template as a Deployment's.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from tests.support import chart

# (check, what it is about) -> why it stays.
EXPLAINED = {
    (
        "CKV_K8S_35",
        ".*",
    ): "vLLM, the gateway and valkey-cli take their keys from variables; nothing else runs in those containers",
    ("CKV_K8S_8", "Pod.*-test"): "a test pod ends by itself; activeDeadlineSeconds bounds it",
    ("CKV_K8S_9", "Pod.*-test"): "likewise",
    ("CKV_K8S_40", "Deployment.*-engine-.*"): "vLLM's image is made for user 2000",
    ("CKV_K8S_43", "minimal:.*"): "images that are loaded into kind by hand have no digest",
    ("CKV_K8S_15", "minimal:.*"): "likewise, and cannot be pulled",
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    for name, (values, preset) in chart.SAMPLES.items():
        # Of these it knows no check, and takes long to read dashboards.
        looked_at = [one for one in chart.render(values, preset) if one["kind"] not in {"ConfigMap", "PrometheusRule"}]
        (folder / f"{name.removeprefix('preset ')}.yaml").write_text(yaml.dump_all(looked_at, Dumper=yaml.CSafeDumper))
    done = subprocess.run(
        [chart.TOOLS / "checkov", "--framework", "kubernetes", "-d", folder, "--skip-download", "--compact", "-o", "json"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    return [
        (one["check_id"], f"{one['file_path'].strip('/').removesuffix('.yaml')}:{one['resource']}")
        for one in report["results"]["failed_checks"]
    ]


def explains(reason, finding):
    (check, pattern), (found, where) = reason, finding
    return check == found and re.fullmatch(pattern if ":" in pattern else f".*:{pattern}", where) is not None


@pytest.mark.timeout(300)
def test_no_finding_is_unexplained(findings):
    assert [one for one in findings if not any(explains(reason, one) for reason in EXPLAINED)] == []


@pytest.mark.timeout(300)
def test_no_explanation_is_left_over(findings):
    assert [reason for reason in EXPLAINED if not any(explains(reason, one) for one in findings)] == []
