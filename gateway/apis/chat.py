"""Chat completions (and the prompts of text completions, which hold no parts): where the pictures are."""

from __future__ import annotations

from typing import Any

from gateway.apis.parts import Found, keep_text_only, kind_of, objects
from gateway.errors import InvalidRequest

TEXTS = frozenset({"text", "refusal"})
ADVICE = "text and image_url"


def pictures(body: dict[str, Any]) -> list[Found]:
    """Every picture of `messages`. Raises InvalidRequest for a part that is neither text nor a picture, by its path."""
    found = []
    for i, message in enumerate(objects(body.get("messages", []), "messages", "message")):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for j, part in enumerate(objects(content, f"messages[{i}].content", "part")):
            param = f"messages[{i}].content[{j}]"
            if kind_of(part, param, {"image_url", *TEXTS}, ADVICE) == "image_url":
                found.append(_picture(part, param))
            else:
                keep_text_only(part)
    return found


def fields(url: str, uuid: str) -> dict[str, Any]:
    """The picture as vLLM reads it."""
    return {"image_url": {"url": url}, "uuid": uuid}


def named(uuid: str) -> dict[str, Any]:
    """The picture that vLLM keeps under this name."""
    return {"image_url": None, "uuid": uuid}


def _picture(part: dict[str, Any], param: str) -> Found:
    holder = part.get("image_url")
    if isinstance(holder, str):
        holder = {"url": holder}
    if not isinstance(holder, dict) or not isinstance(holder.get("url"), str):
        raise InvalidRequest("`image_url` must be an object with a `url`.", param=f"{param}.image_url")
    # vLLM takes `uuid` as the name of a cached picture, whoever it belongs to: a client must never choose it. And it
    # ignores `detail`: here that chooses the pixel budget.
    part.clear()
    part["type"] = "image_url"
    where = f"{param}.image_url"
    return Found(f"{where}.url", part, holder["url"], fields, holder.get("detail"), f"{where}.detail")
