from __future__ import annotations

import random

from gateway.upstream.endpoints import Endpoints

URLS = [f"http://e{i}:1" for i in range(12)]


def test_how_many_are_well_is_what_a_look_at_each_would_find():
    dice = random.Random(1)
    endpoints = Endpoints(URLS)
    for number in range(500):
        endpoint = dice.choice(endpoints.all)
        act = dice.choice(["close", "prove", "remove", "add"])
        if act == "close":
            endpoint.close()
        elif act == "prove":
            endpoint.prove()
        elif act == "remove" and len(endpoints.all) > 1:
            lease = endpoints.lease(endpoint) if dice.random() < 0.5 else None
            endpoints.remove(endpoint)
            dice.choice([endpoint.close, endpoint.prove])()  # Its probe looks once more.
            if lease and dice.random() < 0.5:
                lease.release()
        elif act == "add":
            endpoints.add(f"http://e{12 + number % 20}:1", host="e", well=dice.random() < 0.5)
        assert endpoints.well() == sum(not each.ejected for each in endpoints.all)
        there = {endpoints.choose(dice.randbytes(4)) for _ in range(4)}
        assert all(each is None or not each.ejected for each in there)
        assert (None in there) == (endpoints.well() == 0)


def test_an_address_that_comes_back_while_it_is_out_is_still_out():
    endpoints = Endpoints(URLS[:1])
    named = endpoints.add("http://n:1", host="n", well=True)
    lease = endpoints.lease(named)
    endpoints.remove(named)
    named.close()
    assert endpoints.well() == 1
    assert endpoints.add("http://n:1", host="n", well=True) is named
    assert endpoints.well() == 1
    named.prove()
    assert endpoints.well() == 2
    lease.release()


def test_a_paused_engine_gets_nothing_until_its_pause_is_over():
    now = 0.0
    endpoints = Endpoints(URLS[:2], clock=lambda: now)
    first = endpoints.choose()
    endpoints.pause(first)
    assert {endpoints.choose(b"k%d" % i) for i in range(20)} == set(endpoints.all) - {first}
    now = 1.0
    assert {endpoints.choose(b"k%d" % i) for i in range(20)} == set(endpoints.all)
