"""What a worker believes an engine to have."""

from __future__ import annotations

import pytest

from gateway.upstream.pictures import MISSES, MOST, PAUSE_S, SeenPictures


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def seen(clock):
    return SeenPictures(clock=lambda: clock[0])


def test_an_engine_has_what_it_has_answered_about_and_nothing_else(seen):
    assert not seen.has_all(["a"])
    seen.answered(["a", "b"])
    assert seen.has_all(["a"])
    assert seen.has_all(["b", "a"])
    assert not seen.has_all(["a", "c"])


def test_the_latest_are_remembered(seen):
    for number in range(MOST + 1):
        seen.answered([str(number), "always"])
    assert seen.has_all(["always", str(MOST)])
    assert not seen.has_all(["0"])


def test_an_engine_that_has_lost_one_is_sent_all_of_them_again(seen):
    seen.answered(["a", "b"])
    seen.missed()
    assert not seen.has_all(["a"])
    assert not seen.has_all(["b"])
    seen.answered(["a"])
    assert seen.has_all(["a"])


def test_an_engine_that_keeps_nothing_is_left_in_peace_for_a_while(seen, clock):
    for _ in range(MISSES):
        seen.answered(["a"])
        assert seen.has_all(["a"])
        seen.missed()
    seen.answered(["a"])
    assert not seen.has_all(["a"])
    clock[0] += PAUSE_S
    assert seen.has_all(["a"])


def test_misses_count_only_in_a_row(seen):
    for _ in range(3 * MISSES):
        seen.answered(["a"])
        seen.missed()
        seen.answered(["a"], by_name=True)
    assert seen.has_all(["a"])


def test_another_process_at_the_same_address_has_nothing(seen):
    seen.answered(["a"])
    seen.forget()
    assert not seen.has_all(["a"])
