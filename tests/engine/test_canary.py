"""The canary against real vLLM, through the gateway, as a deployment uses it."""

from __future__ import annotations

import json

import pytest

from serving.canary import __main__ as cli

pytestmark = pytest.mark.timeout(300)  # whoever asks first for the demo waits for its start


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("CANARY_API_KEY", "sk-demo")


def test_the_demo_passes_its_own_golden_set(demo, tmp_path):
    report = tmp_path / "canary.json"
    code = cli.main(["--base-url", demo.base_url, "--set", "demo", "--report", str(report)])
    faults = [outcome for outcome in json.loads(report.read_text())["outcomes"] if outcome["fault"]]
    assert code == 0, faults


def test_a_model_that_cannot_do_what_the_8b_does_does_not_pass_the_8bs(demo, capsys):
    argv = ["--base-url", demo.base_url, "--set", "qwen3-vl-8b", "--model", "qwen3-vl-demo"]
    assert cli.main(argv) == cli.EX_BAD
    assert "answers are right, 85% must be" in capsys.readouterr().out


def test_a_wrong_key_is_a_bad_release(demo, monkeypatch, capsys):
    monkeypatch.setenv("CANARY_API_KEY", "sk-wrong")
    assert cli.main(["--base-url", demo.base_url, "--set", "demo"]) == cli.EX_BAD
    out = capsys.readouterr().out
    assert "status 401" in out
    assert "sk-wrong" not in out
