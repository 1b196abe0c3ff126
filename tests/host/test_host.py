"""The host path, really: images from a registry by digest, over a restricted key, under load, a bad version, and back again."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.host.load import under_load
from tests.host.machine import tell, version_of
from tests.host.state import runs_alone

# The first test waits for the images.
pytestmark = pytest.mark.timeout(1800)

SERVICES = ("wecom", "dingtalk", "feishu", "slack", "webhook")


def quietly(function, *words):
    return asyncio.to_thread(function, *words)


def test_a_version_is_deployed_over_the_restricted_key(host):
    done = host.ssh(" ".join(host.words("v1")))
    assert done.returncode == 0, done.stdout + done.stderr
    runs_alone(host, "v1")
    entry = host.log()[-1]
    assert (entry["kind"], entry["version"], entry["actor"], entry["result"]) == ("deploy", "v1", "tester", "succeeded")
    assert entry["commit"].startswith("7631")
    assert entry["images"] == {kind: host.images[kind, "v1"] for kind in ("gateway", "engine")}
    assert host.told()[-2:] == [("started", "v1"), ("succeeded", "v1")]
    assert {service: len(host.receiver.taken[service]) for service in SERVICES} == dict.fromkeys(SERVICES, 2)
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
    tell(f"v2 beside v1 under load: {load}; {host.log()[-1]['seconds']} s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert load.failed == []
    assert load.asked > 20
    runs_alone(host, "v2")


async def test_a_version_that_answers_wrongly_takes_itself_back_and_no_client_sees_it(host):
    await quietly(host.serve, "v2")
    async with under_load(host.url) as load:
        done = await quietly(host.ssh, " ".join(host.words("v3")))
    tell(f"v3 answers wrongly: {load}; {host.log()[-1]['seconds']} s until it was back")
    assert done.returncode == 1, done.stdout + done.stderr
    assert load.failed == []
    runs_alone(host, "v2")
    entry = host.log()[-1]
    assert (entry["version"], entry["result"]) == ("v3", "rolled_back")
    assert entry["reason"].startswith("canary: ")
    # It was looked at before the switch, so there was none.
    assert "switch" not in [step["name"] for step in entry["steps"]]
    assert host.told()[-2:] == [("started", "v3"), ("rolled_back", "v3")]
    # Each service took it, by its own signature, with the reason for people.
    for service in SERVICES:
        said = json.dumps(host.receiver.taken[service][-1], ensure_ascii=False)
        assert "v3" in said, service
        assert "canary" in said, service
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
        tell(f"v4's engine replaces v2's, clients wait: {load}; {host.log()[-1]['seconds']} s")
        assert done.returncode == 0, done.stdout + done.stderr
        assert load.failed == []
        runs_alone(host, "v4")
        steps = [step["name"] for step in host.log()[-1]["steps"]]
        assert steps.index("stop engine") < steps.index("start engine")

        async with under_load(host.url) as load:
            done = await quietly(host.deploy_sh, *host.words("v3"))
        tell(f"v3's replaces v4's, answers wrongly, and is replaced: {load}; {host.log()[-1]['seconds']} s")
        assert done.returncode == 1, done.stdout + done.stderr
        assert load.failed == []
        runs_alone(host, "v4")
        assert host.log()[-1]["result"] == "rolled_back"
    finally:
        host.setting("ENGINE_SWAP", "beside")


def test_back_to_a_kept_version(host):
    host.serve("v1")
    host.serve("v2")
    done = host.ssh("rollback v1")
    assert done.returncode == 0, done.stdout + done.stderr
    runs_alone(host, "v1")
    entry = host.log()[-1]
    tell(f"rollback v1: {entry['seconds']} s")
    assert (entry["kind"], entry["version"], entry["result"]) == ("rollback", "v1", "succeeded")
    # Without a version: to the one before.
    assert host.ssh("rollback").returncode == 0
    runs_alone(host, "v2")
