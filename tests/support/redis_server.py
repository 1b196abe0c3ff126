"""A real redis-server process for tests: on loopback, in a folder of its own, gone at the end."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.support.ports import free_port

START_DEADLINE_S = 15.0
STOP_DEADLINE_S = 10.0
POLL_INTERVAL_S = 0.005
START_ATTEMPTS = 3


class RedisServer:
    """`with RedisServer() as server:` gives a running server at `server.url`.

    The port stays the same through `kill` and `restart`, so clients can be watched while they reconnect. A missing
    binary is a failure that names the next step, never a skipped test.
    """

    def __init__(self, *options: str, password: str | None = None) -> None:
        """`options` are added to the server's command line."""
        self._options = [*options, *(["--requirepass", password] if password else [])]
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """A Redis URL with the password, if there is one."""
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        try:
            self._start_on_a_free_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait until it has; after the deadline, make it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it on the same port, empty; end it first if it runs."""
        self.kill()
        self._start()

    def pause(self) -> None:
        """Make it hang: connections open, but nothing is answered (SIGSTOP)."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        self._running().send_signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """Send one command over a socket of its own and return the first line of the answer."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection,
            connection.makefile("rwb") as file,
        ):
            lines = [f"AUTH {self._password}"] if self._password else []
            lines.append(" ".join(words))
            for line in lines:
                file.write(line.encode() + b"\r\n")
            file.flush()
            return [file.readline().decode().strip() for _ in lines][-1]

    def flush(self) -> None:
        """Forget all data."""
        answer = self.command("FLUSHALL")
        if answer != "+OK":
            raise RuntimeError(f"FLUSHALL answered {answer!r}")

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._start()
            except RuntimeError:
                # Another process may have taken the port between its choice and its use.
                if attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def _start(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise FileNotFoundError("redis-server is missing: run `make system`")
        if self._folder is None:
            raise RuntimeError("use it as `with RedisServer() as server:`")
        log = Path(self._folder.name, "redis.log")
        argv = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder.name]
        with log.open("wb") as output:
            self._process = subprocess.Popen([*argv, *self._options], stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start on port {self.port}:\n{log.read_text()[-2000:]}")
            time.sleep(POLL_INTERVAL_S)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING") == "+PONG" and self._is_ours()
        return False

    def _is_ours(self) -> bool:
        # Not a server of somebody else's that happens to be on this port.
        return self._process is not None and self._process.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("redis-server is not running")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_DEADLINE_S)
