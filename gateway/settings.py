"""GATEWAY_* environment variables to one frozen object; refuses to start on any fault and names them all at once."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.address import parse_networks
from gateway.images.hosts import HostAllowList
from gateway.upstream.names import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "GATEWAY_"
MIB = 1024 * 1024

CommaSeparated = Annotated[tuple[str, ...], NoDecode]
"""`a, b` in the environment, ("a", "b") in Python."""


class SettingsError(Exception):
    """The environment cannot be used; the text has one line for each fault."""


class Settings(BaseSettings):
    """Every knob of the gateway. Field names are the variables without GATEWAY_, in lower case."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address that clients connect to; `0.0.0.0` in a container.")
    port: int = Field(8080, ge=1, le=65535, description="Port of the API.")
    metrics_host: str | None = Field(None, description="Address of `/metrics`; as HOST when empty.")
    metrics_port: int = Field(9090, ge=1, le=65535, description="Port of `/metrics`, apart from the API's.")
    metrics_max_tenants: int = Field(
        50, ge=0, description="Tenants with series of their own, in the key file's order; the others are `other`."
    )
    build_revision: str = Field("", description="Commit that this was built from, shown in `gateway_build_info`.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes. One fills one core.")
    engines: CommaSeparated = Field(
        ("http://127.0.0.1:8000",),
        description="Base URLs of the vLLM servers, comma-separated, without `/v1`; `dns+http://name:port` stands for "
        "all addresses of a name.",
    )
    engine_dns_interval_s: float = Field(
        5.0, gt=0, description="How often the names of `dns+http` engines are looked up."
    )
    engine_choice: Literal["affinity", "least-in-flight"] = Field(
        "affinity",
        description="Which engine is asked: one that has seen the picture or the conversation, or the least busy.",
    )
    engine_load_factor: float = Field(
        1.25, ge=1, description="An engine gets at most so many times the mean load by affinity."
    )
    engine_pictures_by_name: bool = Field(
        default=True,
        description="Ask an engine that has a picture by its name alone, as long as it takes that (chat completions).",
    )
    engine_api_key: SecretStr | None = Field(None, description="Key that vLLM expects (its `VLLM_API_KEY`).")
    engine_connect_timeout_s: float = Field(2.0, gt=0, description="Longest wait for a connection to an engine.")
    engine_first_token_timeout_s: float = Field(
        120.0, gt=0, description="Longest wait for the first token of a stream, the engine's own queue included."
    )
    engine_idle_timeout_s: float = Field(60.0, gt=0, description="Longest silence between two tokens of a stream.")
    engine_answer_timeout_s: float = Field(
        600.0, gt=0, description="Longest wait for a whole answer that is not streamed."
    )
    engine_retry_ratio: float = Field(
        0.2, ge=0, le=1, description="Share of the requests that may be asked of another engine; 0: none is."
    )
    engine_probe_interval_s: float = Field(
        2.0, ge=0, description="How often each engine is asked for one token; 0 switches that off."
    )
    engine_probe_timeout_s: float = Field(
        5.0, gt=0, description="An engine that gives nothing at all for so long is taken out until it does."
    )
    hold_without_engine: bool = Field(
        default=False,
        description="Let requests wait, to their deadline, while no engine is up (cold start, scale to zero).",
    )
    engine_max_in_flight: int = Field(
        64, ge=1, description="Requests at one engine at a time, for each worker; the others wait here, in order."
    )
    queue_max: int = Field(1024, ge=1, description="Requests that may wait in each worker; more are refused at once.")
    queue_interactive_s: float = Field(20.0, gt=0, description="Longest wait of a key with priority interactive.")
    queue_default_s: float = Field(60.0, gt=0, description="The same for priority default.")
    queue_bulk_s: float = Field(600.0, gt=0, description='The same for priority bulk and `"service_tier": "flex"`.')
    requests_per_minute: int | None = Field(None, ge=1, description="Limit of keys without their own; none when empty.")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="The same for tokens of prompt, pictures and answer, priced before and settled after."
    )
    concurrent_requests: int | None = Field(None, ge=1, description="The same for requests under way at once.")
    tokens_per_day: int | None = Field(None, ge=1, description="The same for tokens a day (UTC).")
    default_output_tokens: int = Field(1024, ge=1, description="What an answer is priced at without `max_tokens`.")
    max_output_tokens: int = Field(32768, ge=1, description="No answer is priced higher: the engine's context length.")
    model_revision: str = Field(
        "", description="Names the weights in the cache key: change it with the weights, and old answers are not used."
    )
    keys_file: Path = Field(description="Key file; make it with `python -m gateway keys create`.")
    allowed_cidrs: CommaSeparated = Field(
        ("0.0.0.0/0", "::/0"), description="Client networks that may call at all, comma-separated."
    )
    trusted_proxies: CommaSeparated = Field(
        (), description="Networks of load balancers whose `X-Forwarded-For` is believed, comma-separated."
    )
    redis_url: SecretStr | None = Field(
        None, description="Shared cache, for example `redis://:password@host:6379/0`; in-process only when empty."
    )
    cache_policy: Literal["deterministic", "always", "never"] = Field(
        "deterministic", description="Which answers are kept: those asked for with `temperature` 0, all, or none."
    )
    cache_ttl_s: float = Field(3600.0, gt=0, description="How long an answer is kept.")
    cache_max_bytes: int = Field(64 * MIB, ge=MIB, description="Memory for answers in each worker.")
    image_max_pixels: int = Field(
        512 * 512, ge=64 * 64, description="Pixels of a picture that the model sees at most; larger ones are shrunk."
    )
    image_low_pixels: int = Field(256 * 256, ge=32 * 32, description='The same for `"detail": "low"`.')
    image_high_pixels: int | None = Field(
        None, ge=64 * 64, description='The same for `"detail": "high"`; as IMAGE_MAX_PIXELS when empty.'
    )
    image_max_source_pixels: int = Field(
        50_000_000, ge=64 * 64, description="Pixels of a picture as sent; a larger one is refused unread."
    )
    image_max_bytes: int = Field(20 * MIB, ge=1024, description="Bytes of a picture as sent or fetched.")
    image_max_request_bytes: int = Field(
        128 * MIB, ge=1024, description="Bytes that one request may fetch; its pictures by URL get equal shares."
    )
    image_max_decode_bytes: int = Field(
        80 * MIB, ge=8 * MIB, description="Memory that decoding one picture may take; a heavier one is refused unread."
    )
    image_memory_bytes: int = Field(
        512 * MIB, ge=MIB, description="Memory for decoding in each worker; pictures wait until theirs is free."
    )
    image_cache_max_bytes: int = Field(
        64 * MIB, ge=0, description="Memory for fetched pictures in each worker, and in Redis as well; 0: none is kept."
    )
    image_shrunk_max_bytes: int = Field(
        64 * MIB, ge=0, description="Memory for shrunk pictures in each worker, for further questions; 0: none is kept."
    )
    image_max_count: int = Field(16, ge=1, description="Pictures in one request.")
    image_allowed_hosts: CommaSeparated = Field(
        (), description="Hosts that http(s) pictures may come from: names, `*.example.com` or `*`. Never private ones."
    )
    image_fetch_timeout_s: float = Field(8.0, gt=0, description="Longest time for one picture's download.")
    tenant_secret: SecretStr | None = Field(
        None,
        description="Names tenants' pictures and prefixes at the engines; one for all replicas. Random when empty.",
    )
    max_body_bytes: int = Field(32 * MIB, ge=1024, description="Largest request body.")
    body_timeout_s: float = Field(60.0, gt=0, description="Longest time for a request body to arrive.")
    audit: Literal["off", "hash", "full"] = Field(
        "off", description="One record for each inference: with prompt and output as hashes, or in full."
    )
    audit_file: Path | None = Field(None, description="File of the records, one JSON line each; stdout when empty.")
    audit_max_bytes: int = Field(100 * MIB, ge=MIB, description="The audit file is rotated at this size.")
    audit_backups: int = Field(10, ge=1, description="Rotated audit files that are kept.")
    drain_delay_s: float = Field(
        5.0, ge=0, description="Time after SIGTERM in which it is unready but still answers: load balancers notice."
    )
    drain_timeout_s: float = Field(120.0, ge=0, description="Time after that for requests in flight.")
    otlp_endpoint: str | None = Field(
        None,
        description="Collector of traces (OTLP over HTTP), for example `http://otel-collector:4318`; "
        "without it and `OTEL_EXPORTER_OTLP_ENDPOINT` there are none.",
    )
    trust_traceparent: bool = Field(
        default=False, description="Continue the trace of a client's `traceparent`, instead of starting one."
    )
    audit_stream: str | None = Field(
        None,
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="Redis stream of the records, for example `qwen3vl:audit`, in place of a file or stdout.",
    )
    audit_stream_max_records: int = Field(
        100_000, ge=1, description="About how many records the stream keeps; the oldest leave."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @field_validator("engines", "allowed_cidrs", "trusted_proxies", "image_allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(item for item in (part.strip() for part in value.split(",")) if item)
        return value

    @field_validator("engines")
    @classmethod
    def _engines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names no engine; give at least one, for example http://127.0.0.1:8000")
        value = tuple(url.rstrip("/") for url in value)
        for url in value:
            if url.startswith("dns+"):
                name_of(url)
            elif not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no http(s) URL")
            if "@" in urlsplit(url).netloc:
                raise ValueError("holds a URL with a user name or password: set GATEWAY_ENGINE_API_KEY instead")
            if url.endswith("/v1"):
                raise ValueError(f"{url!r} ends in /v1; give the base URL without it")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no http(s) URL")
        return value

    @field_validator("allowed_cidrs")
    @classmethod
    def _somebody(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty, so nobody could call; 0.0.0.0/0,::/0 lets everybody in")
        parse_networks(value)
        return value

    @field_validator("audit_stream")
    @classmethod
    def _stream(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("audit_file"):
            raise ValueError("and GATEWAY_AUDIT_FILE are both set; records go to one of them")
        # Where REDIS_URL itself is at fault, that is said, and not this.
        if value and "redis_url" in info.data and info.data["redis_url"] is None:
            raise ValueError("needs GATEWAY_REDIS_URL")
        return value

    @field_validator("image_allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        HostAllowList(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_networks(value)
        return value


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment.

    Raises SettingsError with one line for each fault: bad values, missing ones, and unknown GATEWAY_* names, which
    are mostly slips of the pen and would otherwise be ignored in silence.
    """
    environ = os.environ if environ is None else environ
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    given = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    faults = [_unknown(name, names) for name in given if name.upper() not in names]
    values = {name.upper().removeprefix(PREFIX).lower(): value for name, value in given.items() if value.strip()}
    try:
        settings = Settings(**{name: value for name, value in values.items() if name in Settings.model_fields})  # type: ignore[arg-type]
    except ValidationError as exc:
        faults += [_fault(error["loc"], error["type"], error["msg"]) for error in exc.errors(include_input=False)]
        raise SettingsError("\n".join(faults)) from None
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


def _fault(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    name = PREFIX + str(loc[0]).upper()
    if name == PREFIX + "KEYS_FILE" and kind == "missing":
        return f"{name} is not set: create a key with `python -m gateway keys create --file keys.json --tenant NAME`"
    return f"{name}: {message.removeprefix('Value error, ')}"


def _unknown(name: str, names: set[str]) -> str:
    if name.endswith(("_SERVICE_HOST", "_SERVICE_PORT")) or "_PORT_" in name:
        return f"{name} comes from Kubernetes service links: set enableServiceLinks: false on the pod"
    close = difflib.get_close_matches(name.upper(), names, n=1)
    return f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else "")
