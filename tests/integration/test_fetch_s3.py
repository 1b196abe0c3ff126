"""`serving fetch` from S3: a real process, moto's S3 over real sockets, kill -9 at 20 random moments."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from botocore.session import get_session
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from serving.weights.sources import PIECE_BYTES
from tests.unit.serving.weights.support import COMMAND, Memory, bring, checkpoint, environ, sums, visible_faults

BUCKET = "models"
MIB = 2**20
PIECE = 64 * 1024


class Counted:
    """moto's S3 behind a counter of what clients took, and a limit of bytes per second."""

    def __init__(self):
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.sent, self.gets, self.bytes_per_s = 0, 0, None
        self.authorization = ""
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        # What waits in a buffer of the kernel when a client dies would be counted, but never arrive.
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    def __call__(self, environ, start_response):
        self.authorization = environ.get("HTTP_AUTHORIZATION", "")
        reply = self._app(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" not in environ:
            return reply
        with self._lock:
            self.gets += 1
        return self._slowly(b"".join(reply), environ["REMOTE_PORT"])

    def _slowly(self, body, port):
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            # A client that gets no core has a buffer of megabytes: what waits in there has not been taken either.
            while unread_bytes(port) > PIECE:
                time.sleep(0.002)
            with self._lock:
                if self.bytes_per_s:
                    time.sleep(len(piece) / self.bytes_per_s)
                self.sent += len(piece)
            yield piece

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def unread_bytes(port):
    """What waits for the process with this port of 127.0.0.1; 0 when it is gone."""
    address = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, _, queues, *_ = line.split()
        if local == address:
            return int(queues.partition(":")[2], 16)
    return 0


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass

    def connection_dropped(self, *_):
        pass


@pytest.fixture
def s3():
    with Counted() as server:
        client = get_session().create_client(
            "s3", endpoint_url=server.url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
        )
        reset()
        client.create_bucket(Bucket=BUCKET)
        server.put = lambda prefix, files: [
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=data) for name, data in files.items()
        ]
        server.delete = lambda key: client.delete_object(Bucket=BUCKET, Key=key)
        server.environ = environ(
            AWS_ENDPOINT_URL_S3=server.url, AWS_ACCESS_KEY_ID="AKIASECRETID", AWS_SECRET_ACCESS_KEY="verysecret",
            AWS_REGION="us-east-1",
        )  # fmt: skip
        yield server
        client.close()
        reset()


def reset():
    """Forget every bucket: moto's state belongs to the process, not to a server."""
    for backends in get_backend("s3").values():
        for backend in backends.values():
            backend.reset()


