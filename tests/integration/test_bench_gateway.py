"""`make bench-gateway` measures a real gateway; its figures are nobody's business here."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest

from loadtest import bench_gateway, soak_gateway
from loadtest.gateway_bench.tables import BEGIN, END
from loadtest.gateway_bench.targets import KEY
from tests.support.demo import free_ports


@pytest.fixture
def places(tmp_path, monkeypatch):
    gateway, engine = _with_the_next_one_free(), free_ports(1)[0]
    page = tmp_path / "performance.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.setattr(bench_gateway, "DOCUMENT", page)
    monkeypatch.setattr(bench_gateway, "WARM_S", 0.1)
    return ["--no-nginx", "--rounds", "1", "--seconds", "0.3", "--port", str(gateway), "--engine-port", str(engine)]


def test_every_kind_of_request_is_answered_and_the_table_written(places, capsys):
    assert bench_gateway.main([*places, "--only", "c1", "hit", "ttft", "picture_1m", "--write"]) == 0
    table = bench_gateway.DOCUMENT.read_text()
    assert table.partition("\n")[2].rpartition(END)[0] in capsys.readouterr().out
    row = next(line for line in table.splitlines() if line.startswith("| ours |"))
    assert len(row.split("|")) == 10  # requests are asked by c1 only for their latency
    assert "–" not in row


def test_a_gateway_whose_answers_are_wrong_gives_no_table(places, tmp_path, capsys):
    server = tmp_path / "wrong.py"
    server.write_text(
        "import http.server, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(200)\n"
        "        self.send_header('content-length', '2')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(b'{}')\n"
        "    def log_message(self, *_): pass\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    assert (
        bench_gateway.main([*places, "--only", "c1", "--peer", f"wrong={sys.executable} {server} {{port}} {KEY}"]) == 1
    )
    out = capsys.readouterr().out
    assert "wrong, c1: " in out
    assert "not its answer" in out


def test_a_port_in_use_is_refused(places, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(places[-1])))
        taken.listen()
        assert bench_gateway.main([*places, "--only", "c1"]) == 2
    assert f"Port {places[-1]} is in use" in capsys.readouterr().err


def _with_the_next_one_free():
    """The gateway's port; the one after it is for its metrics."""
    while True:
        port = free_ports(1)[0]
        with contextlib.suppress(OSError), socket.socket() as next_one:
            next_one.bind(("127.0.0.1", port + 1))
            return port


@pytest.mark.parametrize("load", [[], ["--load", "0.5"]])
def test_the_gateway_is_soaked_and_its_memory_told(load, monkeypatch, capsys):
    """A few turns say nothing about growth (2: too short), which is tested alone: here all four kinds are answered."""
    monkeypatch.setattr(soak_gateway, "TURN_S", 0.3)
    gateway, engine = _with_the_next_one_free(), free_ports(1)[0]
    places = ["--port", str(gateway), "--engine-port", str(engine)]
    assert soak_gateway.main([*places, *load, "--requests", "60", "--limit-mib", "1e9", "--say-every-s", "0"]) in {0, 2}
    printed = capsys.readouterr().out
    assert "every answer right" in printed
    assert all(workload.name in printed for workload in soak_gateway.MIX)
    assert "100%" in printed
