"""The start-up report: what the hook notes in vLLM's processes, and what becomes of it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving import startup
from serving.engine.startup_hook import sitecustomize
from serving.readiness import NotReady

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "startup.jsonl"
    path.touch()
    return path


@pytest.fixture
def watched(file):
    return startup.Watched("l4", "0.0.0.0", 8000, pid=41, began=1000.0, file=file)


class TestHook:
    """In vLLM's processes."""

    @pytest.mark.parametrize(
        ("message", "phase"),
        [
            ("Loading weights took 4.25 seconds", ("read_weights", 4.25)),
            ("Model loading took 16.3 GiB memory and 7.500000 seconds", ("load_model", 7.5)),
            ("torch.compile took 31.20 s in total", ("compile", 31.2)),
            ("encoder: torch.compile and initial profiling/warmup run together took 9.00 s in total", ("compile", 9.0)),
            ("Graph capturing finished in 12 secs, took 0.52 GiB", ("capture_graphs", 12.0)),
            (
                "init engine (profile, create kv cache, warmup model) took 61.20 s (compilation: 31.20 s)",
                ("init_engine", 61.2),
            ),
            ("Engine 000: Avg prompt throughput: 1.0 tokens/s", None),
        ],
    )
    def test_it_knows_the_ends_of_phases(self, message, phase):
        assert sitecustomize.phase_of(message) == phase

    def make(self, factory, name="vllm.core", message="Loading weights took %.2f seconds", args=(1.5,)):
        return factory(name, logging.INFO, "x.py", 1, message, args, None)

    def test_a_phase_becomes_a_line_and_the_record_stays_as_it_was(self, file):
        record = self.make(sitecustomize.Factory(logging.LogRecord, str(file)))
        assert record.getMessage() == "Loading weights took 1.50 seconds"
        line = json.loads(file.read_text())
        assert (line["phase"], line["seconds"], line["process"]) == ("read_weights", 1.5, os.getpid())
        assert abs(line["at"] - time.time()) < 60

    def test_other_peoples_records_are_passed_over(self, file):
        self.make(sitecustomize.Factory(logging.LogRecord, str(file)), name="uvicorn.access")
        assert file.read_text() == ""

    def test_a_file_that_was_taken_away_does_not_come_back(self, file):
        factory = sitecustomize.Factory(logging.LogRecord, str(file))
        file.unlink()
        self.make(factory)
        self.make(factory)
        assert not file.exists()

    def test_a_broken_record_breaks_nothing(self, file):
        record = self.make(sitecustomize.Factory(logging.LogRecord, str(file)), message="%d %d", args=("x",))
        assert record.name == "vllm.core"

    def test_every_process_of_an_engine_notes_and_the_shadowed_hook_still_runs(self, file, tmp_path):
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "sitecustomize.py").write_text("print('theirs ran')")
        (tmp_path / "fake_vllm.py").write_text(
            "import logging, multiprocessing\n"
            "def work(n): logging.getLogger('vllm.x').error('Loading weights took %.2f seconds', n)\n"
            "if __name__ == '__main__':\n"
            "    with multiprocessing.get_context('spawn').Pool(1) as pool: pool.map(work, [2.0])\n"
            "    work(1.0)\n"
        )
        path = os.pathsep.join([str(startup.HOOK), str(tmp_path / "theirs")])
        env = {**os.environ, "PYTHONPATH": path, "SERVING_STARTUP_FILE": str(file)}
        done = subprocess.run(
            [sys.executable, tmp_path / "fake_vllm.py"],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "theirs ran" in done.stdout
        assert sorted(json.loads(line)["seconds"] for line in file.read_text().splitlines()) == [1.0, 2.0]

    @pytest.mark.parametrize("name", [None, "", "/nowhere/startup.jsonl"])
    def test_without_a_file_nothing_is_installed(self, name):
        before = logging.getLogRecordFactory()
        sitecustomize.install(name)
        assert logging.getLogRecordFactory() is before

    def test_with_one_the_factory_is_wrapped(self, file):
        before = logging.getLogRecordFactory()
        try:
            sitecustomize.install(str(file))
            logging.getLogger("vllm.test").error("Graph capturing finished in 3 secs")
        finally:
            logging.setLogRecordFactory(before)
        assert json.loads(file.read_text())["phase"] == "capture_graphs"

    def test_every_process_may_use_the_tiles_that_its_cpu_has(self):
        """vLLM uses them unasked, and Linux ends such a process with SIGILL. A CPU without AMX is asked for nothing."""
        look = (
            "import ctypes, platform; bits = ctypes.c_uint64(); ask = ctypes.CDLL(None).syscall; found = [];\n"
            "for what in (0x1021, 0x1022) if platform.machine() == 'x86_64' else (): ask(158, what, ctypes.byref(bits)); found.append(bits.value >> 18 & 1)\n"
            "print(*(found or [0, 0]))"
        )
        environ = {**os.environ, "PYTHONPATH": str(startup.HOOK)}
        done = subprocess.run([sys.executable, "-c", look], env=environ, capture_output=True, text=True, check=True)
        supported, permitted = done.stdout.split()
        assert permitted == supported

    def test_tiles_are_asked_for_where_there_can_be_some(self, monkeypatch):
        asked = []

        def libc(_):
            return SimpleNamespace(syscall=lambda *words: asked.append(words) or -len(asked) + 1)

        monkeypatch.setattr(sitecustomize.ctypes, "CDLL", libc)
        monkeypatch.setattr(sitecustomize.platform, "machine", lambda: "x86_64")
        assert sitecustomize.allow_amx()
        assert not sitecustomize.allow_amx()
        assert asked == [(158, 0x1023, 18)] * 2
        monkeypatch.setattr(sitecustomize.platform, "machine", lambda: "aarch64")
        assert not sitecustomize.allow_amx()
        assert len(asked) == 2

    def test_without_another_hook_there_is_nothing_to_run(self, monkeypatch):
        monkeypatch.setattr(sitecustomize.sys, "path", [])
        sitecustomize.run_the_shadowed()


class TestReport:
    def test_phases_stand_in_order_and_the_slowest_process_counts(self, watched):
        noted = [
            {"phase": "init_engine", "seconds": 20.0, "at": 1040.0},
            {"phase": "read_weights", "seconds": 3.0, "at": 1010.0},
            {"phase": "read_weights", "seconds": 5.0, "at": 1012.0},
            {"phase": "read_weights", "seconds": 4.0, "at": 1011.0},
        ]
        assert startup.report(watched, noted, first_token_s=0.25, now=1042.5) == {
            "event": "startup",
            "ready": True,
            "profile": "l4",
            "seconds": 42.5,
            "phases": [
                {"phase": "read_weights", "seconds": 5.0, "ended_s": 12.0},
                {"phase": "init_engine", "seconds": 20.0, "ended_s": 40.0},
                {"phase": "first_token", "seconds": 0.25, "ended_s": 42.5},
            ],
        }

    def test_a_line_that_was_cut_off_is_passed_over(self):
        text = '{"phase":"a","seconds":1,"at":2}\n[]\n{"phase":"b"}\n{"phase":"c","sec'
        assert startup.notes(text) == [{"phase": "a", "seconds": 1, "at": 2}]

    def test_it_waits_for_the_first_token_and_takes_the_file_away(self, watched, file, monkeypatch):
        monkeypatch.setenv("VLLM_API_KEY", "k")
        file.write_text('{"phase":"read_weights","seconds":1.0,"at":1001.0}\n')
        asked = []

        def ask(*call):
            asked.append(call)
            if len(asked) < 3:
                raise NotReady("loading")
            return 0.5

        said = startup.watch(watched, ask=ask, parent=lambda: 41, sleep=lambda _: None, now=lambda: 1009.0)
        assert said["ready"] is True
        assert [phase["phase"] for phase in said["phases"]] == ["read_weights", "first_token"]
        assert asked == [("0.0.0.0", 8000, "k", startup.TOKEN_TIMEOUT_S)] * 3
        assert not file.exists()

    def test_it_ends_with_the_engine(self, watched, file):
        said = startup.watch(watched, parent=lambda: 1, now=lambda: 1003.0)
        assert said == {
            "event": "startup",
            "ready": False,
            "profile": "l4",
            "seconds": 3.0,
            "reason": "the engine ended before its first token",
        }
        assert not file.exists()

    def test_the_engines_variables_come_before_what_is_there(self, tmp_path):
        file, variables = startup.prepare({"PYTHONPATH": "/theirs"}, str(tmp_path))
        assert file.parent == tmp_path
        assert variables == {"SERVING_STARTUP_FILE": str(file), "PYTHONPATH": f"{startup.HOOK}{os.pathsep}/theirs"}

    def test_the_process_beside_an_engine_that_is_gone_says_so(self, watched, file, monkeypatch, capfd):
        monkeypatch.chdir("/")
        with startup.spawn(watched) as process:
            assert process.wait(timeout=30) == 0
        assert json.loads(capfd.readouterr().out)["ready"] is False
        assert not file.exists()

    def test_ctrl_c_leaves_no_traceback(self, monkeypatch, file):
        def stopped(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(startup, "watch", stopped)
        assert startup.main(["l4", "127.0.0.1", "8000", "41", "1000.0", str(file)]) == 0
