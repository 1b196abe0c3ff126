"""Long texts are taken out of a body, and whatever is unusual stays: the parsed whole decides what a request says."""

from __future__ import annotations

import orjson
import pytest

from gateway.lift import LEAST_BYTES, lift, told_apart

LONG = "QUJD" * (LEAST_BYTES // 4 + 1)
URL = "data:image/png;base64,"


def chat(*urls: str, text: str = "What is this?") -> dict:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}], "n": 1}


def restored(value: object, texts: dict[str, memoryview]) -> object:
    if isinstance(value, dict):
        return {restored(key, texts): restored(inner, texts) for key, inner in value.items()}
    if isinstance(value, list):
        return [restored(inner, texts) for inner in value]
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(name, str(text, "utf-8"))
    return value


@pytest.mark.parametrize(
    "body",
    [
        chat(URL + LONG),
        chat(URL + LONG, "https://example.com/a.png", URL + LONG * 3, URL + "QUJD"),
        chat(URL + LONG, text='a "quoted" \\ text ' * 20_000),
        chat(URL + LONG, text=LONG),
        {"image": LONG, "prompt": "x"},
        {"a" * 200_000: LONG},
        [LONG, LONG + "\\", '"' + LONG, LONG + '"', "\\" + LONG, LONG],
        {"x": "," + LONG, "y": "data:" + LONG, "z": "é" * 100_000},
    ],
    ids=str,
)
def test_the_rest_with_the_texts_put_back_is_the_body(body):
    text = orjson.dumps(body)
    rest, texts = lift(text)
    assert restored(orjson.loads(rest), texts) == body


def test_pictures_are_taken_out_wherever_they_lie():
    for before in (0, 1, 100, LEAST_BYTES - 1, LEAST_BYTES, 3 * LEAST_BYTES):
        body = chat(URL + LONG, URL + LONG, text="b") | {"a": "x y\\n" * (before // 5)}
        rest, texts = lift(orjson.dumps(dict(reversed(body.items()))))
        assert [bytes(text).decode() for text in texts.values()] == [LONG, LONG]
        assert len(rest) < before * 1.3 + 1000


def test_what_is_no_plain_text_stays():
    for text in (
        b'{"a": "' + LONG.encode() + b'\\u0041"}',
        b'{"a": "\\"' + LONG.encode() + b'", "b": 1}',
        b'{"a": ' + b"1" * LEAST_BYTES * 2 + b"}",
        b'"' + b"a" * (LEAST_BYTES - 1) + b'"',
    ):
        assert lift(text) == (text, {})
    rest, texts = lift(b'{"a": "b",' + b" " * LEAST_BYTES * 2 + b'"c": 1}')
    assert texts
    with pytest.raises(orjson.JSONDecodeError):  # the caller then parses the whole
        orjson.loads(rest)


def test_a_body_full_of_quotes_is_searched_in_steps():
    body = b'"' * (8 << 20)
    assert lift(body) == (body, {})


def test_only_a_data_url_that_ends_before_the_text_is_told_apart():
    _, texts = lift(orjson.dumps([URL + LONG]))
    (name,) = texts
    assert told_apart(URL + name, texts) == (URL, texts[name])
    for url in (name, f"data:image/png;base64,AA,{name}", f"https://example.com/{name}", URL + LONG, URL):
        assert told_apart(url, texts) == (url, None)
