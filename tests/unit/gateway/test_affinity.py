from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.affinity import MESSAGE_BYTES, affinity_key, load_bound, stable_prefix
from gateway.upstream.endpoints import PAUSE_S, Endpoints

URLS = [f"http://e{i}:8000" for i in range(5)]
KEYS = [f"key {i}".encode() for i in range(500)]


def located(*digests, tenant="one", **body):
    key = SimpleNamespace(tenant=tenant)
    parsed = SimpleNamespace(identified=SimpleNamespace(key=key), body=body)
    return SimpleNamespace(parsed=parsed, pictures=[SimpleNamespace(digest=digest) for digest in digests])


def said(role, content):
    return {"role": role, "content": content}


def first_choices(endpoints):
    return {key: endpoints.choose(key).url for key in KEYS}


def happen(endpoints, endpoint, event, new_url):
    """One of the things that happen to engines, by a number below 1; mostly none."""
    if event < 0.05:
        endpoint.close()
    elif event < 0.1:
        endpoint.prove()
    elif event < 0.13:
        endpoints.pause(endpoint)
    elif event < 0.15:
        endpoints.remove(endpoint)
    elif event < 0.17:
        endpoints.add(new_url, host="new", well=True)
    elif event < 0.5:
        endpoint.in_flight = max(0, endpoint.in_flight - 2)


class TestKey:
    def test_the_first_picture_decides(self):
        assert affinity_key(located(b"a", b"b", messages=[])) == affinity_key(
            located(b"a", messages=[said("user", "x")])
        )
        assert affinity_key(located(b"a")) != affinity_key(located(b"b"))

    def test_tenants_share_nothing(self):
        assert affinity_key(located(b"a", tenant="one")) != affinity_key(located(b"a", tenant="two"))

    def test_a_picture_is_never_taken_for_a_prompt(self):
        assert affinity_key(located(b'"x"')) != affinity_key(located(prompt="x"))

    @pytest.mark.parametrize("field", ["messages", "input"])
    def test_later_turns_of_a_conversation_go_where_it_began(self, field):
        first = [said("system", "s"), said("user", "q")]
        later = [*first, said("assistant", "a"), said("user", "another")]
        assert stable_prefix({field: first}) == stable_prefix({field: later})
        assert stable_prefix({field: [first[0], said("user", "other")]}) != stable_prefix({field: first})

    def test_a_long_system_prompt_does_not_hide_the_question(self):
        system = said("system", "s" * 10 * MESSAGE_BYTES)
        prefixes = {stable_prefix({"messages": [system, said("user", str(i))]}) for i in range(3)}
        assert len(prefixes) == 3

    def test_the_end_of_a_long_prompt_does_not_count(self):
        one, two = ({"prompt": "p" * MESSAGE_BYTES + end} for end in ("a", "b"))
        assert stable_prefix(one) == stable_prefix(two) != b""

    @pytest.mark.parametrize("body", [{}, {"messages": []}, {"prompt": ""}, {"messages": None}, {"prompt": {"odd": 1}}])
    def test_nothing_in_common_is_no_key(self, body):
        assert affinity_key(located(**body)) is None

    @pytest.mark.parametrize(
        "body", [{"prompt": [1, 2]}, {"input": "x"}, {"input": [said("user", "x")]}, {"messages": ["odd"]}]
    )
    def test_other_forms_of_a_prompt_have_one_too(self, body):
        assert stable_prefix(body)


