"""The launcher as a process of its own, with stand-ins for engine and gateway that are processes too."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from serving.demo import ask, launch
from serving.demo.launch_plan import Ports
from tests.support.ports import free_ports

ROOT = Path(__file__).parents[4]
SEED = 1_500_000_000

STAND_IN = '''
"""Engine or gateway: python stand_in.py PORT MODE ANSWERS_FILE"""
import http.server, json, os, subprocess, sys, time
port, mode, answers = int(sys.argv[1]), sys.argv[2], json.load(open(sys.argv[3]))
if mode == "dies":
    print("no such checkpoint", flush=True)
    sys.exit(5)
if mode == "worker":  # what vLLM does: a process of its own, deaf to SIGTERM
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words): pass
    def send(self, status, body=b"", kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/readyz":
            self.send(503 if mode == "never-ready" else 200)
        else:
            self.send(503 if os.path.exists(sys.argv[3] + ".core-died") else 200)
            if os.path.exists(sys.argv[3] + ".close"): self.server.socket.close()
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["authorization"] == "Bearer sk-demo"
        if mode == "hangs": time.sleep(60)
        if mode == "refuses": return self.send(500, b'{"error": {"message": "no", "type": "x", "code": 500}}')
        text = asked["messages"][0]["content"][1]["text"]
        answer = "Nothing." if mode == "wrong" else answers[text]
        one = {"id": "1", "created": 1, "model": asked["model"]}
        if asked.get("stream"):
            pieces = [{"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]} for part in (answer[:2], answer[2:])]
            pieces.append({"choices": []})
            lines = [json.dumps({**one, "object": "chat.completion.chunk", **piece}) for piece in pieces]
            return self.send(200, "".join(f"data: {line}\\n\\n" for line in [*lines, "[DONE]"]).encode(), "text/event-stream")
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.send(200, json.dumps({**one, "object": "chat.completion", "choices": [choice]}).encode())
print("Starting to load model", flush=True)
time.sleep(0.3)
print("Starting vLLM server", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
'''

DRIVER = """
import sys
from pathlib import Path
from serving.demo import launch, launch_plan, launch_preflight
stand_in, answers, engine, gateway, ready_s, answer_s, root, *options = sys.argv[1:]
ports = launch.Ports(*map(int, options[:3]))
launch_plan.engine_argv = lambda ports: [sys.executable, stand_in, str(ports.engine), engine, answers]
launch_plan.gateway_argv = lambda: [sys.executable, stand_in, str(ports.gateway), gateway, answers]
launch_preflight.NEEDED_BYTES = 0
launch.wait_until_ready.__defaults__ = (float(ready_s),)
launch.ANSWER_DEADLINE_S = float(answer_s)
sys.exit(launch.main(ports, stop_after_answers="--exit" in options, seed=SEED, root=Path(root)))
""".replace("SEED", str(SEED))


class Launched:
    """A running launcher; its output is read as it comes."""

    def __init__(self, folder, engine, gateway, options, ready_s, answer_s):
        folder.mkdir(exist_ok=True)
        (folder / "stand_in.py").write_text(STAND_IN)
        self.answers = folder / "answers.json"
        drawn = ask.draw(SEED, folder / "pictures")
        self.answers.write_text(json.dumps({item.question.text: item.question.answer for item in drawn}))
        self.ports = Ports(*free_ports(3))
        ports = map(str, (self.ports.gateway, self.ports.metrics, self.ports.engine))
        argv = [sys.executable, "-c", DRIVER, folder / "stand_in.py", self.answers, engine, gateway]
        self.folder = folder / "run" / str(self.ports.gateway)
        self.process = subprocess.Popen(
            [*argv, str(ready_s), str(answer_s), folder / "run", *ports, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.output += line

    def until(self, words, seconds=30):
        deadline = time.monotonic() + seconds
        while words not in self.output:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def end(self, seconds=30):
        code = self.process.wait(seconds)
        self._reader.join(10)
        self.process.stdout.close()
        return code

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, port):
        return next(process for process in self.family() if str(port) in process.cmdline())


@pytest.fixture
def launched(tmp_path):
    running = []

    def go(*options, engine="good", gateway="good", ready_s=30, answer_s=20):
        one = Launched(tmp_path, engine, gateway, options, ready_s, answer_s)
        running.append(one)
        return one

    yield go
    for one in running:
        one.process.terminate()
        one.end()


def all_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not alive


def test_right_answers_exit_0_and_are_shown(launched):
    demo = launched("--exit")
    assert demo.end() == 0, demo.output
    for words in (
        "engine: loading weights",
        "ready:",
        "question 1 (caption, en, plain)",
        "(colour, en, streamed)",
        ", zh,",
    ):
        assert words in demo.output
    assert "3 of 3 answers are right" in demo.output
    assert re.search(r"first answer \d+\.\d s after the start; memory \d+ MiB RSS \(engine \d+ MiB", demo.output)
    assert demo.output.index("gateway: stopped") < demo.output.index("engine: stopped")
    assert len(list((demo.folder / "pictures").glob("*.jpg"))) == 3
    assert not (demo.folder / "keys.json").exists()


def test_a_wrong_answer_exits_1_and_is_shown_with_the_right_one(launched):
    demo = launched("--exit", gateway="wrong")
    assert demo.end() == 1
    assert "answer    Nothing." in demo.output
    assert "expected  " in demo.output
    assert "0 of 3 answers are right" in demo.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stays_up_until_a_signal_and_leaves_nothing(launched, number):
    demo = launched(engine="worker")
    demo.until("Ctrl-C stops everything")
    keys = demo.folder / "keys.json"
    assert keys.stat().st_mode & 0o777 == 0o600
    family = demo.family()
    assert len(family) == 3
    demo.process.send_signal(number)
    assert demo.end() == 0
    assert all_gone(family)
    assert not keys.exists()


def test_a_signal_before_it_is_ready_stops_it_with_the_signals_code(launched):
    demo = launched(gateway="never-ready")
    demo.until("engine: opening the API")
    demo.process.send_signal(signal.SIGTERM)
    assert demo.end() == 128 + signal.SIGTERM


def test_an_engine_that_dies_at_the_start_ends_it_with_its_log(launched):
    demo = launched(engine="dies", gateway="never-ready")
    assert demo.end() == 69
    last = demo.output.splitlines()
    assert "no such checkpoint" in last
    assert "the engine ended with exit code 5: see above and in " in demo.output
    assert "run `make demo` again" in demo.output


@pytest.mark.parametrize("which", ["engine", "gateway"])
def test_a_child_that_is_killed_while_up_ends_it_within_seconds(launched, which):
    demo = launched(engine="worker")
    demo.until("Ctrl-C stops everything")
    family = demo.family()
    demo.child(getattr(demo.ports, which)).kill()
    began = time.monotonic()
    assert demo.end() == 69
    assert time.monotonic() - began < 10
    assert f"the {which} was killed by SIGKILL" in demo.output
    assert all_gone(family)


def test_an_engine_that_lost_its_core_ends_it(launched):
    demo = launched()
    demo.until("Ctrl-C stops everything")
    Path(f"{demo.answers}.core-died").touch()
    assert demo.end() == 69
    assert "the engine lost its core process" in demo.output


def test_a_gateway_that_never_gets_ready_ends_at_the_deadline(launched):
    demo = launched(gateway="never-ready", ready_s=1)
    assert demo.end() == 69
    assert "not ready after 1 s; the logs: " in demo.output


def test_an_answer_that_never_comes_ends_at_the_deadline(launched):
    demo = launched(gateway="hangs", answer_s=1)
    assert demo.end() == 69
    assert "question 1 failed: Request timed out" in demo.output or "no answer within" in demo.output


def test_a_worker_that_neither_answers_nor_fails_ends_at_the_deadline(monkeypatch):
    monkeypatch.setattr(launch, "_ask", lambda *_: None)
    monkeypatch.setattr(launch, "ANSWER_DEADLINE_S", 0.1)
    watch = launch.Watch(Ports(), Living(), Living(), launch.Stop())
    with pytest.raises(launch.DemoError, match="no answer within"):
        launch.ask_all(watch, launch.Report(), [None])


def test_a_core_that_died_is_told_at_the_first_probe():
    watch = launch.Watch(Ports(), Living(), Living(), launch.Stop(), lambda *_: 503, ready=True)
    with pytest.raises(launch.DemoError, match=r"the engine lost its core process: .* run `make demo` again"):
        watch.tick(0)


def test_a_signal_is_remembered_once():
    stop = launch.Stop()
    stop._set(signal.SIGINT, None)
    stop._set(signal.SIGTERM, None)
    assert stop.exit_code == 130


def test_the_gateway_is_started_as_its_users_start_it():
    assert launch.launch_plan.gateway_argv()[1:] == ["-m", "gateway", "serve"]


def test_figures_without_an_answer_leave_it_out(capsys):
    launch.Report().sizes({"engine": 2**20})
    assert "memory 1 MiB RSS (engine 1 MiB)" in capsys.readouterr().out


def test_a_refused_question_ends_it_with_the_reason(launched):
    demo = launched(gateway="refuses")
    assert demo.end() == 69
    assert "question 1 failed: Error code: 500" in demo.output


def test_a_machine_that_cannot_run_it_is_told_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch.launch_preflight, "faults", lambda _: ["port 1 is in use", "no memory"])
    assert launch.main(Ports(), root=tmp_path / "run") == 78
    out = capsys.readouterr().out
    assert "port 1 is in use" in out
    assert "no memory" in out
    assert not (tmp_path / "run").exists()


def test_a_probe_tells_refused_from_silent():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        assert launch.probe(port, "/health") is None
        assert time.monotonic() - began < launch.PROBE_TIMEOUT_S + 2
    assert launch.probe(port, "/health") == 0


class Living:
    fault = None
    log = Path("engine.log")

    @staticmethod
    def tail():
        return "the end of the log"


def test_an_engine_that_closes_its_port_is_given_a_moment_and_then_up():
    now, answers = [0.0], iter([0, 0, None, 0, 0, 0])
    watch = launch.Watch(
        Ports(), Living(), Living(), launch.Stop(), lambda *_: next(answers), clock=lambda: now[0], ready=True
    )
    for _ in range(5):  # refused twice, silent once (which counts for nothing), refused twice
        watch.tick(0)
        now[0] += launch.REFUSING_S / 2 + 0.1
    with pytest.raises(launch.DemoError, match="closed its port") as caught:
        watch.tick(0)
    assert caught.value.log_tail == "the end of the log"


def test_a_child_that_does_not_stop_in_time_is_told_as_killed(capsys):
    class Stubborn(Living):
        name = "engine"

        @staticmethod
        def stop(_):
            return False

    launch._stop(Stubborn(), 3, launch.Report())
    assert "engine: killed, as it took over 3 s" in capsys.readouterr().out


def test_the_same_seed_draws_the_same_and_a_fresh_one_is_unseen(tmp_path):
    first, again = ask.draw(SEED, tmp_path / "a"), ask.draw(SEED, tmp_path / "b")
    assert [item.question for item in first] == [item.question for item in again]
    assert [item.picture.read_bytes() for item in first] == [item.picture.read_bytes() for item in again]
    assert ask.fresh_seed() >= 1_000_000_000
    assert {item.task.language for item in first} == {"en", "zh"}
    assert sum(item.task.streamed for item in first) == 1
    assert first[0].picture.stat().st_size > 1000
