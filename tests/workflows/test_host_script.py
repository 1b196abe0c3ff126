"""The way to one GPU host: what deploy-host.sh sends over SSH, and what the deploy user's key lets through."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = ROOT / ".github" / "scripts" / "deploy-host.sh"
RESTRICTED = ROOT / "serving" / "host" / "restricted.sh"
DIGEST = "sha256:" + "b" * 64


@pytest.fixture
def environ(tmp_path):
    """With an ssh and a sudo that write down what they were given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, code in (("ssh", 3), ("sudo", 0)):
        program = folder / name
        program.write_text(
            "#!/usr/bin/env python3\nimport json, pathlib, sys\n"
            f"pathlib.Path({str(tmp_path / name)!r}).write_text(json.dumps(sys.argv[1:]))\n"
            "for word in sys.argv:\n"
            "    if word.startswith('UserKnownHostsFile='):\n"
            f"        pathlib.Path({str(tmp_path / 'known')!r}).write_text(pathlib.Path(word.partition('=')[2]).read_text())\n"
            "if '-i' in sys.argv:\n"
            "    key = pathlib.Path(sys.argv[sys.argv.index('-i') + 1])\n"
            "    assert key.stat().st_mode & 0o777 == 0o600\n"
            f"    pathlib.Path({str(tmp_path / 'key')!r}).write_text(key.read_text())\n"
            f"sys.exit({code})\n"
        )
        program.chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "COMMAND": "deploy",
        "VERSION": "v1.2.3",
        "GATEWAY_DIGEST": DIGEST,
        "ENGINE_DIGEST": "",
        "SSH_HOST": "gpu.example.com",
        "SSH_PORT": "2222",
        "SSH_USER": "qwen3-vl-deploy",
        "SSH_KNOWN_HOSTS": "[gpu.example.com]:2222 ssh-ed25519 AAAA",
        "SSH_KEY": "-----KEY-----",
        "GITHUB_ACTOR": "dependabot[bot]",
        "GITHUB_SHA": "c" * 40,
        "GITHUB_REPOSITORY": "Owner/Repo",
        "GITHUB_RUN_ID": "7",
    }


def run(script, environ):
    return subprocess.run(["bash", str(script)], env=environ, capture_output=True, text=True, timeout=60, check=False)


def sent(tmp_path):
    return json.loads((tmp_path / "ssh").read_text())


def test_a_deployment_is_asked_of_the_pinned_host_with_this_key_alone(environ, tmp_path):
    done = run(ASK, environ)
    assert done.returncode == 3, done.stderr  # the host's own
    words = sent(tmp_path)
    assert words[-2] == "qwen3-vl-deploy@gpu.example.com"
    assert words[-1] == (
        f"deploy --version v1.2.3 --commit {'c' * 40} --actor dependabot-bot- "
        f"--run-url https://github.com/Owner/Repo/actions/runs/7 ghcr.io/owner/repo/gateway@{DIGEST}"
    )
    assert {"StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "GlobalKnownHostsFile=/dev/null"} <= set(words)
    assert (tmp_path / "known").read_text() == environ["SSH_KNOWN_HOSTS"] + "\n"
    assert (tmp_path / "key").read_text() == "-----KEY-----\n"
    assert not Path(words[words.index("-i") + 1]).exists()


@pytest.mark.parametrize(
    ("code", "said", "reached"),
    [
        (0, "host: ok", True),
        (1, "host: rolled_back", True),
        (2, "", False),
        (75, "", False),
        (255, "", False),
        (255, "host: pull …", True),
    ],
)
def test_whether_the_host_took_it_is_handed_on(environ, tmp_path, code, said, reached):
    """Cut off or not, who has begun tells people itself; one that is busy or wrongly set up, or that refuses, does not."""
    (tmp_path / "bin" / "ssh").write_text(f"#!/bin/sh\n[ -z '{said}' ] || echo '{said}'\nexit {code}\n")
    output = tmp_path / "output"
    done = run(ASK, environ | {"GITHUB_OUTPUT": str(output)})
    assert (done.returncode, done.stdout.strip()) == (code, said)
    assert (output.read_text() if output.exists() else "") == ("reached=yes\n" if reached else "")


def test_a_release_says_that_it_may_have_been_overtaken(environ, tmp_path):
    run(ASK, environ | {"UNLESS_NEWER": "yes"})
    assert " --unless-newer ghcr.io/" in sent(tmp_path)[-1]


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"COMMAND": "rollback", "VERSION": ""}, "rollback --actor dependabot-bot- --run-url https://github.com/Owner/Repo/actions/runs/7"),
        ({"COMMAND": "rollback"}, "rollback --actor dependabot-bot- --run-url https://github.com/Owner/Repo/actions/runs/7 v1.2.3"),
        ({"COMMAND": "status"}, "status"),
        ({"COMMAND": "list"}, "list"),
    ],
)  # fmt: skip
def test_other_commands_are_asked_likewise(environ, tmp_path, more, asked):
    run(ASK, environ | more)
    assert sent(tmp_path)[-1] == asked


