"""The arithmetic, the requests and the messages of `make bench-gateway`; what it measures is another matter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from loadtest import bench_gateway
from loadtest.gateway_bench import processes, shares, tables, targets
from loadtest.gateway_bench.processes import BenchError
from loadtest.gateway_bench.tables import BEGIN, END, figures_table, medians, per_unit, ratios_table, report, write
from loadtest.gateway_bench.targets import Ports, commanded, nginx, ours, packaged
from loadtest.gateway_bench.workloads import FIGURES, ID, PICTURES, WORKLOADS, bodies_of, body_of, png

WORKLOAD = {workload.name: workload for workload in WORKLOADS}
REQUEST = next(figure for figure in FIGURES if figure.field == "cpu_us_per_request" and figure.workload == "c32")
CHUNK = next(figure for figure in FIGURES if figure.field == "cpu_us_per_chunk")


def rounds():
    def record(request, chunk):
        return {"c32": {"cpu_us_per_request": request}, "stream": {"cpu_us_per_chunk": chunk}, "memory": {}}

    return {
        "ours": [record(100.0, 20.0), record(300.0, 21.0), record(120.0, 40.0)],
        "smg": [record(60.0, 10.5), record(60.0, 10.5), record(60.0, 10.5)],
    }


class TestArithmetic:
    def test_cpu_is_told_for_each_request_and_each_chunk(self):
        found = per_unit({"ok": 200, "chunks": 12_800, "per_second": 5.0}, 0.64)
        assert found["cpu_us_per_request"] == pytest.approx(3200)
        assert found["cpu_us_per_chunk"] == pytest.approx(50)
        assert found["per_second"] == 5.0

    def test_without_chunks_there_is_no_cost_of_one(self):
        assert per_unit({"ok": 0, "chunks": 0}, 1.0).keys() == {"ok", "chunks"}

    def test_a_figure_is_the_median_of_its_rounds(self):
        found = medians(rounds())
        assert found["ours"] == {REQUEST: 120.0, CHUNK: 21.0}

    def test_ratios_are_ours_in_parts_of_each_other(self):
        last = ratios_table(medians(rounds())).splitlines()[-1]
        assert last == "| ours / smg | 2.00 | 2.00 |"

    def test_a_gateway_without_a_figure_gets_a_dash(self):
        found = medians({**rounds(), "nginx": [{"c32": {"cpu_us_per_request": 10.0}}]})
        assert figures_table(found).splitlines()[-1] == "| nginx | 10 | – |"
        assert ratios_table(found).splitlines()[-1] == "| ours / nginx | 12.00 | – |"

    def test_the_report_names_versions_machine_command_and_noise(self):
        text = report(rounds(), {"ours": "1.2", "smg": "3"}, "a machine", "the command")
        assert "ours 1.2; smg 3" in text
        assert "a machine" in text
        assert "`the command`: medians of 3 rounds" in text
        assert "ours 167%, smg 0%" in text


class TestDocument:
    def test_only_what_is_between_the_markers_is_replaced(self, tmp_path):
        page = tmp_path / "page.md"
        page.write_text(f"before\n{BEGIN}\nold \\1\n{END}\nafter\n")
        write(page, "new \\1\n")
        write(page, "newer \\1\n")
        assert page.read_text() == f"before\n{BEGIN}\nnewer \\1\n{END}\nafter\n"

    def test_a_document_without_markers_is_left_alone(self, tmp_path):
        page = tmp_path / "page.md"
        page.write_text("text")
        with pytest.raises(BenchError, match="must hold once"):
            write(page, "new")
        assert page.read_text() == "text"

    def test_the_project_s_document_has_them(self):
        assert tables.BETWEEN.search(bench_gateway.DOCUMENT.read_text())


class TestRequests:
    @pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
    def test_each_is_a_chat_request_with_one_place_for_its_id_in_the_first_text(self, workload):
        bodies = bodies_of(workload)
        assert len(bodies) == (PICTURES if workload.picture_bytes else 1)
        for body in bodies:
            assert body.count(b"id=") == body.count(b"id=" + ID.encode() + b" ") == 1
            assert body.index(b"id=") < 400
            asked = json.loads(body)
            assert asked["temperature"] == 0  # or nothing would be kept
            assert asked.get("stream", False) is workload.stream

    def test_pictures_of_a_size_are_different_and_can_be_decoded(self):
        made = {png(40_000, seed) for seed in range(PICTURES)}
        assert len(made) == PICTURES
        for data in made:
            assert len(data) == 40_000
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
                assert picture.size == (64, 64)

    def test_a_megabyte_of_request_is_a_megabyte(self):
        assert len(body_of(WORKLOAD["picture_1m"])) == pytest.approx(1 << 20, rel=0.001)


class TestTargets:
    def test_ours_has_every_feature_on(self, tmp_path):
        command = ours().command(Ports(1, 2), tmp_path)
        assert command.argv[1:] == ["-m", "gateway", "serve"]
        on = {name.removeprefix("GATEWAY_") for name in command.env}
        assert {"ALLOWED_CIDRS", "AUDIT_FILE", "REQUESTS_PER_MINUTE", "TOKENS_PER_MINUTE", "TOKENS_PER_DAY"} <= on
        assert json.loads((tmp_path / "keys.json").read_text())["keys"][0]["cidrs"] == ["127.0.0.0/8"]

    def test_a_command_gets_its_ports_and_the_key(self, tmp_path):
        peer = commanded("mine=run --port {port} --to http://{engine} 'a b' {key}")
        assert peer.name == "mine"
        assert peer.command(Ports(1, 2), tmp_path).argv == [
            "run", "--port", "1", "--to", "http://127.0.0.1:2", "a b", targets.KEY,
        ]  # fmt: skip

    @pytest.mark.parametrize("text", ["run", "=run", "mine="])
    def test_a_command_without_a_name_is_refused(self, text):
        with pytest.raises(BenchError, match="NAME=COMMAND"):
            commanded(text)

    @pytest.mark.parametrize("line", ["run {prot}", "run {}", "run {"])
    def test_a_command_with_another_brace_is_refused(self, line):
        with pytest.raises(BenchError, match="can stand in braces"):
            commanded(f"mine={line}")

    def test_what_is_not_installed_says_how_to_get_it(self, tmp_path, monkeypatch):
        with pytest.raises(BenchError, match="--install smg"):
            packaged("smg", tmp_path)
        monkeypatch.setattr(targets.shutil, "which", lambda *_, **__: None)
        with pytest.raises(BenchError, match="apt-get install nginx-light"):
            nginx()

    @pytest.mark.parametrize("name", targets.PACKAGES)
    def test_a_package_is_started_from_its_own_environment(self, name, tmp_path):
        programs = tmp_path / name / "bin"
        programs.mkdir(parents=True)
        for program in (name, "python"):
            (programs / program).write_text("#!/bin/sh\necho 1.2.3\n")
            (programs / program).chmod(0o755)
        target = packaged(name, tmp_path)
        assert target.version == "1.2.3"
        command = target.command(Ports(4711, 2), tmp_path)
        assert command.argv[0] == str(programs / name)
        assert "4711" in command.argv


class TestProcesses:
    def test_without_a_compiler_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setattr(processes.shutil, "which", lambda _: None)
        with pytest.raises(BenchError, match="apt-get install gcc"):
            processes.build("load", tmp_path)

    def test_what_cannot_be_compiled_is_shown(self, tmp_path, monkeypatch):
        for name, text in (("load.c", "nonsense"), ("wire.h", "")):
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(processes, "HERE", tmp_path)
        with pytest.raises(BenchError, match="error:"):
            processes.build("load", tmp_path)

    def test_a_program_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(BenchError, match="/nowhere cannot be started"):
            processes.start(["/nowhere"], sorted(os.sched_getaffinity(0)), {}, tmp_path / "log", tmp_path)

    def test_a_gateway_that_ends_shows_its_last_words(self, tmp_path):
        log = tmp_path / "log"
        process = processes.start(
            [sys.executable, "-c", "raise SystemExit('no such flag')"],
            sorted(os.sched_getaffinity(0)),
            {},
            log,
            tmp_path,
        )
        with pytest.raises(BenchError, match=r"has ended(?s:.*)no such flag"):
            processes.wait_ready(9, "key", b"{}", process, log)

    def test_it_runs_where_it_is_told_and_its_children_count(self, tmp_path):
        core = min(os.sched_getaffinity(0))
        burn = (
            "import os,subprocess,sys,time\nif len(sys.argv) < 2: subprocess.Popen([sys.executable, __file__, 'x'])\n"
        )
        burn += "while time.process_time() < 0.2: pass\nopen(sys.argv[-1][-1] + '.done', 'w').close()\ntime.sleep(60)\n"
        (tmp_path / "burn.py").write_text(burn)
        before = os.sched_getaffinity(0)
        process = processes.start([sys.executable, "burn.py"], [core], {}, tmp_path / "log", tmp_path)
        try:
            end = time.monotonic() + 30
            while len(list(tmp_path.glob("*.done"))) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            assert os.sched_getaffinity(0) == before
            assert psutil.Process(process.pid).cpu_affinity() == [core]
            assert 0.4 <= processes.cpu_s(process.pid) < 10
            assert 5 < processes.memory_mib(process.pid) <= processes.peak_mib(process.pid)
        finally:
            processes.stop(process)
        assert not psutil.pid_exists(process.pid)


def test_a_wrong_reply_is_named_with_its_gateway_and_workload():
    found = {"ours": [{"c1": {"failed": 0}, "memory": {}}, {"c1": {"failed": 2, "first_failure": "status 500"}}]}
    assert bench_gateway.wrong_replies(found) == ["ours, c1: 2 replies were wrong or missing; the first: status 500"]


def test_what_cannot_run_says_why_with_exit_code_2(capsys):
    assert bench_gateway.main(["--no-nginx", "--peer", "nonsense"]) == 2
    assert "NAME=COMMAND" in capsys.readouterr().err


BUSY = "import time\nwhile True: pass"


def test_a_process_gets_its_part_of_a_core_and_all_of_it_afterwards():
    groups = shares.base()
    if groups is None:
        pytest.skip("this machine lets nobody make control groups: the bench then lets workers share cores")
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        with shares.limited(shares.workers_of(busy.pid), 0.2, groups):
            before, began = processes.cpu_s(busy.pid), time.monotonic()
            time.sleep(0.5)
            spent, passed = processes.cpu_s(busy.pid) - before, time.monotonic() - began
        assert spent < 0.4 * passed
        assert str(busy.pid) in (groups / "cgroup.procs").read_text().split()
        assert not list(groups.glob(f"{shares.OURS}-*"))
    finally:
        busy.kill()
        busy.wait()


def test_workers_are_the_children_where_there_are_any():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        while (workers := shares.workers_of(parent.pid)) == [parent.pid]:
            time.sleep(0.01)
        assert parent.pid not in workers
    finally:
        parent.communicate(b"\n")
