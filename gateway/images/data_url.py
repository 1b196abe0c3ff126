"""`data:` URLs → bytes, strictly. Believes nothing of the media type but that the client meant a picture."""

from __future__ import annotations

import re

import pybase64

from gateway.images.refused import ImageRefused

_MAX_HEADER_CHARS = 128
# RFC 2397 with RFC 2045 tokens. Parameters (charset, name) are allowed and without effect; base64 is not optional.
_HEADER = re.compile(r"data:image/[a-z0-9][a-z0-9!#$&^_.+-]*(?:;[a-z0-9_.-]+=[a-z0-9_.-]*)*;base64", re.IGNORECASE)
_EXAMPLE = "send data:image/jpeg;base64,… with the picture's bytes in standard base64"


def decode_data_url(url: str, base64: memoryview | None = None, *, max_bytes: int) -> bytes:
    """The bytes of a `data:image/…;base64,…` URL, at least 1 and at most `max_bytes`.

    `base64` is what follows a `url` that ends with its comma: a view, as a part of a large text would be a copy.

    Raises ImageRefused: `invalid_data_url`, or `image_too_large` (found from the length, before decoding).

    Strict on purpose (RFC 4648 section 4): the standard alphabet, no whitespace, no percent-encoding, and padding is
    required. A picture whose padding is missing was most often cut short on its way; to decode what is left would
    hide that. The declared type only has to be `image/*`: what the picture is, its own bytes say (sniff.py).
    """
    header, comma, _ = url[: _MAX_HEADER_CHARS + 1].partition(",")
    if not comma or not _HEADER.fullmatch(header):
        raise ImageRefused("invalid_data_url", f"the data URL does not start with an image type and base64: {_EXAMPLE}")
    start = len(header) + 1
    base64_chars = len(url) - start if base64 is None else len(base64)
    if base64_chars == 0:
        raise ImageRefused("invalid_data_url", f"the data URL holds no picture: {_EXAMPLE}")
    if base64_chars % 4:
        raise ImageRefused(
            "invalid_data_url", "the data URL's base64 is not a multiple of 4 long: cut short, or unpadded"
        )
    ending = url[-2:] if base64 is None else str(base64[-2:], "latin-1")
    decoded_bytes = base64_chars // 4 * 3 - ending.endswith("=") - ending.endswith("==")
    if decoded_bytes > max_bytes:
        raise ImageRefused(
            "image_too_large",
            f"the picture is {decoded_bytes} bytes, at most {max_bytes} are accepted: send a smaller one",
        )
    try:
        # SIMD: 4 MiB in 0.4 ms. binascii takes 13, and no other thread, the event loop's included, runs meanwhile.
        return pybase64.b64decode(url[start:] if base64 is None else base64, validate=True)
    except ValueError as exc:  # binascii.Error is one; so is what non-ASCII text raises
        raise ImageRefused("invalid_data_url", f"the data URL's base64 is not valid: {_EXAMPLE}") from exc
