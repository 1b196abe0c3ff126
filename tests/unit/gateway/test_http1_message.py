from __future__ import annotations

import pytest

from gateway.upstream.http1.message import head_of, start_of


class TestStart:
    @pytest.mark.parametrize(
        ("url", "origin", "line", "host"),
        [
            ("http://engine/v1/models", ("engine", 80, False), "/v1/models", "engine"),
            ("http://engine:8000/v1/models", ("engine", 8000, False), "/v1/models", "engine:8000"),
            ("https://engine", ("engine", 443, True), "/", "engine"),
            ("https://engine:443/x", ("engine", 443, True), "/x", "engine"),
            ("https://engine:80/x", ("engine", 80, True), "/x", "engine:80"),
            ("http://ENGINE/x?a=b#c", ("engine", 80, False), "/x?a=b", "engine"),
            ("http://[::1]:8000/base/v1", ("::1", 8000, False), "/base/v1", "[::1]:8000"),
            ("http://[fe80::1%25eth0]/", ("fe80::1%25eth0", 80, False), "/", "[fe80::1]"),
            ("http://bücher.example/", ("bücher.example", 80, False), "/", "xn--bcher-kva.example"),
        ],
    )
    def test_it_names_origin_target_and_host(self, url, origin, line, host):
        assert start_of("GET", url) == (origin, f"GET {line} HTTP/1.1\r\nhost: {host}\r\n")

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://engine/",
            "engine:8000/v1",
            "http://",
            "http://engine:99999/",
            "http://user@engine/",
            "http://user:secret@engine/",
            "http://engine/a b",
            "http://engine/ü",
            "http://engine/a\x7fb",
            "http://engine/\0",
            f"http://{'a' * 64}.example/",
        ],
    )
    def test_what_cannot_be_sent_is_refused_and_no_password_is_shown(self, url):
        with pytest.raises(ValueError, match=r".") as raised:
            start_of("GET", url)
        assert "secret" not in str(raised.value)


class TestHead:
    def test_a_body_has_its_length_and_no_body_has_none(self):
        assert head_of("S\r\nH\r\n", {"a": "b"}, b"xyz") == b"S\r\nH\r\na: b\r\ncontent-length: 3\r\n\r\n"
        assert head_of("S\r\nH\r\n", {}, b"") == b"S\r\nH\r\ncontent-length: 0\r\n\r\n"
        assert head_of("S\r\nH\r\n", {"a": "\xe9"}, None) == b"S\r\nH\r\na: \xe9\r\n\r\n"

    @pytest.mark.parametrize(
        "headers", [{"a": "b\r\nc: d"}, {"a": "b\nc: d"}, {"a": "b\r"}, {"a\r\nb": "c"}, {"a": "b\0"}, {"a": "\u4e2d"}]
    )
    def test_a_header_cannot_become_two(self, headers):
        with pytest.raises(ValueError, match=r"line break|latin-1"):
            head_of("S\r\nH\r\n", headers, None)
