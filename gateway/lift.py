"""Long base64 texts taken out of a body before it is parsed, so that nothing of a picture's size is ever parsed.

A JSON parser looks at each byte of a picture and makes a second text of it, with the interpreter to itself: 5 ms for
4 MiB, in which neither the event loop nor another thread runs, whichever thread does it. Finding the quotes around it
takes 0.4 ms. Knows JSON's quotes and nothing else of it: what looks at all unusual is left where it is.
"""

from __future__ import annotations

from secrets import token_hex

LEAST_BYTES = 64 * 1024
"""Shorter texts stay: they cost little, and searching for them would."""
_MAX_HEAD_BYTES = 128
_NAMES = f"lifted-{token_hex()}-"
"""No client can guess it, so none can write the name of another's text, nor of its own twice."""


def lift(body: bytes) -> tuple[bytes, dict[str, memoryview]]:
    """The body with names in place of its long texts, and these by name; of `data:` URLs only what follows the comma.

    Whatever stands between two quotes, without a backslash before or in it, may be replaced without a change to where
    texts begin and end. Should it not have been a text at all (64 KiB of blanks), the result is no JSON: the caller
    then parses the whole, as it does when a text turns out to be something else than a picture.
    """
    pieces: list[bytes] = []
    texts: dict[str, memoryview] = {}
    done, at = 0, LEAST_BYTES
    while (end := body.find(b'"', at)) > 0:
        start = body.rfind(b'"', done, at) + 1
        # Any longer text that begins behind this quote reaches as far: no place between need be looked at.
        at = end + LEAST_BYTES
        if not start or end - start < LEAST_BYTES or body[start - 2] == ord("\\") or body.find(b"\\", start, end) >= 0:
            continue
        if body[start : start + 5].lower() == b"data:":
            start = body.find(b",", start, start + _MAX_HEAD_BYTES) + 1 or start
        name = f"{_NAMES}{len(texts):04}"
        pieces += (body[done:start], name.encode())
        texts[name] = memoryview(body)[start:end]
        done = end
    return b"".join((*pieces, body[done:])), texts


def told_apart(url: str, texts: dict[str, memoryview]) -> tuple[str, memoryview | None]:
    """A data URL up to its comma, and the text that was taken out behind it; any other URL as it is."""
    if not texts:  # A small picture's URL is still a long text to look through.
        return url, None
    head, comma, name = url.partition(",")
    return (head + comma, texts[name]) if name in texts else (url, None)
