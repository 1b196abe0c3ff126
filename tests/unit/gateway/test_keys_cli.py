"""The command line of keys: what is printed where, and which way it exits."""

from __future__ import annotations

import argparse
import json
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from gateway import keys_cli
from gateway.keys import hash_secret, read_ring

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "keys.json"


def keys(*argv: str, now: datetime = NOW) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway")
    keys_cli.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["keys", *argv])
    assert args.run is keys_cli.run
    return keys_cli.run(args, now=lambda: now)


def create(path: Path, capsys, *argv: str) -> str:
    assert keys("create", "--file", str(path), *argv) == 0
    return capsys.readouterr().out.strip()


class TestCreate:
    def test_the_key_alone_goes_to_standard_output_and_works(self, path, capsys):
        assert keys("create", "--file", str(path), "--tenant", "acme") == 0
        out, err = capsys.readouterr()

        assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}\n", out)
        found = read_ring(path).find(out.strip(), NOW)
        assert (found.tenant, found.created, found.expires, found.networks) == (
            "acme",
            NOW.replace(microsecond=0),
            None,
            (),
        )
        assert found.id in err
        assert out.strip() not in err

    def test_the_file_is_made_for_its_owner_alone_and_holds_no_key(self, path, capsys):
        secret = create(path, capsys, "--tenant", "acme")

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert secret not in path.read_text()
        assert hash_secret(secret) in path.read_text()

    def test_a_second_key_leaves_the_first_in_force(self, path, capsys):
        first = create(path, capsys, "--tenant", "acme")
        second = create(path, capsys, "--tenant", "acme")

        ring = read_ring(path)
        assert ring.find(first, NOW).id != ring.find(second, NOW).id

    def test_every_option_gets_into_the_key(self, path, capsys):
        argv = (
            "--tenant",
            "acme",
            "--name",
            "商店",
            "--cidr",
            "10.0.0.0/8",
            "--cidr",
            "::1",
            "192.0.2.7",
            "--models",
            "qwen3-vl-8b,org/b",
            "--expires-in",
        )
        secret = create(path, capsys, *argv, "90d")

        found = read_ring(path).find(secret, NOW)
        assert found.name == "商店"
        assert found.networks == tuple(ip_network(text) for text in ("10.0.0.0/8", "::1", "192.0.2.7"))
        assert found.models == ("qwen3-vl-8b", "org/b")
        assert found.expires == NOW.replace(microsecond=0) + timedelta(days=90)

    @pytest.mark.parametrize(("text", "time"), [("12h", timedelta(hours=12)), ("2w", timedelta(days=14))])
    def test_times_are_given_in_hours_days_and_weeks(self, path, capsys, text, time):
        create(path, capsys, "--tenant", "acme", "--expires-in", text)

        assert read_ring(path).keys[0].expires == NOW.replace(microsecond=0) + time

    @pytest.mark.parametrize(
        ("argv", "fault"),
        [
            ((), "--tenant"),
            (
                ("--tenant", "acme", "--expires-in", "soon"),
                "'soon' is no time: write a number with h, d or w, like 90d",
            ),
            (("--tenant", "acme", "--expires-in", "0d"), "'0d' is no time"),
            (("--tenant", "acme", "--cidr", "10.1.2.3/8"), "did you mean 10.0.0.0/8?"),
        ],
    )
    def test_wrong_usage_exits_with_2_and_says_why(self, path, capsys, argv, fault):
        with pytest.raises(SystemExit) as error:
            keys("create", "--file", str(path), *argv)

        assert error.value.code == 2
        assert fault in capsys.readouterr().err
        assert not path.exists()

    def test_a_bad_tenant_exits_with_1_and_no_key_is_shown(self, path, capsys):
        assert keys("create", "--file", str(path), "--tenant", "a b") == 1
        out, err = capsys.readouterr()

        assert out == ""
        assert "tenant must be" in err

    def test_a_missing_folder_is_named(self, tmp_path, capsys):
        assert keys("create", "--file", str(tmp_path / "nowhere" / "keys.json"), "--tenant", "acme") == 1
        assert "nowhere first" in capsys.readouterr().err


class TestWhichFile:
    def test_the_environment_names_the_file(self, path, capsys, monkeypatch):
        monkeypatch.setenv("GATEWAY_KEYS_FILE", str(path))

        assert keys("create", "--tenant", "acme") == 0
        assert len(read_ring(path)) == 1

    def test_the_option_wins_over_the_environment(self, path, capsys, monkeypatch):
        monkeypatch.setenv("GATEWAY_KEYS_FILE", str(path.with_name("other.json")))
        create(path, capsys, "--tenant", "acme")

        assert len(read_ring(path)) == 1

    @pytest.mark.parametrize("value", ["", " ", None])
    def test_without_either_the_next_step_is_told(self, capsys, monkeypatch, value):
        monkeypatch.delenv("GATEWAY_KEYS_FILE", raising=False)
        if value is not None:
            monkeypatch.setenv("GATEWAY_KEYS_FILE", value)

        assert keys("list") == 2
        assert "Give --file PATH or set GATEWAY_KEYS_FILE" in capsys.readouterr().err


