"""A stand-in for every chat service's webhook, on a real socket: it checks signatures as each service documents them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "SEC-of-the-robot"
SKEW_S = 3600
"""DingTalk's and Feishu's own bound."""


def dingtalk_fault(query: dict[str, list[str]], now: float) -> str | None:
    stamp = query.get("timestamp", ["0"])[0]
    if abs(now - int(stamp) / 1000) > SKEW_S:
        return "timestamp"
    wanted = base64.b64encode(hmac.new(SECRET.encode(), f"{stamp}\n{SECRET}".encode(), hashlib.sha256).digest())
    return None if query.get("sign", [""])[0] == wanted.decode() else "sign not match"


def feishu_fault(content: dict[str, Any], now: float) -> str | None:
    stamp = content.get("timestamp", "0")
    if abs(now - int(stamp)) > SKEW_S:
        return "timestamp"
    wanted = base64.b64encode(hmac.new(f"{stamp}\n{SECRET}".encode(), b"", hashlib.sha256).digest())
    return None if content.get("sign") == wanted.decode() else "sign match fail or timestamp is not within one hour"


@dataclass
class Receiver:
    """`taken[service]` has what each service took."""

    url: str = ""
    now: float = 1_795_334_400.0
    taken: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    posts: int = 0
    failing: int = 0
    """So many next posts are answered with 500."""

    def answer(self, _method: str, path: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        self.posts += 1
        if self.failing:
            self.failing -= 1
            return 500, b"busy"
        parts = urllib.parse.urlsplit(path)
        service, query, content = parts.path.strip("/"), urllib.parse.parse_qs(parts.query), json.loads(body)
        fault = None
        if service == "wecom":
            fault = None if query.get("key") == ["wecom-key"] else "invalid webhook url"
        elif service == "dingtalk":
            fault = dingtalk_fault(query, self.now)
        elif service == "feishu":
            fault = feishu_fault(content, self.now)
        elif service == "webhook":
            wanted = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            if headers.get("x-signature-256") != wanted:
                return 403, b"signature"
        if fault:
            return 200, json.dumps(
                {"errcode": 310000, "errmsg": fault} if service != "feishu" else {"code": 19021, "msg": fault}
            ).encode()
        self.taken.setdefault(service, []).append(content)
        return 200, {"slack": b"ok", "feishu": b'{"code":0,"msg":"success"}', "webhook": b""}.get(
            service, b'{"errcode":0}'
        )

    def environ(self) -> dict[str, str]:
        """Where each service is, as a workflow's secrets say."""
        return {
            "NOTIFY_WECOM_URL": f"{self.url}/wecom?key=wecom-key",
            "NOTIFY_DINGTALK_URL": f"{self.url}/dingtalk?access_token=token",
            "NOTIFY_DINGTALK_SECRET": SECRET,
            "NOTIFY_FEISHU_URL": f"{self.url}/feishu",
            "NOTIFY_FEISHU_SECRET": SECRET,
            "NOTIFY_SLACK_URL": f"{self.url}/slack",
            "NOTIFY_WEBHOOK_URL": f"{self.url}/webhook",
            "NOTIFY_WEBHOOK_SECRET": SECRET,
        }


class Issuer:
    """GitHub's issuer of identity tokens: gives `token` to who has the run's bearer."""

    def __init__(self, token):
        self.token, self.url, self.asked = token, "", []

    def answer(self, _method, path, headers, _):
        self.asked.append(path)
        if headers["authorization"] != "bearer run-bearer":
            return 403, b""
        return 200, json.dumps({"value": self.token}).encode()

    def environ(self):
        address = f"{self.url}/token?api-version=2"
        return {"ACTIONS_ID_TOKEN_REQUEST_URL": address, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "run-bearer"}


def jwt():
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 300}).encode()).decode().rstrip("=")
    return f"head.{claims}.signature"


@contextlib.contextmanager
def serving(answering):
    """Serve `answering.answer(method, path, headers, body)` on a port of its own; sets its `url`."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, answer = answering.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def __getattr__(self, name):
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answering.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield answering
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def receiving():
    return serving(Receiver())


def token_issuer(token=None):
    return serving(Issuer(jwt() if token is None else token))
