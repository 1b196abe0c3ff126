"""Body bytes to Parsed: size and time caps, JSON, the fields that must not reach the engine.

Unknown fields are kept, so that a newer vLLM's are usable at once. Of pictures it only sees where they are.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from gateway.apis import api_of
from gateway.deadline import Deadline
from gateway.disconnect import ClientGone
from gateway.errors import BodyTimeout, BodyTooLarge, InvalidRequest, ModelNotFound
from gateway.lift import lift, told_apart
from gateway.places import Place, Places
from gateway.stages import Identified, ImagePart, Operation, Parsed
from gateway.streams import Rest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from gateway.apis import Found
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
OPERATORS_ONLY = frozenset(
    {
        "mm_processor_kwargs",
        "media_io_kwargs",
        "kv_transfer_params",
        "ec_transfer_params",
        "prompt_embeds",
        "vllm_xargs",
        "chat_template",
        "watermarking",
    }
)
"""Fields that reach into the engine: memory use, other hosts, raw embeddings, what plug-ins read, the template that
keeps roles apart, the watermark."""
STRIPPED = ("cache_salt", "priority", "request_id", "session_id")
"""Set by the gateway or by nobody: a client's value would name another tenant's cache, jump the queue or collide."""
TEMPLATE = "chat_template_kwargs"
LOOKED_AT = frozenset({*SILENTLY_IGNORED, *OPERATORS_ONLY, TEMPLATE, *STRIPPED})
"""A request with none of these, as most are, needs no look at each."""
STREAMS_USAGE_IF_ASKED = frozenset({Operation.CHAT, Operation.COMPLETIONS})
"""The other APIs' streams always end with their usage."""
PREDICT_MAX_TOKENS = 512
INLINE_BYTES = 256 * 1024
"""What is longer, without the pictures in it, is parsed in a thread: 4 MiB take 3 to 15 ms, and many arrive at once."""

AT_ONCE = 4
"""Bodies of more than one piece that are read in the same moment: more than decoders take, or most cards deliver."""


