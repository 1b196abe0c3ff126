from __future__ import annotations

import base64
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images import ImageRefused, decode_data_url

MANY = 1 << 20


def url(data: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(data).decode()


@given(st.binary(min_size=1, max_size=64))
def test_what_was_encoded_comes_back(data):
    assert decode_data_url(url(data), max_bytes=64) == data


@pytest.mark.parametrize(
    "head",
    ["DATA:IMAGE/JPEG;BASE64,", "data:image/svg+xml;base64,", "data:image/jpeg;charset=utf-8;base64,", "data:image/x-icon;name=a.ico;base64,"],
)  # fmt: skip
def test_any_image_type_and_parameters_are_read_but_not_believed(head):
    assert decode_data_url(url(b"abc", head), max_bytes=3) == b"abc"


@pytest.mark.parametrize(
    "bad",
    [
        "", "data:", "data:,", "data:image/png", "data:image/png,AAAA", "data:image/png;base64", "data:image/png;base64,",
        "data:;base64,AAAA", "data:text/html;base64,AAAA", "data:image;base64,AAAA", "data:image/;base64,AAAA",
        "data:image/png;base64;charset=a,AAAA", "data:image/png;base32,AAAA", " data:image/png;base64,AAAA",
        "data: image/png;base64,AAAA", "data:image/png ;base64,AAAA", "data:image/png;base64 ,AAAA",
        "data:image/png;base64,AAA", "data:image/png;base64,AA", "data:image/png;base64,A", "data:image/png;base64,AAAAA",
        "data:image/png;base64,====", "data:image/png;base64,=AAA", "data:image/png;base64,AA==AAAA", "data:image/png;base64,A=AA",
        "data:image/png;base64,AAA\n", "data:image/png;base64,AA A", "data:image/png;base64,AA%3D", "data:image/png;base64,AA-_",
        "data:image/png;base64,AAA\u00e9", "data:image/png;base64,\uff21\uff21\uff21\uff21", "data:image/png;base64,AAAA#a=b",
        "data:image/png;" + "a=b;" * 100 + "base64,AAAA", "http://example.com/;base64,AAAA",
    ],
)  # fmt: skip
def test_what_is_not_strict_base64_of_a_picture_is_refused(bad):
    with pytest.raises(ImageRefused) as caught:
        decode_data_url(bad, max_bytes=MANY)
    assert caught.value.reason == "invalid_data_url"


@pytest.mark.parametrize("size", [100, 101, 102])
def test_the_cap_is_exact(size):
    assert len(decode_data_url(url(bytes(size)), max_bytes=size)) == size
    with pytest.raises(ImageRefused, match=f"{size} bytes, at most {size - 1}") as caught:
        decode_data_url(url(bytes(size)), max_bytes=size - 1)
    assert caught.value.reason == "image_too_large"


def test_too_much_is_refused_before_it_is_decoded():
    large = url(bytes(4 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ImageRefused):
            decode_data_url(large, max_bytes=MANY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024
