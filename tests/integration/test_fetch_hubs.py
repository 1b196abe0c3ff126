"""`serving fetch` from the hubs: real processes and sockets; servers that speak the small part of the hubs' APIs used.

The hubs themselves cannot be reached from a test. What is sent back follows their documented shapes: a listing with
LFS metadata, a redirect to a CDN of another origin for large files, error codes in headers.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from serving.weights.sources import PIECE_BYTES
from tests.unit.serving.weights.support import COMMAND, checkpoint, environ, git_sha1, sha256, visible_faults

COMMIT = "a" * 40
REPOSITORY = "Qwen/Qwen3-VL-8B-Instruct"
LARGE = 100_000


class Hub:
    """The state behind a hub and its CDN."""

    def __init__(self, files):
        self.files, self.private, self.ranges, self.status, self.drop = files, False, True, None, 0
        self.asked, self.cdn_headers, self.hub_headers, self.sent = [], [], [], 0
        self.lie = {}
        """Name -> what the hub says its SHA-256 is."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub, url = self.server.hub, urlsplit(self.path)
        hub.asked.append(self.path)
        if self.server.is_cdn:
            hub.cdn_headers.append(dict(self.headers))
            return self._bytes(hub.files[unquote(url.path).rsplit("/", 1)[1]])
        hub.hub_headers.append(dict(self.headers))
        if hub.status:
            return self._json({"error": "x", "Code": hub.status, "Message": "x"}, hub.status)
        if hub.private and self.headers.get("Authorization") != "Bearer hf_topsecret":
            return self._json({"error": "gated"}, 401, {"X-Error-Code": "GatedRepo"})
        return self._hf(hub, url) if not url.path.startswith("/api/v1/") else self._modelscope(hub, url)

    def _hf(self, hub, url):
        if match := re.fullmatch(rf"/api/models/{REPOSITORY}(?:/revision/(.+))?", url.path):
            if (match[1] or "main") not in {"main", COMMIT}:
                return self._json({"error": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
            assert parse_qs(url.query)["blobs"] == ["true"]
            siblings = [self._sibling(hub, name, data) for name, data in hub.files.items()]
            return self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        if match := re.fullmatch(rf"/{REPOSITORY}/resolve/{COMMIT}/(.+)", url.path):
            return self._file(hub, unquote(match[1]))
        return self._json({"error": "no"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _sibling(self, hub, name, data):
        if len(data) < LARGE:
            return {"rfilename": name, "size": len(data), "blobId": hub.lie.get(name, git_sha1(data))}
        lfs = {"size": len(data), "sha256": hub.lie.get(name, sha256(data)), "pointerSize": 134}
        return {"rfilename": name, "size": len(data), "blobId": "b" * 40, "lfs": lfs}

    def _modelscope(self, hub, url):
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        prefix = f"/api/v1/models/{REPOSITORY}/repo"
        if not url.path.startswith(prefix) or query["Revision"] not in {"master", COMMIT}:
            return self._json({"Code": 10010205001, "Message": "not found", "Success": False}, 404)
        if url.path == f"{prefix}/files":
            files = [
                {
                    "Path": name,
                    "Name": name,
                    "Size": len(data),
                    "Sha256": hub.lie.get(name, sha256(data)),
                    "Type": "blob",
                }
                for name, data in hub.files.items()
            ]
            files.append({"Path": "assets", "Name": "assets", "Size": 0, "Type": "tree"})
            return self._json({"Code": 200, "Success": True, "Data": {"Files": files}})
        return self._file(hub, query["FilePath"])

    def _file(self, hub, name):
        if len(hub.files[name]) < LARGE:
            return self._bytes(hub.files[name])
        self.send_response(302)
        self.send_header("Location", f"{hub.cdn_url}/signed/{name}?Signature=signedsecret")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _bytes(self, data):
        hub = self.server.hub
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if hub.ranges else None
        body = data[int(asked[1]) : int(asked[2]) + 1] if asked else data
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        if asked:
            self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(data)}")
        self.end_headers()
        if hub.drop and len(body) > LARGE // 2:
            hub.drop -= 1
            body, self.close_connection = body[: len(body) // 2], True
        hub.sent += len(body)
        self.wfile.write(body)
        self.wfile.flush()

    def _json(self, body, status=200, headers=None):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(hub, *, is_cdn):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, server.is_cdn = hub, is_cdn
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def files():
    extra = {".gitattributes": b"* lfs", "pytorch_model.bin": b"\x80\x04", "modeling.py": b"import os"}
    return checkpoint(shards=2, shard_bytes=2_500_000) | extra


@pytest.fixture
def hub(files):
    state = Hub(files)
    with serving(state, is_cdn=True) as cdn_url, serving(state, is_cdn=False) as state.url:
        # Another name, as cookies do not tell ports apart.
        state.cdn_url = cdn_url.replace("127.0.0.1", "localhost")
        yield state


@pytest.fixture(params=["hf", "modelscope"])
def scheme(request):
    return request.param


@pytest.fixture
def fetch(hub, tmp_path, scheme):
    def go(repository=REPOSITORY, *options, **env):
        defaults = {
            "HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1", "MODELSCOPE_API_MAX_RETRIES": "1",
            "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
        }  # fmt: skip
        argv = [
            *COMMAND,
            "--from",
            f"{scheme}://{repository}",
            "--to",
            str(tmp_path / "to"),
            "--part-mib",
            "1",
            *options,
        ]
        run = subprocess.run(
            argv, env=environ(**(defaults | env)), capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in run.stderr, run.stderr
        for secret in ("hf_topsecret", "signedsecret"):
            assert secret not in run.stderr + run.stdout
        return run

    return go


def accepted(files):
    return {name: data for name, data in files.items() if name.endswith((".safetensors", ".json", ".txt"))}


def test_a_checkpoint_arrives_in_parts_checked_by_the_hubs_own_metadata(fetch, hub, files, tmp_path, scheme):
    run = fetch()
    assert run.returncode == 0, run.stderr
    assert visible_faults(tmp_path / "to", [accepted(files)]) == []
    assert (tmp_path / "to" / "current" / "config.json").is_file()
    assert "left out 'pytorch_model.bin': a pickle" in run.stderr
    assert "left out 'modeling.py': code" in run.stderr
    assert "no checksums" not in run.stderr
    assert sum("/signed/" in path for path in hub.asked) == 6
    asked = len(hub.asked)
    assert fetch().returncode == 0
    assert len(hub.asked) == asked + 1, "a second run lists, and reads nothing"
    record = json.loads((tmp_path / "to" / "current" / ".fetch.json").read_text())
    assert record["revision"] == (COMMIT if scheme == "hf" else None)


def test_a_commit_that_is_here_is_not_even_asked_for(fetch, hub):
    assert fetch(f"{REPOSITORY}@{COMMIT}").returncode == 0
    asked = len(hub.asked)
    run = fetch(f"{REPOSITORY}@{COMMIT}")
    assert (run.returncode, len(hub.asked)) == (0, asked)
    assert "already here, verified" in run.stderr


def test_a_connection_that_breaks_is_continued_where_it_was(fetch, hub, files):
    hub.drop = 3
    assert fetch().returncode == 0
    assert hub.sent <= sum(map(len, accepted(files).values())) + 3 * PIECE_BYTES


def test_a_server_that_ignores_ranges_still_gives_the_right_bytes(fetch, hub, files, tmp_path):
    hub.ranges = False
    assert fetch().returncode == 0
    assert visible_faults(tmp_path / "to", [accepted(files)]) == []


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json"])
def test_bytes_that_are_not_what_the_hub_says_are_thrown_away(fetch, hub, name, tmp_path):
    hub.lie = {name: "c" * (64 if name.endswith("s") else 40)}
    run = fetch()
    assert run.returncode == 65
    assert f"{name} does not match its checksum" in run.stderr
    assert not (tmp_path / "to" / "current").exists()


def test_the_token_goes_to_the_hub_and_never_to_the_cdn(fetch, hub, scheme):
    variable = {"hf": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[scheme]
    hub.private = True
    refused = fetch()
    assert refused.returncode == 77, refused.stderr
    assert variable in refused.stderr
    assert fetch(**{variable: "hf_topsecret"}).returncode == 0
    assert hub.cdn_headers
    for headers in hub.cdn_headers:
        assert "Authorization" not in headers
        assert "hf_topsecret" not in str(headers)


@pytest.mark.parametrize(("status", "code"), [(403, 77), (404, 66), (400, 69)])
def test_what_the_hub_answers_becomes_an_exit_code(fetch, hub, status, code):
    hub.status = status
    assert fetch().returncode == code


def test_an_unknown_revision_says_so(fetch):
    run = fetch(f"{REPOSITORY}@v9")
    assert (run.returncode, "revision" in run.stderr) == (66, True)


def test_a_hub_that_is_away_can_be_survived_with_what_is_here(fetch, hub):
    assert fetch().returncode == 0
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    run = fetch(REPOSITORY, **away)
    assert (run.returncode, "reachable" in run.stderr) == (69, True)
    run = fetch(REPOSITORY, "--stale-ok", **away)
    assert (run.returncode, "may be old" in run.stderr) == (0, True)


@pytest.mark.parametrize("scheme", ["hf"], indirect=True)
def test_offline_mode_is_named(fetch):
    run = fetch(HF_HUB_OFFLINE="1")
    assert (run.returncode, "HF_HUB_OFFLINE" in run.stderr) == (69, True)
