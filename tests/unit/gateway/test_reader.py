"""A head that is known again is compared, not parsed: whoever asks must not be able to tell, whatever they send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.http_server import reader as reading
from gateway.http_server.reader import RequestReader, UpgradeAsked
from gateway.http_server.sent_head import MAX_DIGITS, MOST_BYTES, SentHead

COMMON = {"type": "http", "state": {}}
HEAD = b"POST /v1/x HTTP/1.1\r\nhost: h\r\nauthorization: Bearer sk-1\r\n"


def request(body=b"", *, more=b"", last=b"", length=None):
    digits = b"%d" % len(body) if length is None else length
    return HEAD + more + b"content-length: " + digits + b"\r\n" + last + b"\r\n" + body


class Told:
    """What a reader told, with the pieces of a body put together."""

    def __init__(self):
        self.requests, self.known = [], 0

    def begin(self, head):
        self.requests.append([head, b"", False])

    def add(self, piece):
        self.requests[-1][1] += piece

    def end(self):
        self.requests[-1][2] = True

    def whole(self, head, body):
        self.known += 1
        self.requests.append([head, body, True])

    def facts(self):
        return [
            (head.method, head.scope["path"], head.scope["headers"], body, ended) for head, body, ended in self.requests
        ]


def read(pieces):
    told = Told()
    reader = RequestReader(told, COMMON)
    error = None
    for piece in pieces:
        try:
            reader.feed(piece)
        except (GatewayError, UpgradeAsked) as exc:
            error = type(exc)
            break
    reader.close()
    return told, error


def parsed(pieces):
    """The same by llhttp alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "STRANGE_HEADS", -1)
        told, error = read(pieces)
    assert told.known == 0
    return told.facts(), error


def test_the_second_request_of_a_connection_is_known_and_shares_what_was_found_out():
    told, error = read([request(b"12345"), request(b"67890")])
    assert error is None
    assert told.known == 1
    first, second = (head for head, _, _ in told.requests)
    assert second is first
    assert second.headers[b"authorization"] == b"Bearer sk-1"


def test_a_body_of_another_length_has_a_head_of_its_own_and_shares_the_rest():
    told, _ = read([request(b"12345"), request(b"1" * 12), request(b"67890"), request(b"")])
    assert told.known == 3
    heads = [head for head, _, _ in told.requests]
    assert [head.headers[b"content-length"] for head in heads] == [b"5", b"12", b"5", b"0"]
    assert [dict(head.scope["headers"])[b"content-length"] for head in heads] == [b"5", b"12", b"5", b"0"]
    assert all(head.kept is heads[0].kept for head in heads)


@pytest.mark.parametrize(
    "other",
    [
        request(b"12345").replace(b"sk-1", b"sk-2"),
        request(b"12345").replace(b"/v1/x", b"/v1/y"),
        request(b"12345", more=b"x-forwarded-for: 10.0.0.1\r\n"),
        request(b"12345", last=b"x-forwarded-for: 10.0.0.1\r\n"),
        request(b"12345").replace(b"host: h\r\n", b""),
    ],
)
def test_nothing_of_another_head_is_taken_for_this_one_s(other):
    told, error = read([request(b"12345"), other, request(b"12345")])
    assert error is None
    first, second, third = (head for head, _, _ in told.requests)
    assert first.kept is not second.kept
    assert third.kept is not second.kept
    assert told.facts() == parsed([request(b"12345"), other, request(b"12345")])[0]


def test_a_body_that_comes_later_belongs_to_the_head_that_is_known():
    whole = request(b"abcdefgh")
    told, _ = read([request(b"12345"), whole[:-8], b"abc", b"defgh" + request(b"xy"), request(b"z")])
    assert [body for _, body, _ in told.requests] == [b"12345", b"abcdefgh", b"xy", b"z"]
    assert all(ended for _, _, ended in told.requests)


def test_a_connection_whose_heads_differ_each_time_is_not_looked_at_for_ever(monkeypatch):
    looked = []
    of = SentHead.of
    monkeypatch.setattr(SentHead, "of", lambda *args: looked.append(args) or of(*args))
    read([request(b"1", more=b"traceparent: %d\r\n" % number) for number in range(30)])
    assert len(looked) == reading.STRANGE_HEADS


def test_nothing_is_known_again_behind_a_request_that_ends_the_connection():
    last = request(b"12345", more=b"connection: close\r\n")
    sent = [request(b"12345"), last[:20], last[20:], request(b"12345")]  # Whose head comes in two reads.
    told, error = read(sent)
    assert error is not None
    assert (told.facts(), error) == parsed(sent)


@pytest.mark.parametrize(
    "sent",
    [
        request(b"12345", more=b"content-length: 5\r\n"),
        request(b"5\r\n12345\r\n0\r\n\r\n", length=b"5").replace(b"content-length: 5", b"transfer-encoding: chunked"),
        request(b"12345", more=b"connection: close\r\n"),
        request(b"12345", more=b"expect: 100-continue\r\n"),
        request(b"12345", more=b"x-note: content-length: 5\r\n"),
        request(b"12345", more=b"x: " + b"y" * MOST_BYTES + b"\r\n"),
        b"GET /v1/x HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n" + request(b"12345"),
        request(b"\r\n345") + b"\r\n",
        b"\r\n\r\n" + request(b"12345"),
    ],
)
def test_what_is_not_plain_is_parsed_each_time(sent):
    told, _ = read([sent, sent])
    assert told.known == 0
    assert told.facts() == parsed([sent, sent])[0]


@pytest.mark.parametrize(
    "length", [b"-1", b"+5", b"5 ", b"0x5", b"", b"5,5", b"\xb2", b"9" * (MAX_DIGITS + 1), b"5\r", b"5\n"]
)
def test_a_strange_length_behind_a_known_head_is_the_parser_s_to_judge(length):
    sent = [request(b"12345"), request(b"12345", length=length)]
    told, error = read(sent)
    assert told.known == 0
    assert (told.facts(), error) == parsed(sent)


BODIES = st.sampled_from([b"", b"{}", b"\r\n\r\n", request(b"inner"), b"0\r\n\r\n", b"x" * 300])
REQUESTS = st.builds(
    request,
    BODIES,
    more=st.sampled_from(
        [b"", b"", b"", b"x-a: 1\r\n", b"content-length: 2\r\n", b"connection: close\r\n", b"upgrade: h2c\r\n"]
    ),
    last=st.sampled_from([b"", b"", b"", b"x-b: 2\r\n", b"transfer-encoding: chunked\r\n"]),
    length=st.sampled_from([None, None, None, None, b"2", b"00", b"07", b"x"]),
)


@given(st.lists(REQUESTS, min_size=1, max_size=6), st.data())
def test_whatever_is_sent_is_read_as_the_parser_reads_it(requests, data):
    sent = b"".join(requests)
    ends, at = [], 0
    for one in requests:  # Cut where clients cut, and anywhere.
        at += len(one)
        ends.append(at)
    cuts = sorted({*data.draw(st.lists(st.integers(0, len(sent)), max_size=5)), *ends})
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True) if start < end]
    told, error = read(pieces)
    assert (told.facts(), error) == parsed(pieces)
