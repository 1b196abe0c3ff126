"""Body bytes to Parsed: size and time caps, JSON, the fields that must not reach the engine.

Unknown fields are kept, so that a newer vLLM's are usable at once. Of pictures it only sees where they are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from gateway.deadline import Deadline
from gateway.errors import BodyTimeout, BodyTooLarge, InvalidRequest
from gateway.stages import Identified, ImagePart, Operation, Parsed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from gateway.keys import Key
    from gateway.stages import RawRequest

SILENTLY_IGNORED = frozenset(
    {
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "guided_decoding_backend",
        "guided_whitespace_pattern",
    }
)
"""vLLM removed these and drops them without a word: the answer would not be what was asked for."""
OPERATORS_ONLY = frozenset({"mm_processor_kwargs", "media_io_kwargs", "kv_transfer_params", "prompt_embeds"})
"""Fields that reach into the engine: memory use, other hosts, raw embeddings."""
STRIPPED = ("cache_salt", "priority", "request_id")
"""Set by the gateway or by nobody: a client's value would name another tenant's cache, jump the queue or collide."""
TEXT_PARTS = frozenset({"text", "refusal"})
PREDICT_MAX_TOKENS = 512
INLINE_BYTES = 256 * 1024
"""Larger bodies are put together and parsed in a thread: 4 MiB take 3 to 15 ms, and many arrive in the same moment."""


class ClientGone(Exception):
    """The client left; there is nobody to answer."""


class BodyReader:
    """Reads and checks the body of an identified caller's request."""

    def __init__(
        self, pool: Executor, *, max_bytes: int, timeout_s: float, budgets: Mapping[str, int], max_images: int
    ) -> None:
        """`budgets` are the pixels a picture may keep, by `detail`: low, auto and high; `pool` reads large bodies."""
        self._pool = pool
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._budgets = budgets
        self._max_images = max_images

    async def read(self, identified: Identified) -> Parsed:
        """Raise InvalidRequest, BodyTooLarge or BodyTimeout; ClientGone when the client leaves half-way."""
        raw = identified.allowed.raw
        if raw.operation is Operation.MODELS:
            return Parsed(identified, {}, (), stream=False)
        chunks = await self._receive(raw)
        try:
            body = await self._loads(chunks)
        except orjson.JSONDecodeError as exc:
            raise InvalidRequest(f"The body is not valid JSON: {exc}.", code="invalid_json") from exc
        if not isinstance(body, dict):
            raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
        if raw.operation is Operation.PREDICT:
            body = chat_of_predict(body)
        check_fields(body)
        images = self._images(body, identified.key, predict=raw.operation is Operation.PREDICT)
        stream = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise InvalidRequest("`stream` must be true or false.", param="stream")
        return Parsed(identified, body, images, stream=bool(stream))

    async def _loads(self, chunks: list[bytes]) -> object:
        if sum(map(len, chunks)) <= INLINE_BYTES:
            return orjson.loads(b"".join(chunks))
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: orjson.loads(b"".join(chunks)))

    async def _receive(self, raw: RawRequest) -> list[bytes]:
        declared = raw.headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            raise self._too_large()
        message = await self._next(raw, self._timeout_s)
        if not message.get("more_body"):
            return [self._capped(message.get("body", b""))]
        chunks = [message.get("body", b"")]
        size = len(chunks[0])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while message.get("more_body"):
            message = await self._next(raw, deadline - loop.time())
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                raise self._too_large()
        return chunks

    async def _next(self, raw: RawRequest, timeout_s: float) -> dict[str, Any]:
        try:
            with Deadline(timeout_s):
                message = await raw.receive()
        except TimeoutError as exc:
            raise BodyTimeout(f"The body did not arrive within {self._timeout_s:g} s.") from exc
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    def _capped(self, body: bytes) -> bytes:
        if len(body) > self._max_bytes:
            raise self._too_large()
        return body

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_bytes} bytes: send smaller or fewer pictures.")

    def _images(self, body: dict[str, Any], key: Key, *, predict: bool) -> tuple[ImagePart, ...]:
        found = tuple(
            ImagePart("image" if predict else f"{param}.image_url.url", part, part["image_url"]["url"], budget)
            for param, part in image_parts(body)
            for budget in (self._budget(part["image_url"], param, key),)
        )
        most = self._max_images if key.max_images is None else min(self._max_images, key.max_images)
        if len(found) > most:
            raise InvalidRequest(f"{len(found)} pictures in one request; at most {most} are allowed.", param="messages")
        return found

    def _budget(self, holder: dict[str, Any], param: str, key: Key) -> int:
        # vLLM ignores `detail`; here it chooses the pixel budget, so the engine need not see it.
        detail = holder.pop("detail", None) or "auto"
        if not isinstance(detail, str) or detail not in self._budgets:
            raise InvalidRequest("`detail` must be low, auto or high.", param=f"{param}.image_url.detail")
        budget = self._budgets[detail]
        return budget if key.max_image_pixels is None else min(budget, key.max_image_pixels)


