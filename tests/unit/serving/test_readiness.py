"""Ready is who has just generated a token."""

from __future__ import annotations

import http.server
import json
import threading
import time

import pytest

from serving import __main__ as cli
from serving import readiness
from tests.support.ports import free_ports

TOKEN = {"choices": [{"finish_reason": "length"}], "usage": {"completion_tokens": 1}}
ABORTED = {"choices": [{"finish_reason": "abort"}], "usage": {"completion_tokens": 0}}


@pytest.fixture
def engine():
    """An engine that answers with what `answers` holds, the last one for ever; a callable is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            self.server.asked.append((self.path, json.loads(body), self.headers.get("authorization")))
            answers = self.server.answers
            status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer == "hang":
                time.sleep(1)
                answer = ""
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked, server.port = [(200, TOKEN)], [], server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def ready(capsys, port, *words):
    code = cli.main(["ready", "--port", str(port), *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_token_is_ready(engine, capsys, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "k")
    code, said = ready(capsys, engine.port)
    assert (code, said["ready"]) == (0, True)
    assert said["seconds"] < 5
    assert engine.asked == [("/v1/completions", {"prompt": "ping", "max_tokens": 1, "temperature": 0}, "Bearer k")]


def test_an_engine_without_a_key_is_asked_without_one(engine, capsys, monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert ready(capsys, engine.port)[0] == 0
    assert engine.asked[0][2] is None


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (503, "core is dead", "status 503: core is dead"),
        (200, ABORTED, "0 tokens, finish_reason abort: the engine is going down"),
        (200, "<html>", "the answer is no completion"),
        (200, {"choices": []}, "the answer is no completion"),
        (200, "hang", "no token within 0.2 s: the engine hangs"),
    ],
)
def test_anything_else_is_not(engine, capsys, status, answer, reason):
    engine.answers = [(status, answer)]
    code, said = ready(capsys, engine.port, "--timeout-s", "0.2")
    assert (code, said["ready"]) == (1, False)
    assert said["reason"].startswith(reason)


def test_nobody_there_is_not_ready(capsys):
    [port] = free_ports(1)
    code, said = ready(capsys, port)
    assert code == 1
    assert said["reason"].startswith(f"nothing answers on 127.0.0.1:{port}")


def test_waiting_asks_until_the_first_token(engine, capsys):
    engine.answers = [(503, "loading"), (503, "loading"), (200, TOKEN)]
    assert ready(capsys, engine.port, "--wait-s", "30")[0] == 0
    assert len(engine.asked) == 3


def test_waiting_ends_at_its_deadline(engine, capsys):
    engine.answers = [(503, "loading")]
    assert ready(capsys, engine.port, "--wait-s", "0.6")[0] == 1
    assert len(engine.asked) >= 2


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
def test_who_listens_everywhere_is_asked_on_loopback(engine, host):
    assert readiness.generate_one_token(host, engine.port, None, 5) < 5
