"""The user data of a GPU machine: cloud-init's own schema, and every script in it, run with the machine stood in for on PATH."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from tests.workflows.machine import CONFIG, FILE, FILES, METADATA, SCRIPTS, Machine, metadata

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "cloud-init" / "schema-cloud-config-v1.json"
CHECK = ROOT / ".cache" / "workflows" / "venv" / "bin" / "check-jsonschema"
MOST_BYTES = 16 * 1024
DIGEST = "sha256:" + "e" * 64


def schema_faults(config, folder):
    assert CHECK.is_file(), "check-jsonschema is not installed: run make lint-workflows"
    given = folder / "config.yaml"
    given.write_text("#cloud-config\n" + yaml.safe_dump(config))
    return subprocess.run([CHECK, "--schemafile", SCHEMA, given], capture_output=True, text=True, check=False)


def test_cloud_inits_own_schema_takes_it(tmp_path):
    done = schema_faults(CONFIG, tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_schema_refuses_what_is_misspelt(tmp_path):
    one = dict(FILES["qwen3-vl-boot"], permission="0755")
    assert "'permission' was unexpected" in schema_faults({"write_files": [one]}, tmp_path).stdout


def test_every_key_is_one_of_cloud_inits():
    # The schema itself lets unknown keys at the top pass.
    parts = json.loads(SCHEMA.read_text())["$defs"].values()
    assert set(CONFIG) <= {name for part in parts for name in part.get("properties", ())}


def test_it_is_cloud_config_and_fits_when_it_is_filled_in():
    text = FILE.read_text()
    assert text.splitlines()[0] == "#cloud-config"
    assert len(text.encode()) + 850 < MOST_BYTES  # what addresses and digests add


def test_nobody_logs_in():
    assert (CONFIG["ssh_pwauth"], CONFIG["disable_root"], CONFIG["allow_public_ssh_keys"]) == (False, True, False)
    assert not {"users", "chpasswd", "password", "ssh_authorized_keys"} & set(CONFIG)


def test_no_secret_has_a_place_in_it():
    names = re.findall(r"^([A-Z0-9_]+)=", FILES["boot.env"]["content"], re.MULTILINE)
    assert names
    assert [name for name in names if re.search(r"KEY|SECRET|TOKEN|PASSWORD", name)] == ["DEPLOY_KEY"]  # a public one


def test_programs_are_executable_and_settings_are_roots_alone():
    assert {FILES[name]["permissions"] for name in (*SCRIPTS, "qwen3-vl-role")} == {"0755"}
    assert FILES["boot.env"]["permissions"] == "0600"


def test_the_scripts_pass_shellcheck_and_the_program_its_lint(tmp_path):
    for name in SCRIPTS:
        (tmp_path / name).write_text(FILES[name]["content"])
    done = subprocess.run(
        ["shellcheck", *(tmp_path / name for name in SCRIPTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    (tmp_path / "role.py").write_text(FILES["qwen3-vl-role"]["content"])
    argv = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select",
        "E9,F,B,S1",
        tmp_path / "role.py",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_systemd_is_told_to_try_again_and_to_keep_the_engine_back():
    unit, drop_in = FILES["qwen3-vl-boot.service"]["content"], FILES["boot.conf"]["content"]
    for line in (
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        "RemainAfterExit=yes",
        "StandardOutput=journal+console",
    ):
        assert line in unit.splitlines()
    assert {"Requires=qwen3-vl-boot.service", "After=qwen3-vl-boot.service"} <= set(drop_in.splitlines())
    assert CONFIG["runcmd"][-1] == ["systemctl", "start", "--no-block", "qwen3-vl-boot.service"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class TestDisk:
    """No disk that anybody could want back is ever formatted."""

    def disk(self, machine, **environ):
        return machine.run("qwen3-vl-disk", str(machine.root / "data"), **environ)

    def test_the_largest_blank_disk_is_formatted_and_mounted(self, machine):
        machine.disks({"name": "/dev/nvme0n1", "size": 50 << 30}, {"name": "/dev/nvme1n1", "size": 900 << 30})
        assert self.disk(machine).returncode == 0
        assert machine.called("mkfs.ext4") == ["-q -L qwen3-vl -m 0 /dev/nvme1n1"]
        assert machine.called("mount") == [f"-t ext4 -o noatime /dev/nvme1n1 {machine.root}/data"]

    def test_the_disk_that_it_made_before_is_mounted_as_it_is(self, machine):
        own = {"name": "/dev/nvme1n1", "size": 50 << 30, "fstype": "ext4", "label": "qwen3-vl"}
        machine.disks(own, {"name": "/dev/nvme2n1", "size": 900 << 30})
        assert self.disk(machine).returncode == 0
        assert machine.called("mkfs.ext4") == []
        assert machine.called("mount") == [f"-t ext4 -o noatime /dev/nvme1n1 {machine.root}/data"]

    @pytest.mark.parametrize(
        "held",
        [
            {"fstype": "ext4"},
            {"fstype": "ext4", "label": "mine"},
            {"fstype": "xfs", "label": "qwen3-vl"},
            {"fstype": "LVM2_member"},
            {"pttype": "gpt"},
            {"mountpoint": "/srv"},
            {"children": [{"name": "/dev/md0"}]},
            {"type": "rom"},
            {"type": "loop"},
            {"name": "/dev/zram0"},
        ],
    )
    def test_a_disk_that_holds_anything_is_left_alone(self, machine, held):
        machine.disks({"name": "/dev/nvme1n1", "size": 900 << 30} | held)
        done = self.disk(machine)
        assert done.returncode == 0
        assert "weights go to the system disk" in done.stdout
        assert machine.called("mkfs.ext4") == machine.called("mount") == []

    def test_a_signature_that_only_wipefs_sees_stops_it(self, machine):
        machine.disks({"name": "/dev/nvme1n1", "size": 900 << 30})
        machine.put(wipefs="echo 0x0 zfs_member")
        assert self.disk(machine).returncode == 1
        assert machine.called("mkfs.ext4") == []

    def test_a_disk_that_is_named_is_the_only_one_that_is_looked_at(self, machine):
        machine.disks({"name": "/dev/sdb", "size": 50 << 30}, {"name": "/dev/sdc", "size": 900 << 30})
        assert self.disk(machine, DISK="/dev/sdb").returncode == 0
        assert machine.called("mkfs.ext4") == ["-q -L qwen3-vl -m 0 /dev/sdb"]

    def test_a_named_disk_that_is_not_fit_is_a_failure(self, machine):
        machine.disks({"name": "/dev/sdb", "size": 50 << 30, "fstype": "ext4"})
        done = self.disk(machine, DISK="/dev/sdb")
        assert done.returncode == 1
        assert "DISK=/dev/sdb is not there, or holds something else" in done.stderr

    @pytest.mark.parametrize("how", ["none", "mounted"])
    def test_where_there_is_nothing_to_do_no_disk_is_looked_at(self, machine, how):
        if how == "mounted":
            machine.put(mountpoint="exit 0")
        assert self.disk(machine, DISK="none" if how == "none" else "auto").returncode == 0
        assert machine.called("lsblk") == []

    def test_disks_that_cannot_be_listed_are_a_failure(self, machine):
        machine.put(lsblk="exit 1")
        assert self.disk(machine).returncode != 0
        assert machine.called("mount") == []


class TestBoot:
    @pytest.fixture
    def bundle(self, tmp_path, machine):
        """A release whose install.sh and deploy.sh write down how they were called; `curl` fetches it."""
        tree = tmp_path / "qwen3-vl-0.1.0" / "serving" / "host"
        tree.mkdir(parents=True)
        target = machine.root / "opt/qwen3-vl/serving/host"
        (tree / "deploy.sh").write_text(
            f'#!/bin/bash\necho "deploy.sh $*" >>{machine.calls_file}\nexit "$(cat {tmp_path}/deploys 2>/dev/null || echo 0)"\n'
        )
        (tree / "deploy.sh").chmod(0o755)
        (tree / "install.sh").write_text(
            f"""set -e
