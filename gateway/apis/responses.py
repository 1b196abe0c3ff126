"""OpenAI's Responses API as vLLM serves it: where the pictures are, and what a gateway without memory cannot do.

vLLM validates items as typed dicts, which keep unknown fields, and takes any item with a `role` as a chat message. So
only items and parts that are known get through.
"""

from __future__ import annotations

from typing import Any

from gateway.apis.parts import Found, keep_text_only, kind_of, objects
from gateway.errors import InvalidRequest

STATEFUL = {
    "previous_response_id": "send the whole conversation in `input`",
    "conversation": "send the whole conversation in `input`",
    "background": "ask with `stream` instead",
    "store": 'send `"store": false`',
    "previous_input_messages": "send the whole conversation in `input`",
}
"""Fields that need an answer to be kept here, and what to do instead."""
ITEMS = frozenset(
    {"message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"}
)
TEXTS = frozenset({"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"})
ADVICE = "input_text and input_image"
TOOLS = frozenset({"function", "custom", "namespace"})
"""The others are OpenAI's own (search, files, MCP …): vLLM would leave them out without a word."""


def check(body: dict[str, Any]) -> None:
    """Refuse what needs a memory, and tools that nobody would call."""
    for name, instead in STATEFUL.items():
        if body.get(name):
            raise InvalidRequest(f"Nothing is stored here, so `{name}` is not supported: {instead}.", param=name)
    # Said in so many words: vLLM's default is to store, when its operator lets it.
    body["store"] = False
    for i, tool in enumerate(objects(body.get("tools") or [], "tools", "tool")):
        if not isinstance(kind := tool.get("type"), str) or kind not in TOOLS:
            raise InvalidRequest(
                "Tools are called by you: only those of type function or custom are supported.",
                param=f"tools[{i}].type",
                code="unsupported_tool",
            )


def pictures(body: dict[str, Any]) -> list[Found]:
    """Every picture of `input`, tool results included; a plain text holds none. Raises InvalidRequest as in chat."""
    items = body.get("input")
    if items is None or isinstance(items, str):
        return []
    found = []
    for i, item in enumerate(objects(items, "input", "item")):
        kind = item.get("type", "message" if "role" in item else None)
        if not isinstance(kind, str) or kind not in ITEMS:
            raise InvalidRequest(
                f"Items of this type are not supported: send {', '.join(sorted(ITEMS))}.",
                param=f"input[{i}].type",
                code="unsupported_part",
            )
        for name in ("content", "output"):
            if isinstance(item.get(name), list):
                found += _in_parts(item[name], f"input[{i}].{name}")
    return found


def fields(url: str, uuid: str) -> dict[str, Any]:
    """The picture as vLLM reads it; the Responses API has no `uuid`, but vLLM's renderer takes it there as well."""
    return {"image_url": url, "uuid": uuid}


def _in_parts(parts: list[Any], param: str) -> list[Found]:
    found = []
    for j, part in enumerate(objects(parts, param, "part")):
        if kind_of(part, f"{param}[{j}]", {"input_image", *TEXTS}, ADVICE) == "input_image":
            found.append(_picture(part, f"{param}[{j}]"))
        else:
            keep_text_only(part)
    return found


def _picture(part: dict[str, Any], param: str) -> Found:
    url, detail = part.get("image_url"), part.get("detail")
    if not isinstance(url, str):
        raise InvalidRequest(
            "`image_url` must be a data or http(s) URL; there are no files here.", param=f"{param}.image_url"
        )
    part.clear()
    part |= {"type": "input_image", "detail": "auto"}
    detail = "high" if detail == "original" else detail
    return Found(f"{param}.image_url", part, url, fields, detail, f"{param}.detail")
