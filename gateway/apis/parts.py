"""What the APIs' bodies have in common: parts that hold a text or a picture, each refused by its path in the request.

vLLM reads a part by more than its `type`: with a `uuid`, any part may carry a picture, a video or embeddings. So a text
part keeps the fields of a text only, and whatever is not known is refused, not passed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.stages import PictureFields

FIELDS_OF_A_TEXT = frozenset({"type", "text", "refusal", "annotations", "logprobs", "cache_control"})


@dataclass(frozen=True, slots=True)
class Found:
    """A picture in a body."""

    param: str
    """Path of what names the picture, such as `messages[0].content[1].image_url.url`."""
    slot: dict[str, Any]
    """Its part, to be rewritten by `fields`."""
    url: str
    fields: PictureFields
    detail: object = None
    """As sent; what it may be is the pixel budgets' business."""
    detail_param: str | None = None


def objects(value: object, param: str, what: str) -> list[dict[str, Any]]:
    """`value` as an array of objects; raises InvalidRequest that names the item at fault. `what` is one of them."""
    if not isinstance(value, list):
        raise InvalidRequest(f"`{param}` must be an array.", param=param)
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidRequest(f"A {what} must be an object.", param=f"{param}[{i}]")
    return value


def kind_of(part: dict[str, Any], param: str, known: Iterable[str], advice: str) -> str:
    """The part's `type`, which must be one of `known`; `advice` says what to send instead."""
    kind = part.get("type")
    if not isinstance(kind, str):
        raise InvalidRequest(f"A part needs a `type`: {advice}.", param=f"{param}.type", code="unsupported_part")
    if kind not in known:
        raise InvalidRequest(
            f"Parts of type {kind[:50]!r} are not supported: send {advice}.",
            param=f"{param}.type",
            code="unsupported_part",
        )
    return kind


def keep_text_only(part: dict[str, Any]) -> None:
    """Take from a text part what belongs to no text."""
    for name in part.keys() - FIELDS_OF_A_TEXT:
        del part[name]


def no_fields(_: dict[str, Any]) -> None:
    """An API without fields of its own to refuse."""