echo "install.sh $*" >>{machine.calls_file}
[ $# = 0 ] || cat "$2" >>{machine.calls_file}
printf 'GATEWAY_REPOSITORY=\\nENGINE_REPOSITORY=mine/engine\\n' >{machine.root}/etc/qwen3-vl/host.env
mkdir -p {target}
install -m 0755 "${{0%/*}}/deploy.sh" {target}/deploy.sh
"""
        )
        archive = tmp_path / "bundle.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(tree.parents[1], "qwen3-vl-0.1.0")
        machine.put(curl=f'while [ "$1" != --output ]; do shift; done; cat {archive} >"$2"')
        return archive

    @pytest.fixture
    def environ(self, bundle):
        return {
            "BUNDLE_URL": "https://releases.example/qwen3-vl.tar.gz",
            "BUNDLE_SHA256": hashlib.sha256(bundle.read_bytes()).hexdigest(),
            "VERSION": "0.1.0",
            "GATEWAY_IMAGE": f"r.example/gateway@{DIGEST}",
            "ENGINE_IMAGE": f"r.example/engine@{DIGEST}",
            "WEIGHTS_FROM": "s3://models/qwen3-vl-8b-fp8",
            "ROLE": "volcengine",
            "AWS_REGION": "cn-beijing",
            "AWS_ENDPOINT_URL_S3": "https://tos-s3.example",
            "DISK": "auto",
            "DATA": "/data",
        }

    def test_a_stock_machine_ends_with_the_stack_deployed_and_enabled(self, machine, environ):
        machine.disks({"name": "/dev/nvme1n1", "size": 900 << 30})
        done = machine.run("qwen3-vl-boot", **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "qwen3-vl-boot: ready"
        order = [line.split()[0] for line in machine.calls]
        assert [name for name in order if name in {"nvidia-smi", "mkfs.ext4", "mount", "curl", "install.sh", "deploy.sh"}] == [
            "nvidia-smi", "mkfs.ext4", "mount", "curl", "install.sh", "deploy.sh",
        ]  # fmt: skip
        assert machine.called("deploy.sh") == [
            f"deploy --version 0.1.0 r.example/gateway@{DIGEST} r.example/engine@{DIGEST}"
        ]
        assert machine.called("systemctl")[-2:] == ["enable qwen3-vl", "start --no-block qwen3-vl"]

    def test_weights_are_fetched_to_the_disk_by_the_machines_role(self, machine, environ, monkeypatch):
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        (fetch,) = [call for call in machine.called("docker") if call.startswith("run ")]
        data = machine.root / "data/model"
        assert fetch.endswith(
            f"r.example/engine@{DIGEST} fetch --from s3://models/qwen3-vl-8b-fp8 --to /model --stale-ok"
        )
        for words in (f"--volume {data}:/model", "--read-only", "--cap-drop ALL", "--env AWS_CONFIG_FILE=/aws.config",
                      "--env AWS_REGION=cn-beijing", "--env AWS_ENDPOINT_URL_S3=https://tos-s3.example"):  # fmt: skip
            assert words in fetch
        assert data.is_dir()
        config = machine.root / "etc/qwen3-vl/aws.config"
        assert "credential_process = python3 /role volcengine" in config.read_text().splitlines()
        # As TOS wants it; without the setting a client that is given an endpoint puts the bucket into the path.
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        client = botocore.session.get_session().create_client(
            "s3", "cn-beijing", endpoint_url="https://tos-s3.example", aws_access_key_id="a", aws_secret_access_key="b"
        )
        url = client.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "x"})
        assert url.startswith("https://models.tos-s3.example/x?")

    @pytest.mark.parametrize("role", ["aws", "none"])
    def test_where_the_client_knows_the_role_itself_it_is_left_to_it(self, machine, environ, role):
        assert machine.run("qwen3-vl-boot", **environ | {"ROLE": role, "AWS_ENDPOINT_URL_S3": ""}).returncode == 0
        assert (machine.root / "etc/qwen3-vl/aws.config").read_text() == "[default]\n"
        assert "AWS_ENDPOINT_URL_S3" not in "".join(machine.called("docker"))

    def test_a_second_boot_fetches_weights_and_deploys_nothing(self, machine, environ):
        for _ in range(2):
            assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        assert [len(machine.called(name)) for name in ("curl", "install.sh", "deploy.sh")] == [1, 1, 1]
        assert len([call for call in machine.called("docker") if call.startswith("run ")]) == 2

    def test_a_deployment_that_fails_fails_the_unit_and_is_tried_again(self, machine, environ, tmp_path):
        (tmp_path / "deploys").write_text("1")
        assert machine.run("qwen3-vl-boot", **environ).returncode == 1
        assert "enable qwen3-vl" not in machine.called("systemctl")
        (tmp_path / "deploys").write_text("0")
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        assert len(machine.called("deploy.sh")) == 2

    def test_weights_that_cannot_be_had_keep_the_stack_back(self, machine, environ):
        machine.put(docker="case $1 in info) echo '{\"nvidia\":{}}';; run) exit 69;; esac")
        assert machine.run("qwen3-vl-boot", **environ).returncode == 69
        assert machine.called("deploy.sh") == []

    def test_a_release_that_is_another_is_not_installed(self, machine, environ):
        done = machine.run("qwen3-vl-boot", **environ | {"BUNDLE_SHA256": "0" * 64})
        assert done.returncode == 1
        assert "is not what BUNDLE_SHA256 says" in done.stderr
        assert machine.called("install.sh") == machine.called("deploy.sh") == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("BUNDLE_URL", "https://"),
            ("BUNDLE_URL", "http://releases.example/x"),
            ("BUNDLE_SHA256", ""),
            ("VERSION", "--help"),
            ("GATEWAY_IMAGE", "r.example/gateway:latest"),
            ("ENGINE_IMAGE", f"r.example/engine@{DIGEST} --privileged"),
            ("WEIGHTS_FROM", "/weights"),
            ("ROLE", "root"),
            ("DATA", "data"),
        ],
    )
    def test_a_setting_that_is_missing_or_wrong_is_said_before_anything_is_touched(self, machine, environ, name, value):
        done = machine.run("qwen3-vl-boot", **environ | {name: value})
        assert done.returncode == 1
        assert f"{name} in boot.env is '{value}'" in done.stderr
        assert machine.calls == []

    def test_as_it_is_shipped_it_says_what_to_fill_in(self, machine):
        shipped = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", FILES["boot.env"]["content"], re.MULTILINE))
        done = machine.run("qwen3-vl-boot", **shipped)
        assert done.returncode == 1
        assert "BUNDLE_URL in boot.env is 'https://'" in done.stderr

    def test_a_machine_without_a_driver_is_told_so(self, machine, environ):
        machine.put(**{"nvidia-smi": "exit 9"})
        done = machine.run("qwen3-vl-boot", **environ)
        assert done.returncode == 1
        assert "no NVIDIA driver answers" in done.stderr
        assert machine.called("mount") == []

    def test_packages_that_are_missing_are_installed(self, machine, environ):
        (machine.bin / "haproxy").unlink()
        machine.put(**{"apt-get": ""})
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        assert machine.called("apt-get") == ["update -qq", "install -qq -y --no-install-recommends haproxy"]

    def test_packages_that_cannot_be_had_are_named(self, machine, environ):
        (machine.bin / "nvidia-ctk").unlink()
        machine.put(**{"apt-get": '[ "$1" = update ]'})
        done = machine.run("qwen3-vl-boot", **environ)
        assert done.returncode == 1
        assert "nvidia-container-toolkit needs NVIDIA's repository" in done.stderr

    def test_docker_is_given_the_gpus_where_it_has_not_got_them(self, machine, environ):
        machine.put(docker="case $1 in info) echo '{\"runc\":{}}';; esac")
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        assert machine.called("nvidia-ctk") == ["runtime configure --runtime=docker"]
        assert machine.called("systemctl")[0] == "restart docker"

    def test_the_host_runs_images_of_the_named_repositories_only(self, machine, environ):
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        # What settings say already stays.
        assert (machine.root / "etc/qwen3-vl/host.env").read_text() == (
            "GATEWAY_REPOSITORY=r.example/gateway\nENGINE_REPOSITORY=mine/engine\n"
        )

    def test_who_may_deploy_later_is_handed_on(self, machine, environ):
        assert machine.run("qwen3-vl-boot", **environ | {"DEPLOY_KEY": "ssh-ed25519 AAAA ci"}).returncode == 0
        (install,) = machine.called("install.sh")
        assert install.startswith("--deploy-key ")
        assert "ssh-ed25519 AAAA ci" in machine.calls

    def settings(self, machine, code=0):
        path = machine.root / "usr/local/sbin/qwen3-vl-role"
        path.write_text(
            f'#!/bin/bash\necho "role $*" >>{machine.calls_file}\n'
            f'case $2 in */secrets.env|*/docker.json|*/keys.json) [ {code} = 0 ] && echo x >"$4"; exit {code};; esac\nexit 4\n'
        )

    def test_settings_come_by_the_role_once_and_those_that_are_not_there_are_left_out(self, machine, environ):
        self.settings(machine)
        where = "https://settings.example/prod"
        for _ in range(2):
            assert machine.run("qwen3-vl-boot", **environ | {"SETTINGS_FROM": where}).returncode == 0
        etc = machine.root / "etc/qwen3-vl"
        asked = machine.called("role")
        assert asked.count(f"volcengine {where}/secrets.env cn-beijing {etc}/secrets.env") == 1
        assert (etc / "secrets.env").read_text() == (etc / "keys/keys.json").read_text() == "x\n"
        assert not (etc / "gateway.env").exists()
        assert (machine.root / "root/.docker/config.json").is_file()
        assert f"-R 10001:10001 {etc}/keys" in machine.called("chown")

    def test_settings_that_cannot_be_had_stop_the_boot_before_anything_is_installed(self, machine, environ):
        environ["SETTINGS_FROM"] = "https://settings.example/prod"
        self.settings(machine, code=1)
        done = machine.run("qwen3-vl-boot", **environ)
        assert done.returncode == 1
        assert "secrets.env cannot be fetched" in done.stderr
        assert machine.called("install.sh") == []
        self.settings(machine)
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0

    def test_docker_without_compose_gets_it(self, machine, environ):
        machine.put(docker="case $1 in info) echo '{\"nvidia\":{}}';; compose) exit 1;; esac", **{"apt-get": ""})
        assert machine.run("qwen3-vl-boot", **environ).returncode == 0
        assert machine.called("apt-get")[-1].endswith(" docker-compose-v2")


class TestRole:
    """The program that speaks for the machine: three clouds, their tokens, AWS's own client reading what it prints."""

    @pytest.fixture(params=sorted(METADATA))
    def cloud(self, request):
        with metadata(request.param) as service:
            yield service

    def role(self, machine, cloud, *words):
        return machine.run(
            "qwen3-vl-role", cloud.cloud, *words, METADATA_URL=cloud.url, http_proxy="http://127.0.0.1:1"
        )

    def test_botocore_takes_its_credentials_from_it(self, machine, cloud, tmp_path, monkeypatch):
        program = machine.root / "usr/local/sbin/qwen3-vl-role"
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {program} {cloud.cloud}\n")
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("METADATA_URL", cloud.url)
        held = botocore.session.get_session().get_credentials().get_frozen_credentials()
        assert (held.access_key, held.secret_key, held.token) == ("AK", "k", "s")

    def test_a_machine_without_a_role_says_so(self, machine, cloud):
        cloud.roles = False
        done = self.role(machine, cloud)
        assert done.returncode == 1
        assert "this machine has no role" in done.stderr

    def test_an_object_is_fetched_with_a_signature_like_awss_own(self, machine, cloud, tmp_path):
        path = "/bucket/prod/secrets.env"
        cloud.objects[path] = b"NOTIFY_SLACK_URL=x\n"
        done = self.role(machine, cloud, cloud.url + path, "cn-beijing", str(tmp_path / "secrets.env"))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert (tmp_path / "secrets.env").read_bytes() == cloud.objects[path]
        assert (tmp_path / "secrets.env").stat().st_mode & 0o777 == 0o600
        (sent,) = cloud.asked
        got = {name.lower(): value for name, value in sent.items()}
        assert got["authorization"] == self.reference(cloud.url + path, got["x-amz-date"])

    def reference(self, url, stamp):
        """What botocore signs for the same request at the same moment."""
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        request = AWSRequest("GET", url, headers={"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()})
        request.context["timestamp"] = stamp
        request.context["payload_signing_enabled"] = True
        signer = S3SigV4Auth(botocore.credentials.Credentials("AK", "k", "s"), "s3", "cn-beijing")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: at.replace(tzinfo=None))
            signer.add_auth(request)
        return request.headers["Authorization"]

    def test_an_object_that_is_not_there_has_an_exit_code_of_its_own_and_leaves_no_file(self, machine, cloud, tmp_path):
        done = self.role(machine, cloud, f"{cloud.url}/bucket/none", "r", str(tmp_path / "none"))
        assert done.returncode == 4
        assert not list(tmp_path.glob("none*"))

    def test_without_a_role_nothing_is_signed(self, machine, cloud, tmp_path):
        cloud.objects["/bucket/open"] = b"x"
        done = machine.run("qwen3-vl-role", "none", f"{cloud.url}/bucket/open", "", str(tmp_path / "open"))
        assert done.returncode == 0
        assert "authorization" not in {name.lower() for name in cloud.asked[0]}

    def test_a_fault_tells_no_address_and_no_secret(self, machine, cloud, tmp_path):
        done = machine.run(
            "qwen3-vl-role", "none", "http://127.0.0.1:1/x?X-Amz-Signature=hunter2", "", str(tmp_path / "x")
        )
        assert done.returncode == 1
        assert done.stderr.strip() == "qwen3-vl-role: none: URLError"


class TestBake:
    def test_what_makes_the_machine_this_one_goes_and_the_rest_stays(self, machine):
        gone = [
            "etc/qwen3-vl/boot.env", "etc/qwen3-vl/secrets.env", "etc/qwen3-vl/canary.key", "var/lib/qwen3-vl/state.json",
            "var/lib/qwen3-vl-boot/deployed", "root/.docker/config.json", "root/.ssh/authorized_keys", "home/ubuntu/.ssh/authorized_keys",
            "etc/ssh/ssh_host_ed25519_key", "data/model/current",
        ]  # fmt: skip
        kept = [
            "etc/ssh/sshd_config",
            "opt/qwen3-vl/serving/host/deploy.sh",
            "usr/local/sbin/qwen3-vl-boot",
            "data/other",
        ]
        for name in [*gone, *kept[:2], kept[3], "etc/machine-id"]:
            path = machine.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        done = machine.run("qwen3-vl-bake")
        assert done.returncode == 0, done.stderr
        assert [name for name in gone if (machine.root / name).exists()] == []
        assert [name for name in kept if not (machine.root / name).exists()] == []
        assert (machine.root / "etc/machine-id").read_text() == ""
        assert machine.called("docker") == ["ps --all --quiet", "rm --force --volumes c1"]
        assert machine.called("cloud-init") == ["clean --logs --seed"]
        assert machine.called("systemctl")[0] == "disable --now qwen3-vl qwen3-vl-boot"
        assert machine.calls[-1] == "systemctl poweroff"

    def test_a_local_disk_is_taken_off_and_not_emptied(self, machine):
        machine.put(mountpoint="exit 0")
        (machine.root / "data/model").mkdir(parents=True)
        (machine.root / "etc").mkdir()
        assert machine.run("qwen3-vl-bake").returncode == 0
        assert machine.called("umount") == [f"{machine.root}/data"]
        assert (machine.root / "data/model").is_dir()
