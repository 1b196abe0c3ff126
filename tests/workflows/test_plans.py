"""What CI runs and when it may pass; what a release is called; how the cluster is reached."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ci_plan
import pytest
import release_plan
import yaml
from delivery import __main__ as cli
from delivery import access

from tests.workflows.receiver import token_issuer

ROOT = Path(__file__).parents[2]
ALL = dict.fromkeys(ci_plan.AREAS, True)


@pytest.mark.parametrize(
    ("paths", "areas"),
    [
        (["gateway/app.py"], {"code", "cluster", "images"}),
        (["gateway/settings.py"], {"code", "chart", "cluster", "images"}),
        (["helm/qwen3-vl/values.yaml"], {"chart", "cluster"}),
        (["tests/chart/test_render.py"], {"chart", "code"}),
        ([".github/workflows/release.yml"], {"workflows"}),
        ([".github/scripts/delivery/helm.py"], {"workflows", "code", "chart", "host"}),
        ([".github/scripts/kind.sh"], {"workflows", "code", "chart", "cluster"}),
        ([".github/environments/staging.yaml"], {"workflows", "chart"}),
        (["tests/support/images.py"], {"code", "images", "host"}),
        (["serving/host/deploy.sh"], {"workflows", "code", "cluster", "images", "host"}),
        (["tests/host/load.py"], {"code", "host"}),
        (["serving/canary/ask.py"], {"code", "cluster", "images", "host"}),
        (["docs/delivery.md"], {"code"}),
        (["helm/qwen3-vl/values.yaml", "docs/delivery.md"], {"chart", "cluster", "code"}),
        (["pyproject.toml"], set(ALL)),
        (["requirements/dev.lock"], set(ALL)),
        (["Makefile"], set(ALL)),
        ([".github/workflows/ci.yml"], set(ALL)),
        (["something.new"], set(ALL)),
        ([], set()),
    ],
)
def test_a_change_runs_what_it_touches_and_an_unknown_file_runs_all(paths, areas):
    assert {area for area, value in ci_plan.touched(paths).items() if value} == areas


@pytest.fixture
def repository(tmp_path):
    def git(*words):
        return subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@b")
    git("config", "user.name", "a")
    (tmp_path / "one").touch()
    git("add", "."), git("commit", "-qm", "one")
    base = git("rev-parse", "HEAD").strip()
    (tmp_path / "helm").mkdir()
    (tmp_path / "helm" / "values.yaml").touch()
    git("add", "."), git("commit", "-qm", "two")
    return tmp_path, base


def test_the_changed_files_come_from_git(repository, monkeypatch, tmp_path, capsys):
    folder, base = repository
    assert ci_plan.changed(base, folder) == ["helm/values.yaml"]
    monkeypatch.chdir(folder)
    output = tmp_path / "output"
    assert ci_plan.main(["changes"], {"BASE": base, "GITHUB_OUTPUT": str(output)}) == 0
    assert output.read_text() == "code=false\nchart=true\ncluster=true\nimages=false\nhost=false\nworkflows=false\n"


@pytest.mark.parametrize("base", ["", "0" * 40, "main", "--output=/tmp/x"])
def test_where_git_cannot_tell_everything_runs(repository, monkeypatch, capsys, base):
    folder, _ = repository
    monkeypatch.chdir(folder)
    assert ci_plan.main(["changes"], {"BASE": base}) == 0
    assert capsys.readouterr().out == "".join(f"{area}=true\n" for area in ALL)


def needs(areas=ALL, **results):
    outputs = {area: str(value).lower() for area, value in areas.items()}
    found = {job: {"result": "success", "outputs": {}} for job in ci_plan.NEEDS}
    found["changes"] = {"result": "success", "outputs": outputs}
    for job, result in results.items():
        found[job]["result"] = result
    return found


def test_the_gate_lets_success_pass(capsys):
    assert ci_plan.main(["gate"], {"NEEDS": json.dumps(needs())}) == 0


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped", "neutral", ""])
@pytest.mark.parametrize("job", ["changes", *ci_plan.NEEDS])
def test_the_gate_lets_nothing_else_pass(capsys, job, result):
    assert ci_plan.main(["gate"], {"NEEDS": json.dumps(needs(**{job: result}))}) == 1
    assert f"{job}: {result}" in capsys.readouterr().out


def test_a_job_may_be_skipped_only_when_its_area_was_untouched():
    for job, area in ci_plan.NEEDS.items():
        others = {other for other, about in ci_plan.NEEDS.items() if about == area} - {job}
        untouched = ALL | {area: False}
        assert ci_plan.refusals(needs(untouched, **dict.fromkeys({job, *others}, "skipped"))) == []
        assert ci_plan.refusals(needs(dict.fromkeys(ALL, False) | {area: True}, **{job: "skipped"})) == [
            f"{job}: skipped"
        ]


def test_a_job_that_is_missing_or_new_does_not_pass_unseen():
    without = needs()
    del without["test"]
    assert ci_plan.refusals(without) == ["test: missing"]
    assert ci_plan.refusals(needs() | {"more": {"result": "success"}}) == ["more: unknown to the gate"]


@pytest.mark.parametrize(
    ("ref", "number", "named"),
    [
        ("refs/tags/v0.2.0", "7", "0.2.0"),
        ("refs/tags/v0.2.0-rc.1", "7", "0.2.0-rc.1"),
        ("refs/heads/main", "7", "0.2.0-main.7"),
    ],
)
def test_a_release_has_one_name(ref, number, named):
    assert release_plan.version(ref, number, "0.2.0") == named


@pytest.mark.parametrize("ref", ["refs/tags/v0.3.0", "refs/tags/0.2.0", "refs/heads/other", "refs/tags/v0.2.0;x", ""])
def test_what_is_no_release_is_refused(ref):
    with pytest.raises(release_plan.ReleaseError):
        release_plan.version(ref, "7", "0.2.0")


CHANGES = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-22\n\n### Added\n- x\n\n## [0.1.0]\n\n- y\n"


def test_the_notes_are_the_versions_section():
    assert release_plan.notes(CHANGES, "0.2.0") == "### Added\n- x\n"
    assert release_plan.notes(CHANGES, "0.1.0") == "- y\n"
    for name in ("0.3.0", "Unreleased"):
        with pytest.raises(release_plan.ReleaseError, match="write it before you tag"):
            release_plan.notes(CHANGES, name)


def test_the_release_script_prints_and_hands_on(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    output = tmp_path / "output"
    environ = {"GITHUB_REF": "refs/tags/v0.2.0", "GITHUB_RUN_NUMBER": "7", "GITHUB_OUTPUT": str(output)}
    assert release_plan.main(["version"], environ, tmp_path) == 0
    assert output.read_text() == "version=0.2.0\n"
    assert release_plan.main(["notes"], environ, tmp_path) == 0
    assert capsys.readouterr().out == "0.2.0\n### Added\n- x\n"
    assert release_plan.main(["notes"], environ | {"GITHUB_REF": "refs/heads/x"}, tmp_path) == 1


CLUSTER = {"KUBE_SERVER": "https://k.example:6443", "KUBE_CA": base64.b64encode(b"pem").decode(), "KUBE_AUDIENCE": "k"}


def test_the_cluster_is_reached_with_the_runs_identity_and_no_kept_secret(tmp_path):
    environ = CLUSTER | {"KUBECONFIG": str(tmp_path / "config")}
    assert cli.main(["kubeconfig"], environ) == 0
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
    kubectl = shutil.which("kubectl")
    if kubectl:  # kubectl itself reads it, where there is one
        shown = subprocess.run(
            [kubectl, "config", "view"], env={**os.environ, **environ}, capture_output=True, text=True, check=True
        )
        assert "server: https://k.example:6443" in shown.stdout
    plugin = yaml.safe_load((tmp_path / "config").read_text())["users"][0]["user"]["exec"]
    with token_issuer() as issuer:
        done = subprocess.run(
            [plugin["command"], *plugin["args"]],
            env={**issuer.environ(), **{pair["name"]: pair["value"] for pair in plugin["env"]}},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    credential = json.loads(done.stdout)
    assert credential["apiVersion"] == plugin["apiVersion"]
    assert credential["status"]["token"] == issuer.token
    assert issuer.asked == ["/token?api-version=2&audience=k"]
    assert credential["status"]["expirationTimestamp"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def test_a_kubeconfig_that_was_given_is_taken(tmp_path):
    assert access.kubeconfig({"KUBE_CONFIG": "given"}) == "given"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"KUBECONFIG": "x"}, "secret KUBE_CONFIG"),
        ({**CLUSTER, "KUBE_SERVER": "http://k", "KUBECONFIG": "x"}, "https://"),
        ({**CLUSTER, "KUBE_CA": "-----", "KUBECONFIG": "x"}, "not base64"),
        (CLUSTER, "KUBECONFIG does not say"),
    ],
)
def test_no_way_to_the_cluster_says_what_to_set(environ, said, capsys):
    assert cli.main(["kubeconfig"], environ) == cli.EX_BAD
    assert said in capsys.readouterr().err


def test_without_the_permission_there_is_no_token(capsys):
    assert cli.main(["token"], {"KUBE_AUDIENCE": "k"}) == cli.EX_BAD
    assert "id-token: write" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", "no-jwt", "a.b.c"])
def test_what_is_no_token_is_said(capsys, token):
    with token_issuer(token) as issuer:
        assert cli.main(["token"], issuer.environ()) == cli.EX_BAD
    assert "no identity token: status 200" in capsys.readouterr().err


def test_an_issuer_that_is_away_is_said(capsys):
    environ = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/x?secret=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "hunter2",
    }
    assert cli.main(["token"], environ) == cli.EX_BAD
    err = capsys.readouterr().err
    assert "127.0.0.1" in err
    assert "secret" not in err
    assert "hunter2" not in err


@pytest.mark.parametrize("words", [("ci_plan.py", "changes"), ("release_plan.py", "--help")])
def test_the_scripts_run_by_their_path_on_a_bare_python(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-IS", ROOT / ".github" / "scripts" / words[0], *words[1:]],
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["delivery", "serving.canary"])
def test_the_tools_of_a_deployment_need_no_installed_package(module, tmp_path):
    env = {**os.environ, "PYTHONPATH": f"{ROOT / '.github' / 'scripts'}:{ROOT}"}
    argv = [sys.executable, "-S", "-m", module, "--help"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
