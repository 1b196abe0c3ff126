"""The error tree and its rendering to OpenAI's shape. Messages are for the client: no secret, no inner detail."""

from __future__ import annotations

from typing import ClassVar, Literal

import orjson

Fault = Literal["client", "limit", "overload", "engine", "gateway"]


class GatewayError(Exception):
    """Ends a request with `status` and `{"error": {"message", "type", "param", "code"}}`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    fault_of: ClassVar[Fault] = "client"
    """Whose fault it is, for the metrics: only `client` and `limit` spare the availability objective."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int | None = None
    ) -> None:
        """`param` names the part of the request at fault; `code` says more than the class does."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.reason = code or self.code
        self.retry_after_s = retry_after_s
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        """More headers for the answer."""

    @property
    def cause(self) -> str:
        """What it was, in one of few words that this code base chose: a label of metrics."""
        return self.reason or "invalid_request"


class InvalidRequest(GatewayError):
    """400: the request itself is at fault."""

    status = 400
    type = "invalid_request_error"


class InvalidApiKey(GatewayError):
    """401: no key, an unknown, revoked or expired one. One text for all, so that nothing can be probed."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class AddressRefused(GatewayError):
    """403: the client's address is on no list that applies."""

    status = 403
    type = "permission_error"
    code = "address_not_allowed"


class ModelNotFound(GatewayError):
    """404: the key may not use this model, or nobody can: the same text for both, so that no names can be probed."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class UnknownPath(GatewayError):
    """404: no such route; also everything of vLLM that is not exposed."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowed(GatewayError):
    """405."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class BodyTimeout(GatewayError):
    """408: the body did not arrive in time."""

    status = 408
    type = "invalid_request_error"
    code = "body_timeout"


class BodyTooLarge(GatewayError):
    """413."""

    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class QueueFull(GatewayError):
    """503 at once: more requests wait than can be served in time."""

    status = 503
    code = "queue_full"
    fault_of = "overload"


class QueueTimeout(GatewayError):
    """503: the request waited as long as its class may."""

    status = 503
    code = "queue_timeout"
    fault_of = "overload"


class InternalError(GatewayError):
    """500: a defect of the gateway; the log has the rest under the request's id."""

    code = "internal_error"
    fault_of = "gateway"


class EngineMisbehaved(GatewayError):
    """502: the engine answered what cannot be passed on, or broke off."""

    status = 502
    code = "engine_error"
    fault_of = "engine"


class EngineUnavailable(GatewayError):
    """503: no engine could be reached; worth another try."""

    status = 503
    code = "engine_unavailable"
    fault_of = "engine"


class Stopping(GatewayError):
    """503: the gateway's drain is over, and this request was not."""

    status = 503
    code = "stopping"
    fault_of = "gateway"


class NotCached(GatewayError):
    """504: the client asked for a kept answer only, and there is none (RFC 9111, 5.2.1.7)."""

    status = 504
    code = "not_cached"


class EngineTimeout(GatewayError):
    """504: the engine stayed silent too long."""

    status = 504
    code = "engine_timeout"
    fault_of = "engine"


class EngineRefused(GatewayError):
    """The engine's own refusal (4xx or 5xx), passed on with its status, message and param."""

    def __init__(self, status: int, message: str, *, kind: str, param: str | None, code: str | None) -> None:
        """`status`, `kind` (OpenAI's error type) and the rest are the engine's."""
        super().__init__(message, param=param, code=code)
        self.status = status  # type: ignore[misc]  # the one error whose status is not known beforehand
        self.type = kind  # type: ignore[misc]
        self.fault_of = "engine" if status >= 500 else "client"  # type: ignore[misc]  # noqa: PLR2004

    @property
    def cause(self) -> str:
        """Not the engine's own code, which could be anything."""
        return "engine_refused"


class MalformedRequest(GatewayError):
    """400: the bytes are no HTTP/1.1 request, so that the connection is of no use any more."""

    status = 400
    type = "invalid_request_error"
    code = "malformed_request"


class HeadTooLarge(GatewayError):
    """431: the request line and headers are longer than any client of an API needs."""

    status = 431
    type = "invalid_request_error"
    code = "head_too_large"


def body_of(error: GatewayError) -> bytes:
    """The error as OpenAI's JSON body; the SDK picks its exception class by the HTTP status."""
    return orjson.dumps(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.reason}}
    )
