from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.refused import ImageRefused
from gateway.images.urls import MAX_URL_CHARS, parse_url, redirect_target
from tests.unit.gateway.images.samples import verdict

NUMBER_NOTATIONS = [
    "http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0X7F.0.0.1/", "http://127.1/",
    "http://127.0.1/", "http://0177.0.0.1/", "http://0127.0.0.1/", "http://127.0.0.1./", "http://127.0.0.1../",
    "http://127.0.0.0x1/", "http://0/", "http://00.0.0.0/", "http://256.0.0.1/", "http://127.0.0.1.5/",
    "http://1.2.3.4.0x7f/", "http://0x/", "http://foo.09/",
    "http://\uff11\uff12\uff17.0.0.1/", "http://127\u3002 0.0.1/", "http://127\u30020\u30020\u30021/", "http://\u2460\u2461\u2466.0.0.1/",
    "http://%31%32%37.0.0.1/", "http://[::1%25lo]/", "http://[::1%lo]/", "http://[0:0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.01]/", "http://[127.0.0.1]/", "http://[v1.fe80::a]/", "http://[::1/", "http://::1/", "http://[]/",
]  # fmt: skip
MALFORMED = [
    "", "picture.jpg", "//example.com/a", "http:", "http:/", "http://", "http:///a", "http:example.com", "http:\\\\example.com",
    "ftp://example.com/a", "file:///etc/passwd", "gopher://example.com/", "data:image/png;base64,AA", "javascript:alert(1)",
    "unix:///var/run/docker.sock", "dict://example.com:11211/", "httpx://example.com/", "view-source:http://example.com/",
    "http://user@example.com/", "http://user:pw@example.com/", "http://example.com@127.0.0.1/", "http://@example.com/",
    "http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/", "http://example.com/\\..\\a", "http://example.com#@127.0.0.1:x@/\\",
    "http://exa mple.com/", "http://example.com/a b", " http://example.com/", "http://example.com/ ", "http://example.com/\ta",
    "http://example.com/\r\nHost: a", "http://example.com\x00.evil/", "http://example.com/\x7f", "ht\ntp://example.com/",
    "http://example.com:0/", "http://example.com:65536/", "http://example.com:/", "http://example.com:80:80/", "http://example.com:+80/",
    "http://example.com:8a/", "http://example.com:\uff18/", "http://example.com./", "http://.example.com/", "http://a..b/", "http://-a.com/",
    "http://a-.com/", "http://b\u00fccher.example/", "http://\u0435xample.com/", "http://example\u200b.com/", "http://exam%70le.com/",
    "http://" + "a" * 64 + ".com/", "http://" + "a." * 130 + "com/", "http://example.com/" + "a" * MAX_URL_CHARS, "http://*/", "http://a,b/",
]  # fmt: skip


@pytest.mark.parametrize("url", NUMBER_NOTATIONS + MALFORMED)
def test_what_parsers_could_read_differently_is_refused(url):
    with pytest.raises(ImageRefused) as caught:
        parse_url(url)
    assert caught.value.reason == "invalid_url"


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "requested"),
    [
        ("http://example.com", "http", "example.com", 80, "http://example.com/"),
        ("HTTPS://Example.COM/A/b?c=D#frag", "https", "example.com", 443, "https://example.com/A/b?c=D"),
        ("https://example.com:8443?x=1", "https", "example.com", 8443, "https://example.com:8443/?x=1"),
        ("http://xn--bcher-kva.example/ü.jpg", "http", "xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/%C3%BC.jpg"),
        ("http://a_b.internal-x.c/", "http", "a_b.internal-x.c", 80, "http://a_b.internal-x.c/"),
        ("http://1.example.com/", "http", "1.example.com", 80, "http://1.example.com/"),
        ("http://8.8.8.8/", "http", "8.8.8.8", 80, "http://8.8.8.8/"),
        ("http://[2606:4700:0::1111]:81/", "http", "2606:4700::1111", 81, "http://[2606:4700::1111]:81/"),
        ("http://[::FFFF:8.8.8.8]/", "http", "::ffff:808:808", 80, "http://[::ffff:808:808]/"),
        ("http://example.com//a/../b/./c", "http", "example.com", 80, "http://example.com//a/../b/./c"),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart_once(url, scheme, host, port, requested):
    target = parse_url(url)
    assert (target.scheme, target.host, target.port) == (scheme, host, port)
    assert str(target.request) == requested
    assert (target.request.raw_host, target.request.port, target.request.scheme) == (host, port, scheme)
    assert (target.address is None) == (not host.replace(".", "").isdigit() and ":" not in host)


def test_a_signed_url_keeps_its_signature_byte_for_byte():
    path = "/b/k%2Fey+1.jpg?X-Amz-Signature=aB%2b/9%3D&q=a%20b+c&empty=&r=~*'()"
    assert parse_url(f"https://s3.example.com{path}").request.raw_path_qs == path


@pytest.mark.parametrize(
    ("location", "becomes"),
    [
        ("/b.png", "https://example.com:8443/b.png"),
        ("b.png?x=1", "https://example.com:8443/a/b.png?x=1"),
        ("//cdn.example.com/b", "https://cdn.example.com/b"),
        ("http://cdn.example.com/b", "http://cdn.example.com/b"),
    ],
)
def test_redirects_are_resolved_against_the_hop_before(location, becomes):
    base = parse_url("https://example.com:8443/a/a.png?secret=1")
    assert str(redirect_target(base, location).request) == becomes


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://example.com/", "http://u@example.com/", "http://2130706433/", "/a\tb", "\\\\evil/a",
     "http:\\\\evil", " http://a/", "http://[::1", "http://[a]b/", "data:image/png;base64,AAAA"],
)  # fmt: skip
def test_a_redirect_is_held_to_the_same_rules(location):
    with pytest.raises(ImageRefused) as caught:
        redirect_target(parse_url("http://example.com/"), location)
    assert caught.value.reason == "invalid_url"


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_refusal(text):
    for url in (text, f"http://{text}", f"http://{text}/", f"http://example.com/{text}"):
        match verdict(parse_url, url):
            case ImageRefused(reason=reason):
                assert reason == "invalid_url"
            case target:
                assert target.request.raw_host == target.host
                assert str(target.request).isascii()


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@example.com/?sig=s3cr3t", "ftp://example.com/?sig=s3cr3t", "http://a b/?sig=s3cr3t"]
)
def test_a_refusal_never_repeats_the_url(url):
    with pytest.raises(ImageRefused) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