class TestList:
    def test_the_table_shows_everything_but_hashes(self, path, capsys):
        create(path, capsys, "--tenant", "acme", "--name", "ci", "--cidr", "10.0.0.0/8", "--expires-in", "1h")
        create(path, capsys, "--tenant", "globex")
        one, two = read_ring(path).keys

        assert keys("list", "--file", str(path), now=NOW + timedelta(hours=2)) == 0
        out = capsys.readouterr().out
        header, first, second = (re.split(r"  +", line) for line in out.splitlines())
        assert header == ["id", "tenant", "name", "created", "expires", "cidrs"]
        assert first == [one.id, "acme", "ci", "2026-06-01T12:00:00Z", "2026-06-01T13:00:00Z (expired)", "10.0.0.0/8"]
        assert second == [two.id, "globex", "-", "2026-06-01T12:00:00Z", "never", "anywhere"]
        assert one.sha256 not in out

    def test_columns_stay_aligned_with_chinese_names(self, path, capsys):
        create(path, capsys, "--tenant", "acme", "--name", "商店")
        create(path, capsys, "--tenant", "acme", "--name", "abcd")

        keys("list", "--file", str(path))
        wide, narrow = capsys.readouterr().out.splitlines()[1:]
        # Two Chinese characters fill the columns of four Latin ones.
        assert wide.index("2026") + 2 == narrow.index("2026")

    def test_json_is_for_scripts_and_shows_no_hashes(self, path, capsys):
        create(path, capsys, "--tenant", "acme", "--cidr", "10.0.0.0/8", "--expires-in", "1h")
        create(path, capsys, "--tenant", "globex", "--name", "商店")
        one, two = read_ring(path).keys

        assert keys("list", "--file", str(path), "--json", now=NOW + timedelta(hours=2)) == 0
        out = capsys.readouterr().out
        created = "2026-06-01T12:00:00Z"
        assert json.loads(out) == {
            "keys": [
                {"id": one.id, "tenant": "acme", "name": "", "created": created, "expires": "2026-06-01T13:00:00Z",
                 "expired": True, "cidrs": ["10.0.0.0/8"], "models": []},
                {"id": two.id, "tenant": "globex", "name": "商店", "created": created, "expires": None,
                 "expired": False, "cidrs": [], "models": []},
            ]
        }  # fmt: skip
        assert one.sha256 not in out

    def test_a_missing_file_exits_with_1_and_says_how_to_make_one(self, path, capsys):
        assert keys("list", "--file", str(path)) == 1
        assert "python -m gateway keys create" in capsys.readouterr().err


class TestRevoke:
    def test_a_revoked_key_is_gone_and_the_others_stay(self, path, capsys):
        first = create(path, capsys, "--tenant", "acme")
        second = create(path, capsys, "--tenant", "acme")

        assert keys("revoke", "--file", str(path), read_ring(path).find(first, NOW).id) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert "1 left" in err
        assert read_ring(path).find(first, NOW) is None
        assert read_ring(path).find(second, NOW)

    def test_the_last_key_can_be_revoked(self, path, capsys):
        create(path, capsys, "--tenant", "acme")

        assert keys("revoke", "--file", str(path), read_ring(path).keys[0].id) == 0
        assert len(read_ring(path)) == 0

    def test_an_unknown_id_exits_with_1_names_the_next_step_and_is_not_repeated(self, path, capsys):
        secret = create(path, capsys, "--tenant", "acme")

        assert keys("revoke", "--file", str(path), secret) == 1
        err = capsys.readouterr().err
        assert f"python -m gateway keys list --file {path}" in err
        assert secret not in err
        assert len(read_ring(path)) == 1

    def test_a_wrong_path_is_not_made(self, path, capsys):
        assert keys("revoke", "--file", str(path), "k_1") == 1
        assert "does not exist" in capsys.readouterr().err
        assert list(path.parent.iterdir()) == []


def test_the_shell_gets_a_key_into_a_variable(path):
    script = 'KEY=$("$0" -m gateway keys create --file "$1" --tenant acme) && printf %s "$KEY"'
    argv = ["/bin/sh", "-c", script, sys.executable, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)

    assert read_ring(path).find(done.stdout, NOW).tenant == "acme"