class TestChoice:
    def test_a_key_has_one_engine_in_every_process(self):
        assert first_choices(Endpoints(URLS)) == first_choices(Endpoints(URLS[::-1]))

    def test_keys_spread_evenly(self):
        shares = Counter(first_choices(Endpoints(URLS)).values())
        assert len(shares) == len(URLS)
        assert max(shares.values()) < 1.5 * len(KEYS) / len(URLS)

    def test_an_engine_that_goes_moves_only_its_own_keys(self):
        endpoints = Endpoints(URLS)
        before = first_choices(endpoints)
        endpoints.all[2].close()
        after = first_choices(endpoints)
        assert all(after[key] == url for key, url in before.items() if url != URLS[2])
        moved = {after[key] for key, url in before.items() if url == URLS[2]}
        assert moved == set(URLS) - {URLS[2]}

    def test_an_engine_that_comes_takes_keys_to_itself_only(self):
        endpoints = Endpoints(URLS)
        before = first_choices(endpoints)
        endpoints.add("http://new:8000", host="new", well=True)
        after = first_choices(endpoints)
        changed = {key for key in KEYS if after[key] != before[key]}
        assert {after[key] for key in changed} == {"http://new:8000"}
        assert len(changed) < len(KEYS) / 3

    def test_what_is_remembered_of_a_key_changes_no_choice(self, monkeypatch):
        """Many engines that come, go, fill up and fail: with and without the memory each key goes to the same."""
        urls = [f"http://e{i}:8000" for i in range(30)]
        dice, now = random.Random(4), 0.0
        sides = [Endpoints(urls, max_in_flight=6, clock=lambda: now) for _ in range(2)]
        monkeypatch.setattr("gateway.upstream.endpoints.ORDERS_KEPT", 20)
        keys = [*KEYS[:40], *(b"long " * 50 + key for key in KEYS[:10])]
        for turn in range(1500):
            number, event, key, now = dice.randrange(30), dice.random(), dice.choice(keys), turn / 10
            chosen = []
            for many, side in zip((8, 10**9), sides, strict=True):
                monkeypatch.setattr("gateway.upstream.endpoints.MANY", many)
                happen(side, side.all[number % len(side.all)], event, f"http://new{turn}:8000")
                chosen.append(side.choose(key, but=side.all[:2] if event > 0.9 else ()))
                if chosen[-1] is not None:
                    chosen[-1].in_flight += 1
            assert chosen[0].url == chosen[1].url
        assert 0 < len(sides[0]._orders) <= 20
        assert not sides[1]._orders

    def test_one_hot_picture_does_not_pile_up_on_one_engine(self):
        endpoints = Endpoints(URLS)
        for _ in range(100):
            endpoints.choose(b"hot").in_flight += 1
        loads = [endpoint.in_flight for endpoint in endpoints.all]
        assert max(loads) <= load_bound(99, 5, 1.25) == 25
        assert sum(load > 0 for load in loads) >= 4

    @given(st.lists(st.tuples(st.sampled_from(KEYS[:4]), st.booleans()), max_size=200), st.floats(1, 3))
    def test_no_engine_ever_exceeds_the_bound(self, events, factor):
        endpoints = Endpoints(URLS[:3], load_factor=factor, max_in_flight=10**6)
        for key, begins in events:
            if begins:
                bound = load_bound(sum(e.in_flight for e in endpoints.all), 3, factor)
                chosen = endpoints.choose(key)
                chosen.in_flight += 1
                assert chosen.in_flight <= bound
            elif busy := [endpoint for endpoint in endpoints.all if endpoint.in_flight]:
                busy[0].in_flight -= 1

    def test_affinity_does_not_fill_an_engine_above_what_it_may_have(self):
        endpoints = Endpoints(URLS[:2], max_in_flight=10)
        for _ in range(20):
            endpoints.choose(b"hot").in_flight += 1
        assert [endpoint.in_flight for endpoint in endpoints.all] == [10, 10]

    @pytest.mark.parametrize(("affinity", "key"), [(True, None), (False, b"hot")])
    def test_without_a_key_or_by_setting_the_least_busy_is_asked_and_equals_take_turns(self, affinity, key):
        endpoints = Endpoints(URLS[:2], affinity=affinity)
        first = endpoints.choose(key)
        with endpoints.lease(first):
            assert endpoints.choose(key) is not first
        assert endpoints.choose(key) is not first

    @pytest.mark.parametrize("key", [None, b"key"])
    def test_a_paused_one_is_the_last_resort_until_its_time_is_up(self, key):
        now = 0.0
        endpoints = Endpoints(URLS[:2], clock=lambda: now)
        bad = endpoints.choose(key)
        endpoints.pause(bad)
        [good] = [endpoint for endpoint in endpoints.all if endpoint is not bad]
        assert endpoints.choose(key) is good
        assert endpoints.choose(key, but=[good]) is bad
        good.in_flight = 99
        assert endpoints.choose(key) is good
        now = PAUSE_S + 0.1
        assert endpoints.choose(key) is bad

    def test_with_nobody_left_there_is_none(self):
        endpoints = Endpoints(URLS[:1])
        assert endpoints.choose(b"key", but=endpoints.all) is None
        assert Endpoints([]).choose(b"key") is None

    def test_a_lease_ends_with_its_block_even_by_an_error(self):
        endpoints = Endpoints(URLS[:1])
        with pytest.raises(RuntimeError), endpoints.lease(endpoints.all[0]):
            raise RuntimeError
        assert endpoints.all[0].in_flight == 0