def chat_of_predict(body: dict[str, Any]) -> dict[str, Any]:
    """The chat request that `/predict`'s `{"image", "prompt"}` stands for; temperature 0, so it is cached."""
    image, prompt = body.get("image"), body.get("prompt")
    if not isinstance(image, str) or not image:
        raise InvalidRequest("`image` must be a picture in base64, or a data or http(s) URL.", param="image")
    if not isinstance(prompt, str) or not prompt:
        raise InvalidRequest("`prompt` must be a text.", param="prompt")
    if unknown := sorted(body.keys() - {"image", "prompt", "max_tokens"}):
        raise InvalidRequest(
            f"`{unknown[0]}` is not known; /predict takes image, prompt and max_tokens.", param=unknown[0]
        )
    # Base64 text never holds a colon, a URL always does. The media type is sniffed later, never believed.
    url = image if ":" in image[:16] else f"data:image/x-unknown;base64,{image}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    return {
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "max_tokens": body.get("max_tokens", PREDICT_MAX_TOKENS),
    }


def check_fields(body: dict[str, Any]) -> None:
    """Refuse the fields that would be ignored or are the operator's; drop those that the gateway sets."""
    for name in body.keys() & SILENTLY_IGNORED:
        raise InvalidRequest(
            f"`{name}` is no longer known to vLLM: use `response_format` or `structured_outputs`.", param=name
        )
    for name in body.keys() & OPERATORS_ONLY:
        raise InvalidRequest(f"`{name}` is not open to clients.", param=name)
    for name in STRIPPED:
        body.pop(name, None)


def image_parts(body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every picture's part with its path in the request; a plain string URL is brought into the form `{"url": …}`.

    Raises InvalidRequest for parts that are neither text nor a picture, by their path.
    """
    messages = body.get("messages", [])
    if not isinstance(messages, list):
        raise InvalidRequest("`messages` must be an array.", param="messages")
    found = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest("A message must be an object.", param=f"messages[{i}]")
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for j, part in enumerate(content):
            param = f"messages[{i}].content[{j}]"
            if not isinstance(part, dict):
                raise InvalidRequest("A part must be an object.", param=param)
            kind = part.get("type")
            if kind == "image_url":
                found.append((param, _image_part(part, param)))
            elif not isinstance(kind, str) or kind not in TEXT_PARTS:
                raise InvalidRequest(
                    f"Parts of type {kind!r} are not supported: send text and image_url."
                    if isinstance(kind, str)
                    else "A part needs a `type`: text or image_url.",
                    param=f"{param}.type",
                    code="unsupported_part",
                )
    return found


def _image_part(part: dict[str, Any], param: str) -> dict[str, Any]:
    # vLLM takes `uuid` as the name of a cached picture, whoever it belongs to: a client must never choose it.
    part.pop("uuid", None)
    holder = part.get("image_url")
    if isinstance(holder, str):
        holder = {"url": holder}
    if not isinstance(holder, dict) or not isinstance(holder.get("url"), str):
        raise InvalidRequest("`image_url` must be an object with a `url`.", param=f"{param}.image_url")
    part["image_url"] = {name: holder[name] for name in ("url", "detail") if name in holder}
    return part
