"""The host path, really: images from a registry by digest, over a restricted key, under load, killed at random, back again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import time

import pytest

from tests.host.load import under_load
from tests.host.machine import NAME, SUDOERS, USER, version_of

# The first test waits for the images.
pytestmark = pytest.mark.timeout(1800)

KILLS = 10


def served(host):
    status = host.deploy_sh("status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert "NOT RUNNING" not in status.stdout
    return version_of(status.stdout)


def runs_alone(host, version):
    """One gateway and one engine run, of this version, and the port leads there."""
    state = host.file()
    assert state["attempt"] is None
    assert state["serving"]["version"] == version
    wanted = {f"{NAME}-{kind}-{state['serving'][f'{kind}_slot']}" for kind in ("gateway", "engine")}
    assert set(host.running()) == wanted
    assert (host.state / "serving.map").read_text() == f"gateway gateway-{state['serving']['gateway_slot']}\n"
    assert served(host) == version


async def quietly(function, *words):
    return await asyncio.to_thread(function, *words)


def test_a_version_is_deployed_over_the_restricted_key(host):
    done = host.ssh(" ".join(host.words("v1")))
    assert done.returncode == 0, done.stdout + done.stderr
    runs_alone(host, "v1")
    entry = host.log()[-1]
    assert (entry["kind"], entry["version"], entry["actor"], entry["result"]) == ("deploy", "v1", "tester", "succeeded")
    assert entry["commit"].startswith("7631")
    assert entry["images"] == {kind: host.images[kind, "v1"] for kind in ("gateway", "engine")}
    assert host.told()[-2:] == [("started", "v1"), ("succeeded", "v1")]
    assert (
        'qwen3vl_host_deploy_last_success{kind="deploy",result="succeeded",version="v1"} 1'
        in (host.state / "textfile" / "deploy.prom").read_text().splitlines()
    )
    assert version_of(host.ssh("status").stdout) == "v1"
    assert host.ssh("list").stdout.startswith("* v1 ")


async def test_a_new_version_costs_no_request(host):
    await quietly(host.serve, "v1")
    async with under_load(host.url) as load:
        await asyncio.sleep(1)
        done = await quietly(host.deploy_sh, *host.words("v2"))
    print(
        f"\nbeside: {load.asked} requests, {len(load.failed)} failed, longest {load.longest_s:.1f} s, deployment {host.log()[-1]['seconds']} s"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert load.failed == []
    assert load.asked > 20
    runs_alone(host, "v2")


async def test_a_version_that_answers_wrongly_takes_itself_back_and_no_client_sees_it(host):
    await quietly(host.serve, "v2")
    async with under_load(host.url) as load:
        done = await quietly(host.ssh, " ".join(host.words("v3")))
    print(f"\nwrong: {load.asked} requests, {len(load.failed)} failed, {host.log()[-1]['seconds']} s until it was back")
    assert done.returncode == 1, done.stdout + done.stderr
    assert load.failed == []
    runs_alone(host, "v2")
    entry = host.log()[-1]
    assert (entry["version"], entry["result"]) == ("v3", "rolled_back")
    assert entry["reason"].startswith("canary: ")
    # It was looked at before the switch, so there was none.
    assert "switch" not in [step["name"] for step in entry["steps"]]
    assert host.told()[-2:] == [("started", "v3"), ("rolled_back", "v3")]
    assert " 0\n" in (host.state / "textfile" / "deploy.prom").read_text()
    assert (host.state / "failed" / "v3-engine.log").exists()


async def test_an_engine_is_replaced_on_one_gpu_while_requests_wait(host):
    """The new engine starts after the old one has ended, and takes 3 s for it."""
    await quietly(host.serve, "v2")
    host.setting("ENGINE_SWAP", "replace")
    try:
        # The gateway that holds requests is the new one: the first deployment gives it this setting.
        async with under_load(host.url) as load:
            done = await quietly(host.deploy_sh, *host.words("v4"))
        print(
            f"\nreplace: {load.asked} requests, {len(load.failed)} failed, longest {load.longest_s:.1f} s, deployment {host.log()[-1]['seconds']} s"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert load.failed == []
        runs_alone(host, "v4")
        steps = [step["name"] for step in host.log()[-1]["steps"]]
        assert steps.index("stop engine") < steps.index("start engine")

        async with under_load(host.url) as load:
            done = await quietly(host.deploy_sh, *host.words("v3"))
        assert done.returncode == 1, done.stdout + done.stderr
        assert load.failed == []
        runs_alone(host, "v4")
        assert host.log()[-1]["result"] == "rolled_back"
    finally:
        host.setting("ENGINE_SWAP", "beside")


async def test_killed_at_any_moment_a_second_run_completes_it_and_no_request_is_lost(host):
    chosen = random.Random(20261122)
    await quietly(host.serve, "v1")
    shortest_s, killed_after, target = await timed(host, "v2"), [], "v1"
    async with under_load(host.url, clients=2) as load:
        for _ in range(3 * KILLS):  # some end before they are killed
            program, delay_s = host.begin(*host.words(target)), chosen.uniform(0, shortest_s)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await quietly(program.wait, delay_s)
            if program.poll() is None:
                program.send_signal(signal.SIGKILL)
                await quietly(program.wait)
                killed_after.append(round(delay_s, 1))
                print(f"kill {len(killed_after)} after {delay_s:.1f} s")
                shortest_s = min(shortest_s, await timed(host, target))
            await quietly(runs_alone, host, target)
            target = {"v1": "v2", "v2": "v1"}[target]
            if len(killed_after) == KILLS:
                break
    print(f"\nkilled {len(killed_after)} times: {load.asked} requests, {len(load.failed)} failed")
    assert len(killed_after) == KILLS
    assert load.failed == []


async def timed(host, version):
    """Deploy it; the seconds that it took."""
    began = time.monotonic()
    done = await quietly(host.deploy_sh, *host.words(version))
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - began


def test_back_to_a_kept_version(host):
    host.serve("v1")
    host.serve("v2")
    done = host.ssh("rollback v1")
    assert done.returncode == 0, done.stdout + done.stderr
    runs_alone(host, "v1")
    entry = host.log()[-1]
    assert (entry["kind"], entry["version"], entry["result"]) == ("rollback", "v1", "succeeded")
    # Without a version: to the one before.
    assert host.ssh("rollback").returncode == 0
    runs_alone(host, "v2")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "id",
        "sh",
        "bash -c id",
        "converge",
        "status; id",
        "status\nid",
        "status $(id)",
        "status `id`",
        "status | id",
        "status && id",
        "deploy --version v9 docker.io/library/alpine@sha256:" + "0" * 64,
        "deploy --version v9 $GATEWAY",
        "deploy --version ../../etc IMAGE",
        "deploy --version v9 host/gateway:latest",
        "rollback --etc /tmp",
        "list --help",
        "--etc /tmp status",
        "rollback nothing-like-it",
        "status " + "x" * 2000,
    ],
)
def test_anything_else_over_the_key_is_refused(host, command):
    host.serve("v1")
    before = host.file()["serving"]
    done = host.ssh(command)
    assert done.returncode != 0 or command == "list --help", done.stdout
    assert "uid=" not in done.stdout + done.stderr
    assert host.file()["serving"] == before


def test_the_deploy_user_can_do_nothing_else(host):
    forwarded = host.ssh("status")
    assert forwarded.returncode == 0
    listed = subprocess.run(["sudo", "-l", "-U", USER], capture_output=True, text=True, check=True).stdout
    assert [line.strip() for line in listed.splitlines() if "NOPASSWD" in line] == [f"(root) NOPASSWD: {host.script}"]
    assert SUDOERS.stat().st_mode & 0o777 == 0o440
    for path in (host.folder / "opt").rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path
