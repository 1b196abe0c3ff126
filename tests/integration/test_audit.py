"""The audit: one record for each inference, and nothing in it that must not be."""

from __future__ import annotations

import json
import logging
import threading
import time

import httpx
import pytest
from aiohttp import web

from gateway.audit import MAX_WAITING, WRITE_AT_ONCE, Audit, Happening, answer_of, without_pictures
from tests.support.command import gateway_command
from tests.support.engine import DONE, chat_answer, chunk, stream
from tests.support.gateway import KEY
from tests.support.pictures import data_url, png, question

CHAT = "/v1/chat/completions"


async def records_of(start, engine, tmp_path, policy, *bodies, path=CHAT):
    file = tmp_path / f"{policy}.jsonl"
    gateway = await start(audit=policy, audit_file=file, tenant_secret="s")
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        for body in bodies:
            await http.post(path, json=body)
        await http.get("/v1/models")
    gateway.app.state.pipeline.audit.close()
    return file, [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_record_has_question_answer_pictures_and_times(start, engine, tmp_path):
    async def script(request, body):
        if body.get("stream"):
            return await stream(request, [chunk("red "), chunk("dress"), DONE])
        return web.json_response(chat_answer("red dress"))

    engine.script = script
    bodies = [question(data_url(png()), "What?"), question(data_url(png()), "What?", stream=True)]
    _, (plain, streamed, hit) = await records_of(start, engine, tmp_path, "full", *bodies, bodies[0])
    for record in (plain, streamed, hit):
        assert record["output"] == "red dress"
        assert record["prompt"][0]["content"][1] == {"type": "text", "text": "What?"}
        assert record["prompt"][0]["content"][0] == {"type": "image_url", "digest": record["images"][0]}
        assert (record["tenant"], record["key_id"], record["model"], record["status"]) == (
            "one",
            "k_one",
            "scripted",
            200,
        )
        assert record["duration_ms"] > 0
    assert (plain["cache"], hit["cache"]) == ("miss", "hit")
    assert plain["engine"] == engine.url
    assert (plain["finish_reason"], plain["prompt_tokens"], plain["completion_tokens"]) == ("stop", 1, 1)
    assert "engine" not in hit


async def test_policy_hash_keeps_no_text_but_tells_equals_apart(start, engine, tmp_path):
    bodies = [question(data_url(png()), text, temperature=1) for text in ("secret one", "secret two", "secret one")]
    file, records = await records_of(start, engine, tmp_path, "hash", *bodies)
    text = file.read_text()
    for secret in ("secret", "answer 1", "base64", KEY):
        assert secret not in text
    one, two, again = [record["prompt"] for record in records]
    assert one.startswith("hmac-sha256:")
    assert one == again != two


async def test_failures_are_recorded_too(start, engine, tmp_path):
    bodies = [question(data_url(png()) + "!", "What?"), {"messages": "nothing"}]
    _, records = await records_of(start, engine, tmp_path, "full", *bodies)
    assert [record["status"] for record in records] == [400]  # what has no parsable body has no question to record


class Blocked(logging.Handler):
    def __init__(self):
        super().__init__()
        self.go, self.lines = threading.Event(), []

    def emit(self, record):
        self.go.wait(10)
        self.lines.append(record.getMessage())


def test_a_sink_that_hangs_costs_records_and_never_a_request():
    sink = Blocked()
    audit = Audit(sink, policy="full", secret=b"s")
    for i in range(MAX_WAITING + 100):
        audit.submit(Happening({"n": i}, [], b""))
    sink.go.set()
    audit.close()
    written = sum(len(lines.splitlines()) for lines in sink.lines)
    assert MAX_WAITING <= written <= MAX_WAITING + WRITE_AT_ONCE


def test_a_record_that_cannot_be_written_does_not_stop_the_next(caplog):
    class Broken(Blocked):
        def emit(self, record):
            if not self.lines:
                self.lines.append("failed")
                raise OSError("disk full")
            super().emit(record)

    sink = Broken()
    sink.go.set()
    audit = Audit(sink, policy="full", secret=b"s")
    audit.submit(Happening({}, [], b""))
    deadline = time.monotonic() + 5
    while not sink.lines and time.monotonic() < deadline:
        time.sleep(0.01)
    audit.submit(Happening({}, [], b""))
    audit.close()
    assert len(sink.lines) == 2
    assert "could not be written" in caplog.text


def test_a_record_that_cannot_be_made_costs_no_other(caplog):
    sink = Blocked()
    sink.go.set()
    audit = Audit(sink, policy="full", secret=b"s")
    for fact in (object(), 1):
        audit.submit(Happening({"fact": fact}, [], b""))
    audit.close()
    assert [json.loads(line)["fact"] for line in sink.lines] == [1]
    assert "could not be made" in caplog.text


@pytest.mark.parametrize("output", [b"", b"{", b"[]", b"data: {\n\n", b"data: [DONE]\n\n", b'{"choices":null}'])
def test_an_answer_that_cannot_be_read_is_empty(output):
    assert answer_of(output) == ("", {}, None)


def test_a_text_completion_s_text_is_found():
    assert answer_of(b'{"choices":[{"text":"hi","finish_reason":"length"}]}') == ("hi", {}, "length")


def test_prompts_without_messages_stay_as_they_are():
    assert without_pictures("text", ()) == "text"
    assert without_pictures([{"content": "a"}, 1], ()) == [{"content": "a"}, 1]


class TestQuery:
    def query(self, file, *options):
        return gateway_command("audit", "query", file, *options)

    @pytest.fixture
    def file(self, tmp_path):
        rows = [
            {
                "time": f"2026-01-0{i}T00:00:00+00:00",
                "request_id": f"req_{i}",
                "tenant": "ab"[i % 2],
                "duration_ms": 10 - i,
            }
            for i in range(1, 6)
        ]
        lines = [json.dumps(row) for row in rows]
        (tmp_path / "audit.jsonl.2").write_text(lines[0] + "\n")
        (tmp_path / "audit.jsonl.1").write_text(lines[1] + "\n" + lines[2][:10])
        (tmp_path / "audit.jsonl").write_text("\n".join(lines[2:]) + "\n")
        return tmp_path / "audit.jsonl"

    def ids(self, run):
        return [json.loads(line)["request_id"][-1] for line in run.stdout.splitlines()]

    def test_it_reads_rotated_files_in_order_and_passes_over_broken_lines(self, file):
        assert self.ids(self.query(file)) == ["1", "2", "3", "4", "5"]

    def test_it_filters_sorts_and_cuts(self, file):
        assert self.ids(self.query(file, "--tenant", "a")) == ["2", "4"]
        assert self.ids(self.query(file, "--request", "req_3")) == ["3"]
        assert self.ids(self.query(file, "--slowest", "2")) == ["1", "2"]
        assert self.ids(self.query(file, "--last", "2")) == ["4", "5"]
        assert self.ids(self.query(file, "--since", "12h")) == []

    def test_a_missing_file_names_the_next_step(self, tmp_path):
        run = self.query(tmp_path / "none")
        assert run.returncode == 1
        assert "GATEWAY_AUDIT_FILE" in run.stderr
