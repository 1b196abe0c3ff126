"""What vLLM does with the names of pictures: it keeps the picture under its `uuid`, and takes the name for it later."""

from __future__ import annotations

from typing import Any

MISSING = "Cache miss for image at index {index} but data is not provided."
"""vLLM 0.32's words, with status 400 (multimodal/processing/processor.py)."""


class PictureCache:
    """Of one engine."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.named = 0
        """Pictures that were asked about by their names alone."""

    def resolve(self, body: dict[str, Any]) -> str | None:
        """Put pictures in place of their names, and keep those that are there; the refusal if one is not kept."""
        contents = [message.get("content") for message in body.get("messages", []) if isinstance(message, dict)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        pictures = [part for part in parts if part.get("type") == "image_url" and "uuid" in part]
        for index, part in enumerate(pictures):
            if part["image_url"] is None:
                self.named += 1
                if part["uuid"] not in self.kept:
                    return MISSING.format(index=index)
                part["image_url"] = self.kept[part["uuid"]]
        self.kept |= {part["uuid"]: part["image_url"] for part in pictures}
        return None
