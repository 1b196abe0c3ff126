"""Keys that change under running replicas: a Kubernetes Secret's links are swapped, keys are rotated, keys expire."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pressure import CHAT, plain
from tests.support.processes import engine_process, gateway_processes

PROMISE_S = 2
"""Within this a change is in force on every replica."""
NEW_KEY = "sk-test-new"


class Secret:
    """A folder as the kubelet mounts a Secret: files are links through `..data`, which one rename swaps."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "keys.json"
        self.versions = 0
        folder.mkdir()

    def publish(self, *records):
        self.versions += 1
        version = self.folder / f"..2026_01_01_00_00_0{self.versions}"
        version.mkdir()
        (version / "keys.json").write_text(json.dumps({"keys": list(records)}))
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        old = (self.folder / "..data").resolve() if self.versions > 1 else None
        link.replace(self.folder / "..data")
        if old is None:
            self.file.symlink_to("..data/keys.json")
        else:  # The kubelet removes what nothing points to any more.
            (old / "keys.json").unlink()
            old.rmdir()


async def status(http, gateway, key):
    headers = {"authorization": f"Bearer {key}"}
    return (await http.post(gateway.url + CHAT, json=plain("x"), headers=headers)).status_code


async def until_everywhere(http, gateways, key, expected):
    async with asyncio.timeout(PROMISE_S):
        for gateway in gateways:
            while await status(http, gateway, key) != expected:
                await asyncio.sleep(0.02)


async def test_a_swapped_secret_rotates_and_revokes_on_every_replica_within_two_seconds(tmp_path):
    secret = Secret(tmp_path / "secret")
    secret.publish(key_record(KEY, "one"), key_record(OTHER_KEY, "two"))
    async with (
        engine_process(tmp_path) as engine,
        gateway_processes(tmp_path, 2, engine.url, secret.file) as gateways,
        httpx.AsyncClient(timeout=20) as http,
    ):
        for gateway in gateways:  # connections are there, so that what is measured below is the change
            assert await status(http, gateway, KEY) == 200
            assert await status(http, gateway, NEW_KEY) == 401

        new = key_record(NEW_KEY, "one", id="k_new")
        secret.publish(key_record(KEY, "one"), new, key_record(OTHER_KEY, "two"))
        await until_everywhere(http, gateways, NEW_KEY, 200)
        for gateway in gateways:  # the overlap: clients move one after the other
            assert await status(http, gateway, KEY) == 200

        secret.publish(new, key_record(OTHER_KEY, "two"))
        await until_everywhere(http, gateways, KEY, 401)
        for gateway in gateways:
            assert await status(http, gateway, NEW_KEY) == 200
            assert await status(http, gateway, OTHER_KEY) == 200

        (secret.folder / "..2026_01_01_00_00_03" / "keys.json").write_text("{")
        for gateway in gateways:  # a broken file revokes nobody
            async with asyncio.timeout(10):
                while not await gateway.metric("gateway_keys_reloads_total", outcome="failed"):
                    await asyncio.sleep(0.05)
            assert await status(http, gateway, NEW_KEY) == 200
        for gateway in gateways:
            text = gateway.log.read_text()
            assert not [key for key in (KEY, NEW_KEY, new["sha256"]) if key in text]


async def test_a_key_ends_by_itself_at_its_time(start, tmp_path):
    ends = datetime.now(UTC) + timedelta(seconds=2)
    keys = write_keys(
        tmp_path / "k.json", key_record(KEY, "one", expires=ends.isoformat()), key_record(OTHER_KEY, "one", id="k_next")
    )
    gateway = await start(keys_file=keys)
    async with httpx.AsyncClient() as http:
        seen = []
        async with asyncio.timeout(20):
            while not seen or seen[-1][1] == 200:
                before = datetime.now(UTC)
                seen.append((before, await status(http, gateway, KEY), datetime.now(UTC)))
                await asyncio.sleep(0.02)
        assert seen[0][1] == 200
        assert seen[-1][1] == 401
        assert all(before < ends for before, code, _ in seen if code == 200)
        assert seen[-1][2] >= ends
        assert await status(http, gateway, OTHER_KEY) == 200


@pytest.mark.parametrize("expires", ["2020-01-01T00:00:00Z", "2020-01-01T08:00:00+08:00"])
async def test_a_key_that_has_expired_looks_like_one_that_never_was(start, tmp_path, expires):
    keys = write_keys(tmp_path / "k.json", key_record(KEY, "one", expires=expires), key_record(OTHER_KEY, "two"))
    gateway = await start(keys_file=keys)
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        errors = [
            (await http.post(CHAT, json=plain("x"), headers={"authorization": f"Bearer {key}"})).json()
            for key in (KEY, "sk-unknown")
        ]
    assert errors[0] == errors[1]
