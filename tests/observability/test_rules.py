"""The alert rules, by promtool: each is quiet, fires, and is quiet again; each has its page."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from helm.observability.queries import FILES, rules

ROOT = Path(__file__).parents[2]
TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
ALERTS = [rule for rule in rules() if "alert" in rule]


def promtool(*words):
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", sorted((FILES / "alerts").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rules_are_valid(path):
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path):
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
class TestAlert:
    def test_it_is_tested_quiet_firing_and_over(self, rule):
        stages = []
        for path in TESTS:
            for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
                asked = [each for each in test["alert_rule_test"] if each["alertname"] == rule["alert"]]
                stages += [[bool(each["exp_alerts"]) for each in asked]] if asked else []
        assert stages
        assert all(stage == [False, True, False] for stage in stages)

    def test_it_says_how_bad_it_is_what_it_is_and_where_to_read_on(self, rule):
        assert rule["labels"]["severity"] in {"critical", "warning"}
        notes = rule["annotations"]
        assert notes["summary"]
        assert notes["description"].endswith(".")
        assert notes["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")

    def test_its_page_says_what_it_means_what_to_do_and_when_it_is_over(self, rule):
        page = (ROOT / "docs" / "runbooks" / f"{rule['alert']}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {rule['alert']}\n")
        _, commands, _ = page.split("```", 2)
        assert len(commands.strip().splitlines()) == 1 + 3  # the language, three commands
        assert "## It is over when" in page
        assert f"({rule['alert']}.md)" in (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")


def test_no_page_is_left_without_an_alert():
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in ALERTS}
