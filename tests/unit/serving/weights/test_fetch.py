"""The whole order of a fetch over a source in memory: resuming, damage, pruning, room."""

import json
import os
import threading
from pathlib import Path

import pytest

from serving.weights import fetch as order
from serving.weights import manifest, progress, transfer
from serving.weights.errors import Misconfigured, NoRoom, NotThere, Refused, Stopped, Unreachable
from serving.weights.store import Store
from tests.unit.serving.weights.support import Memory, bring, checkpoint, sha256, sums, tensors, visible_faults


@pytest.fixture
def to(tmp_path):
    return tmp_path / "to"


@pytest.fixture
def files():
    return checkpoint()


def size(files):
    return sum(map(len, files.values()))


class TestAFirstFetch:
    def test_it_puts_the_checkpoint_behind_current(self, to, files):
        outcome, _ = bring(Memory(files), to)
        assert outcome.path == to / "current"
        assert str((to / "current").readlink()) == f"revisions/{outcome.digest}"
        assert visible_faults(to, [files]) == []
        assert not outcome.was_there

    def test_others_may_read_it_whatever_the_umask(self, to, files):
        before = os.umask(0o077)
        try:
            bring(Memory(files), to)
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in (to / "current").iterdir()} == {0o644}
        assert {path.stat().st_mode & 0o777 for path in (to, to / "revisions", (to / "current").resolve())} == {0o755}

    def test_unvouched_files_are_told_and_recorded(self, to, files):
        _, said = bring(Memory(files), to)
        assert any("computed now and written to manifest.json" in line for line in said)
        written = manifest.parse((to / "current" / "manifest.json").read_text(), "x")
        assert {name: promise.sha256 for name, promise in written.items()} == {n: sha256(d) for n, d in files.items()}

    def test_large_files_come_in_parts_and_small_ones_first(self, to, files):
        source = Memory(files)
        bring(source, to, parallel=1)
        names = [name for name, _, _ in source.reads]
        assert names[:3] == sorted(names[:3], key=lambda name: len(files[name]))
        assert [stop - start for name, start, stop in source.reads if name.startswith("model-00001")][:3] == [
            100_000
        ] * 3

    def test_the_sources_own_sums_are_believed(self, to, files):
        _, said = bring(Memory(files | {"SHA256SUMS": sums(files).encode()}), to)
        assert not any("computed now" in line for line in said)
        spoilt = files | {"SHA256SUMS": sums(files | {"config.json": b"x"}).encode()}
        with pytest.raises(Refused, match=r"config.json does not match its checksum"):
            bring(Memory(spoilt), to / "2")

    def test_the_manifest_of_one_fetch_serves_the_next(self, to, files):
        bring(Memory(files), to)
        text = (to / "current" / "manifest.json").read_bytes()
        _, said = bring(Memory(files | {"manifest.json": text}), to / "2")
        assert not any("computed now" in line for line in said)

    @pytest.mark.parametrize("data", [b"", b"x" * 100])
    def test_a_manifest_of_absurd_size_is_refused(self, to, files, data, monkeypatch):
        monkeypatch.setattr(order, "MAX_MANIFEST_BYTES", 50)
        with pytest.raises(Misconfigured, match="which no manifest has"):
            bring(Memory(files | {"manifest.json": data}), to)

    def test_an_empty_text_is_a_file_too(self, to, files):
        files["NOTICE"] = b""
        bring(Memory(files), to)
        assert visible_faults(to, [files]) == []

    @pytest.mark.parametrize(
        ("name", "data", "what"),
        [
            ("config.json", b"\x80\x04K\x01.", "no JSON"),
            ("model-00001-of-00002.safetensors", b"\x80\x04K\x01.", "no sound safetensors"),
            ("model-00001-of-00002.safetensors", tensors(5, 100), "lacks 2 tensors"),
        ],
    )
    def test_content_that_lies_about_itself_never_becomes_visible(self, to, files, name, data, what):
        with pytest.raises(Refused, match=what):
            bring(Memory(files | {name: data}), to)
        assert not (to / "current").exists()
        assert visible_faults(to, []) == []


