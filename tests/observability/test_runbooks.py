"""The runbooks' commands: each one is run as far as it goes without a cluster, and names only what exists."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.__main__ import parser
from gateway.log_lines import JsonFormatter
from gateway.metrics_reference import families
from gateway.settings import PREFIX, Settings
from helm.observability.queries import Asked, known_names, names_in, selectors_in, unknown_names
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
ALERT_PAGES = [path for path in PAGES if path.stem != "README"]
LABELS = {family.name: set(family.labels) for family in families()}
EVERYWHERE = {"le", "namespace", "instance", "job"}
"""Labels of a histogram's buckets, and those that Prometheus adds."""
VALUES = {"GPU": "a10", "RATE": "4", "TENANT": "shop", "NAME": "new", "OLD": "k_0", "URL": "http://h/x.jpg"}
GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")
EXEC = re.compile(r"^kubectl -n \$NS exec (\$GATEWAY|\$POD) -- (.*)$")


def commands(path):
    """The three commands of a page, without the remarks behind them."""
    block = path.read_text(encoding="utf-8").split("```", 2)[1]
    return [re.sub(r"\s{2,}# .*", "", line) for line in block.strip().splitlines()[1:]]


EVERY = [(path.stem, command) for path in ALERT_PAGES for command in commands(path)]


def those(begin):
    """What begins so, whether it runs here or in a pod; without the pod and what it is piped into."""
    found = []
    for page, command in EVERY:
        inner = match[2] if (match := EXEC.match(command)) else command
        if inner.startswith(begin):
            found.append(pytest.param(inner.partition(" | ")[0], id=page))
    assert found
    return found


def words(command):
    for name, value in VALUES.items():
        command = command.replace(f"${name}", value)
    return shlex.split(command, comments=True)


def series_of(name):
    return LABELS.get(name) or LABELS.get(re.sub(r"_(bucket|sum|count)$", "", name))


def test_each_page_has_three():
    assert len(EVERY) == 3 * len(ALERT_PAGES)


def test_a_shell_takes_them():
    text = "\n".join(command for _, command in EVERY)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class TestQueries:
    @pytest.mark.parametrize("command", those("promtool"))
    def test_metrics_and_labels_exist(self, command):
        program, query, instant, url, expr = words(command)
        assert [program, query, instant, url] == ["promtool", "query", "instant", "http://prometheus:9090"]
        assert names_in(expr)
        assert unknown_names([Asked(expr, "runbook", "panel")], known_names()) == []
        ours = [series_of(name) for name in names_in(expr) if name.startswith(("gateway_", "gen_ai_"))]
        for group in GROUPED.findall(expr):
            for label in group.split(", "):
                assert all(label in labels | EVERYWHERE for labels in ours), label
        for selector in selectors_in(expr):
            name, _, matchers = selector.partition("{")
            if labels := series_of(name):
                assert set(re.findall(r"(\w+)[=!]", matchers)) <= labels | EVERYWHERE

    def test_they_are_promql(self, tmp_path):
        rules = [{"record": f"query:{n}", "expr": words(each.values[0])[4]} for n, each in enumerate(those("promtool"))]
        path = tmp_path / "queries.yaml"
        path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class TestOwnTools:
    @pytest.mark.parametrize("command", those("python -m gateway"))
    def test_the_gateways_command_line_takes_it(self, command):
        assert parser().parse_args(words(command)[3:]).command

    @pytest.mark.parametrize("command", those("python -m serving plan"))
    def test_the_plan_is_made(self, command):
        done = subprocess.run(
            [sys.executable, *words(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout

    @pytest.mark.parametrize("command", those("python3 -m serving ready"))
    def test_an_engine_that_is_not_there_is_told(self, command):
        done = subprocess.run(
            [sys.executable, *words(command)[1:], "--port", "9"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        assert "reason" in json.loads(done.stdout)

    def test_redis_is_asked_as_the_gateway_would(self):
        [asking] = [each.values[0] for each in those("python -c") if "redis" in each.values[0]]
        with RedisServer() as redis:
            environ = {**os.environ, "GATEWAY_REDIS_URL": redis.url}
            done = subprocess.run(
                [sys.executable, *words(asking)[1:]], env=environ, capture_output=True, text=True, check=False
            )
            assert done.stdout == "True\n", done.stderr
            redis.kill()
            assert subprocess.run(
                [sys.executable, *words(asking)[1:]], env=environ, capture_output=True, check=False
            ).returncode

    @pytest.mark.parametrize("command", those("python -c"))
    def test_what_python_is_to_run_compiles(self, command):
        assert compile(words(command)[2], "runbook", "exec")

    @pytest.mark.parametrize("command", those("sh -c"))
    def test_variables_of_the_pod_are_left_to_its_shell(self, command):
        assert re.match(r"sh -c '[^']+'$", command)
        done = subprocess.run(["bash", "-n", "-c", words(command)[2]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_what_is_looked_for_in_the_log_is_how_the_gateway_writes_it():
    def line(name, **facts):
        return JsonFormatter().format(
            logging.makeLogRecord({"name": name, "msg": "request", "levelname": "INFO", **facts})
        )

    log = "\n".join(
        [
            line("gateway.access", status=503, error="engine_unavailable"),
            line("gateway.access", status=400, error="fetch_timeout"),
            line("gateway.audit"),
        ]
    )
    looked = [command for _, command in EVERY if "component=gateway" in command and "| grep" in command]
    assert len(looked) >= 4
    for command in looked:
        assert "--tail=-1" in command, "kubectl shows ten lines of each pod unless it is told otherwise"
        found = subprocess.run(
            ["bash", "-c", command.partition(" | ")[2]], input=log, capture_output=True, text=True, check=False
        )
        assert found.stdout.strip() not in {"", "0"}, command


def test_labels_are_those_of_the_charts_components():
    templates = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "helm/qwen3-vl/templates").rglob("*.*"))
    asked = set(re.findall(r"app\.kubernetes\.io/component=([a-z]+)", " ".join(command for _, command in EVERY)))
    assert asked == {"gateway", "engine", "redis"}
    for component in asked:
        assert f'list $ "{component}"' in templates


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_settings_metrics_and_pages_that_it_names_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(rf"\b{PREFIX}([A-Z0-9_]+)\b", text):
        assert name.lower() in Settings.model_fields, name
    for name in re.findall(r"\b((?:gateway|gen_ai)_[a-z_]+)\b(?!\.)", text):
        assert name in known_names() or name in LABELS, name
    for page in re.findall(r"\]\((\w+\.md)\)", text):
        assert (path.parent / page).is_file(), page


def test_variables_of_the_commands_are_told():
    told = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    for page, command in EVERY:
        outside = re.sub(r"-c '[^']*'", "", command)
        for name in re.findall(r"\$([A-Z_]+)", outside):
            assert f"{name}=" in told or f"${name}" in told, f"{page}: ${name}"
