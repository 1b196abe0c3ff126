"""The command line: what it takes, what it refuses, its exit codes; with the simulated host behind it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from serving.host import __main__ as program
from serving.host.change import Cancelled
from tests.unit.serving.host.conftest import Killed, digest, image

ROOT = Path(__file__).parents[4]


@pytest.fixture
def call(world, monkeypatch, capsys):
    """Run it; returns the exit code and what it printed."""

    def build(_, asked):
        change = world.change(
            asked.command, getattr(asked, "version", None) or "", getattr(asked, "commit", None) or ""
        )
        object.__setattr__(change.reporter, "say", program.say)
        return change

    monkeypatch.setattr(program, "build", build)
    monkeypatch.setattr(program, "status_of", world.get)
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)

    def run(*words):
        umask = os.umask(0)
        try:
            code = program.main(["--etc", str(world.folder / "etc"), *words])
        except SystemExit as exc:
            code = exc.code
        finally:
            os.umask(umask)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def deploy(version, **images):
    return ["deploy", "--version", version, *(image(kind, name) for kind, name in images.items())]


def test_deploy_status_list_and_rollback(call):
    assert call("status") == (1, "serves: nothing\n")
    assert call(*deploy("v1", gateway="g1", engine="e1"))[0] == 0
    assert call(*deploy("v2", engine="e2", gateway="g2"))[0] == 0
    code, said = call("status")
    assert (code, said.splitlines()[0]) == (0, "serves: v2 (commit ?), ready")
    assert "last: deploy v2 succeeded" in said
    listed = call("list")[1].splitlines()
    assert [line[:4] for line in listed if "sha256" not in line] == ["* v2", "  v1"]
    assert call("rollback", "v1")[0] == 0
    assert call("status")[1].startswith("serves: v1 ")


def test_a_rolled_back_deployment_is_1_and_a_failed_way_back_3(call, world):
    call(*deploy("v1", gateway="g1", engine="e1"))
    world.wrong = {image("engine", "e2")}
    code, said = call(*deploy("v2", engine="e2"))
    assert code == 1
    assert "host: rolled_back: canary" in said
    world.wrong |= {image("engine", "e1")}
    assert call(*deploy("v3", engine="e2"))[0] == 3


def test_a_release_that_was_overtaken_changes_nothing_unless_a_person_asks(call, world):
    call(*deploy("0.1.0-main.8", gateway="g1", engine="e1"))
    world.done.clear()
    older = deploy("0.1.0-main.7", gateway="g2")
    code, said = call(*older, "--unless-newer")
    assert code == 1
    assert "0.1.0-main.8 serves already, which is newer than 0.1.0-main.7" in said
    assert not [done for done in world.done if done.startswith(("start", "stop", "pull"))]
    assert call(*deploy("0.1.0-main.9", gateway="g3"), "--unless-newer")[0] == 0
    assert call(*older)[0] == 0
    assert call("status")[1].startswith("serves: 0.1.0-main.7 ")


@pytest.mark.parametrize(
    "words",
    [
        ["deploy", "--version", "v1"],
        ["deploy", image("gateway", "g1")],
        ["deploy", "--version", "../x", image("gateway", "g1")],
        ["deploy", "--version", "v1", "--commit", "HEAD", image("gateway", "g1")],
        ["deploy", "--version", "v1", "--run-url", "http://x/y", image("gateway", "g1")],
        ["deploy", "--version", "v1", "registry.test/q/gateway:latest"],
        ["deploy", "--version", "v1", f"registry.test/else@{digest('x')}"],
        ["deploy", "--version", "v1", image("gateway", "g1"), image("gateway", "g2")],
        ["rollback", "a b"],
        ["restart"],
        [],
    ],
)
def test_what_it_does_not_know_changes_nothing(call, world, words):
    assert call(*words)[0] == 2
    assert world.done == []


def test_settings_that_are_wrong_are_said(call, setting):
    setting("KEEP", "none")
    code, said = call("status")
    assert code == 2
    assert "KEEP is 'none'" in said


def test_a_state_that_cannot_be_read_needs_a_person(call, world):
    (world.folder / "state" / "state.json").write_text("{")
    code, said = call(*deploy("v1", gateway="g1", engine="e1"))
    assert code == 3
    assert "cannot be read" in said
    assert world.done == []


def test_two_at_once_are_refused(call, world):
    with (world.folder / "state" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, said = call(*deploy("v1", gateway="g1", engine="e1"))
        assert code == 75
        assert "another deployment is under way" in said
        assert call("status")[0] == 1  # looking is allowed
    assert world.done == []


class TestConverging:
    def test_a_new_host_has_nothing_to_run_but_the_platform(self, call, world):
        code, said = call("converge")
        assert (code, said.splitlines()[-1]) == (0, "host: nothing was deployed yet")
        assert world.done == ["platform dcgm-exporter", "point to nowhere"]

    def test_after_a_boot_what_served_serves(self, call, world):
        call(*deploy("v1", gateway="g1", engine="e1"))
        for box in world.containers.values():
            box["running"] = False
        world.map = "nowhere"
        code, said = call("converge")
        assert (code, said.splitlines()[-1]) == (0, "host: v1 serves, started anew")
        assert world.map == "gateway-a"
        assert call("converge")[1].splitlines()[-1] == "host: v1 serves"

    def test_a_killed_deployment_is_taken_back(self, call, world):
        call(*deploy("v1", gateway="g1", engine="e1"))
        world.kill_after = 8
        with pytest.raises(Killed):
            call(*deploy("v2", gateway="g2", engine="e2"))
        world.kill_after = None
        assert "under way, or killed: deploy v2" in call("status")[1]
        assert call("converge")[0] == 0
        assert call("status")[1].startswith("serves: v1 ")
        assert "cancelled" in call("status")[1]

    def test_a_platform_that_does_not_start_is_said_and_serves_all_the_same(self, call, world, monkeypatch):
        from delivery.tools import Done

        call(*deploy("v1", gateway="g1", engine="e1"))
        world._up = lambda *_: Done(1, err="REDIS_DIGEST: read it once and put it into images.env")
        code, said = call("converge")
        assert code == 0
        assert "the platform is not up: REDIS_DIGEST: read it once" in said

    def test_one_that_is_not_ready_is_1(self, call, world):
        call(*deploy("v1", gateway="g1", engine="e1"))
        world.broken = {image("engine", "e1")}
        assert call("converge")[0] == 1
        assert "NOT READY" in call("status")[1]


def test_a_signal_is_taken_back_before_it_ends(call, world):
    call(*deploy("v1", gateway="g1", engine="e1"))
    original, counted = world._canary, []

    def canary(url):
        counted.append(url)
        raise Cancelled

    world._canary = canary
    code, said = call(*deploy("v2", gateway="g2", engine="e2"))
    assert (code, said.splitlines()[-1]) == (1, "host: cancelled, and taken back")
    world._canary = original
    assert call("status")[1].startswith("serves: v1 ")
    assert set(world.running().values()) == {image("gateway", "g1"), image("engine", "e1")}


def test_a_signal_whose_way_back_fails_needs_a_person(call, world):
    call(*deploy("v1", gateway="g1", engine="e1"))

    def canary(_):
        world.proxy_gone = True
        raise Cancelled

    world._canary = canary
    code, said = call(*deploy("v2", gateway="g2", engine="e2"))
    assert code == 3
    assert "run deploy.sh converge" in said


def test_a_second_signal_does_not_cut_the_way_back_short(monkeypatch):
    ignored = []
    monkeypatch.setattr(program.signal, "signal", lambda number, how: ignored.append((number, how)))
    with pytest.raises(Cancelled):
        program._cancel()
    assert ignored == [(number, program.signal.SIG_IGN) for number in program.SIGNALS]


def test_what_a_killed_run_had_started_is_ended_first(call, world, monkeypatch):
    monkeypatch.setattr(program.Tools, "end_orphans", lambda _: True)
    assert call("converge")[1].startswith("host: ended what a killed run had left running")


def test_a_fault_of_the_program_needs_a_person(call, world):
    def canary(_):
        raise ZeroDivisionError

    world._canary = canary
    code, said = call(*deploy("v1", gateway="g1", engine="e1"))
    assert code == 3
    assert "ZeroDivisionError" in said


def test_a_connection_that_is_cut_ends_nothing(tmp_path):
    """What is printed goes to a pipe that nobody reads any more."""
    code = (
        "from serving.host.__main__ import say; import pathlib, sys, time\n"
        "time.sleep(0.2)\n"
        "for _ in range(3): say('x' * 100000)\n"
        f"pathlib.Path({str(tmp_path / 'done')!r}).write_text('yes')"
    )
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / '.github' / 'scripts'}"}
    with subprocess.Popen(
        [str(ROOT / ".venv/bin/python"), "-c", code], stdout=subprocess.PIPE, env=environ
    ) as program_:
        program_.stdout.close()
        program_.wait(60)
    assert (tmp_path / "done").read_text() == "yes"


def test_the_entry_starts_it_with_a_clean_environment(tmp_path):
    """deploy.sh itself, as root would: no setting of the caller's reaches the program."""
    hostile = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "/nowhere"}
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("raise SystemExit('hijacked')")
    argv = ["bash", str(ROOT / "serving" / "host" / "deploy.sh"), "--help"]
    done = subprocess.run(argv, env=hostile, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "rollback" in done.stdout


def test_the_real_parts_fit_together(world):
    """`build` with nothing simulated: paths, modes, and a status without containers."""
    asked = program.parser().parse_args(["--etc", str(world.folder / "etc"), "status"])
    change = program.build(world.settings, asked)
    assert change.entry.release == "qwen3-vl"
    assert (world.folder / "state" / "textfile").is_dir()
    assert program.status_of("http://127.0.0.1:9/readyz") is None
