"""Every decision of a deployment to one host, with a host that is simulated where programs are run."""

from __future__ import annotations

import copy

import pytest
from delivery.record import Result
from delivery.tools import Done

from serving.host.change import Cancelled
from tests.unit.serving.host.conftest import Killed, image

CHANGES = ("pull", "start", "stop", "point", "canary")


def order(world, *kinds):
    return [what for what in world.done if what.startswith(kinds or CHANGES)]


def serves(world, version, gateway, engine):
    """Exactly this runs, and clients reach it."""
    state = world.state()
    assert state.attempt is None
    assert state.serving.version == version
    assert world.map == f"gateway-{state.serving.gateway_slot}"
    assert world.running() == {
        f"qwen3-vl-gateway-{state.serving.gateway_slot}": image("gateway", gateway),
        f"qwen3-vl-engine-{state.serving.engine_slot}": image("engine", engine),
    }
    return True


class TestDeploying:
    def test_a_first_version_is_looked_at_before_clients_reach_it(self, world):
        assert world.deploy("v1", gateway="g1", engine="e1").result is Result.SUCCEEDED
        assert serves(world, "v1", "g1", "e1")
        done = order(world, "start", "point", "canary")
        assert done == ["point to nowhere", "start engine a", "start gateway a", "canary at 8081", "point to gateway-a", "canary at 8081", "point to gateway-a"]  # fmt: skip

    def test_the_canarys_key_is_made_once(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.deploy("v2", gateway="g2")
        assert order(world, "make") == ["make key"]
        path = world.folder / "etc" / "canary.key"
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("sk-canary\n", 0o600)

    def test_the_old_one_is_drained_after_the_new_one_has_answered(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.done.clear()
        world.in_flight = {"a": 5}
        assert world.deploy("v2", gateway="g2", engine="e2").result is Result.SUCCEEDED
        assert serves(world, "v2", "g2", "e2")
        assert order(world) == [
            "point to gateway-a",
            f"pull {image('gateway', 'g2')}",
            f"pull {image('engine', 'e2')}",
            "start engine b",
            "start gateway b",
            "canary at 8082",
            "point to gateway-b",
            "canary at 8082",
            "point to gateway-b",
            "stop gateway-a",
            "stop engine-a",
        ]
        assert world.in_flight == {}

    def test_requests_that_never_end_do_not_hold_a_deployment_up(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.in_flight = {"a": 10**9}
        assert world.deploy("v2", gateway="g2").result is Result.SUCCEEDED
        assert serves(world, "v2", "g2", "e1")

    def test_a_change_of_the_gateway_alone_keeps_the_engine(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.done.clear()
        assert world.deploy("v2", gateway="g2").result is Result.SUCCEEDED
        assert serves(world, "v2", "g2", "e1")
        assert not [what for what in world.done if "engine-" in what or "start engine" in what]
        assert world.containers["qwen3-vl-gateway-b"]["engine_port"] == 8001

    def test_the_same_again_is_looked_at_and_changes_nothing(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.done.clear()
        assert world.deploy("v1", gateway="g1", engine="e1").result is Result.SUCCEEDED
        assert order(world) == ["point to gateway-a", "canary at 8081"]
        world.wrong = {image("engine", "e1")}
        assert world.deploy("v1", gateway="g1", engine="e1").result is Result.FAILED
        assert serves(world, "v1", "g1", "e1")

    def test_a_first_version_needs_both_images(self, world):
        entry = world.deploy("v1", gateway="g1")
        assert (entry.result, entry.reason) == (Result.FAILED, "nothing serves yet: give the image of the engine, too")
        assert world.containers == {}

    def test_a_version_is_built_once(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        entry = world.deploy("v1", gateway="g2")
        assert entry.result is Result.FAILED
        assert "other images" in entry.reason
        assert serves(world, "v1", "g1", "e1")

    def test_so_many_versions_are_kept_and_the_others_images_go(self, world):
        for number in range(1, 5):
            assert world.deploy(f"v{number}", gateway=f"g{number}", engine="e1").result is Result.SUCCEEDED
        assert [release.version for release in world.state().releases] == ["v3", "v4"]
        assert world.pulled == {image("gateway", "g3"), image("gateway", "g4"), image("engine", "e1")}


class TestFailing:
    @pytest.fixture(autouse=True)
    def before(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.done.clear()

    def test_what_cannot_be_pulled_changes_nothing(self, world):
        world.absent = {image("engine", "e2")}
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert (entry.result, entry.reason) == (Result.FAILED, "manifest unknown")
        assert not order(world, "start", "stop")
        assert serves(world, "v1", "g1", "e1")

    def test_a_wrong_answer_is_never_seen_by_a_client(self, world):
        world.wrong = {image("engine", "e2")}
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert entry.result is Result.ROLLED_BACK
        assert entry.reason == "canary: canary: BAD: 1 of 8 answers are right"
        assert serves(world, "v1", "g1", "e1")
        assert "point to gateway-b" not in world.done
        kept = world.folder / "state" / "failed"
        assert {path.name for path in kept.iterdir()} == {"v2-gateway.log", "v2-engine.log"}
        assert [release.version for release in world.state().releases] == ["v1"]

    def test_an_engine_that_does_not_stay_up_is_not_waited_for(self, world):
        world.broken = {image("engine", "e2")}
        before = world.now
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert entry.result is Result.ROLLED_BACK
        assert "the engine does not stay up" in entry.reason
        assert world.now - before < 30
        assert serves(world, "v1", "g1", "e1")

    def test_what_does_not_become_ready_in_time_is_taken_back(self, world):
        world.broken = {image("engine", "e2")}
        original = world._up

        def up(environ, service):
            done = original(environ, service)
            for box in world.containers.values():
                box["restarts"] = 0
            return done

        world._up = up
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert (entry.result, entry.reason) == (Result.ROLLED_BACK, "not ready after 60 s (status 503)")
        assert serves(world, "v1", "g1", "e1")

    def test_when_the_old_one_is_no_better_a_person_is_called(self, world):
        world.wrong = {image("engine", "e2"), image("engine", "e1")}
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert entry.result is Result.ROLLBACK_FAILED
        assert entry.reason.count("canary") >= 2

    def test_without_haproxy_nothing_is_changed(self, world):
        world.proxy_gone = True
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert (entry.result, entry.reason) == (Result.FAILED, "haproxy does not answer")
        assert not order(world, "start", "stop", "pull")

    def test_haproxy_that_goes_in_between_calls_a_person(self, world):
        original = world._canary

        def canary(url):
            world.proxy_gone = True
            return original(url)

        world._canary = canary
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert entry.result is Result.ROLLBACK_FAILED
        world.proxy_gone, world._canary = False, original
        assert world.deploy("v2", gateway="g2", engine="e2").result is Result.SUCCEEDED
        assert serves(world, "v2", "g2", "e2")

    def test_an_old_one_that_does_not_go_is_said_and_tried_again(self, world):
        original = world._stop

        def stop(_):
            return Done(124, err="docker took more than 240 s and was stopped")

        world._stop = stop
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert entry.result is Result.SUCCEEDED
        assert "the old version is not gone" in entry.reason
        world._stop = original
        assert world.deploy("v2", gateway="g2", engine="e2").result is Result.SUCCEEDED
        assert serves(world, "v2", "g2", "e2")

    def test_a_fault_of_the_program_itself_is_logged_and_told(self, world):
        def canary(_):
            raise ZeroDivisionError

        world._canary = canary
        with pytest.raises(ZeroDivisionError):
            world.deploy("v2", gateway="g2")
        assert world.log()[-1]["result"] == "unknown"


def test_a_first_version_that_fails_is_taken_away(world):
    world.wrong = {image("engine", "e1")}
    entry = world.deploy("v1", gateway="g1", engine="e1")
    assert entry.result is Result.FAILED
    assert "nothing to go back to" in entry.reason
    assert (world.running(), world.map) == ({}, "nowhere")


class TestReplacing:
    """One GPU that one engine fills."""

    @pytest.fixture(autouse=True)
    def before(self, world, setting):
        setting("ENGINE_SWAP", "replace")
        world.deploy("v1", gateway="g1", engine="e1")
        world.done.clear()

    def test_no_two_engines_run_and_the_new_gateway_holds_requests(self, world):
        most = []
        original = world.act

        def act(what):
            original(what)
            most.append(sum("-engine-" in name for name in world.running()))

        world.act = act
        assert world.deploy("v2", gateway="g2", engine="e2").result is Result.SUCCEEDED
        assert serves(world, "v2", "g2", "e2")
        assert max(most) == 1
        assert world.containers["qwen3-vl-gateway-b"]["hold"] == "true"
        done = order(world, "start", "stop", "point", "canary")
        assert done[1:] == [
            "start gateway b",
            "point to gateway-b",
            "stop engine-a",
            "start engine b",
            "canary at 8082",
            "point to gateway-b",
        ]
        # It was drained before its engine ended.
        assert world.done.index("stop engine-a") < world.done.index("remove gateway-a")

    def test_back_again_the_old_engine_is_started_after_the_new_one_has_ended(self, world):
        world.wrong = {image("engine", "e2")}
        entry = world.deploy("v2", gateway="g2", engine="e2")
        assert entry.result is Result.ROLLED_BACK
        assert serves(world, "v1", "g1", "e1")
        done = order(world, "start", "stop", "point", "remove")
        assert done.index("stop engine-b") < len(done) - 1 - done[::-1].index("start engine a")

    def test_a_gateway_without_an_engine_is_not_waited_for(self, world):
        world.broken = {image("engine", "e2")}
        world.in_flight = {"b": 10**9}
        before = world.now
        assert world.deploy("v2", gateway="g2", engine="e2").result is Result.ROLLED_BACK
        assert world.now - before < world.settings.drain_timeout_s
        assert serves(world, "v1", "g1", "e1")

    def test_a_change_of_the_gateway_alone_replaces_nothing(self, world):
        assert world.deploy("v2", gateway="g2").result is Result.SUCCEEDED
        assert "stop engine-a" not in world.done


class TestRollingBack:
    @pytest.fixture(autouse=True)
    def before(self, world):
        world.deploy("v1", gateway="g1", engine="e1")
        world.deploy("v2", gateway="g2", engine="e2")

    def test_goes_to_a_kept_version_with_its_images(self, world):
        entry = world.roll_back("v1")
        assert (entry.result, entry.version, entry.commit) == (Result.SUCCEEDED, "v1", "abcdef0")
        assert serves(world, "v1", "g1", "e1")

    def test_without_a_version_goes_to_the_one_before_and_back(self, world):
        assert world.roll_back().version == "v1"
        assert world.roll_back().version == "v2"
        assert serves(world, "v2", "g2", "e2")

    def test_an_image_that_is_gone_is_fetched_again(self, world):
        world.pulled.discard(image("engine", "e1"))
        assert world.roll_back("v1").result is Result.SUCCEEDED

    def test_a_version_that_is_not_kept_is_refused_with_those_that_are(self, world):
        entry = world.roll_back("v9")
        assert (entry.result, entry.reason) == (Result.FAILED, "v9 is not kept; kept are: v1, v2")
        assert serves(world, "v2", "g2", "e2")


def test_nothing_to_roll_back_to_is_said(world):
    assert world.roll_back().reason == "a version that served before is not kept; kept are: none"


@pytest.mark.parametrize("swap", ["beside", "replace"])
@pytest.mark.parametrize("wrong", [False, True], ids=["good", "wrong"])
def test_killed_after_any_action_the_next_run_converges(world, setting, swap, wrong, tmp_path):
    """Every prefix of a deployment's actions, then the same deployment again, and a rollback."""
    setting("ENGINE_SWAP", swap)
    world.deploy("v1", gateway="g1", engine="e1")
    world.wrong = {image("engine", "e2")} if wrong else set()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = copy.deepcopy((world.containers, world.pulled, world.map))
    killed = 0
    for actions in range(100):
        for path in tmp_path.rglob("*"):
            if path.is_file() and path not in files:
                path.unlink()
        for path, content in files.items():
            path.write_bytes(content)
        world.containers, world.pulled, world.map = copy.deepcopy(kept)
        world.kill_after = actions
        try:
            world.deploy("v2", gateway="g2", engine="e2")
        except Killed:
            killed += 1
        else:
            break
        finally:
            world.kill_after = None
        entry = world.deploy("v2", gateway="g2", engine="e2")
        if wrong:
            assert entry.result is Result.ROLLED_BACK
            assert serves(world, "v1", "g1", "e1")
        else:
            assert entry.result is Result.SUCCEEDED
            assert serves(world, "v2", "g2", "e2")
            assert world.roll_back("v1").result is Result.SUCCEEDED
            assert serves(world, "v1", "g1", "e1")
        results = [line["result"] for line in world.log()]
        assert "under_way" not in results
    assert killed >= 10


def test_a_killed_attempt_is_in_the_log_once(world):
    world.deploy("v1", gateway="g1", engine="e1")
    world.kill_after = 8
    with pytest.raises(Killed):
        world.deploy("v2", gateway="g2", engine="e2")
    assert len(world.log()) == 1
    world.kill_after = None
    assert world.deploy("v2", gateway="g2", engine="e2").result is Result.SUCCEEDED
    assert [(line["version"], line["result"]) for line in world.log()] == [
        ("v1", "succeeded"),
        ("v2", "cancelled"),
        ("v2", "succeeded"),
    ]


def test_killed_after_the_switch_it_has_succeeded_and_is_completed(world):
    world.deploy("v1", gateway="g1", engine="e1")
    original = world._stop

    def stop(words):
        world.kill_after = 0
        return original(words)

    world._stop = stop
    with pytest.raises(Killed):
        world.deploy("v2", gateway="g2", engine="e2")
    world.kill_after, world._stop = None, original
    assert world.roll_back("v1").result is Result.SUCCEEDED
    assert [(line["version"], line["result"]) for line in world.log()][1:] == [("v2", "succeeded"), ("v1", "succeeded")]


def test_a_signal_ends_a_deployment_with_an_entry(world):
    world.deploy("v1", gateway="g1", engine="e1")

    def canary(_):
        raise Cancelled

    world._canary, original = canary, world._canary
    with pytest.raises(Cancelled):
        world.deploy("v2", gateway="g2", engine="e2")
    assert world.log()[-1]["result"] == "cancelled"
    assert world.state().attempt is None
    world._canary = original
    change = world.change()
    change.settle(world.state())
    assert serves(world, "v1", "g1", "e1")
