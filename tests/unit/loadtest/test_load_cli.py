from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from loadtest.load import __main__ as cli
from loadtest.load import demo, memory, results, scenario, settings, target
from serving.demo.launch_plan import Ports
from tests.support.demo import free_ports

FAKE_DEMO = """
import http.server, signal, sys
# As the real one: also where a shell began a background job with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready)
print("3 of 3 answers are right", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    print("stopped in order", flush=True)
"""


def ports():
    return Ports(*free_ports(3))


def test_a_demo_is_started_used_and_stopped(tmp_path, monkeypatch):
    at = ports()
    monkeypatch.setattr(demo, "command", lambda ports: [sys.executable, "-c", FAKE_DEMO, str(ports.gateway)])
    with demo.running(tmp_path, at) as (url, metrics_url, key):
        assert demo.ready(at.gateway)
        assert url == f"http://127.0.0.1:{at.gateway}"
        assert metrics_url.endswith(f":{at.metrics}/metrics")
        assert key == "sk-demo"
    assert not demo.ready(at.gateway)
    assert "stopped in order" in (tmp_path / "demo.log").read_text()


def test_a_demo_that_runs_is_used_and_left_alone(tmp_path, monkeypatch):
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(demo, "command", None)
        with demo.running(tmp_path, Ports(server.server_port, 1, 1)):
            pass
        assert demo.ready(server.server_port)
        server.shutdown()


def test_a_demo_that_does_not_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "command", lambda _: [sys.executable, "-c", "print('no memory'); raise SystemExit(78)"])
    with pytest.raises(demo.DemoError, match="no memory"), demo.running(tmp_path, ports()):
        pass


def test_the_command_of_the_demo_names_its_ports():
    assert demo.command(Ports(1, 2, 3))[-6:] == ["--port", "1", "--metrics-port", "2", "--engine-port", "3"]


def test_an_unknown_scenario_is_misuse(capsys):
    assert cli.main(["run", "stedy", "--url", "http://127.0.0.1:1"]) == 2
    assert "no scenario stedy" in capsys.readouterr().err


def test_a_folder_without_a_run_is_misuse(capsys, tmp_path):
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_a_rate_of_nothing_is_misuse(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "steady", "--per-s", "0"])
    assert ended.value.code == 2
    assert "not more than 0" in capsys.readouterr().err


def test_the_scenarios_are_listed(capsys):
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in scenario.names())


def test_for_more_machines_the_command_is_printed_without_the_key(capsys, monkeypatch):
    monkeypatch.setenv(settings.KEY, "sk-secret")
    assert cli.main(["run", "steady", "--url", "http://x/v1", "--workers", "3", "--print"]) == 0
    printed = capsys.readouterr().out
    assert '"url":"http://x"' in printed
    assert "--processes 3" in printed
    assert "sk-secret" not in printed


def test_a_web_page_takes_the_place_of_headless():
    run = settings.Run(scenario="steady", url="http://x", folder="f")
    assert "--headless" in cli.locust_command(run, 1, None)
    assert "--headless" not in cli.locust_command(run, 1, 8089)
    assert "8089" in cli.locust_command(run, 1, 8089)


def test_the_handler_of_signals_is_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    assert cli._locust([sys.executable, "-c", "raise SystemExit(7)"], {}) == 7
    assert signal.getsignal(signal.SIGTERM) is before


class Service(http.server.BaseHTTPRequestHandler):
    """Lists a model to whoever has the key, and has a gateway's metrics."""

    looks = 0

    def do_GET(self):
        if self.path == "/metrics":
            Service.looks += 1
            self._send(200, f"gateway_resident_memory_bytes {Service.looks}e6\ngateway_cache_bytes 300\n".encode())
        elif self.headers["authorization"] == "Bearer k":
            self._send(200, b'{"data": [{"id": "qwen3-vl-demo"}]}')
        else:
            self._send(401, b"{}")

    def _send(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_service_s_model_decides_how_answers_are_checked(service):
    run = settings.Run(scenario="steady", url=service, folder="f")
    assert target.ask(run, "k") == target.Target("qwen3-vl-demo", "exact")
    named = settings.Run(scenario="steady", url="http://127.0.0.1:1", folder="f", model="m", answers="digest")
    assert target.ask(named, "") == target.Target("m", "digest")


def test_a_wrong_key_is_said(service):
    with pytest.raises(target.TargetError, match="is KEY right"):
        target.first_model(service, "another")


def test_memory_is_looked_at_while_the_run_goes_on(service, monkeypatch):
    """Of the gateway, less what its caches hold, and of an engine by its port: here that is this process."""
    monkeypatch.setattr(memory, "EVERY_S", 0.01)
    port = int(service.rpartition(":")[2])
    with memory.Memory([memory.gateway(service + "/metrics"), memory.engine(port)]) as seen:
        while len(seen.timed[memory.ENGINE]) < 3:
            seen._thread.join(0.01)
    whole, rest = (seen.timed[name] for name in (memory.GATEWAY, memory.WITHOUT_CACHES))
    assert [value for _, value in whole[:2]] == [1e6, 2e6]
    assert [value for _, value in rest[:2]] == [1e6 - 300, 2e6 - 300]
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    assert seen.timed[memory.ENGINE][-1][1] >= resident * 0.9


def test_what_does_not_answer_is_no_sample(monkeypatch):
    monkeypatch.setattr(memory, "EVERY_S", 0.01)
    (port,) = free_ports(1)
    assert memory.gateway(f"http://127.0.0.1:{port}/metrics")() == {}
    assert memory.engine(port)() == {}
    with memory.Memory([]) as seen:
        pass
    assert not seen.timed


def test_the_rate_can_be_a_share_of_what_a_ramp_has_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "RUNS", tmp_path)
    for number, (name, capacity) in enumerate((("ramp-1", 30.0), ("ramp-2", 40.0), ("steady-3", None))):
        (tmp_path / name).mkdir()
        (tmp_path / name / results.SUMMARY).write_text(json.dumps({"capacity_per_s": capacity}))
        os.utime(tmp_path / name / results.SUMMARY, (number, number))
    for given, rate in (("latest", 32), (str(tmp_path / "ramp-1"), 24)):
        assert cli.main(["run", "soak", "--url", "http://x", "--print", "--capacity-of", given]) == 0
        assert f'"per_s":{rate}' in capsys.readouterr().out
    assert cli.main(["run", "soak", "--url", "http://x", "--print", "--capacity-of", str(tmp_path / "steady-3")]) == 2
    assert "found no capacity" in capsys.readouterr().err
    assert cli.main(["run", "soak", "--per-s", "3", "--capacity-of", "latest"]) == 2
    assert "either" in capsys.readouterr().err


def test_only_a_ramp_can_be_asked_twice(capsys):
    assert cli.main(["twice", "steady", "--url", "http://x"]) == 2
    assert "has no ramp" in capsys.readouterr().err


def test_a_service_that_is_not_there_is_said():
    (port,) = free_ports(1)
    with pytest.raises(target.TargetError, match="lists no model"):
        target.first_model(f"http://127.0.0.1:{port}", "k")
