"""Pictures are taken out of large bodies before these are parsed: what is answered and sent on is the same either way."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import httpx
import orjson
import pytest

from gateway import body
from tests.support.gateway import KEY
from tests.support.pictures import data_url, png, question
from tests.unit.gateway.images.samples import encode, photo

LARGE = encode(photo(500, 400), "PNG")
URL = data_url(LARGE)
IMAGE_URL = {"type": "input_image", "image_url": URL}
SOURCE = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(LARGE).decode()}
BODIES = {
    "/v1/chat/completions": question(URL),
    "/v1/responses": {"input": [{"role": "user", "content": [IMAGE_URL, {"type": "input_text", "text": "?"}]}]},
    "/v1/messages": {
        "max_tokens": 3,
        "messages": [{"role": "user", "content": [{"type": "image", "source": SOURCE}, {"type": "text", "text": "?"}]}],
    },
    "/predict": {"image": base64.b64encode(LARGE).decode(), "prompt": "?"},
}


@pytest.fixture
def parsed(monkeypatch):
    """Sizes of what was parsed."""
    sizes = []

    def loads(text):
        sizes.append(len(text))
        return orjson.loads(text)

    monkeypatch.setattr(body, "orjson", SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError))
    return sizes


async def sent(running, path, data):
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as http:
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "cache-control": "no-store"}
        return await http.post(path, content=data, headers=headers)


@pytest.mark.parametrize("path", BODIES)
async def test_the_engine_gets_the_same_whether_or_not_a_picture_was_taken_out(gateway, engine, parsed, path):
    plain = orjson.dumps(BODIES[path])
    assert len(plain) > body.INLINE_BYTES
    escaped = plain.replace(b"/", b"\\/")  # as PHP writes it: nothing can be taken out
    for data in (plain, escaped):
        await sent(gateway, path, data)
    assert parsed[0] < 1000
    assert parsed[-1] == len(escaped)
    first, second = engine.requests[-2:]
    assert first == second
    assert b"lifted-" not in orjson.dumps(first)


async def test_a_long_text_reaches_the_engine_whole(gateway, engine, parsed):
    long = "A" * 300_000
    request = question(URL, text=long)
    assert (await sent(gateway, "/v1/chat/completions", orjson.dumps(request))).status_code == 200
    assert engine.requests[-1]["messages"][0]["content"][-1]["text"] == long
    assert max(parsed) > 300_000


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda text: text[:-1], "invalid_json", "unexpected end of data"),
        (lambda text: text.replace(b"data:image/png;base64,", b"data:image/png;base64,AA,"), "invalid_data_url", "4"),
        (lambda text: text.replace(b"data:image/png;base64,", b"data:image/png,"), "invalid_data_url", "image type"),
        (lambda text: text.replace(b"data:image/png;base64,", b"https://example.com/"), "invalid_url", "longer than"),
        (lambda text: text.replace(b"data:image/png;base64,iVBO", b"data:image/png;base64,iV\\u0021O"), None, "base64"),
        (lambda text: text.replace(b"iVBORw0K", b"iVBO w0K"), "invalid_data_url", "not valid"),
        (lambda text: text.replace(b"iVBORw0K", b"iVBORw0"), "invalid_data_url", "multiple of 4"),
    ],
)
async def test_refusals_are_those_of_the_whole_body(gateway, engine, change, code, words):
    response = await sent(gateway, "/v1/chat/completions", change(orjson.dumps(question(URL))))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == (code or "invalid_data_url")
    assert words in error["message"]
    assert "lifted-" not in response.text
    assert engine.requests == []


async def test_a_small_picture_beside_large_ones_stays_in_its_place(gateway, engine):
    request = question(URL)
    parts = request["messages"][0]["content"]
    parts[1:1] = [{"type": "image_url", "image_url": {"url": data_url(png())}}, parts[0]]
    assert (await sent(gateway, "/v1/chat/completions", orjson.dumps(request))).status_code == 200
    urls = [part["image_url"]["url"] for part in engine.requests[-1]["messages"][0]["content"][:3]]
    assert urls[0] == urls[2] != urls[1]
