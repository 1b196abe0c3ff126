"""JSON out. Reading accepts deeper nesting than writing does, and a request must not fail half-way for that."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import InvalidRequest


def encode(value: dict[str, Any], *, sort_keys: bool = False) -> bytes:
    """The value as JSON. Raises InvalidRequest for nesting that cannot be written (254 levels)."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except orjson.JSONEncodeError as exc:
        raise InvalidRequest(f"The body cannot be passed on: {exc}.", code="invalid_json") from exc
