"""A machine that boots its user data: a folder for its disk, programs on PATH for its parts, a cloud's metadata service."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.workflows.receiver import serving

FILE = Path(__file__).parents[2] / "serving" / "host" / "cloud-init.yaml"
CONFIG = yaml.safe_load(FILE.read_text())
FILES = {Path(one["path"]).name: one for one in CONFIG["write_files"]}
SCRIPTS = ("qwen3-vl-boot", "qwen3-vl-disk", "qwen3-vl-bake")


class Machine:
    """A folder that is the machine's root, and programs on PATH that say what they were called with."""

    def __init__(self, folder):
        self.root, self.bin = folder / "root", folder / "bin"
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        (self.root / "usr/local/sbin").mkdir(parents=True)
        self.bin.mkdir()
        for name in (*SCRIPTS, "qwen3-vl-role"):
            path = self.root / "usr/local/sbin" / name
            path.write_text(FILES[name]["content"])
            path.chmod(0o755)
        for tool in ("bash", "cat", "chown", "curl", "env", "install", "mkdir", "mktemp", "python3", "rm", "sed", "sha256sum", "tar", "touch",
                     "truncate", "gzip"):  # fmt: skip
            where = sys.executable if tool == "python3" else shutil.which(tool)
            (self.bin / tool).symlink_to(where)
        self.put(**dict.fromkeys(
            ("nvidia-ctk", "haproxy", "sudo", "mkfs.ext4", "mount", "umount", "wipefs", "systemctl", "cloud-init", "journalctl",
             "chown"), ""))  # fmt: skip
        self.put(**{"nvidia-smi": "echo GPU 0: NVIDIA L4", "mountpoint": "exit 1"})
        self.put(docker='case $1 in info) echo \'{"nvidia":{},"runc":{}}\';; ps) echo c1;; esac')
        self.disks()

    def put(self, **bodies):
        """Put programs on PATH; each writes its command line down first."""
        for name, body in bodies.items():
            path = self.bin / name
            path.unlink(missing_ok=True)
            path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.calls_file}\n{body}\n')
            path.chmod(0o755)

    def disks(self, *disks):
        usual = {"type": "disk", "fstype": None, "label": None, "pttype": None, "mountpoint": None}
        system = {"name": "/dev/vda", "size": 100 << 30, "pttype": "gpt", "children": [{"name": "/dev/vda1"}]}
        shown = json.dumps({"blockdevices": [usual | one for one in (system, *disks)]})
        self.put(lsblk=f"cat <<'END'\n{shown}\nEND")

    @property
    def calls(self):
        return self.calls_file.read_text().splitlines()

    def called(self, name):
        return [line.removeprefix(name).strip() for line in self.calls if line.split()[0] == name]

    def run(self, script, *words, **environ):
        env = {"PATH": str(self.bin), "ROOT": str(self.root), **environ}
        path = self.root / "usr/local/sbin" / script
        return subprocess.run([path, *words], env=env, capture_output=True, text=True, timeout=110, check=False)


METADATA = {
    "aws": {
        ("PUT", "/latest/api/token"): "t0ken",
        ("GET", "/latest/meta-data/iam/security-credentials/"): "a-role",
        ("GET", "/latest/meta-data/iam/security-credentials/a-role"): {"Token": "s", "SecretAccessKey": "k", "Expiration": "2030-01-01T00:00:00Z"},
    },
    "alibaba": {
        ("PUT", "/latest/api/token"): "t0ken",
        ("GET", "/latest/meta-data/ram/security-credentials/"): "a-role\n",
        ("GET", "/latest/meta-data/ram/security-credentials/a-role"): {"SecurityToken": "s", "AccessKeySecret": "k", "Expiration": "2030-01-01T00:00:00Z"},
    },
    "volcengine": {
        ("GET", "/latest/api/token"): "t0ken\n",
        ("GET", "/volcstack/latest/iam/security_credentials?type=user"): ["a-role"],
        ("POST", "/volcstack/latest/iam/security_credentials/a-role"): {"SessionToken": "s", "SecretAccessKey": "k", "ExpiredTime": "2030-01-01T08:00:00+08:00"},
    },
}  # fmt: skip
HEADERS = {"aws": "X-aws-ec2-metadata-token", "alibaba": "X-aliyun-ecs-metadata-token", "volcengine": "X-volc-ecs-metadata-token"}  # fmt: skip


class Metadata:
    """A cloud's metadata service, with a bucket beside it at /bucket; refuses whoever has no session token."""

    def __init__(self, cloud):
        self.cloud, self.url = cloud, ""
        self.roles = True
        self.objects, self.asked = {}, []

    def answer(self, method, path, headers, _):
        if path.startswith("/bucket/"):
            self.asked.append(dict(headers))
            return (200, self.objects[path]) if path in self.objects else (404, b"")
        header = HEADERS[self.cloud]
        if path == "/latest/api/token":
            refused = headers.get(f"{header}-ttl-seconds") is None
        else:
            refused = headers.get(header) != "t0ken"
        found = METADATA[self.cloud].get((method, path))
        if refused or found is None:
            return 401 if refused else 404, b""
        if path.endswith("a-role"):
            found = found | {"AccessKeyId": "AK"}
        elif path != "/latest/api/token" and not self.roles:
            found = [] if isinstance(found, list) else ""
        return 200, (found if isinstance(found, str) else json.dumps(found)).encode()


def metadata(cloud):
    """Serve a cloud's metadata on a port of its own."""
    return serving(Metadata(cloud))
