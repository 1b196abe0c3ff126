"""What a key is: found by its secret, gone when it expires, and never shown."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.address import is_allowed, parse_networks
from gateway.key_format import parse_ring, render_ring
from gateway.key_ring import Key, KeyFileError, KeyRing, hash_secret, new_secret

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECRET = "sk-the-secret-of-this-test"
HASH = hash_secret(SECRET)


def item(**fields: object) -> dict[str, object]:
    return {"id": "k_1", "tenant": "acme", "sha256": HASH, "created": "2026-01-01T00:00:00Z", **fields}


def ring(*items: object) -> KeyRing:
    return parse_ring(json.dumps({"keys": list(items)}))


keys = st.builds(
    Key,
    id=st.from_regex(r"k_[A-Za-z0-9_-]{1,64}", fullmatch=True),
    tenant=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
    sha256=st.binary(min_size=1).map(hash_secret),
    created=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    networks=st.lists(st.sampled_from(["10.0.0.0/8", "::1", "192.0.2.0/24", "0.0.0.0/0"])).map(parse_networks),
    models=st.lists(st.sampled_from(["qwen3-vl-8b", "org/b"])).map(tuple),
    expires=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    name=st.text(st.characters(codec="utf-8"), max_size=128).filter(str.isprintable),
)


class TestFinding:
    def test_a_key_is_found_by_its_secret_as_text_or_bytes(self):
        one = ring(item())

        assert one.find(SECRET, NOW) is one.keys[0]
        assert one.find(SECRET.encode(), NOW) is one.keys[0]

    @given(secret=st.one_of(st.text(st.characters(), max_size=60), st.binary(max_size=60)))
    def test_any_other_secret_is_unknown_and_never_an_exception(self, secret):
        assert ring(item()).find(secret, NOW) is None

    def test_the_hash_itself_is_no_key(self):
        assert ring(item()).find(HASH, NOW) is None

    def test_a_key_works_until_the_moment_it_expires(self):
        one = ring(item(expires="2026-06-01T12:00:00Z"))

        assert one.find(SECRET, NOW - timedelta(microseconds=1)) is not None
        assert one.find(SECRET, NOW) is None

    def test_an_expiry_in_another_time_zone_is_the_same_moment(self):
        one = ring(item(expires="2026-06-01T20:00:00+08:00"))

        assert one.find(SECRET, NOW) is None
        assert one.find(SECRET, (NOW - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=-7)))) is not None

    def test_of_many_keys_each_secret_finds_its_own(self):
        many = ring(*(item(id=f"k_{n}", tenant=f"t{n}", sha256=hash_secret(f"sk-{n}")) for n in range(50)))

        assert len(many) == 50
        assert [many.find(f"sk-{n}", NOW).tenant for n in range(50)] == [f"t{n}" for n in range(50)]


class TestSecrets:
    def test_a_new_secret_has_256_random_bits_and_fits_a_header(self):
        secrets = {new_secret() for _ in range(100)}

        assert len(secrets) == 100
        assert all(re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", secret) for secret in secrets)

    @settings(max_examples=40)
    @given(key=keys)
    def test_a_key_shows_neither_its_hash_in_repr_nor_in_text(self, key):
        assert key.sha256 not in repr(key)
        assert key.sha256 not in str(key)
        assert key.sha256 not in repr(KeyRing([key]))

    @given(
        field=st.sampled_from(
            ["id", "tenant", "sha256", "created", "cidrs", "models", "expires", "name", "extra", "list"]
        ),
        secret=st.builds(new_secret) | st.builds(new_secret).map(hash_secret),
    )
    def test_a_secret_in_any_wrong_place_is_not_repeated(self, field, secret):
        other = item(id="k_2", sha256=HASH.upper())
        bad = (
            item(**{secret: 1})
            if field == "extra"
            else item(**{field: [secret] if field in {"cidrs", "models", "list"} else secret})
        )

        with pytest.raises(KeyFileError) as error:
            ring(bad, other)

        assert secret not in str(error.value)
        assert HASH.upper() not in str(error.value)

    def test_the_exception_for_broken_json_does_not_hold_the_file(self):
        with pytest.raises(KeyFileError) as error:
            parse_ring(f'{{"keys": ["{HASH}",,]}}')

        assert str(error.value) == "not JSON: Expecting value at line 1 column 78"
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__


class TestReading:
    @settings(max_examples=40)
    @given(expected=st.lists(keys, max_size=5, unique_by=(lambda key: key.id, lambda key: key.sha256)))
    def test_what_is_written_is_read_back(self, expected):
        assert list(parse_ring(render_ring(expected)).keys) == expected

    def test_optional_fields_may_be_missing_or_null(self):
        plain, nulls = ring(item(), item(id="k_2", sha256="0" * 64, cidrs=None, expires=None, name=None)).keys

        assert (plain.networks, plain.expires, plain.name) == ((), None, "")
        assert (nulls.networks, nulls.expires, nulls.name) == ((), None, "")

    def test_cidrs_become_networks(self):
        networks = ring(item(cidrs=["10.0.0.0/8", "::ffff:192.0.2.0/120"])).keys[0].networks

        assert is_allowed(ip_address("192.0.2.9"), networks)
        assert not is_allowed(ip_address("192.0.3.9"), networks)

    def test_no_keys_are_a_valid_ring(self):
        assert len(parse_ring('{"keys": []}')) == 0

    @pytest.mark.parametrize(
        ("fields", "fault"),
        [
            ({"role": "admin"}, "key k_1: role is not a field of a key"),
            ({"tenant": None}, "key k_1: tenant is missing"),
            ({"tenant": "a/b"}, "key k_1: tenant must be"),
            ({"tenant": 7}, "key k_1: tenant must be"),
            ({"tenant": "acme\n"}, "key k_1: tenant must be"),
            ({"sha256": "abc"}, "key k_1: sha256 must be 64 lower-case hex digits"),
            ({"created": "yesterday"}, "key k_1: created must be a time with its zone"),
            ({"created": "2026-01-01T00:00:00"}, "key k_1: created must be a time with its zone"),
            ({"created": 1}, "key k_1: created must be a time with its zone"),
            ({"expires": "0001-01-01T00:00:00+23:00"}, "key k_1: expires must be a time with its zone"),
            ({"expires": ""}, "key k_1: expires must be a time with its zone"),
            ({"cidrs": []}, "key k_1: cidrs must be a list like .*; leave it out to allow every address"),
            ({"cidrs": "10.0.0.0/8"}, "key k_1: cidrs must be a list"),
            ({"cidrs": ["10.0.0.0/8", "nowhere"]}, "key k_1: cidrs item 2 is not an IP network"),
            ({"cidrs": [10]}, "key k_1: cidrs item 1 is not an IP network"),
            ({"cidrs": ["10.1.2.3/8"]}, "key k_1: cidrs '10.1.2.3/8' .* did you mean 10.0.0.0/8"),
            ({"models": []}, "key k_1: models must be a list like .*; leave it out to allow every model"),
            ({"models": "a"}, "key k_1: models must be a list"),
            ({"models": ["a", "b\n"]}, "key k_1: models item 2 must be 1 to 128 printable characters"),
            ({"models": [1]}, "key k_1: models item 1 must be"),
            ({"name": "line\nbreak"}, "key k_1: name must be at most 128 printable characters"),
            ({"name": "\ud800"}, "key k_1: name must be"),
            ({"name": "x" * 129}, "key k_1: name must be"),
            ({"name": 1}, "key k_1: name must be"),
            ({"id": "sk-oops"}, "key #1: id must be up to 64"),
            ({"id": None}, "key #1: id is missing"),
        ],
    )
    def test_a_fault_names_the_key_and_the_field(self, fields, fault):
        with pytest.raises(KeyFileError, match=fault):
            ring(item(**fields))

    def test_all_faults_are_told_at_once(self):
        with pytest.raises(KeyFileError) as error:
            ring(item(tenant=""), "text", item(id="k_3", created=None, cidr="10.0.0.0/8"))

        assert [fault.split(":")[0] for fault in str(error.value).split("; ")] == [
            "key k_1",
            "key #2",
            "key k_3",
            "key k_3",
        ]

    def test_two_keys_with_one_id_are_refused(self):
        with pytest.raises(KeyFileError, match="key k_1: id is used twice"):
            ring(item(), item(sha256="0" * 64))

    def test_two_keys_with_one_secret_are_refused_without_showing_its_hash(self):
        with pytest.raises(KeyFileError, match="key k_2: sha256 is the same as that of key k_1") as error:
            ring(item(), item(id="k_2"))

        assert HASH not in str(error.value)

    def test_a_field_given_twice_is_refused(self):
        with pytest.raises(KeyFileError, match="tenant is given twice"):
            parse_ring('{"keys": [{"tenant": "a", "tenant": "b"}]}')

    @pytest.mark.parametrize(
        "text",
        ["", "nonsense", "null", "[]", "{}", '{"keys": {}}', '{"keys": [], "more": 1}', '"keys"', "[" * 100_000],
        ids=lambda text: text[:20],
    )
    def test_what_is_no_key_file_is_refused(self, text):
        with pytest.raises(KeyFileError, match=r"not JSON|not a key file"):
            parse_ring(text)
