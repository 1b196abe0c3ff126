"""What steps say in bash themselves, run as GitHub's runner would, with the programs that they call stood in for on PATH."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
import yaml

from tests.workflows.yaml_files import ROOT, label, steps

DIGEST = "sha256:" + "b" * 64
OTHER = "sha256:" + "d" * 64
GATEWAY, ENGINE = f"ghcr.io/owner/repo/gateway@{DIGEST}", f"ghcr.io/owner/repo/engine@{OTHER}"
ALONE = re.compile(
    r"(sudo (--preserve-env=\w+ )?)?make \S+( \S+=\S+)?|(python3 )?\.github/scripts/[^;|&\n]*|sudo rm -rf [\w/ ]*|"
    r"cat \S+ >>\"\$GITHUB_STEP_SUMMARY\""
)
"""One make target, one script, one such word: there is nothing between them to be wrong."""
RUN_HERE = [
    "release: The engine's image plans and prints without a GPU",
    "release: Package, push, sign",
    "release: Move latest",
    "release: Notes and the bundle",
    "image: Where it goes",
    "image: What is in it",
    "image: Sign",
    "deploy: Only what this repository built and signed",
    "deploy-host: Only what this repository built and signed",
    "cluster: kubeconfig",
    "setup: Environments",
]


def inline():
    """By workflow and step: what is more than one make target or script."""
    return {
        f"{label(path)}: {step.get('name', step['run'])}": step["run"]
        for path, step in steps()
        if "run" in step and not ALONE.fullmatch(step["run"].strip())
    }


class Runner:
    """Runs a step in a folder of its own; `calls` has what each program on PATH was given."""

    def __init__(self, folder):
        self.folder, self.bin, self.log = folder / "work", folder / "bin", folder / "calls"
        self.folder.mkdir()
        self.bin.mkdir()
        self.output = folder / "output"
        self.output.touch()

    def program(self, name, body="exit 0"):
        path = self.bin / name
        path.write_text(
            f"#!{sys.executable} -IS\nimport json, os, sys\n"
            f"open({str(self.log)!r}, 'a').write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
            f"os.execvp('/bin/bash', ['bash', '-c', {body!r}, {name!r}, *sys.argv[1:]])\n"
        )
        path.chmod(0o755)

    def __call__(self, step, **environ):
        script = self.folder.parent / "step.sh"
        script.write_text(inline()[step])
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "GITHUB_REPOSITORY": "Owner/Repo"}
        env |= {"GITHUB_OUTPUT": str(self.output), "RUNNER_TEMP": str(self.folder.parent), **environ}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def calls(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def test_the_engines_image_is_asked_without_a_gpu(runner):
    runner.program("sudo")
    runner.program("docker", '[ "$*" != "${*/--print/}" ] && exit 7; exit 0')
    done = runner(RUN_HERE[0], ENGINE_IMAGE=ENGINE)
    assert done.returncode == 7  # the last one's: nothing is swallowed
    assert [call[6:] for call in runner.calls if call[0] == "docker"] == [
        [ENGINE, "plan", "--gpu", "l4", "--json"],
        [ENGINE, "run", "--profile", "l4", "--print"],
    ]
    runner.program("docker", "exit 5")
    assert runner(RUN_HERE[0], ENGINE_IMAGE=ENGINE).returncode == 5


class TestChart:
    STEP = "release: Package, push, sign"

    @pytest.fixture
    def chart(self, runner):
        shutil.copytree(ROOT / "helm", runner.folder / "helm")
        runner.program("helm", f'[ "$1" != push ] || {{ echo "Pushed: x" >&2; echo "Digest: {OTHER}" >&2; }}')
        runner.program("cosign")
        # As a runner has it: no package of ours, nor of anybody's.
        (runner.bin / "python3").symlink_to(sys.executable)
        return runner

    def ask(self, runner):
        return runner(
            self.STEP, VERSION="0.1.0-main.7", GATEWAY_IMAGE=GATEWAY, ENGINE_IMAGE=ENGINE, PYTHONNOUSERSITE="1"
        )

    def test_it_is_packaged_with_the_images_digests_and_what_was_pushed_is_signed(self, chart):
        done = self.ask(chart)
        assert done.returncode == 0, done.stderr
        package, push, sign = chart.calls
        words = ["--version", "0.1.0-main.7", "--app-version", "0.1.0-main.7", "--destination", "dist"]
        assert package == ["helm", "package", "helm/qwen3-vl", *words]
        assert push == ["helm", "push", "dist/qwen3-vl-0.1.0-main.7.tgz", "oci://ghcr.io/owner/repo/charts"]
        assert sign == ["cosign", "sign", "--yes", f"ghcr.io/owner/repo/charts/qwen3-vl@{OTHER}"]
        values = yaml.safe_load((chart.folder / "helm" / "qwen3-vl" / "values.yaml").read_text())
        for kind, digest in (("gateway", DIGEST), ("engine", OTHER)):
            assert values[kind]["image"]["digest"] == digest
            assert values[kind]["image"]["repository"] == f"ghcr.io/owner/repo/{kind}"

    @pytest.mark.parametrize("verb", ["package", "push"])
    def test_what_is_not_published_is_not_signed(self, chart, verb):
        chart.program("helm", f'[ "$1" != {verb} ]')
        assert self.ask(chart).returncode != 0
        assert "cosign" not in {call[0] for call in chart.calls}


def test_latest_is_moved_to_both_by_digest(runner):
    runner.program("docker")
    assert runner("release: Move latest", GATEWAY_IMAGE=GATEWAY, ENGINE_IMAGE=ENGINE).returncode == 0
    assert [call[-2:] for call in runner.calls] == [
        ["ghcr.io/owner/repo/gateway:latest", GATEWAY],
        ["ghcr.io/owner/repo/engine:latest", ENGINE],
    ]
    runner.program("docker", "exit 1")
    assert runner("release: Move latest", GATEWAY_IMAGE=GATEWAY, ENGINE_IMAGE=ENGINE).returncode != 0


class TestNotes:
    STEP = "release: Notes and the bundle"

    @pytest.fixture
    def tree(self, runner):
        """A repository with a changelog, tagged."""
        scripts = runner.folder / ".github" / "scripts"
        scripts.mkdir(parents=True)
        shutil.copy(ROOT / ".github" / "scripts" / "release_plan.py", scripts)
        (runner.folder / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
        (runner.folder / "CHANGELOG.md").write_text("# Changes\n\n## [1.2.3]\n\n- It sees.\n\n## [1.2.2]\n\n- Old.\n")
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(runner.folder)]
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
            subprocess.run([*git, *words], check=True)
        runner.program("gh")
        (runner.bin / "python3").symlink_to(sys.executable)
        return runner

    def ask(self, runner, ref):
        name = ref.rpartition("/")[2]
        return runner(
            self.STEP, VERSION=name.removeprefix("v"), GITHUB_REF=ref, GITHUB_REF_NAME=name, GITHUB_RUN_NUMBER="1"
        )

    def test_the_release_has_the_changelogs_section_and_the_bundle_with_its_digest(self, tree):
        done = self.ask(tree, "refs/tags/v1.2.3")
        assert done.returncode == 0, done.stderr
        bundle = "qwen3-vl-stack-1.2.3.tar.gz"
        words = ["--verify-tag", "--title", "v1.2.3", "--notes-file", "notes.md", bundle, f"{bundle}.sha256"]
        assert tree.calls == [["gh", "release", "create", "v1.2.3", *words]]
        assert (tree.folder / "notes.md").read_text() == "- It sees.\n"
        with tarfile.open(tree.folder / bundle) as archive:
            assert "qwen3-vl-stack-1.2.3/CHANGELOG.md" in archive.getnames()
        assert (
            subprocess.run(["sha256sum", "--check", f"{bundle}.sha256"], cwd=tree.folder, check=False).returncode == 0
        )

    def test_a_tag_without_notes_makes_no_release(self, tree):
        assert self.ask(tree, "refs/tags/v1.2.4").returncode != 0
        assert tree.calls == []


class TestImage:
    def test_its_place_is_in_small_letters(self, runner):
        done = runner("image: Where it goes", NAME="gateway", BASE=f"PYTHON_DIGEST={DIGEST}")
        assert done.returncode == 0, done.stderr
        assert runner.output.read_text() == "repository=ghcr.io/owner/repo/gateway\n"

    @pytest.mark.parametrize("base", ["PYTHON_DIGEST=", "PYTHON_DIGEST=3.11-slim"])
    def test_without_a_base_by_digest_nothing_is_built_and_it_says_what_to_set(self, runner, base):
        done = runner("image: Where it goes", NAME="gateway", BASE=base)
        assert done.returncode == 1
        assert "set the repository's variable for PYTHON_DIGEST" in done.stdout
        assert runner.output.read_text() == ""

    @pytest.mark.parametrize(
        ("listed", "code"), [('{"packages": [{"name": "a"}]}', 0), ('{"packages": []}', 1), ("null", 1)]
    )
    def test_a_list_of_packages_that_is_empty_fails(self, runner, listed, code):
        runner.program("docker", f"echo '{listed}'")
        # jq is the runner's; this is what it makes of the one question that is asked.
        runner.program(
            "jq", f"[ \"$*\" = '--exit-status .packages | length > 0 sbom.spdx.json' ] && exit {code}; exit 9"
        )
        done = runner("image: What is in it", IMAGE=GATEWAY)
        assert done.returncode == code
        assert (runner.folder / "sbom.spdx.json").read_text().strip() == listed
        assert runner.calls[0] == [
            "docker",
            "buildx",
            "imagetools",
            "inspect",
            GATEWAY,
            "--format",
            "{{ json .SBOM.SPDX }}",
        ]

    def test_it_is_signed_by_digest_with_all_that_it_holds(self, runner):
        runner.program("cosign")
        assert runner("image: Sign", IMAGE=GATEWAY).returncode == 0
        assert runner.calls == [["cosign", "sign", "--yes", "--recursive", GATEWAY]]


class TestOnlyOurs:
    @pytest.fixture
    def scripts(self, runner):
        (runner.folder / ".github").symlink_to(ROOT / ".github")
        runner.program("cosign")
        runner.program("helm", f'echo "Digest: {OTHER}"')
        return runner

    def test_a_cluster_gets_the_chart_that_was_verified(self, scripts):
        step = "deploy: Only what this repository built and signed"
        told = {"VERSION": "0.1.0-main.7", "GATEWAY_DIGEST": DIGEST, "ENGINE_DIGEST": OTHER}
        done = scripts(step, **told)
        assert done.returncode == 0, done.stderr
        assert scripts.output.read_text() == f"chart={scripts.folder.parent}/qwen3-vl-0.1.0-main.7.tgz\n"
        scripts.program("cosign", "exit 1")
        scripts.output.write_text("")
        assert scripts(step, **told).returncode != 0
        assert scripts.output.read_text() == ""

    @pytest.mark.parametrize(("engine", "asked"), [("", [GATEWAY]), (OTHER, [GATEWAY, ENGINE])])
    def test_a_host_gets_the_images_that_were_verified(self, scripts, engine, asked):
        step = "deploy-host: Only what this repository built and signed"
        done = scripts(step, GATEWAY_DIGEST=DIGEST, ENGINE_DIGEST=engine)
        assert done.returncode == 0, done.stderr
        assert [call[2] for call in scripts.calls] == asked
        scripts.program("cosign", "[[ $2 != *gateway* ]]")
        assert scripts(step, GATEWAY_DIGEST=DIGEST, ENGINE_DIGEST=engine).returncode != 0


class TestActions:
    def test_a_kubeconfig_is_written_and_the_client_answers(self, runner):
        for name in (".github", "serving"):
            (runner.folder / name).symlink_to(ROOT / name)
        (runner.bin / "python3").symlink_to(sys.executable)
        runner.program("kubectl")
        kubeconfig = runner.folder / "kubeconfig"
        told = {
            "KUBE_SERVER": "",
            "KUBE_CA": "",
            "KUBE_AUDIENCE": "",
            "KUBE_CONFIG": "apiVersion: v1",
            "KUBECONFIG": str(kubeconfig),
        }
        done = runner("cluster: kubeconfig", PYTHONPATH=".github/scripts", **told)
        assert done.returncode == 0, done.stderr
        assert kubeconfig.read_text().strip() == "apiVersion: v1"
        assert kubeconfig.stat().st_mode & 0o077 == 0
        assert runner.calls == [["kubectl", "version", "--client"]]
        assert (
            runner("cluster: kubeconfig", PYTHONPATH=".github/scripts", **(told | {"KUBE_CONFIG": ""})).returncode != 0
        )

    @pytest.mark.parametrize(("engine", "made"), [("false", ["setup"]), ("true", ["setup", "engine photos"])])
    def test_the_engine_is_installed_where_it_is_asked_for(self, runner, engine, made):
        runner.program("sudo")
        runner.program("make")
        assert runner("setup: Environments", ENGINE=engine).returncode == 0
        assert [" ".join(call[1:]) for call in runner.calls] == ["make system", *made]