class TestGoingOn:
    def interrupted(self, to, files, after):
        source, stop = Memory(files), threading.Event()
        source.on_piece = lambda: stop.set() if source.served > after else None
        with pytest.raises(Stopped):
            bring(source, to, stop=stop, parallel=1)
        assert visible_faults(to, []) == []
        return source.served

    def test_a_run_that_was_stopped_is_continued_at_its_byte(self, to, files):
        served = self.interrupted(to, files, 250_000)
        source = Memory(files)
        _, said = bring(source, to, parallel=1)
        assert source.served + served == size(files) + source.piece
        assert any("are here already: going on from there" in line for line in said)
        assert visible_faults(to, [files]) == []

    def test_bytes_that_a_power_cut_took_back_are_fetched_again(self, to, files):
        self.interrupted(to, files, 250_000)
        (half,) = (to / "revisions").glob("*.partial/model-00001*")
        data = bytearray(half.read_bytes())
        data[150_000] ^= 1
        half.write_bytes(data)
        source = Memory(files)
        bring(source, to)
        assert ("model-00001-of-00002.safetensors", 100_000, 200_000) in source.reads
        assert ("model-00001-of-00002.safetensors", 0, 100_000) not in source.reads
        assert visible_faults(to, [files]) == []

    def test_a_whole_file_that_was_damaged_between_runs_is_fetched_again(self, to, files):
        self.interrupted(to, files, 400_000)
        (whole,) = (to / "revisions").glob("*.partial/model-00001*")
        whole.write_bytes(whole.read_bytes()[:-1] + b"\x00")
        source = Memory(files)
        bring(source, to)
        assert visible_faults(to, [files]) == []

    def test_a_short_file_counts_for_what_it_is(self, to, files):
        self.interrupted(to, files, 250_000)
        (half,) = (to / "revisions").glob("*.partial/model-00001*")
        os.truncate(half, 1000)
        bring(Memory(files), to)
        assert visible_faults(to, [files]) == []

    def test_other_parts_begin_anew(self, to, files):
        self.interrupted(to, files, 250_000)
        bring(Memory(files), to, part_bytes=70_000)
        assert visible_faults(to, [files]) == []


class TestASourceThatBreaksOff:
    def test_it_is_asked_for_the_rest(self, to, files):
        source = Memory(files)
        source.break_after = [30_000, 0, 50_000, 7]
        bring(source, to, parallel=1)
        assert source.served == size(files)
        assert visible_faults(to, [files]) == []

    def test_it_is_given_up_after_so_many_tries_without_a_byte(self, to, files):
        source = Memory(files)
        source.break_after = [0] * 1000
        with pytest.raises(Unreachable, match="broke off at byte 0"):
            bring(source, to, parallel=1, tries=3)
        assert len(source.reads) == 3

    def test_a_stop_ends_the_pause(self, to, files, monkeypatch):
        source, stop = Memory(files), threading.Event()
        source.break_after = [0] * 1000
        monkeypatch.setattr(transfer, "_pause_s", lambda *_: stop.set() or 3600)
        with pytest.raises(Unreachable):
            bring(source, to, stop=stop, parallel=1)
        assert len(source.reads) == 1

    def test_pauses_grow_to_a_bound_and_differ(self):
        pauses = [transfer._pause_s(n, 0.5) for n in range(1, 20)]
        assert 0.25 <= pauses[0] <= 0.5
        assert max(pauses) <= 30
        assert pauses[-1] >= 15


