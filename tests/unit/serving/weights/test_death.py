"""A fetch that dies at any one change of the disk: what can be opened is whole, and the next run completes it."""

from __future__ import annotations

import os
import threading

import pytest

from tests.unit.serving.weights.support import Memory, bring, checkpoint, visible_faults


class Killed(BaseException):
    """Death: no handler may do anything to the disk after it."""


STEPS = (
    "pwrite",
    "write",
    "fsync",
    "rename",
    "replace",
    "symlink",
    "unlink",
    "rmdir",
    "mkdir",
    "utime",
    "ftruncate",
    "link",
)


class Death:
    """Lets `after` changes of the disk happen; that one and all later ones raise Killed."""

    def __init__(self, monkeypatch, after):
        self.steps, self.after, self._lock = 0, after, threading.Lock()
        for name in STEPS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real):
        def step(*args, **kwargs):
            with self._lock:
                self.steps += 1
                if self.after is not None and self.steps > self.after:
                    raise Killed
            return real(*args, **kwargs)

        return step


@pytest.mark.parametrize("case", ["update", "repair"])
def test_death_at_any_change_of_the_disk_leaves_a_whole_checkpoint_and_a_way_on(tmp_path, case):
    old, new = checkpoint(1, 30_000, seed=1), checkpoint(1, 30_000, seed=2)

    def before(to):
        bring(Memory(checkpoint(1, 1000, seed=3)), to)
        bring(Memory(old, vouched=True), to)
        if case == "repair":
            bring(Memory(new, vouched=True), to)
            os.truncate((to / "current").resolve() / "config.json", 3)

    def count():
        with pytest.MonkeyPatch.context() as patch:
            before(tmp_path / "count")
            death = Death(patch, None)
            bring(Memory(new, vouched=True), tmp_path / "count", parallel=1, part_bytes=20_000)
            return death.steps

    steps = count()
    assert steps > 30
    for after in range(steps):
        to = tmp_path / str(after)
        before(to)
        # Damage from outside is seen until the first step; from then on it is this code that answers.
        damaged = [new | {"config.json": new["config.json"][:3]}] if case == "repair" else []
        with pytest.MonkeyPatch.context() as patch:
            Death(patch, after)
            with pytest.raises(Killed):
                bring(Memory(new, vouched=True), to, parallel=1, part_bytes=20_000)
        whole = [checkpoint(1, 1000, seed=3), old, new, *damaged]
        assert visible_faults(to, whole, repairing=case == "repair") == []
        assert (to / "current").is_symlink()
        bring(Memory(new, vouched=True), to, parallel=1, part_bytes=20_000)
        assert visible_faults(to, [old, new]) == []
        assert (to / "current" / "config.json").read_bytes() == new["config.json"]
