"""What no linter knows of these workflows: pins, least permissions, no secret in a script, targets and scripts that exist."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml
from delivery import __main__ as cli
from delivery import change, helm

from tests.workflows.yaml_files import ACTIONS, GITHUB, ROOT, WORKFLOWS, jobs, read, steps

PIN = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
CALLED = {"ci.yml", "image.yml"}
"""Only called: their callers' concurrency groups hold them."""


def test_the_promised_workflows_are_there():
    promised = {"ci.yml", "release.yml", "deploy.yml", "rollback.yml", "deploy-host.yml", "drift.yml"}
    assert {path.name for path in WORKFLOWS} >= promised


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_action_is_pinned_by_its_commit_with_its_version_beside_it(path):
    for line in path.read_text().splitlines():
        if (found := re.match(r"\s*-?\s*uses:\s*(\S+)(.*)", line)) and not found[1].startswith("./"):
            assert PIN.match(found[1]), line
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", found[2]), line


def test_one_action_has_one_pin():
    pins = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for name, pin in re.findall(r"uses:\s*([\w./-]+)@(\S+)", path.read_text()):
            assert pins.setdefault(name, pin) == pin


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_permission_is_had_by_default_and_none_is_written_to_needlessly(path):
    workflow = read(path)
    assert workflow["permissions"] == {}
    allowed = {
        "release.yml": {"packages", "id-token", "contents"},
        "image.yml": {"packages", "id-token"},
        "deploy.yml": {"id-token"},
        "rollback.yml": {"id-token"},
        "drift.yml": {"issues"},
    }.get(path.name, set())
    for name, job in workflow["jobs"].items():
        writes = {key for key, value in job["permissions"].items() if value == "write"}
        assert writes <= allowed, name


@pytest.mark.parametrize(
    ("path", "name", "job"),
    jobs(),
    ids=lambda value: getattr(value, "name", value) if not isinstance(value, dict) else "",
)
def test_every_job_ends(path, name, job):
    assert "uses" in job or 0 < job["timeout-minutes"] <= 130


def test_no_job_is_cut_off_before_its_way_back_has_ended():
    words = ["deploy", "--release", "r", "--namespace", "n", "--environment", "e", "--canary", "c", "--chart", "c"]
    asked = cli.parser().parse_args(words)
    helm_s, canary_s = asked.timeout_s + helm.BEYOND_S, asked.soak_s + change.CANARY_BEYOND_S
    # Recovered, upgraded, looked at, taken back, looked at: each as long as it may.
    worst_s = 3 * helm_s + 2 * canary_s
    for name, job in (("deploy.yml", "deploy"), ("rollback.yml", "rollback")):
        assert read(GITHUB / "workflows" / name)["jobs"][job]["timeout-minutes"] * 60 > worst_s + 300


@pytest.mark.parametrize("name", ["deploy.yml", "rollback.yml"])
def test_the_log_is_an_artifact_and_people_are_told_whatever_failed(name):
    (job,) = read(GITHUB / "workflows" / name)["jobs"].values()
    told, kept = job["steps"][-2:]
    assert told["if"].startswith("(failure() || cancelled()) && ")
    assert "hashFiles('deploy-log.json') == ''" in told["if"]
    assert told["run"] == ".github/scripts/given-up.sh"
    assert {key for key in told["env"] if key.startswith("NOTIFY_")} == {
        key for key in job["steps"][-3]["env"] if key.startswith("NOTIFY_")
    }
    assert kept["if"].startswith("always()")
    assert kept["uses"].startswith("actions/upload-artifact@")
    assert kept["with"]["path"] == "deploy-log.json"


def test_people_are_told_of_what_never_came_to_a_host():
    (job,) = read(GITHUB / "workflows" / "deploy-host.yml")["jobs"].values()
    ask, told = job["steps"][-2:]
    assert told["if"].startswith(f"(failure() || cancelled()) && steps.{ask['id']}.outputs.reached != 'yes'")
    assert told["run"] == ".github/scripts/given-up.sh"
    (deploy,) = read(GITHUB / "workflows" / "deploy.yml")["jobs"].values()
    services = {key for step in deploy["steps"] for key in step.get("env", {}) if key.startswith("NOTIFY_")}
    assert {key for key in told["env"] if key.startswith("NOTIFY_")} == services


def test_what_is_deployed_is_the_chart_that_was_verified():
    (job,) = read(GITHUB / "workflows" / "deploy.yml")["jobs"].values()
    by_name = {step.get("name"): step for step in job["steps"]}
    ours, deploy = by_name["Only what this repository built and signed"], by_name["Deploy"]
    assert deploy["env"]["CHART"] == f"${{{{ steps.{ours['id']}.outputs.chart }}}}"
    assert list(by_name).index(ours["name"]) < list(by_name).index("Deploy")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_runs_do_not_overtake_each_other(path):
    if path.name == "image.yml":
        assert set(read(path)["on"]) == {"workflow_call"}
        return
    concurrency = read(path)["concurrency"]
    assert concurrency["group"]
    if path.name != "ci.yml":
        assert concurrency["cancel-in-progress"] is False


