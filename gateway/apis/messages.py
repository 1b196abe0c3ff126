"""Anthropic's Messages API as vLLM serves it: where the pictures are. vLLM makes a chat request of it."""

from __future__ import annotations

import re
from typing import Any

from gateway.apis.parts import Found, kind_of, objects
from gateway.errors import InvalidRequest

BLOCKS = frozenset(
    {
        "text",
        "image",
        "tool_use",
        "tool_result",
        "tool_reference",
        "thinking",
        "redacted_thinking",
        "tool_addition",
        "tool_removal",
    }
)
"""vllm/entrypoints/anthropic/protocol.py: AnthropicContentBlock."""
IN_RESULTS = frozenset({"text", "image", "tool_reference"})
ADVICE = "text and image"
MEDIA_TYPE = re.compile(r"image/[a-z0-9.+-]{1,32}")


def pictures(body: dict[str, Any]) -> list[Found]:
    """Every picture of `messages`, tool results included. Raises InvalidRequest for any other medium, by its path."""
    if isinstance(system := body.get("system"), list):
        for i, block in enumerate(objects(system, "system", "block")):
            kind_of(block, f"system[{i}]", {"text"}, "text")
    found = []
    for i, message in enumerate(objects(body.get("messages", []), "messages", "message")):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        user = message.get("role") == "user"
        for j, block in enumerate(objects(content, f"messages[{i}].content", "block")):
            found += _in_block(block, f"messages[{i}].content[{j}]", BLOCKS, user=user)
    return found


def fields(url: str, _: str) -> dict[str, Any]:
    """The picture as vLLM reads it. It drops a `uuid` here: the engine names the picture by its content."""
    return {"source": {"type": "url", "url": url}}


def _in_block(block: dict[str, Any], param: str, known: frozenset[str], *, user: bool) -> list[Found]:
    kind = kind_of(block, param, known, ADVICE)
    if kind == "image":
        if not user:
            raise InvalidRequest("A picture must stand in a message of the role user.", param=param)
        return [_picture(block, param)]
    if kind != "tool_result" or not isinstance(block.get("content"), list):
        return []
    inner = objects(block["content"], f"{param}.content", "block")
    return [
        found
        for k, result in enumerate(inner)
        for found in _in_block(result, f"{param}.content[{k}]", IN_RESULTS, user=user)
    ]


def _picture(block: dict[str, Any], param: str) -> Found:
    source = block.get("source")
    if not isinstance(source, dict):
        source = {}
    kind = source.get("type")
    if kind == "url" and isinstance(url := source.get("url"), str):
        where = "url"
    elif kind == "base64" and isinstance(data := source.get("data"), str):
        media_type = source.get("media_type")
        if not isinstance(media_type, str) or not MEDIA_TYPE.fullmatch(media_type):
            raise InvalidRequest(
                "`media_type` must be that of a picture, such as image/jpeg.", param=f"{param}.source.media_type"
            )
        url, where = f"data:{media_type};base64,{data}", "data"
    else:
        raise InvalidRequest(
            "`source` must be of type base64 with `media_type` and `data`, or of type url with a `url`.",
            param=f"{param}.source",
        )
    block.clear()
    block["type"] = "image"
    return Found(f"{param}.source.{where}", block, url, fields)