class TestWhatIsHere:
    def test_a_second_run_reads_nothing(self, to, files):
        source = Memory(files)
        bring(source, to)
        served = source.served
        outcome, said = bring(source, to)
        assert (outcome.was_there, source.served, said) == (True, served, [])

    def test_verify_finds_what_sizes_and_times_hide(self, to, files):
        source = Memory(files)
        bring(source, to)
        victim = (to / "current").resolve() / "model-00001-of-00002.safetensors"
        status = victim.stat()
        victim.write_bytes(victim.read_bytes()[:-1] + b"\x00")
        os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert bring(source, to)[0].was_there
        before = source.served
        outcome, said = bring(source, to, verify=True)
        assert not outcome.was_there
        assert any("is damaged on this disk" in line for line in said)
        assert source.served - before == len(files[victim.name]), "only the damaged file is fetched again"
        assert visible_faults(to, [files]) == []

    def test_a_damaged_checkpoint_is_not_visible_while_it_is_repaired(self, to, files):
        source = Memory(files)
        bring(source, to)
        os.truncate((to / "current").resolve() / "config.json", 3)
        seen = []
        source.on_piece = lambda: seen.append((to / "current").exists())
        bring(source, to)
        assert seen
        assert not any(seen)
        assert visible_faults(to, [files]) == []

    @pytest.mark.parametrize("harm", ["unlink", "record"])
    def test_a_file_or_a_record_that_is_missing_is_noticed(self, to, files, harm):
        source = Memory(files)
        bring(source, to)
        folder = (to / "current").resolve()
        if harm == "unlink":
            (folder / "config.json").unlink()
        else:
            (folder / ".fetch.json").write_text('{"files": 1}')
        assert not bring(source, to)[0].was_there
        assert visible_faults(to, [files]) == []

    def test_a_file_that_only_looks_touched_is_hashed_once_and_stays(self, to, files, monkeypatch):
        source = Memory(files)
        bring(source, to)
        os.utime((to / "current").resolve() / "config.json")
        assert bring(source, to)[0].was_there
        monkeypatch.setattr("serving.weights.digests.of_file", pytest.fail)
        assert bring(source, to)[0].was_there

    def test_bytes_that_nobody_vouched_for_are_held_to_the_first_fetch(self, to, files):
        source = Memory(files)
        bring(source, to)
        (to / "current").resolve().joinpath("config.json").unlink()
        source.files["config.json"] = b'{"model_type": "qwen3_xx"}'
        with pytest.raises(Refused, match=r"config.json does not match its checksum \(sha256"):
            bring(source, to)

    def test_a_pinned_revision_is_not_even_listed(self, to, files):
        source = Memory(files)
        source.pinned = True
        bring(source, to)
        bring(source, to)
        assert source.listed == 1
        bring(source, to, manifest_text=sums(files), manifest_name="SUMS")
        assert source.listed == 2

    def test_a_pinned_revision_that_is_damaged_is_listed_and_repaired(self, to, files):
        source = Memory(files)
        source.pinned = True
        bring(source, to)
        (to / "current").resolve().joinpath("config.json").unlink()
        bring(source, to)
        assert source.listed == 2
        assert visible_faults(to, [files]) == []


class TestASourceThatIsAway:
    def test_it_is_an_error_unless_stale_weights_are_welcome(self, to, files):
        source = Memory(files)
        bring(source, to)
        source.unreachable = True
        with pytest.raises(Unreachable):
            bring(source, to)
        outcome, said = bring(source, to, stale_ok=True)
        assert outcome.was_there
        assert "may be old" in said[0]

    def test_weights_of_another_source_or_none_are_not_welcome(self, to, files):
        source = Memory(files)
        source.unreachable = True
        with pytest.raises(Unreachable):
            bring(source, to, stale_ok=True)
        bring(Memory(files, url="s3://other/model"), to)
        with pytest.raises(Unreachable):
            bring(source, to, stale_ok=True)


