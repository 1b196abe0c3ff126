"""The dashboards: valid for Grafana's schema, in step with their code, complete in what an on-call person needs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from helm.observability.__main__ import FILES, FOLDERS, generated, main
from helm.observability.boards import BOARDS
from helm.observability.queries import panel_queries

ROOT = Path(__file__).parents[2]
FOUND = [path for name in FOLDERS.values() for path in sorted((FILES / name).glob("*.json"))]


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_there_is_a_board_for_each_question_in_both_languages():
    assert len(FOUND) == 2 * len(BOARDS) == 12


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.stem}")
class TestBoard:
    def test_it_is_valid_for_grafanas_schema(self, path):
        board = load(path)
        assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board

    def test_every_panel_has_unit_thresholds_description_and_a_runbook_that_exists(self, path):
        for panel in panels(load(path)):
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["unit"], panel["title"]
            assert defaults["thresholds"]["steps"], panel["title"]
            assert panel["description"].endswith((".", "。")), panel["title"]
            [link] = panel["links"]
            page = link["url"].removeprefix("${runbooks}/")
            assert (ROOT / "docs" / "runbooks" / page).is_file(), page

    def test_no_two_panels_have_the_same_id_or_place(self, path):
        board = load(path)
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(set(places)) == len(places)

    def test_one_can_choose_namespace_model_and_engine(self, path):
        names = [variable["name"] for variable in load(path)["templating"]["list"]]
        assert names[:4] == ["datasource", "namespace", "model", "engine"]

    def test_deploys_are_drawn(self, path):
        revisions, hosts = load(path)["annotations"]["list"]
        assert revisions["expr"].count("gateway_build_info") == 2
        assert "qwen3vl_host_deploy_last_end_timestamp_seconds" in hosts["expr"]


def test_the_chinese_titles_and_descriptions_are_chinese_and_the_queries_the_same():
    def chinese(text):
        return any("\u4e00" <= character <= "\u9fff" for character in text)

    for board in BOARDS:
        assert chinese(board.description.zh)
        for panel in board.panels():
            for text in (panel.title, panel.description):
                assert chinese(text.zh), text
                assert not chinese(text.en), text
    for path in (FILES / "dashboards-zh").glob("*.json"):
        for panel in panels(load(path)):
            assert chinese(panel["title"]), panel["title"]
            assert chinese(panel["description"]), panel["title"]
    english = [query.expr for query in panel_queries(FILES / "dashboards")]
    assert english == [query.expr for query in panel_queries(FILES / "dashboards-zh")]


def test_every_expression_is_promql(tmp_path):
    values = {"$__rate_interval": "5m", "$__interval": "1m", "$plan": "4"}
    rules = []
    for number, query in enumerate(panel_queries()):
        expr = query.expr
        for name, value in values.items():
            expr = expr.replace(name, value)
        rules.append({"record": f"query:{number}", "expr": expr})
    path = tmp_path / "queries.yaml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class TestGenerator:
    def test_it_writes_what_it_checks_and_removes_strays(self, tmp_path, capsys):
        assert main(["--check"], tmp_path) == 1
        assert main(["--write"], tmp_path) == 0
        assert main(["--check"], tmp_path) == 0
        stray = tmp_path / "dashboards" / "old.json"
        stray.write_text("{}")
        assert main(["--check"], tmp_path) == 1
        assert "old.json" in capsys.readouterr().err
        assert main(["--write"], tmp_path) == 0
        assert not stray.exists()

    def test_the_committed_files_are_in_step(self):
        assert main(["--check"], FILES) == 0
        assert len(dict(generated(FILES))) == 12
