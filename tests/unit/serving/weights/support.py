"""Checkpoints made up on the spot, sources that misbehave on command, and the command line as a process."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from serving.weights.errors import Unreachable
from serving.weights.fetch import Request, fetch
from serving.weights.manifest import Checksum, Entry
from serving.weights.sources import Listing
from serving.weights.transfer import Settings

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import argparse, sys
from serving.weights import cli
top = argparse.ArgumentParser(prog="python -m serving")
cli.add_parser(top.add_subparsers(dest="command", required=True))
sys.exit(cli.run(top.parse_args()))
"""
COMMAND = [sys.executable, "-c", PROGRAM, "fetch"]


def environ(**extra):
    """What the command's environment is: nothing of the operator's credentials."""
    dropped = ("AWS_", "HF_", "HUGGING", "MODELSCOPE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*", "AWS_EC2_METADATA_DISABLED": "true"} | extra


def tensors(seed, size):
    """A sound safetensors file with `size` bytes of noise in two tensors."""
    half = size // 2
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            f"a{seed}": {"dtype": "U8", "shape": [half], "data_offsets": [0, half]},
            f"b{seed}": {"dtype": "U8", "shape": [size - half], "data_offsets": [half, size]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(size)


def checkpoint(shards=2, shard_bytes=300_000, seed=0):
    """Name -> bytes of a small checkpoint with an index."""
    files = {
        f"model-{i + 1:05}-of-{shards:05}.safetensors": tensors(seed * 100 + i, shard_bytes) for i in range(shards)
    }
    weight_map = {f"{letter}{seed * 100 + i}": name for i, name in enumerate(files) for letter in "ab"}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    files["config.json"] = b'{"model_type": "qwen3_vl"}'
    files["merges.txt"] = "#version\nĠ t\n".encode()
    return files


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_sha1(data):
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def sums(files):
    return "".join(f"{sha256(data)}  {name}\n" for name, data in files.items())


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class Memory:
    """A source in memory that counts, and breaks off where it is told to."""

    pinned = False
    reads_own_manifest = True

    def __init__(self, files, url="s3://bucket/model", *, vouched=False, revision=None):
        self.files, self.url, self.vouched, self.revision = dict(files), url, vouched, revision
        self._versions = {name: sha256(data)[:8] for name, data in files.items()}
        self.served, self.listed, self.unreachable = 0, 0, False
        self.reads = []
        self.break_after = []
        """Byte counts: the next reads break off behind so many."""
        self.on_piece = lambda: None
        self.piece = 10_000
        self._lock = threading.Lock()

    def listing(self):
        self.listed += 1
        if self.unreachable:
            raise Unreachable("the source does not answer")
        entries = [
            Entry(name, len(data), Checksum("sha256", sha256(data)) if self.vouched else None, self._versions[name])
            for name, data in self.files.items()
        ]
        return Listing(tuple(entries), self.revision)

    @contextmanager
    def read(self, entry, start, stop):
        with self._lock:
            self.reads.append((entry.name, start, stop))
            limit = self.break_after.pop(0) if self.break_after else stop - start

        def pieces():
            position = start
            while position < min(stop, start + limit):
                piece = self.files[entry.name][position : min(position + self.piece, start + limit, stop)]
                with self._lock:
                    self.served += len(piece)
                self.on_piece()
                yield piece
                position += len(piece)

        yield pieces()


def bring(source, to, *, part_bytes=100_000, parallel=2, tries=3, stop=None, **request):
    """Run a fetch; gives the outcome and what was said."""
    said = []
    settings = Settings(parallel=parallel, part_bytes=part_bytes, tries=tries, backoff_s=0.001)
    outcome = fetch(Request(to=to, settings=settings, **request), source, said.append, stop or threading.Event())
    return outcome, said


def visible_faults(to, expected, *, repairing=False):
    """What is wrong with everything a consumer could open: `expected` is a list of whole checkpoints. Nothing: [].

    While a damaged revision is repaired, `current` may lead nowhere.
    """
    faults = []
    folders = [path for path in (to / "revisions").glob("*") if "." not in path.name] if to.exists() else []
    if (to / "current").exists():
        folders.append(to / "current")
    elif (to / "current").is_symlink() and not repairing:
        faults.append("current leads nowhere")
    for folder in folders:
        names = {path.name for path in folder.iterdir()} - {"manifest.json", ".fetch.json"}
        seen = {name: (folder / name).read_bytes() for name in names}
        if seen not in expected:
            faults.append(f"{folder}: {sorted(names)}")
    return faults
