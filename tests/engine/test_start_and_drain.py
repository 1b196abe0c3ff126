"""One engine of `serving run`, from its first token to its last: the report, readiness, what only a flag switches on, the
drain. The tests run in their order: the last one ends the engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import psutil
import pytest

from tests.support.lora import RANK, write_adapter
from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
START_DEADLINE_S = 180
KEY = "engine-key"
GRACE_S = 20
ANSWER_TOKENS = 300


class Engine:
    """`python -m serving run`, which has become vLLM."""

    def __init__(self, folder):
        config = json.loads((ROOT / "serving" / "demo" / "checkpoint" / "config.json").read_text())
        adapter = write_adapter(folder / "adapter", config)
        [self.port] = free_ports(1)
        self.log = folder / "engine.log"
        argv = [sys.executable, "-m", "serving", "run", "--profile", "cpu", "--port", str(self.port)]
        argv += ["--served-model-name", "first", "second", "--cache-dir", str(folder / "cache")]
        argv += ["--", "--shutdown-timeout", str(GRACE_S), "--reasoning-parser", "qwen3"]
        argv += ["--enable-lora", "--max-lora-rank", str(RANK), "--lora-modules", f"drawn={adapter}"]
        self.env = {**os.environ, "VLLM_API_KEY": KEY}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def ready(self, *words):
        done = subprocess.run(
            [sys.executable, "-m", "serving", "ready", "--port", str(self.port), *words],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S + 30,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    def reports(self):
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"event": "startup"')]

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    started = Engine(tmp_path_factory.mktemp("engine"))
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def client(engine):
    with openai.OpenAI(base_url=engine.base_url, api_key=KEY, max_retries=0, timeout=60) as sdk:
        yield sdk


def say(client, model="first", **more):
    request = {"temperature": 0, "max_tokens": 40, "messages": [{"role": "user", "content": "hello"}]}
    return client.chat.completions.create(model=model, **{**request, **more}).choices[0].message


@pytest.mark.timeout(START_DEADLINE_S + 60)
def test_it_is_not_ready_before_its_first_token_and_reports_its_phases_then(engine):
    assert engine.ready()[0] == 1
    code, said = engine.ready("--wait-s", str(START_DEADLINE_S))
    assert (code, said["ready"]) == (0, True), engine.log.read_text()
    deadline = time.monotonic() + 15
    while not engine.reports():
        assert time.monotonic() < deadline, engine.log.read_text()
        time.sleep(0.1)
    [report] = engine.reports()
    assert (report["ready"], report["profile"]) == (True, "cpu")
    assert [phase["phase"] for phase in report["phases"]] == ["read_weights", "init_engine", "first_token"]
    ended = [phase["ended_s"] for phase in report["phases"]]
    assert ended == sorted(ended)
    assert ended[-1] == report["seconds"]


def test_every_name_and_the_adapter_can_be_asked_for(client):
    assert [model.id for model in client.models.list()] == ["first", "second", "drawn"]
    off = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    answers = {name: say(client, name, **off).content for name in ("first", "second", "drawn")}
    assert answers["first"] == answers["second"]
    assert answers["drawn"] != answers["first"]


def test_thoughts_are_kept_out_of_the_answer(client):
    # The demo checkpoint never ends a thought, so with thinking on all it says is thought; with it off, nothing is.
    thinking = say(client)
    plain = say(client, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert thinking.content is None
    assert thinking.reasoning == plain.content


@pytest.mark.timeout(120)
def test_a_drain_finishes_what_was_begun_and_refuses_what_is_new(engine, client):
    ended = []
    begun = threading.Barrier(5, timeout=60)

    def answer(number):
        request = {"messages": [{"role": "user", "content": f"hello {number}"}], "max_tokens": ANSWER_TOKENS}
        request |= {"stream": True, "stream_options": {"include_usage": True}, "temperature": 1}
        finish, tokens = None, 0
        for index, chunk in enumerate(
            client.chat.completions.create(model="first", **request, extra_body={"ignore_eos": True})
        ):
            if index == 0:
                begun.wait()
            finish = chunk.choices[0].finish_reason or finish if chunk.choices else finish
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        ended.append((finish, tokens))

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    family = psutil.Process(engine.process.pid).children(recursive=True)
    engine.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)  # the signal is handled by an event loop that streams four answers
    assert not ended
    with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
        client.completions.create(model="first", prompt="hello", max_tokens=1)
    assert engine.ready()[0] == 1
    for thread in threads:
        thread.join(60)
    assert ended == [("length", ANSWER_TOKENS)] * 4, engine.log.read_text()[-4000:]
    assert engine.process.wait(GRACE_S + 20) == 0
    _, left = psutil.wait_procs(family, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]  # PID 1 may be slow to reap
