"""The canary over sockets: scripted engines that answer rightly, wrongly, late or not at all; a scripted Prometheus."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from serving import exchange
from serving.canary import __main__ as cli
from serving.canary import ask, golden
from tests.support.engine import chat_answer
from tests.support.gateway import KEY

DEMO = golden.load("demo")
RIGHT = {case.question: case.expected.equals for case in DEMO.cases}


def question_of(body):
    return body["messages"][0]["content"][1]["text"]


async def right(request, body):
    return web.json_response(chat_answer(RIGHT[question_of(body)]))


async def canary(base_url, *words):
    argv = ["--base-url", f"{base_url}/v1", "--set", "demo", *words]
    return await asyncio.to_thread(cli.main, argv)


@pytest.fixture
async def prometheus():
    """Serve values by what is asked and when: `answers[(word in the query, newest?)]`."""

    class Scripted:
        def __init__(self):
            self.asked, self.answers, self.before_at = [], {}, 1000.0

        async def query(self, request):
            query, at = request.query["query"], float(request.query["time"])
            self.asked.append((query, at))
            for (word, is_now), value in self.answers.items():
                if word in query and is_now == (at > self.before_at):
                    result = [] if value is None else [{"metric": {}, "value": [at, str(value)]}]
                    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})
            return web.json_response({"status": "error", "errorType": "bad_data", "error": "no such"}, status=400)

    scripted = Scripted()
    scripted.answers = {
        ("5..", True): 0, ("5..", False): 0,
        ("quantile", True): 1.0, ("quantile", False): 1.0,
        ("increase", True): 500, ("increase", False): 500,
    }  # fmt: skip
    app = web.Application()
    app.router.add_get("/api/v1/query", scripted.query)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield scripted
    await runner.cleanup()


async def test_right_answers_pass_and_every_picture_was_sent(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CANARY_API_KEY", "sk-canary")
    engine.script = right
    assert await canary(engine.url, "--report", str(tmp_path / "report.json")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "canary: good"
    assert len(engine.requests) == len(DEMO.cases)
    sent = {body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[0] for body in engine.requests}
    assert sent == {"data:image/jpeg;base64"}
    assert {head["Authorization"] for head in engine.headers} == {"Bearer sk-canary"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["golden"], report["model"], report["reasons"]) == ("demo", "qwen3-vl-demo", [])
    assert "sk-canary" not in json.dumps(report)


async def test_the_8bs_set_passes_for_answers_in_free_words(engine):
    words = {
        "colour and shape": "On the left there's a **red circle**.",
        "place": "A blue square.",
        "count": "5",
        "text": "4271",
        "chart": "B",
        "above and below": "Black",
        "Chinese": "红色",
        "JSON": '```json\n{"shape": "circle", "colour": "yellow"}\n```',
        "product": "It is a purple and white striped handbag.",
    }
    answers = {case.question: words[case.name] for case in golden.load("qwen3-vl-8b").cases}

    async def script(request, body):
        return web.json_response(chat_answer(answers[question_of(body)]))

    engine.script = script
    argv = ["--base-url", f"{engine.url}/v1", "--set", "qwen3-vl-8b"]
    assert await asyncio.to_thread(cli.main, argv) == 0
    answers[question_of(engine.requests[0])] = "A green star."
    assert await asyncio.to_thread(cli.main, argv) == 0
    answers[question_of(engine.requests[2])] = "There are seven."
    assert await asyncio.to_thread(cli.main, argv) == cli.EX_BAD


async def test_one_wrong_answer_of_the_demo_is_bad_and_shown(engine, capsys):
    async def script(request, body):
        answer = RIGHT[question_of(body)]
        return web.json_response(chat_answer("A plain bag." if answer == "Purple." else answer))

    engine.script = script
    assert await canary(engine.url) == cli.EX_BAD
    out = capsys.readouterr().out
    assert "colour, en, 1: not 'Purple.' (answer: 'A plain bag.')" in out
    assert "BAD: 7 of 8 answers are right, 100% must be" in out


async def test_right_answers_that_come_late_are_bad(engine, capsys):
    engine.script = right
    assert await canary(engine.url, "--max-answer-s", "0") == cli.EX_BAD
    assert "right, after" in capsys.readouterr().out


async def test_an_engine_that_hangs_is_bad(engine, capsys):
    engine.hung = True
    assert await canary(engine.url, "--timeout-s", "0.05") == cli.EX_BAD
    assert "nothing within 0.05 s" in capsys.readouterr().out


async def test_an_address_where_nobody_listens_is_bad(engine, capsys):
    await engine.stop()
    assert await canary(engine.url) == cli.EX_BAD
    assert "0 of 8 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: web.json_response({"error": {"message": "no such key"}}, status=401), "status 401"),
        (lambda: web.json_response({"choices": []}), "no chat completion"),
        (lambda: web.Response(text="<html>", content_type="text/html"), "no chat completion"),
        (lambda: web.json_response(chat_answer("  ")), "the answer is empty"),
        (lambda: web.Response(status=307, headers={"location": "http://127.0.0.1:1/elsewhere"}), "status 307"),
    ],
)
async def test_what_is_no_answer_is_bad(engine, capsys, answer, said):
    async def script(request, body):
        return answer()

    engine.script = script
    assert await canary(engine.url) == cli.EX_BAD
    assert said in capsys.readouterr().out


async def test_a_release_that_is_full_is_asked_again(engine):
    pauses = []

    async def script(request, body):
        if len(engine.requests) < 3:
            return web.json_response({"error": {}}, status=503 if len(engine.requests) == 1 else 429)
        return await right(request, body)

    engine.script = script
    target = ask.Target(f"{engine.url}/v1", None, "demo", 5)
    answer, _ = await asyncio.to_thread(ask.put, DEMO.cases[0], target, pauses.append)
    assert answer == DEMO.cases[0].expected.equals
    assert pauses == [ask.PAUSE_S] * 2
    assert "Authorization" not in engine.headers[0]


async def test_a_release_that_stays_full_is_no_answer(engine):
    async def script(request, body):
        return web.json_response({"error": {}}, status=503)

    engine.script = script
    with pytest.raises(ask.NoAnswer, match="status 503"):
        await asyncio.to_thread(ask.put, DEMO.cases[0], ask.Target(f"{engine.url}/v1", None, "demo", 5), lambda _: None)
    assert len(engine.requests) == ask.TRIES


async def test_the_gateways_kept_answers_do_not_vouch_for_a_new_engine(engine, gateway, monkeypatch):
    monkeypatch.setenv("CANARY_API_KEY", KEY)
    engine.script = right
    assert await canary(gateway.url) == 0
    engine.script = None
    assert await canary(gateway.url) == cli.EX_BAD


async def test_a_soak_asks_in_rounds(engine):
    engine.script = right
    ticks = iter([0, 0, 1, 2, 60, 60, 60])
    argv = ["--base-url", f"{engine.url}/v1", "--set", "demo", "--soak-s", "30"]
    assert await asyncio.to_thread(cli.main, argv, lambda: next(ticks)) == 0
    assert len(engine.requests) == 3 * len(DEMO.cases)


async def test_errors_and_p99_are_compared_with_the_release_before(engine, prometheus, capsys):
    engine.script = right
    words = ("--prometheus", prometheus.url, "--selector", 'namespace="prod"', "--before-at", "1000")
    assert await canary(engine.url, *words) == 0
    now = {query for query, at in prometheus.asked if at > 1000}
    before = {query for query, at in prometheus.asked if at == 1000}
    assert all('namespace="prod"' in query and "[60s]" in query for query in now)
    assert all('namespace="prod"' in query and "[1800s]" in query for query in before)
    prometheus.answers["quantile", True] = 9.0
    assert await canary(engine.url, *words) == cli.EX_BAD
    assert "BAD: P99 is 9.00 s, 1.00 s before" in capsys.readouterr().out
    prometheus.answers["quantile", True] = 1.0
    prometheus.answers["5..", True] = 50
    assert await canary(engine.url, *words) == cli.EX_BAD
    assert "BAD: 10.0% of 500 requests failed" in capsys.readouterr().out


async def test_a_first_release_has_nothing_to_be_compared_with(engine, prometheus, tmp_path):
    engine.script = right
    prometheus.answers["increase", True] = None
    prometheus.answers["quantile", True] = "NaN"
    report = tmp_path / "report.json"
    assert await canary(engine.url, "--prometheus", prometheus.url, "--report", str(report)) == 0
    found = json.loads(report.read_text())
    assert found["now"] == {"requests": 0.0, "error_rate": 0.0, "p99_s": None}
    assert found["before"] is None


@pytest.mark.parametrize("fault", ["refused", "silent", "stranger"])
async def test_a_prometheus_that_cannot_be_read_leaves_the_release_unknown(engine, prometheus, capsys, fault):
    engine.script = right
    if fault == "refused":
        prometheus.answers.clear()
    url = {"refused": prometheus.url, "silent": "http://127.0.0.1:1", "stranger": engine.url}[fault]
    assert await canary(engine.url, "--prometheus", url) == cli.EX_UNKNOWN
    assert "Prometheus" in capsys.readouterr().out


async def test_wrong_answers_outweigh_an_unreadable_prometheus(engine):
    assert await canary(engine.url, "--prometheus", "http://127.0.0.1:1") == cli.EX_BAD


def test_a_set_that_is_not_there_is_unknown(capsys):
    assert cli.main(["--base-url", "http://127.0.0.1:1/v1", "--set", "nowhere.toml"]) == cli.EX_UNKNOWN
    assert "nowhere.toml cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    [
        "vision.example.com/v1?key=hunter2",
        "https://[::1/hunter2",
        "http://127.0.0.1:1/hunter2?key=hunter2",
        "http://127.0.0.1/hunter2 x",
    ],
)
def test_an_address_that_does_not_work_is_told_without_its_path(address):
    with pytest.raises(exchange.NoExchange) as caught:
        exchange.request("GET", address, {}, None, 1)
    assert "hunter2" not in str(caught.value)