@pytest.mark.parametrize("missing", ["SSH_HOST", "SSH_KNOWN_HOSTS", "SSH_KEY"])
def test_without_a_pinned_host_or_a_key_nothing_is_asked(environ, tmp_path, missing):
    done = run(ASK, environ | {missing: ""})
    assert done.returncode != 0
    assert f"set the environment {'secret' if missing == 'SSH_KEY' else 'variable'} {missing}" in done.stderr
    assert not (tmp_path / "ssh").exists()


def test_a_command_that_the_host_does_not_know_is_not_asked(environ, tmp_path):
    assert run(ASK, environ | {"COMMAND": "converge"}).returncode == 2
    assert not (tmp_path / "ssh").exists()


def test_installing_again_keeps_what_is_there_and_never_ends_by_a_pipe(tmp_path):
    """install.sh's own `put`, with a writer that is late: it found nobody to read, now and then."""
    text = (ROOT / "serving" / "host" / "install.sh").read_text()
    put = re.search(r"^put\(\) \{.*?^\}", text, re.MULTILINE | re.DOTALL)[0]
    kept = tmp_path / "kept.env"
    kept.write_text("mine")
    for path in (kept, tmp_path / "new.env"):
        script = f"set -euo pipefail\n{put}\n{{ sleep 0.2; printf given; }} | put {path} 600\n"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert kept.read_text() == "mine"
    assert (tmp_path / "new.env").read_text() == "given"
    assert (tmp_path / "new.env").stat().st_mode & 0o777 == 0o600


class TestTheKey:
    @pytest.mark.parametrize("command", ["deploy", "rollback", "status", "list"])
    def test_what_the_workflow_asks_passes(self, environ, tmp_path, command):
        run(ASK, environ | {"COMMAND": command, "ENGINE_DIGEST": DIGEST})
        asked = sent(tmp_path)[-1]
        done = run(RESTRICTED, environ | {"SSH_ORIGINAL_COMMAND": asked})
        assert done.returncode == 0, done.stderr
        called = json.loads((tmp_path / "sudo").read_text())
        assert called == ["--non-interactive", str(ROOT / "serving" / "host" / "deploy.sh"), *asked.split()]

    @pytest.mark.parametrize(
        "command",
        [
            None, "", " ", "id", "converge", "deploy; id", "status\nid", "status $(id)", "status `id`", "status | id", "status & id",
            "list > /etc/passwd", "list *", "list ~", "list \\x", "list 'a'", 'list "a"', "list ${IFS}", "Status", "list " + "x" * 1000,
            "../deploy", "deploy.sh status", "list é",
        ],
    )  # fmt: skip
    def test_anything_else_is_refused_and_nothing_runs(self, environ, tmp_path, command):
        given = {} if command is None else {"SSH_ORIGINAL_COMMAND": command}
        done = run(RESTRICTED, environ | given)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("refused: ")
        assert not (tmp_path / "sudo").exists()