class NotAPicture(Exception):
    """A long text stands elsewhere than where a picture does."""


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
        self._places = Places(AT_ONCE)

    async def read(self, identified: Identified) -> Parsed:
        """Raise InvalidRequest, BodyTooLarge or BodyTimeout; ClientGone when the client leaves half-way."""
        raw = identified.allowed.raw
        if raw.operation is Operation.MODELS:
            return Parsed(identified, {}, (), stream=False)
        text = raw.take_body()
        if text is None:
            text = await self._receive(raw)
        if len(text) > self._max_bytes:
            raise self._too_large()
        if len(text) <= INLINE_BYTES:
            return self._parsed(identified, loaded(text))
        rest, lifted = lift(text)
        if lifted and len(rest) <= INLINE_BYTES:
            # The whole is parsed after all when a long text is no picture; and for a refusal that may quote it.
            with suppress(InvalidRequest, NotAPicture):
                return self._parsed(identified, loaded(rest), lifted)
        whole = await asyncio.get_running_loop().run_in_executor(self._pool, loaded, text)
        return self._parsed(identified, whole)

    def _parsed(self, identified: Identified, body: object, lifted: dict[str, memoryview] | None = None) -> Parsed:
        if not isinstance(body, dict):
            raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
        operation = identified.allowed.raw.operation
        predict = operation is Operation.PREDICT
        if predict:
            body = chat_of_predict(body)
        api = api_of(operation)
        check_fields(body)
        api.check(body)
        choose_model(body, identified.key)
        images = self._images(api.pictures(body), identified.key, lifted or {}, predict=predict)
        stream = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise InvalidRequest("`stream` must be true or false.", param="stream")
        hides_usage = bool(stream) and operation in STREAMS_USAGE_IF_ASKED and not asks_for_usage(body)
        return Parsed(identified, body, images, bool(stream), hides_usage)

    async def _receive(self, raw: RawRequest) -> bytes:
        declared = raw.head.headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            raise self._too_large()
        message = await self._next(raw, self._timeout_s)
        first: bytes = message.get("body", b"")
        chunks = [first]
        size = len(first)
        if message.get("more_body"):
            async with Place(self._places) as place:
                loop = asyncio.get_running_loop()
                deadline = loop.time() + self._timeout_s
                while message.get("more_body") and size <= self._max_bytes:
                    message = await self._next(raw, deadline - loop.time())
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    place.received = size
        return first if len(chunks) == 1 else b"".join(chunks)

    async def _next(self, raw: RawRequest, timeout_s: float) -> dict[str, Any]:
        receiving = raw.receive()
        try:
            awaited = receiving.send(None)
        except StopIteration as end:  # It is here already, as small ones mostly are: no deadline has to be set.
            message: dict[str, Any] = end.value
        else:
            try:
                with Deadline(timeout_s):
                    message = await Rest(receiving, awaited)
            except TimeoutError as exc:
                raise BodyTimeout(f"The body did not arrive within {self._timeout_s:g} s.") from exc
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_bytes} bytes: send smaller or fewer pictures.")

    def _images(
        self, found: list[Found], key: Key, lifted: dict[str, memoryview], *, predict: bool
    ) -> tuple[ImagePart, ...]:
        most = self._max_images if key.max_images is None else min(self._max_images, key.max_images)
        if len(found) > most:
            # `messages` or `input`: where the first of them stands.
            param = found[0].param.partition("[")[0]
            raise InvalidRequest(f"{len(found)} pictures in one request; at most {most} are allowed.", param=param)
        parts = tuple(
            ImagePart("image" if predict else at.param, at.slot, url, self._budget(at, key), at.fields, text)
            for at in found
            for url, text in (told_apart(at.url, lifted),)
        )
        if len(lifted) > sum(part.base64 is not None for part in parts):
            raise NotAPicture
        return parts

    def _budget(self, found: Found, key: Key) -> int:
        detail = found.detail or "auto"
        if not isinstance(detail, str) or detail not in self._budgets:
            raise InvalidRequest("`detail` must be low, auto or high.", param=found.detail_param)
        budget = self._budgets[detail]
        return budget if key.max_image_pixels is None else min(budget, key.max_image_pixels)


def loaded(text: bytes) -> object:
    """The value that the JSON text stands for."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}.", code="invalid_json") from exc


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
    if LOOKED_AT.isdisjoint(body):
        return
    for name in body.keys() & SILENTLY_IGNORED:
        raise InvalidRequest(
            f"`{name}` is no longer known to vLLM: use `response_format` or `structured_outputs`.", param=name
        )
    for name in body.keys() & OPERATORS_ONLY:
        raise InvalidRequest(f"`{name}` is not open to clients.", param=name)
    template = body.get(TEMPLATE)
    if isinstance(template, dict) and "chat_template" in template:
        param = f"{TEMPLATE}.chat_template"
        raise InvalidRequest(f"`{param}` is not open to clients.", param=param)
    for name in STRIPPED:
        body.pop(name, None)


def choose_model(body: dict[str, Any], key: Key) -> None:
    """Hold the key to its models: without one in the body it gets the first. Raises ModelNotFound for any other."""
    if not key.models:
        return
    if body.get("model") is None:
        body["model"] = key.models[0]
    if body["model"] not in key.models:
        raise ModelNotFound("This model does not exist, or this key may not use it: see /v1/models.", param="model")


def asks_for_usage(body: dict[str, Any]) -> bool:
    """Whether a stream is to end with its usage. Raises InvalidRequest for what says neither yes nor no."""
    options = body.get("stream_options")
    if options is None:
        return False
    asked = options.get("include_usage") if isinstance(options, dict) else options
    if not isinstance(options, dict) or not isinstance(asked, bool | None):
        raise InvalidRequest(
            "`stream_options` must be an object; `include_usage` in it true or false.", param="stream_options"
        )
    return bool(asked)
