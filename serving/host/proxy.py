"""The public port: HAProxy, told over its socket which slot's gateway gets the next request.

Nothing is reloaded and no connection of a client is closed. HAProxy looks the slot up in a map for each request, and
opens a connection of its own to the gateway for each (http-server-close), so that what is sent after the switch goes to
the new slot, also on a connection that is kept alive; what is under way ends where it began. The map is a file as well:
HAProxy reads it when it starts.
"""

from __future__ import annotations

import csv
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.host.state import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "gateway"
TIMEOUT_S = 10.0
NOWHERE = "nowhere"
"""The backend that refuses, before the first deployment."""


class ProxyGone(Exception):
    """HAProxy does not answer, or does not do what it is told."""


def say_to(path: str) -> Callable[[str], str]:
    """Make the way to HAProxy's socket: one command, one answer. It raises ProxyGone."""

    def say(command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.connect(path)
                connection.sendall(command.encode() + b"\n")
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
        except OSError as exc:
            raise ProxyGone(f"haproxy does not answer on {path}: {exc}; systemctl status haproxy") from exc
        return answer.decode()

    return say


@dataclass(frozen=True)
class Proxy:
    """Which slot clients reach."""

    map: Path
    say: Callable[[str], str]

    def point(self, slot: str | None) -> None:
        """From now on requests go to this slot's gateway; None: to nobody. Raises ProxyGone."""
        backend = f"gateway-{slot}" if slot else NOWHERE
        write_whole(self.map, f"{KEY} {backend}\n", 0o644)
        said = self.say(f"set map {self.map} {KEY} {backend}").strip()
        if said or self.pointed() != slot:
            raise ProxyGone(f"haproxy does not switch to {backend}: {said or 'its map is unchanged'}")

    def pointed(self) -> str | None:
        """Return the slot that clients reach. Raises ProxyGone."""
        for line in self.say(f"show map {self.map}").splitlines():
            words = line.split()
            if words[1:2] == [KEY]:
                return words[2].removeprefix("gateway-") if words[2] != NOWHERE else None
        raise ProxyGone(f"haproxy has no map {self.map}: does it run with /etc/qwen3-vl/haproxy.cfg?")

    def under_way(self, slot: str) -> int:
        """Count the requests that a slot's gateway has of clients. Raises ProxyGone."""
        lines = self.say("show stat").removeprefix("# ").splitlines()
        for row in csv.DictReader(lines):
            if row["pxname"] == f"gateway-{slot}" and row["svname"] == "BACKEND":
                return int(row["scur"])
        raise ProxyGone(f"haproxy has no backend gateway-{slot}")
