"""The evaluation: what it asks, how it counts, when it fails. The service is a stub that knows the answers."""

import asyncio
import base64
import json
from collections import Counter
from types import SimpleNamespace

import openai
import pytest

from serving.demo import evaluate
from serving.demo.evaluate import Cell, Tally, bars, measure, plan, report, request, rewritten, table, verdicts
from serving.demo.questions import WITHOUT_PICTURE
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene


class Service:
    """Answers as the plan says it should, but for what `wrong` picks out."""

    def __init__(self, tasks, wrong=lambda task: False, fault=None):
        self.answers = {json.dumps(request(task, "m"), sort_keys=True): task for task in tasks}
        self.wrong, self.fault, self.running, self.most = wrong, fault, 0, 0
        self.chat = SimpleNamespace(completions=self)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def create(self, **body):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.fault:
            raise self.fault
        task = self.answers[json.dumps({**body, "model": "m"}, sort_keys=True)]
        text = "wrong" if self.wrong(task) else task.question.answer
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=text))])


@pytest.fixture(scope="module")
def tasks():
    return plan(3)


def test_every_row_is_asked_in_both_languages_about_unseen_pictures_with_one_two_and_three_products(tasks):
    assert all(task.seed >= UNSEEN_SEED for task in tasks)
    cells = Counter(task.cell for task in tasks)
    assert set(cells.values()) == {1}
    assert {(cell.language, cell.products) for cell in cells} == {(lang, n) for lang in ("en", "zh") for n in (1, 2, 3)}


def test_the_plan_never_changes(tasks):
    assert plan(3) == tasks


def test_a_request_carries_the_picture_unless_the_question_is_asked_without_one(tasks):
    for task in tasks:
        body = request(task, "m")
        *pictures, text = body["messages"][0]["content"]
        assert body["temperature"] == 0
        assert text == {"type": "text", "text": task.question.text}
        assert (not pictures) == (task.question.kind in WITHOUT_PICTURE)
        for picture in pictures:
            data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
            assert data == jpeg(scene(task.seed, task.cell.products))
        assert ("response_format" in body) == (task.cell.row == "schema")


async def test_a_service_that_knows_everything_meets_every_bar(tasks):
    service = Service(tasks)
    tally = await measure(service, tasks, "m", concurrency=4, mistakes=0)
    assert sum(tally.right.values()) == sum(tally.asked.values()) == len(tasks)
    assert all(met for _, _, met in verdicts(tally))
    assert 1 < service.most <= 4
    assert f"{len(bars())} of {len(bars())} bars met." in report(tally)


async def test_wrong_answers_are_counted_where_they_happened_and_shown(tasks, capsys):
    service = Service(tasks, wrong=lambda task: task.cell.row == "colour" and task.cell.language == "zh")
    tally = await measure(service, tasks, "m", concurrency=2, mistakes=1)
    missed = {(bar.row, bar.language) for bar, _, met in verdicts(tally) if not met}
    assert missed == {("colour", "zh")}
    assert capsys.readouterr().out.count("-> wrong (right:") == 1
    text = report(tally)
    assert "- colour, zh, 1 products: 0.0 %, bar 98 %" in text
    assert "- colour, zh, 2 or 3 products: 0.0 %, bar 95 %" in text


def test_a_cell_that_was_never_asked_is_a_dash_and_fails_its_bar():
    tally = Tally(Counter({Cell("caption", "en", 1): 2}), Counter({Cell("caption", "en", 1): 1}))
    assert "| caption | 50.0 | – | – | – | – | – |" in table(tally)
    assert not any(met for _, _, met in verdicts(tally))


def test_the_bars_are_those_of_the_specification():
    least = {(bar.row, bar.products): bar.least for bar in bars()}
    for row in ("caption", "product", "colour", "pattern", "count", "tags", "schema"):
        assert least[row, (1,)] == 0.98
    for row in ("product", "colour", "pattern", "count"):
        assert least[row, (2, 3)] == 0.95
    for row in ("caption", "tags", "schema"):
        assert least[row, (2, 3)] == 0.88
    assert least["has_product", (1, 2, 3)] == 0.95


def test_the_card_is_rewritten_between_its_markers_only():
    card = f"before\n{evaluate.START}\nold\n{evaluate.END}\nafter\n"
    assert rewritten(card, "new") == f"before\n{evaluate.START}\nnew\n{evaluate.END}\nafter\n"
    with pytest.raises(ValueError, match="put the markers"):
        rewritten("no markers", "new")


class TestCommand:
    def run(self, monkeypatch, *arguments, **service):
        monkeypatch.setattr(openai, "AsyncOpenAI", lambda **_: Service(plan(3), **service))
        return evaluate.main(["--scenes", "3", *arguments])

    def test_success_is_zero_and_prints_the_table(self, monkeypatch, capsys):
        assert self.run(monkeypatch) == 0
        assert "| caption | 100.0 | 100.0 |" in capsys.readouterr().out

    def test_a_missed_bar_is_one(self, monkeypatch):
        assert self.run(monkeypatch, wrong=lambda task: task.cell.row == "caption") == 1

    def test_a_service_that_does_not_answer_is_two_and_says_what_to_do(self, monkeypatch, capsys):
        assert self.run(monkeypatch, fault=openai.OpenAIError("connection refused")) == 2
        assert "connection refused\nStart it with `make demo`" in capsys.readouterr().err

    def test_another_fault_is_not_swallowed(self, monkeypatch):
        with pytest.raises(ExceptionGroup):
            self.run(monkeypatch, fault=RuntimeError("a bug"))

    def test_the_card_is_written_on_request(self, monkeypatch, tmp_path):
        card = tmp_path / "README.md"
        card.write_text(f"# card\n{evaluate.START}\n{evaluate.END}\n", encoding="utf-8")
        monkeypatch.setattr(evaluate, "CARD", card)
        assert self.run(monkeypatch, "--write-card") == 0
        assert "questions about 3 unseen pictures" in card.read_text(encoding="utf-8")