class TestSeveralRevisions:
    def test_a_new_revision_takes_over_in_one_step_and_old_ones_go(self, to):
        versions = [checkpoint(seed=seed) for seed in range(4)]
        for each in versions:
            bring(Memory(each), to, keep=2)
        assert visible_faults(to, versions[2:]) == []
        assert len(list((to / "revisions").iterdir())) == 2
        assert (to / "current" / "model-00001-of-00002.safetensors").read_bytes() == versions[3]["model-00001-of-00002.safetensors"]  # fmt: skip

    def test_going_back_is_instant_and_counts_as_new(self, to):
        old, new, third = (Memory(checkpoint(seed=seed)) for seed in range(3))
        bring(old, to)
        bring(new, to)
        outcome, _ = bring(old, to)
        assert outcome.was_there
        bring(third, to, keep=2)
        assert bring(old, to)[0].was_there
        assert not bring(new, to)[0].was_there

    def test_current_is_never_pruned(self, to, files):
        bring(Memory(files), to)
        bring(Memory(checkpoint(seed=1)), to)
        store = Store(to)
        old = [path for path in store.whole() if path.name != store.current()]
        os.utime(store.final(store.current()), (1, 1))
        assert store.prune(0) == [old[0].name]
        assert visible_faults(to, [checkpoint(seed=1)]) == []

    def test_shards_that_did_not_change_are_not_fetched_again(self, to, files, monkeypatch):
        monkeypatch.setattr(order, "LINKED_FROM_BYTES", 100_000)
        bring(Memory(files, vouched=True), to)
        new = files | {"config.json": b'{"model_type": "qwen3_vl", "fixed": true}'}
        source = Memory(new, vouched=True)
        bring(source, to)
        assert source.served == sum(len(data) for name, data in new.items() if not name.endswith(".safetensors"))
        assert visible_faults(to, [files, new]) == []
        assert bring(Memory(files, vouched=True), to)[0].was_there

    def test_a_damaged_shard_is_not_passed_on_to_a_new_revision(self, to, files, monkeypatch):
        monkeypatch.setattr(order, "LINKED_FROM_BYTES", 100_000)
        bring(Memory(files, vouched=True), to)
        victim = (to / "current").resolve() / "model-00001-of-00002.safetensors"
        victim.write_bytes(victim.read_bytes()[:-1] + b"\x00")
        new = files | {"config.json": b"{}"}
        bring(Memory(new, vouched=True), to, keep=1)
        assert visible_faults(to, [new]) == []

    def test_what_killed_runs_left_of_others_goes(self, to, files):
        bring(Memory(files), to)
        for name in ("a.partial", "b.gone", "c.partial.gone"):
            (to / "revisions" / name).mkdir()
        bring(Memory(files), to)
        assert len(list((to / "revisions").iterdir())) == 1


class TestRoom:
    def test_too_little_room_is_told_before_a_byte_is_fetched(self, to, files, monkeypatch):
        monkeypatch.setattr(Store, "free_bytes", lambda _: 10 * 2**20)
        source = Memory(files)
        with pytest.raises(NoRoom, match=r"64.6 MiB more are needed, 10.0 MiB are free. Free 54.6 MiB, delete"):
            bring(source, to)
        assert source.reads == []

    def test_leftovers_make_room_first(self, to, files, monkeypatch):
        (to / "revisions" / "old.partial").mkdir(parents=True)
        monkeypatch.setattr(Store, "free_bytes", lambda self: 0 if self.stale("x") else 2**40)
        bring(Memory(files), to)
        assert visible_faults(to, [files]) == []

    def test_what_is_here_needs_no_room(self, to, files, monkeypatch):
        TestGoingOn().interrupted(to, files, 400_000)
        monkeypatch.setattr(Store, "free_bytes", lambda _: 64 * 2**20 + 250_000)
        bring(Memory(files), to)

    def test_a_disk_that_fills_up_is_told(self, to, files, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.pwrite", full)
        # The lock writes its holder's number with the same call, but is no test of the disk.
        monkeypatch.setattr("serving.weights.lock.os.pwrite", full, raising=False)
        with pytest.raises(NoRoom, match="No space left"):
            bring(Memory(files), to)

    def test_a_piece_that_cannot_be_written_is_no_fault_of_the_source(self):
        with pytest.raises(NoRoom, match="writing failed"):
            transfer._write(os.open(os.devnull, os.O_RDONLY), b"x", 0)


def test_the_terminal_gets_a_bar(to, files, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bring(Memory(files), to)
    assert "fetching" in capsys.readouterr().err


def test_a_record_says_where_it_came_from(to, files):
    bring(Memory(files, revision="abc"), to)
    record = json.loads((to / "current" / ".fetch.json").read_text())
    assert (record["source"], record["revision"]) == ("s3://bucket/model", "abc")
    assert sorted(record["unvouched"]) == sorted(files)


def test_a_checkpoint_that_is_not_there_leaves_nothing(to):
    with pytest.raises(NotThere):
        bring(Memory({}), to)
    assert not (to / "current").exists()
    assert progress.size(0) == "0 B"
    assert list(Path(to / "revisions").iterdir()) == []
