"""The audit in a Redis stream: bounded, never in a request's way, and read by the same query."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pytest

from gateway import audit as audit_module
from gateway import audit_cli
from gateway.__main__ import parser
from gateway.audit import Audit, Happening
from gateway.audit_stream import RedisStream, lines_of
from gateway.settings import SettingsError, load
from gateway.telemetry import AUDIT_DROPPED
from tests.support import waiting
from tests.support.pictures import data_url, png, question
from tests.support.redis_server import RedisServer

CHAT = "/v1/chat/completions"
STREAM = "qwen3vl:audit"


def written(server):
    return [json.loads(line) for line in lines_of(server.url, STREAM, 0)]


def dropped(cause):
    return AUDIT_DROPPED.labels(cause)._value.get()


until = partial(waiting.until, deadline_s=20)


def happening(number):
    return Happening({"n": number, "time": "2026-01-01T00:00:00+00:00"}, [], b"")


async def test_records_get_into_the_stream_and_the_query_finds_them(start, redis_server, capsys, monkeypatch):
    gateway = await start(audit="full", audit_stream=STREAM, redis_url=redis_server.url)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        for text in ("first", "second", "third"):
            await http.post(CHAT, json=question(data_url(png()), text))
    await until(lambda: redis_server.command("XLEN", STREAM) == ":3")
    monkeypatch.setenv("GATEWAY_REDIS_URL", redis_server.url)

    def found(*words):
        assert audit_cli.run(parser().parse_args(["audit", "query", *words])) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    everything = found("--stream", STREAM)
    assert [record["prompt"][0]["content"][1]["text"] for record in everything] == ["first", "second", "third"]
    assert {record["output"][:6] for record in everything} == {"answer"}
    (slowest,) = found("--stream", STREAM, "--slowest", "1")
    assert slowest["duration_ms"] == max(record["duration_ms"] for record in everything)
    assert found("--stream", STREAM, "--key", "k_one", "--since", "1h") == everything
    assert found("--stream", STREAM, "--key", "k_two") == []
    assert found("--stream", STREAM, "--until", everything[2]["time"]) == everything[:2]
    assert found("--stream", STREAM, "--since", everything[1]["time"]) == everything[1:]
    assert found("--stream", STREAM, "--until", "1h") == []
    monkeypatch.setenv("GATEWAY_AUDIT_STREAM", STREAM)
    assert found() == everything


async def test_a_short_outage_loses_nothing_and_no_request_waits(start, redis_server, caplog):
    gateway = await start(audit="hash", audit_stream=STREAM, redis_url=redis_server.url)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
        await http.post(CHAT, json=question(data_url(png()), "before"))
        await until(lambda: redis_server.command("XLEN", STREAM) == ":1")
        redis_server.kill()  # and with it the first record
        for number in range(5):
            assert (await http.post(CHAT, json=question(data_url(png()), str(number)))).status_code == 200
        await until(lambda: "audit records wait" in caplog.text)
        redis_server.restart()
        await until(lambda: redis_server.command("XLEN", STREAM) == ":5")
    assert caplog.text.count("audit records wait") == 1
    assert "are written to Redis again" in caplog.text


async def test_what_no_longer_fits_is_dropped_counted_and_the_rest_is_written_later(redis_server, monkeypatch):
    monkeypatch.setattr(audit_module, "MAX_WAITING", 10)
    audit = Audit(RedisStream(redis_server.url, STREAM, 100_000), policy="full", secret=b"s")
    before = dropped("queue_full")
    redis_server.kill()
    for number in range(100):
        audit.submit(happening(number))
    assert 89 <= dropped("queue_full") - before <= 90
    redis_server.restart()
    await until(lambda: redis_server.command("XLEN", STREAM) in {":10", ":11"})
    audit.submit(happening(100))
    await until(lambda: written(redis_server)[-1]["n"] == 100)
    audit.close()


def test_the_stream_is_bounded(redis_server):
    sink = RedisStream(redis_server.url, STREAM, 50)
    audit = Audit(sink, policy="full", secret=b"s")
    for number in range(600):
        audit.submit(happening(number))
    audit.close()
    numbers = [record["n"] for record in written(redis_server)]
    assert 50 <= len(numbers) < 300  # Redis removes whole nodes of 100
    assert numbers[-1] == 599


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_the_end_of_the_gateway_does_not_wait_for_a_redis_that_is_away(how):
    with RedisServer() as server:
        audit = Audit(RedisStream(server.url, STREAM, 1000), policy="full", secret=b"s")
        before = dropped("redis")
        getattr(server, how)()
        for number in range(200):
            audit.submit(happening(number))
        audit.close()  # the test's timeout is far below 200 timeouts
        assert dropped("redis") - before == 200


def test_what_waits_is_written_at_the_end(redis_server):
    audit = Audit(RedisStream(redis_server.url, STREAM, 1000), policy="full", secret=b"s")
    for number in range(200):
        audit.submit(happening(number))
    audit.close()
    assert [record["n"] for record in written(redis_server)] == list(range(200))


def test_a_query_reads_page_after_page(redis_server, monkeypatch):
    monkeypatch.setattr("gateway.audit_stream.PAGE", 7)
    sink = RedisStream(redis_server.url, STREAM, 1000)
    for number in range(50):
        sink.emit(logging.makeLogRecord({"msg": str(number)}))
    sink.close()
    assert list(lines_of(redis_server.url, STREAM, 0)) == [b"%d" % number for number in range(50)]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert list(lines_of(redis_server.url, STREAM, int(tomorrow.timestamp() * 1000))) == []


class TestWhere:
    def run(self, monkeypatch, *words, **environ):
        for name in ("GATEWAY_REDIS_URL", "GATEWAY_AUDIT_STREAM", "GATEWAY_AUDIT_FILE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return audit_cli.run(parser().parse_args(["audit", "query", *words]))

    def test_without_a_place_the_next_step_is_told(self, monkeypatch, capsys):
        assert self.run(monkeypatch) == 2
        assert "--stream NAME" in capsys.readouterr().err

    @pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:1", "nonsense-hunter2", ""])
    def test_a_redis_that_cannot_be_asked_is_1(self, monkeypatch, capsys, url):
        assert self.run(monkeypatch, "--stream", "x", GATEWAY_REDIS_URL=url) == 1
        shown = capsys.readouterr().err
        assert "GATEWAY_REDIS_URL" in shown
        assert "hunter2" not in shown

    def test_the_environment_names_the_file(self, monkeypatch, capsys, tmp_path):
        file = tmp_path / "audit.jsonl"
        file.write_text('{"time": "2026-01-01T00:00:00+00:00"}\n[1]\n{"time": "2026-01-03T00:00:00+00:00"}\n')
        assert self.run(monkeypatch, "--until", "2026-01-02", GATEWAY_AUDIT_FILE=str(file)) == 0
        assert capsys.readouterr().out.count("\n") == 1

    def test_a_time_that_is_none_is_2(self, monkeypatch):
        with pytest.raises(SystemExit, match="2"):
            self.run(monkeypatch, "--since", "soon")

    @pytest.mark.parametrize(
        ("more", "fault"),
        [
            ({}, "needs GATEWAY_REDIS_URL"),
            ({"GATEWAY_REDIS_URL": "redis://h", "GATEWAY_AUDIT_FILE": "/tmp/a"}, "are both set"),
            ({"GATEWAY_REDIS_URL": "redis://h", "GATEWAY_AUDIT_STREAM": "two words"}, "GATEWAY_AUDIT_STREAM"),
        ],
    )
    def test_a_configuration_that_cannot_work_is_refused(self, more, fault):
        environ = {"GATEWAY_KEYS_FILE": "k", "GATEWAY_AUDIT_STREAM": "s", **more}
        with pytest.raises(SettingsError, match=fault):
            load(environ)
