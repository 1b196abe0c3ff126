from __future__ import annotations

import http.server
import signal
import sys
import threading

import pytest

from loadtest.load import __main__ as cli
from loadtest.load import demo, scenario, settings, target
from serving.demo.launch_plan import Ports
from tests.support.demo import free_ports

FAKE_DEMO = """
import http.server, sys
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


def test_a_service_that_is_not_there_is_said():
    (port,) = free_ports(1)
    with pytest.raises(target.TargetError, match="lists no model"):
        target.first_model(f"http://127.0.0.1:{port}", "k")
