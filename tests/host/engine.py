"""An engine in a container that answers the demo's golden questions, rightly or not; standard library, for a bare base image.

It starts after COLD_START_S, answers after LATENCY_S, and at SIGTERM finishes what it has and refuses the rest, as vLLM does.
Any other question is answered with itself, so that a client can tell whether an answer is its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text())
ANSWERS["Which version are you?"] = os.environ.get("VERSION", "none")
RIGHT = os.environ.get("ANSWERS", "right") == "right"
LATENCY_S = float(os.environ.get("LATENCY_S", "0.1"))


class Load:
    """What is under way."""

    lock = threading.Lock()
    under_way = 0
    draining = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        self._send(
            200,
            {"object": "list", "data": [{"id": "qwen3-vl-demo", "object": "model", "created": 1, "owned_by": "vllm"}]},
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with Load.lock:
            refused = Load.draining
            Load.under_way += 0 if refused else 1
        if refused:
            self._send(500, {"error": {"message": "draining", "type": "server_error", "code": 500}})
            return
        try:
            self._answer(body)
        finally:
            with Load.lock:
                Load.under_way -= 1

    def _answer(self, body):
        if "messages" not in body:  # the gateway's probe
            self._send(200, {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": []})
            return
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")
        said = ANSWERS.get(text, text)
        if not RIGHT and text in ANSWERS:
            said = "A wooden spoon."
        time.sleep(LATENCY_S)
        if body.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for word in (said[: len(said) // 2], said[len(said) // 2 :]):
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
                time.sleep(LATENCY_S)
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._send(
            200,
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage},
        )

    def _send(self, status, content):
        payload = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def drain(*_):
    def end():
        Load.draining = True
        while Load.under_way:
            time.sleep(0.01)
        os._exit(0)

    threading.Thread(target=end).start()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, drain)
    words = sys.argv
    time.sleep(float(os.environ.get("COLD_START_S", "0.5")))
    Server((words[words.index("--host") + 1], int(words[words.index("--port") + 1])), Handler).serve_forever()
