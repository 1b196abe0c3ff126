"""How long a picture server allows its answer to be kept, and with what it can be asked again."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.images.freshness import MAX_FRESH_S, Validators, fresh_s, name_of, validators_of

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:50:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Cache-Control": "max-age=60"}, 60),
        ({"Cache-Control": "MAX-AGE=60 , public"}, 60),
        ({"Cache-Control": 'max-age="60"'}, 60),
        ({"Cache-Control": "max-age=60, s-maxage=5"}, 5),
        ({"Cache-Control": "s-maxage=0, max-age=60"}, 0),
        ({"Cache-Control": "max-age=60", "Age": "45"}, 15),
        ({"Cache-Control": "max-age=60", "Age": "61"}, 0),
        ({"Cache-Control": "max-age=60", "Age": "soon"}, 60),
        ({"Cache-Control": "max-age=-1"}, 0),
        ({"Cache-Control": "max-age=6e9"}, 0),
        ({"Cache-Control": "max-age=\u0666"}, 0),
        ({"Cache-Control": "max-age=99999999999999999999"}, MAX_FRESH_S),
        ({"Cache-Control": "max-age=60, no-cache"}, 0),
        ({"Cache-Control": 'no-cache="Set-Cookie", max-age=60'}, 0),
        ({"Cache-Control": "max-age=60, no-store"}, None),
        ({"Cache-Control": "private, max-age=60"}, None),
        ({"Cache-Control": "max-age=60", "Vary": "*"}, None),
        ({"Cache-Control": "max-age=60", "Vary": "Accept"}, 60),
        ({"Expires": LATER, "Date": DATE}, 60),
        ({"Expires": LATER, "Date": DATE, "Age": "50"}, 10),
        ({"Expires": DATE, "Date": LATER}, 0),
        ({"Expires": "0", "Date": DATE}, 0),
        ({"Expires": LATER}, 0),
        ({"Expires": LATER, "Date": "Sun, 06 Nov 1994 08:49:37"}, 0),
        ({"Expires": LATER, "Date": DATE, "Cache-Control": "max-age=1"}, 1),
    ],
)
def test_freshness_is_what_the_server_says_and_never_guessed(headers, seconds):
    assert fresh_s(headers) == seconds


def test_several_lines_of_a_header_count_together():
    headers = CIMultiDict([("cache-control", "max-age=60"), ("cache-control", "no-store")])
    assert fresh_s(headers) is None


@pytest.mark.parametrize(
    ("headers", "conditions"),
    [
        ({}, {}),
        ({"ETag": '"a"'}, {"If-None-Match": '"a"'}),
        ({"ETag": 'W/"a b"'}, {}),
        ({"ETag": 'W/"a-b"', "Last-Modified": DATE}, {"If-None-Match": 'W/"a-b"', "If-Modified-Since": DATE}),
        ({"ETag": "unquoted"}, {}),
        ({"ETag": f'"{"a" * 300}"', "Last-Modified": "yesterday\u00b9"}, {}),
        ({"ETag": '"a"\r\nHost: b'}, {}),
    ],
)
def test_only_well_formed_validators_are_sent_back(headers, conditions):
    validators = validators_of("source", headers)
    assert validators.conditions == conditions
    assert bool(validators) is bool(conditions)
    assert validators.source == "source"


def test_a_name_keeps_no_secret_of_a_url():
    assert "s3cr3t" not in name_of("http://a/?sig=s3cr3t")
    assert name_of("http://a/") != name_of("http://b/")
    assert Validators("x") == Validators("x", "", "")
