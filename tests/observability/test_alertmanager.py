"""The examples for Alertmanager: valid, and they route and inhibit what exists."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from helm.observability.queries import FILES, rules

EXAMPLES = sorted((FILES / "alertmanager").glob("*.yaml"))


def amtool(*words):
    return subprocess.run(["amtool", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
class TestExample:
    def test_it_is_valid(self, path):
        done = amtool("check-config", path)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_what_pages_goes_to_those_on_call_and_the_rest_does_not(self, path):
        for severity, word in (("critical", "on-call"), ("warning", "tickets")):
            done = amtool("config", "routes", "test", f"--config.file={path}", f"severity={severity}")
            assert word in done.stdout
            assert ("on-call" in done.stdout) == (severity == "critical")

    def test_alerts_that_it_names_exist(self, path):
        known = {rule["alert"] for rule in rules() if "alert" in rule}
        for rule in yaml.safe_load(path.read_text(encoding="utf-8"))["inhibit_rules"]:
            for matcher in rule["source_matchers"] + rule["target_matchers"]:
                for name in matcher.partition('"')[2].rstrip('"').split("|"):
                    assert any(alert.startswith(name.removesuffix(".*")) for alert in known), name


def test_there_is_one_for_each_messenger():
    assert [path.stem for path in EXAMPLES] == ["dingtalk-feishu", "wecom"]