def test_deployments_and_rollbacks_of_an_environment_share_a_group():
    groups = {read(GITHUB / "workflows" / name)["concurrency"]["group"] for name in ("deploy.yml", "rollback.yml")}
    assert groups == {"environment-${{ inputs.environment }}"}


def test_no_expression_stands_in_a_script():
    for path, step in steps():
        assert "${{" not in step.get("run", ""), f"{path.name}: {step['run']}"


def test_no_checkout_leaves_its_token_behind():
    for path, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, path.name


def test_nothing_runs_on_somebody_elses_terms():
    for path in WORKFLOWS:
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(read(path)["on"] or {}), path.name


def test_secrets_are_given_to_the_step_that_needs_them_only():
    for path in WORKFLOWS:
        content = read(path)
        for scope in (content, *content["jobs"].values()):
            assert "secrets." not in str(scope.get("env", "")), path.name


def test_every_target_that_a_workflow_makes_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    wanted = set(read(GITHUB / "workflows" / "ci.yml")["jobs"]["checks"]["strategy"]["matrix"]["target"])
    for _, step in steps():
        wanted |= set(re.findall(r"\bmake ([a-z][a-z-]*)", step.get("run", "")))
    assert wanted >= {"lint", "types", "layers", "verify", "workflows", "security", "pytest", "chart"}
    missing = {target for target in wanted if not re.search(rf"^{target}:", makefile, re.MULTILINE)}
    assert missing == set()  # comes with the chart


def test_an_image_is_scanned_before_it_is_signed_and_latest_moves_after_it_has_answered():
    steps = read(GITHUB / "workflows" / "image.yml")["jobs"]["build"]["steps"]
    order = [step.get("name") or step.get("uses", "").partition("@")[0] for step in steps]
    names = ["docker/build-push-action", "What is in it", "Known vulnerabilities", "Sign"]
    assert [name for name in order if name in names] == names
    (scan,) = [step for step in steps if step.get("name") == "Known vulnerabilities"]
    assert scan["with"]["fail-build"] == "true"
    assert "latest" not in str([step.get("with") for step in steps])
    release = read(GITHUB / "workflows" / "release.yml")["jobs"]
    assert "smoke" in release["latest"]["needs"]
    assert release["latest"]["if"] == "github.ref == 'refs/heads/main'"


def test_what_the_scan_lets_pass_is_one_package_each_with_a_reason():
    entries = yaml.safe_load((ROOT / ".grype.yaml").read_text())
    assert set(entries) == {"ignore"}
    for entry in entries["ignore"]:
        assert set(entry) == {"vulnerability", "package", "reason"}, entry
        assert re.fullmatch(r"(CVE|GHSA)-[\w-]+", entry["vulnerability"])
        assert entry["package"]["name"]
        assert len(entry["reason"].split()) > 4


def test_the_gate_needs_every_job():
    workflow = read(GITHUB / "workflows" / "ci.yml")["jobs"]
    assert set(workflow["gate"]["needs"]) == set(workflow) - {"gate"}
    assert workflow["gate"]["if"] == "always()"


def test_what_a_workflow_writes_in_bash_passes_shellcheck():
    tool = shutil.which("shellcheck")
    assert tool, "shellcheck is not installed: run make system"
    script = "#!/usr/bin/env bash\n"
    for number, (path, step) in enumerate(steps()):
        if "run" in step:
            variables = "".join(f'  : "${{{name}}}"\n' for name in step.get("env", {}))
            body = "\n".join(f"  {line}" for line in step["run"].splitlines())
            script += (
                f"# {path.name}: {step.get('name', '')}\nstep_{number}() {{\n{variables}{body}\n}}\nstep_{number}\n"
            )
    # SC2153 takes one step's IMAGE for a misspelling of another's image: here they stand in one file.
    done = subprocess.run([tool, "--exclude", "SC2153", "-"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_release_of_main_reaches_the_cluster_and_the_hosts_and_nothing_else_does():
    release = read(GITHUB / "workflows" / "release.yml")["jobs"]
    for name in ("staging", "hosts"):
        assert release[name]["if"].startswith("github.ref == 'refs/heads/main' && ")
        assert {"gateway", "engine", "version"} <= set(release[name]["needs"])
    assert "staging" in release["production"]["needs"]
    assert release["hosts"]["uses"] == "./.github/workflows/deploy-host.yml"
    # Only what has answered; the chart waits for that, too, and the cluster for the chart.
    assert "smoke" in release["hosts"]["needs"]
    assert "smoke" in release["chart"]["needs"]
    assert "chart" in release["staging"]["needs"]
    called = read(GITHUB / "workflows" / "deploy-host.yml")
    assert set(release["hosts"]["with"]) <= set(called["on"]["workflow_call"]["inputs"])
    (job,) = called["jobs"].values()
    assert job["permissions"] == release["hosts"]["permissions"]
    (ask,) = [step for step in job["steps"] if step.get("name") == "Ask the host"]
    assert "workflow_dispatch" in ask["env"]["UNLESS_NEWER"]


def test_dependabot_looks_where_there_is_something():
    names = {"npm": "package.json", "docker": "Dockerfile"}
    for entry in yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]:
        for folder in entry.get("directories", [entry.get("directory")]):
            if name := names.get(entry["package-ecosystem"]):
                assert (ROOT / folder.lstrip("/") / name).is_file(), folder