def start(s3, to, *options, prefix="qwen"):
    argv = [
        *COMMAND,
        "--from",
        f"s3://{BUCKET}/{prefix}",
        "--to",
        str(to),
        "--part-mib",
        "2",
        "--parallel",
        "4",
        *options,
    ]
    return subprocess.Popen(argv, env=s3.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


@pytest.mark.timeout(180)
def test_twenty_kills_leave_nothing_corrupt_and_cost_little(s3, tmp_path, record_property):
    files = checkpoint(shards=8, shard_bytes=8 * MIB)
    size = sum(map(len, files.values()))
    s3.put("qwen", files | {"SHA256SUMS": sums(files).encode()})
    draw = random.Random(20)
    s3.bytes_per_s = 24 * MIB
    kills, whole, moments = 0, 0, []
    # What is in use must stay so: each folder begins with an older checkpoint behind `current`.
    old = checkpoint(shards=1, shard_bytes=MIB, seed=1)
    to = tmp_path / "0"
    bring(Memory(old), to)
    while kills < 20:
        before = s3.sent
        process = start(s3, to)
        # Half of the moments are drawn over the bytes of a fetch, half over its time, start and end included.
        goal, deadline = draw.uniform(0, size / 4), time.monotonic() + draw.uniform(0.1, 1.5)
        by_bytes = kills % 2 == 0
        while process.poll() is None and (s3.sent - before < goal if by_bytes else time.monotonic() < deadline):
            time.sleep(0.002)
        alive = process.poll() is None
        process.kill()
        code, _, err = finish(process)
        assert visible_faults(to, [old, files]) == []
        assert (to / "current" / "config.json").is_file()
        if alive and code == -9:
            kills += 1
            moments.append((s3.sent - before) / size)
        else:
            assert code == 0, err
            whole += 1
            to = tmp_path / str(whole)
            bring(Memory(old), to)
    # Each of four connections loses the piece it was reading, and what waited in the buffers of its socket.
    wasted_at_most = kills * 4 * (PIECE_BYTES + 4 * PIECE)
    s3.bytes_per_s = None
    code, out, err = finish(start(s3, to, "--verify"))
    assert code == 0, err
    assert out.strip() == str(to / "current")
    assert visible_faults(to, [old, files]) == []
    assert (to / "current" / "model-00001-of-00008.safetensors").is_file()
    fetched = s3.sent - (whole + 1) * size
    record_property("fetched_twice_bytes", fetched)
    record_property("moments", [round(moment, 3) for moment in moments])
    assert fetched <= wasted_at_most
    sent = s3.sent
    assert finish(start(s3, to, "--verify"))[0] == 0
    assert s3.sent - sent < 10_000, "a run with nothing to do reads the checksums and nothing else"


def test_eight_processes_at_once_download_once(s3, tmp_path):
    files = checkpoint(shards=3, shard_bytes=4 * MIB)
    s3.put("qwen", files | {"SHA256SUMS": sums(files).encode()})
    s3.bytes_per_s = 6 * MIB
    processes = [start(s3, tmp_path / "to") for _ in range(8)]
    results = [finish(process) for process in processes]
    assert [code for code, _, _ in results] == [0] * 8, results
    assert {out.strip() for _, out, _ in results} == {str(tmp_path / "to" / "current")}
    assert sum("fetched, verified" in err for _, _, err in results) == 1
    assert sum("already here, verified" in err for _, _, err in results) == 7
    assert any("is fetching into this folder; waiting" in err for _, _, err in results)
    listings = 8 * len(sums(files))
    assert s3.sent == sum(map(len, files.values())) + listings
    assert visible_faults(tmp_path / "to", [files]) == []


def test_a_holder_that_is_killed_frees_the_next(s3, tmp_path):
    files = checkpoint(shards=1, shard_bytes=4 * MIB)
    s3.put("qwen", files)
    s3.bytes_per_s = 2 * MIB
    first = start(s3, tmp_path / "to")
    while s3.sent < MIB:
        time.sleep(0.01)
    second = start(s3, tmp_path / "to")
    waiting = second.stderr.readline()
    assert f"process {first.pid} is fetching into this folder" in waiting
    s3.bytes_per_s = None
    first.kill()
    finish(first)
    code, _, err = finish(second)
    assert code == 0, err
    assert "are here already: going on from there" in err
    assert s3.sent < sum(map(len, files.values())) + 2 * MIB


def test_sigterm_ends_it_in_order_and_the_next_run_goes_on(s3, tmp_path):
    files = checkpoint(shards=1, shard_bytes=4 * MIB)
    s3.put("qwen", files)
    s3.bytes_per_s = 2 * MIB
    process = start(s3, tmp_path / "to")
    while s3.sent < MIB:
        time.sleep(0.01)
    process.terminate()
    code, out, err = finish(process)
    assert (code, out) == (143, "")
    assert "run the same command to go on" in err
    assert "Traceback" not in err
    s3.bytes_per_s = None
    assert finish(start(s3, tmp_path / "to"))[0] == 0


def test_an_object_that_changes_meanwhile_is_never_mixed_with_its_successor(s3, tmp_path):
    files, other = checkpoint(shards=1, shard_bytes=6 * MIB), checkpoint(shards=1, shard_bytes=6 * MIB, seed=1)
    s3.put("qwen", files)
    s3.bytes_per_s = 4 * MIB
    process = start(s3, tmp_path / "to", "--parallel", "1")
    while s3.sent < MIB:
        time.sleep(0.01)
    s3.put("qwen", other)
    s3.bytes_per_s = None
    code, _, err = finish(process)
    assert (code, "has changed since it was listed" in err) == (75, True), err
    assert finish(start(s3, tmp_path / "to"))[0] == 0
    assert visible_faults(tmp_path / "to", [other]) == []


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda s3: s3.environ.update(AWS_ENDPOINT_URL_S3="http://127.0.0.1:9"), 69, "reachable"),
        (lambda s3: [s3.environ.pop("AWS_ACCESS_KEY_ID"), s3.environ.pop("AWS_SECRET_ACCESS_KEY")], 77, "AWS_PROFILE"),
        (lambda s3: s3.environ.update(AWS_PROFILE="nobody"), 78, "AWS_PROFILE"),
        (lambda s3: s3.environ.update(AWS_SECRET_ACCESS_KEY=""), 77, "AWS_PROFILE"),
        (lambda s3: s3.delete("qwen/config.json"), 66, "lacks what the manifest names: config.json"),
        (lambda s3: s3.put("qwen", {"manifest.json": b"{}"}), 78, "is no manifest"),
        (lambda s3: s3.put("qwen", {"config.json": b"[]"}), 65, "config.json does not match its checksum"),
        (lambda s3: s3.put("qwen", {"../../x.safetensors": b"1"}), 65, "would leave the folder"),
    ],
)
def test_a_fault_has_its_exit_code_a_next_step_and_no_secret(s3, tmp_path, spoil, code, message):
    files = checkpoint(shards=1, shard_bytes=1000)
    s3.put("qwen", files | {"SHA256SUMS": sums(files).encode()})
    s3.environ["HOME"] = str(tmp_path)
    spoil(s3)
    seen, out, err = finish(start(s3, tmp_path / "to"))
    assert (seen, out) == (code, ""), err
    assert message in err
    assert "Traceback" not in err
    assert "verysecret" not in err
    assert "AKIASECRETID" not in err
    assert not (tmp_path / "to" / "current").exists()


def test_a_bucket_that_is_not_there_is_told_from_an_empty_prefix(s3, tmp_path):
    code, _, err = finish(start(s3, tmp_path / "to", prefix="nothing"))
    assert (code, "nothing is there" in err) == (66, True)
    argv = [*COMMAND, "--from", "s3://elsewhere/x", "--to", str(tmp_path / "to")]
    run = subprocess.run(argv, env=s3.environ, capture_output=True, text=True, check=False)
    assert (run.returncode, "NoSuchBucket" in run.stderr) == (66, True)


def test_requests_are_signed_for_the_region_that_aws_region_names(s3, tmp_path):
    s3.environ["AWS_REGION"] = "cn-beijing"
    finish(start(s3, tmp_path / "to", prefix="nothing"))
    assert "/cn-beijing/s3/aws4_request" in s3.authorization
