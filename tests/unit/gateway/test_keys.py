"""The key file on disk: changes are seen, faults keep the keys in force, writes are whole."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gateway import keys as keys_module
from gateway.key_format import render_ring
from gateway.key_ring import Key, hash_secret
from gateway.keys import KeyFile, KeyFileError, read_ring, update, utc_now
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_AGO_NS = 1_000_000_000 * 10**9


def key(number: int, **fields: object) -> Key:
    return Key(id=f"k_{number}", tenant="acme", sha256=hash_secret(f"sk-{number}"), created=NOW, **fields)


def text(*numbers: int) -> str:
    return render_ring(key(number) for number in numbers)


def ids(ring) -> list[str]:
    return [one.id for one in ring.keys]


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(text(1, 2))
    return path


@asynccontextmanager
async def watched(file: KeyFile):
    task = asyncio.get_running_loop().create_task(file.watch())
    try:
        yield task
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class TestStart:
    def test_the_keys_of_the_file_are_in_force(self, path):
        assert KeyFile(path).ring.find("sk-2", NOW).id == "k_2"

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (None, "does not exist"),
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b'{"keys": []}', "holds no keys"),
            (b'{"keys": [{}]}', "key #1: id is missing"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "is not UTF-8"),
            (b" " * (keys_module.MAX_KEY_FILE_BYTES + 1), "has more than"),
        ],
        ids=["missing", "empty", "blank", "no keys", "invalid", "broken", "binary", "huge"],
    )
    def test_a_file_without_usable_keys_stops_the_start_and_says_how_to_make_one(self, tmp_path, content, fault):
        path = tmp_path / "my keys.json"
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(KeyFileError, match=fault) as error:
            KeyFile(path)

        assert f"python -m gateway keys create --file '{path}' --tenant NAME" in str(error.value)

    def test_a_folder_in_its_place_stops_the_start(self, tmp_path):
        with pytest.raises(KeyFileError, match="cannot be read"):
            KeyFile(tmp_path)

    def test_a_byte_order_mark_is_no_fault(self, path):
        path.write_bytes(b"\xef\xbb\xbf" + text(1).encode())

        assert ids(KeyFile(path).ring) == ["k_1"]


class TestWatching:
    async def test_a_removed_key_is_revoked_and_an_added_one_works_within_two_seconds(self, path):
        file = KeyFile(path)
        async with watched(file):
            path.write_text(text(2, 3))
            await until(lambda: file.ring.find("sk-1", NOW) is None)

            assert file.ring.find("sk-2", NOW)
            assert file.ring.find("sk-3", NOW)
        # Two looks and their reads fit into the two seconds.
        assert keys_module.POLL_INTERVAL_S <= 0.9

    async def test_revoking_the_last_key_leaves_none(self, path):
        file = KeyFile(path, poll_interval_s=0.01)
        async with watched(file):
            update(path, lambda _: [])
            await until(lambda: len(file.ring) == 0)

    async def test_a_kubernetes_secret_is_followed_through_the_swap_of_its_links(self, tmp_path):
        def publish(version: str, content: str) -> None:
            folder = tmp_path / version
            folder.mkdir()
            (folder / "keys.json").write_text(content)
            # The same time and size in both versions: what differs is which file is behind the links.
            os.utime(folder / "keys.json", ns=(LONG_AGO_NS, LONG_AGO_NS))
            link = tmp_path / "..data_tmp"
            link.symlink_to(version)
            link.replace(tmp_path / "..data")

        publish("..2026_01", text(1))
        (tmp_path / "keys.json").symlink_to("..data/keys.json")
        file = KeyFile(tmp_path / "keys.json", poll_interval_s=0.01)
        async with watched(file):
            publish("..2026_02", text(2))
            await until(lambda: ids(file.ring) == ["k_2"])

    async def test_watching_survives_every_fault_of_the_file(self, path):
        outcomes: list[str] = []
        file = KeyFile(path, poll_interval_s=0.001, on_reload=outcomes.append)
        async with watched(file):
            for fault in (b"{", b"\xff\xfe\xff", b"", None):
                seen = len(outcomes)
                if fault is None:
                    path.unlink()
                else:
                    path.write_bytes(fault)
                await until(lambda seen=seen: len(outcomes) > seen)
                assert ids(file.ring) == ["k_1", "k_2"]
            path.write_text(text(3))
            await until(lambda: ids(file.ring) == ["k_3"])

    def test_a_request_that_holds_the_ring_keeps_one_consistent_set(self, path):
        file = KeyFile(path)
        held = file.ring
        path.write_text(text(3))
        file.refresh()

        assert ids(held) == ["k_1", "k_2"]
        assert ids(file.ring) == ["k_3"]

    def test_a_second_change_within_one_tick_of_the_file_systems_clock_is_seen(self, path):
        file = KeyFile(path)
        before = path.stat()
        path.write_text(text(1, 3))
        # As if both writes had got the same time: the size and the inode are the same, too.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        file.refresh()

        assert ids(file.ring) == ["k_1", "k_3"]

    def test_a_file_at_rest_is_not_read_again(self, path, monkeypatch):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
        file = KeyFile(path)
        monkeypatch.setattr(keys_module, "_read", lambda _: pytest.fail("the file was read"))

        file.refresh()

    def test_a_file_dated_in_the_future_is_read_at_every_look(self, path):
        file = KeyFile(path, clock=lambda: utc_now() - timedelta(days=365))
        before = path.stat()
        path.write_text(text(1, 3))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        file.refresh()

        assert ids(file.ring) == ["k_1", "k_3"]


class TestFaultsWhileRunning:
    @pytest.fixture
    def outcomes(self) -> list[str]:
        return []

    @pytest.fixture
    def file(self, path, outcomes) -> KeyFile:
        return KeyFile(path, on_reload=outcomes.append)

    @pytest.mark.parametrize("content", [b"", b"{", b'{"keys": [{"id": "k_9"}]}', b"\xff", None])
    def test_a_broken_file_keeps_the_keys_and_is_one_line_in_the_log(self, file, path, content, caplog, outcomes):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        for _ in range(3):
            file.refresh()

        assert ids(file.ring) == ["k_1", "k_2"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "the 2 keys read before stay in force" in caplog.text
        assert outcomes == ["failed"]

    def test_each_new_fault_is_a_line_of_its_own(self, file, path, caplog):
        for content in ("{", "{{", "{"):
            path.write_text(content)
            file.refresh()
        path.unlink()
        file.refresh()

        assert len(caplog.records) == 4

    def test_the_same_file_that_comes_back_ends_the_fault(self, file, path, caplog, outcomes):
        caplog.set_level(logging.INFO)
        path.rename(path.with_suffix(".away"))
        file.refresh()
        path.with_suffix(".away").rename(path)
        file.refresh()
        file.refresh()

        assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
        assert outcomes == ["failed", "ok"]

    def test_a_repaired_file_is_in_force_again(self, file, path):
        path.write_text("{")
        file.refresh()
        path.write_text(text(3))
        file.refresh()

        assert ids(file.ring) == ["k_3"]

    def test_a_change_is_logged_by_ids_and_never_by_hashes(self, file, path, caplog, outcomes):
        caplog.set_level(logging.DEBUG)
        path.write_text(text(2, 3))
        file.refresh()
        path.write_text(text(2, 2))
        file.refresh()

        assert "added ['k_3'], removed ['k_1']" in caplog.text
        assert "k_2: id is used twice" in caplog.text
        assert not any(hash_secret(f"sk-{number}") in caplog.text for number in (1, 2, 3))
        assert outcomes == ["ok", "failed"]


class TestWriting:
    def test_a_new_file_is_for_its_owner_alone(self, tmp_path):
        path = tmp_path / "keys.json"
        ring = update(path, lambda keys: [*keys, key(1)])

        assert ids(ring) == ids(read_ring(path)) == ["k_1"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_an_empty_file_is_filled(self, tmp_path):
        path = tmp_path / "keys.json"
        path.touch(0o640)
        update(path, lambda keys: [*keys, key(1)])

        assert ids(read_ring(path)) == ["k_1"]

    def test_a_files_mode_and_owner_stay_so_that_the_gateway_can_still_read_it(self, path):
        # Root, as in CI's container, can make it somebody else's; other users keep their own.
        owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        path.chmod(0o640)
        os.chown(path, *owner)
        update(path, lambda keys: keys[:1])

        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, *owner)
        assert ids(read_ring(path)) == ["k_1"]

    def test_a_link_stays_a_link_and_the_file_behind_it_changes(self, path, tmp_path):
        link = tmp_path / "link.json"
        link.symlink_to(path)
        update(link, lambda keys: keys[1:])

        assert link.is_symlink()
        assert ids(read_ring(path)) == ["k_2"]

    def test_writers_at_the_same_time_lose_nothing(self, path):
        def add(number: int) -> None:
            update(path, lambda keys: [*keys, key(number)])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(3, 27)))

        assert {one.id for one in read_ring(path).keys} == {f"k_{number}" for number in range(1, 27)}

    def test_a_crash_while_writing_leaves_the_old_file_and_no_other(self, path, monkeypatch):
        before = path.read_text()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(KeyFileError, match=r"cannot be written \(No space left on device\)"):
            update(path, lambda keys: keys[:1])

        assert path.read_text() == before
        assert {entry.name for entry in path.parent.iterdir()} == {"keys.json", ".keys.json.lock"}

    def test_a_change_that_raises_leaves_the_file_and_frees_the_lock(self, path):
        def change(_: list[Key]) -> list[Key]:
            raise LookupError

        with pytest.raises(LookupError):
            update(path, change)

        assert ids(update(path, lambda keys: keys)) == ["k_1", "k_2"]

    @pytest.mark.parametrize("bad", [key(1), key(3, name="a\nb")], ids=["duplicate", "invalid"])
    def test_what_the_gateway_would_refuse_does_not_get_into_the_file(self, path, bad):
        with pytest.raises(KeyFileError):
            update(path, lambda keys: [*keys, bad])

        assert ids(read_ring(path)) == ["k_1", "k_2"]

    def test_an_invalid_file_is_not_overwritten(self, path):
        path.write_text("{")
        with pytest.raises(KeyFileError, match="not JSON"):
            update(path, lambda keys: [*keys, key(3)])

        assert path.read_text() == "{"

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(KeyFileError, match=f"make the folder {tmp_path / 'nowhere'} first"):
            update(tmp_path / "nowhere" / "keys.json", lambda keys: keys)

    def test_a_place_that_cannot_be_written_says_what_to_do(self, path):
        with pytest.raises(KeyFileError, match=r"cannot be written .*: run this as the owner of the file"):
            update(path / "keys.json", lambda keys: keys)
