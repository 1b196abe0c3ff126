"""The parts of the host's program, each with the real thing on its other side: files, sockets, processes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from delivery.record import Entry, Result

from serving.host import settings
from serving.host.containers import IMAGE, Containers, Unit
from serving.host.proxy import Proxy, ProxyGone, say_to
from serving.host.report import Reporter, metrics
from serving.host.state import Attempt, BadState, Release, Serving, State, StateFile, write_whole
from serving.host.tools import Tools

ROOT = Path(__file__).parents[4]


class TestSettings:
    GIVEN = "GATEWAY_REPOSITORY=ghcr.io/o/r/gateway\nENGINE_REPOSITORY=ghcr.io/o/r/engine\n"

    def load(self, tmp_path, text):
        (tmp_path / "host.env").write_text(text)
        return settings.load(tmp_path)

    def test_the_example_needs_the_repositories_only(self, tmp_path):
        example = (ROOT / "serving" / "host" / "host.env.example").read_text()
        with pytest.raises(settings.BadSettings) as caught:
            self.load(tmp_path, example)
        assert str(caught.value).count("give the repository") == 2
        filled = "\n".join(line for line in example.splitlines() if "REPOSITORY=" not in line) + "\n" + self.GIVEN
        assert self.load(tmp_path, filled) == self.load(tmp_path, self.GIVEN)

    def test_the_example_has_every_setting_with_its_default(self):
        example = (ROOT / "serving" / "host" / "host.env.example").read_text()
        for name, value in settings.DEFAULTS.items():
            assert f"\n#{name}={value}\n" in example or f"\n{name}=\n" in example, name

    def test_all_faults_are_told_at_once(self, tmp_path):
        text = "KEEP=0\nENGINE_SWAP=both\nNAME=a b\nPUBLIC_URL=vision\nENGINE_GPUS=all\nENGINE_PORTS=1\nTYPO=1\n"
        with pytest.raises(settings.BadSettings) as caught:
            self.load(tmp_path, text)
        for name in (
            "KEEP",
            "ENGINE_SWAP",
            "NAME",
            "PUBLIC_URL",
            "ENGINE_GPUS",
            "ENGINE_PORTS",
            "TYPO is no setting",
            "REPOSITORY",
        ):
            assert name in str(caught.value), name

    def test_ports_must_differ(self, tmp_path):
        with pytest.raises(settings.BadSettings, match="all differ"):
            self.load(tmp_path, self.GIVEN + "ENGINE_PORTS=8081,8002\n")

    def test_gpus_are_told_apart_by_slot(self, tmp_path):
        assert self.load(tmp_path, self.GIVEN + "ENGINE_GPUS=0,1\n").engine_gpus == {"a": "0", "b": "1"}
        assert self.load(tmp_path, self.GIVEN + "ENGINE_GPUS=0,1;2,3\n").engine_gpus == {"a": "0,1", "b": "2,3"}

    def test_nothing_is_expanded(self, tmp_path):
        (tmp_path / "x.env").write_text("# no\n\nA=$HOME\nB = x=y \n")
        assert settings.read_env(tmp_path / "x.env") == {"A": "$HOME", "B": "x=y"}
        assert settings.read_env(tmp_path / "none.env") == {}


class TestState:
    def test_what_was_written_is_read(self, tmp_path):
        file = StateFile(tmp_path / "state.json")
        assert file.load() == State()
        release = Release("v1", "g", "e", "abc", "now")
        state = State((release,), Serving("v1", "a", "b"), Attempt({"kind": "deploy"}, committed=True))
        file.save(state)
        assert file.load() == state
        assert file.path.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["state.json"]

    def test_a_part_of_a_file_is_never_seen(self, tmp_path):
        path = tmp_path / "file"
        write_whole(path, "x" * 100_000)
        seen, done = set(), threading.Event()

        def read():
            while not done.is_set():
                seen.add(len(path.read_text()))

        reader = threading.Thread(target=read)
        reader.start()
        for size in (200_000, 100_000) * 10:
            write_whole(path, "x" * size)
        done.set()
        reader.join()
        assert seen <= {100_000, 200_000}

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "releases": [{}], "serving": null, "attempt": null}']
    )
    def test_what_cannot_be_read_is_not_guessed(self, tmp_path, text):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(BadState):
            StateFile(tmp_path / "state.json").load()


class HAProxy:
    """The runtime API, on a real socket: one command for each connection."""

    def __init__(self, folder):
        self.path, self.map, self.deaf = str(folder / "sock"), {}, False
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            words = connection.recv(4096).decode().split()
            answer = "Unknown map identifier. Please use #<id> or <file>.\n"
            if words[:2] == ["set", "map"]:
                if not self.deaf:
                    self.map[words[3]] = words[4]
                answer = "\n"
            elif words[:2] == ["show", "map"]:
                answer = "".join(f"0x55 {key} {value}\n" for key, value in self.map.items()) + "\n"
            elif words == ["show", "stat"]:
                answer = "# pxname,svname,qcur,scur\npublic,FRONTEND,,9\ngateway-a,a,0,2\ngateway-a,BACKEND,0,3\n\n"
            connection.sendall(answer.encode())
            connection.close()

    def stop(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


class TestProxy:
    @pytest.fixture
    def haproxy(self, tmp_path):
        started = HAProxy(tmp_path)
        yield started
        started.stop()

    @pytest.fixture
    def proxy(self, haproxy, tmp_path):
        return Proxy(tmp_path / "serving.map", say_to(haproxy.path))

    def test_switching_changes_the_file_and_what_runs(self, proxy, haproxy):
        proxy.point("b")
        assert haproxy.map == {"gateway": "gateway-b"}
        assert (proxy.map.read_text(), proxy.pointed()) == ("gateway gateway-b\n", "b")
        proxy.point(None)
        assert (proxy.map.read_text(), proxy.pointed()) == ("gateway nowhere\n", None)
        assert proxy.map.stat().st_mode & 0o777 == 0o644

    def test_one_that_does_not_switch_is_noticed(self, proxy, haproxy):
        haproxy.map, haproxy.deaf = {"gateway": "gateway-a"}, True
        with pytest.raises(ProxyGone, match="does not switch"):
            proxy.point("b")

    def test_one_with_another_configuration_is_noticed(self, proxy):
        with pytest.raises(ProxyGone, match="has no map"):
            proxy.pointed()

    def test_requests_under_way_are_counted_by_slot(self, proxy):
        assert proxy.under_way("a") == 3
        with pytest.raises(ProxyGone, match="no backend"):
            proxy.under_way("b")

    def test_one_that_is_away_is_said_with_the_next_step(self, tmp_path):
        with pytest.raises(ProxyGone, match="systemctl status haproxy"):
            Proxy(tmp_path / "map", say_to(str(tmp_path / "none"))).pointed()


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class TestTools:
    @pytest.fixture
    def tools(self, tmp_path):
        return Tools(tmp_path / "child")

    def test_output_environment_and_exit_code_come_back(self, tools):
        done = tools.run(["sh", "-c", 'echo "$X"; echo bad >&2; exit 4'], 20, {"X": "y"})
        assert (done.code, done.out, done.reason) == (4, "y\n", "bad")
        assert not tools.note.exists()

    def test_a_missing_program_is_said(self, tools):
        assert tools.run(["/no/such/program"], 20).reason == "/no/such/program cannot be run: No such file or directory"

    def test_a_deadline_ends_all_that_was_started(self, tools, tmp_path):
        done = tools.run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path / 'pid'}; wait"], 1)
        assert done.reason == "sh took more than 1 s and was stopped"
        assert gone(int((tmp_path / "pid").read_text()))

    def test_a_signal_ends_what_was_started(self, tools, tmp_path, monkeypatch):
        original, calls = subprocess.Popen.communicate, []

        def communicate(process, *words, **more):
            calls.append(process.pid)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return original(process, *words, **more)

        monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
        with pytest.raises(KeyboardInterrupt):
            tools.run(["sleep", "60"], 60)
        assert gone(calls[0])
        assert not tools.note.exists()

    def test_what_a_killed_run_had_started_is_ended_by_the_next(self, tools, tmp_path):
        code = (
            "from pathlib import Path; from serving.host.tools import Tools; "
            f"Tools(Path({str(tools.note)!r})).run(['sh', '-c', 'echo $$ > {tmp_path / 'pid'}; sleep 60; true'], 90)"
        )
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / '.github' / 'scripts'}"}
        program = subprocess.Popen([sys.executable, "-c", code], env=environ)
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
            assert time.monotonic() < until
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert not gone(pid)
        assert tools.end_orphans()
        assert gone(pid)
        assert not tools.end_orphans()

    def test_another_process_with_that_number_is_left_alone(self, tools):
        other = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            tools.note.write_text(f"0123456789abcdef {other.pid}\n")
            assert not tools.end_orphans()
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()


class TestReport:
    @pytest.fixture
    def reporter(self, tmp_path):
        return Reporter(tmp_path / "deploy.log", tmp_path / "deploy.prom", {}, print)

    def entry(self, result):
        return Entry("deploy", "production", "qwen3-vl", "who", "abc", "v1", "", "then", result=result, seconds=12.34)

    def test_each_attempt_is_a_line(self, reporter):
        assert reporter.last() is None
        reporter.ended(self.entry(Result.SUCCEEDED), 1000.0)
        reporter.ended(self.entry(Result.FAILED), 2000.0)
        lines = [json.loads(line) for line in reporter.log.read_text().splitlines()]
        assert [line["result"] for line in lines] == ["succeeded", "failed"]
        assert reporter.last() == lines[1]

    def test_a_line_that_was_cut_off_spoils_no_other(self, reporter):
        reporter.log.write_text('{"kind": "dep')
        assert reporter.last() is None
        reporter.ended(self.entry(Result.FAILED), 2000.0)
        assert reporter.last()["result"] == "failed"

    def test_the_metric_is_what_prometheus_reads(self, tmp_path):
        text = metrics(self.entry(Result.ROLLED_BACK), 1000.0)
        assert 'qwen3vl_host_deploy_last_success{kind="deploy",result="rolled_back",version="v1"} 0\n' in text
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_images_are_named_by_digest_only():
    digest = "@sha256:" + "0" * 64
    for good in ("ghcr.io/o/r/gateway" + digest, "127.0.0.1:5000/a/b" + digest):
        assert IMAGE.fullmatch(good)
    for bad in (
        "ghcr.io/o/r/gateway:latest",
        "ghcr.io/o/r/gateway",
        "x:v1@sha256:0",
        "--privileged" + digest,
        "A/b" + digest,
        "a b" + digest,
    ):
        assert not IMAGE.fullmatch(bad)


def test_a_compose_that_makes_nothing_and_says_all_is_well_is_not_believed(world):
    from delivery.tools import Done

    world._up = lambda *_: Done(0, err="Error: no space left")
    containers = Containers(world.settings, world.run)
    done = containers.start(Unit("gateway", "a"), "image", "a", "")
    assert (done.ok, done.reason) == (False, "Error: no space left")


@pytest.mark.parametrize(
    ("platform", "missing"),
    [("redis", {"REDIS_DIGEST"}), ("redis dcgm-exporter", {"REDIS_DIGEST", "DCGM_EXPORTER_DIGEST"})],
)
def test_a_digest_is_needed_only_of_what_is_started(world, platform, missing):
    """Compose stops at any variable that is required and empty, whichever service is asked for."""
    required = set(re.findall(r"\$\{(\w+):\?", (ROOT / "serving" / "host" / "compose.yaml").read_text()))
    settings = dataclasses.replace(world.settings, platform=tuple(platform.split()))
    (settings.etc / "images.env").write_text("".join(f"{name}=\n" for name in required))
    given = []

    def run(argv, timeout_s, environ=None):
        if "up" in argv:
            given.append(environ)
        return world.run(argv, timeout_s, environ)

    containers = Containers(settings, run)
    containers.start(Unit("gateway", "a"), "image", "a", "")
    containers.start_platform()
    gateway, others = ({name for name in required if not environ.get(name)} for environ in given)
    assert (gateway, others) == (set(), missing)
    (settings.etc / "images.env").write_text("REDIS_DIGEST=sha256:mine\n")
    containers.start_platform()
    assert given[-1]["REDIS_DIGEST"] == "sha256:mine"
