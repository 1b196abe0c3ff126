from __future__ import annotations

import asyncio
import socket

import pytest
from prometheus_client import REGISTRY

from gateway import telemetry
from gateway.telemetry import DNS_FAILURES, ENGINE_UP, forget_engine
from gateway.upstream.discovery import Discovery, resolve
from gateway.upstream.endpoints import Endpoints
from gateway.upstream.names import Name, name_of

ENGINES = Name("engines", 8000)


class Resolver:
    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.fault = None
        self.asked = 0

    async def __call__(self, host, port):
        assert (host, port) == ("engines", 8000)
        self.asked += 1
        if self.fault:
            raise self.fault
        return self.addresses


def discovery(resolver, *, proven_first=False):
    endpoints = Endpoints([])
    added = []
    return (
        Discovery(
            endpoints,
            [ENGINES],
            interval_s=0.001,
            on_add=added.append,
            proven_first=proven_first,
            look_up=resolver,
        ),
        endpoints,
        added,
    )


def urls(endpoints):
    return {endpoint.url for endpoint in endpoints.all}


def shown(url):
    return REGISTRY.get_sample_value("gateway_engine_up", {"engine": url})


async def test_addresses_that_appear_are_added_and_those_that_vanish_leave():
    resolver = Resolver("10.0.0.1", "10.0.0.2")
    watch, endpoints, added = discovery(resolver)
    await watch.refresh(ENGINES)
    assert urls(endpoints) == {"http://10.0.0.1:8000", "http://10.0.0.2:8000"}
    kept = next(endpoint for endpoint in endpoints.all if "0.2" in endpoint.url)
    resolver.addresses = ["10.0.0.2", "10.0.0.3"]
    await watch.refresh(ENGINES)
    assert urls(endpoints) == {"http://10.0.0.2:8000", "http://10.0.0.3:8000"}
    assert kept in endpoints.all
    assert [endpoint.url[-6:-5] for endpoint in added[2:]] == ["3"]


async def test_the_host_header_stays_the_name():
    watch, endpoints, _ = discovery(Resolver("10.0.0.1"))
    await watch.refresh(ENGINES)
    assert endpoints.all[0].headers == {"host": "engines:8000"}
    assert Endpoints(["http://e:1"]).all[0].headers == {}


@pytest.mark.parametrize("fault", [socket.gaierror(-3, "again"), OSError(), UnicodeError("label too long")])
async def test_a_resolver_that_fails_changes_nothing_and_is_counted(fault):
    resolver = Resolver("10.0.0.1")
    watch, endpoints, _ = discovery(resolver)
    await watch.refresh(ENGINES)
    before, resolver.fault = DNS_FAILURES._value.get(), fault
    await watch.refresh(ENGINES)
    assert urls(endpoints) == {"http://10.0.0.1:8000"}
    assert DNS_FAILURES._value.get() == before + 1


async def test_with_probes_an_engine_gets_nothing_before_its_first_token():
    watch, endpoints, added = discovery(Resolver("10.0.0.1"), proven_first=True)
    await watch.refresh(ENGINES)
    assert endpoints.choose() is None
    assert shown("http://10.0.0.1:8000") == 0
    added[0].prove()
    assert endpoints.choose() is added[0]


async def test_an_engine_that_leaves_finishes_and_is_then_forgotten():
    resolver = Resolver("10.9.0.1")
    watch, endpoints, _ = discovery(resolver)
    await watch.refresh(ENGINES)
    [endpoint] = endpoints.all
    with endpoints.lease(endpoint):
        resolver.addresses = []
        await watch.refresh(ENGINES)
        assert endpoints.choose() is None
        assert endpoint.leaving
        assert shown(endpoint.url) == 1
    assert shown(endpoint.url) is None


async def test_an_engine_that_comes_back_while_it_finishes_is_the_same():
    resolver = Resolver("10.9.0.2")
    watch, endpoints, _ = discovery(resolver)
    await watch.refresh(ENGINES)
    [endpoint] = endpoints.all
    with endpoints.lease(endpoint):
        for addresses in ([], ["10.9.0.2"]):
            resolver.addresses = addresses
            await watch.refresh(ENGINES)
    assert endpoints.all == [endpoint]
    assert not endpoint.leaving
    assert shown(endpoint.url) == 1


async def test_the_name_is_looked_up_again_and_again():
    resolver = Resolver()
    watch, _, _ = discovery(resolver)
    task = asyncio.create_task(watch.watch())
    async with asyncio.timeout(5):
        while resolver.asked < 3:
            await asyncio.sleep(0.001)
    task.cancel()


async def test_the_system_s_resolver_gives_addresses_of_one_family():
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert await resolve("::1", 80) == ["::1"]
    assert await resolve("localhost", 80) in (["127.0.0.1"], ["::1"])
    with pytest.raises(OSError, match="."):
        await resolve("no-such-host.invalid", 80)


def test_an_ipv6_address_gets_its_brackets():
    assert ENGINES.url("fd00::1") == "http://[fd00::1]:8000"


@pytest.mark.parametrize(
    "url", ["dns+https://e:1", "dns+http://e", "dns+http://e:1/path", "dns+http://:1", "dns+http://u@e:1", "dns+x"]
)
def test_a_name_with_less_or_more_is_refused(url):
    with pytest.raises(ValueError, match=r"dns\+http|no user"):
        name_of(url)


def test_with_several_workers_a_forgotten_engine_shows_no_number(monkeypatch):
    monkeypatch.setattr(telemetry, "MULTIPROCESS", True)
    ENGINE_UP.labels("http://gone").set(1)
    forget_engine("http://gone")
    assert str(shown("http://gone")) == "nan"
    monkeypatch.setattr(telemetry, "MULTIPROCESS", False)
    forget_engine("http://gone")
