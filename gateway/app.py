"""Settings to a running application: the life of the pipeline (assembly.py), and the paths beside the hot one."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway import __version__
from gateway.assembly import assemble
from gateway.drain import ClosingConnections, Drain
from gateway.errors import GatewayError, UnknownPath, body_of
from gateway.garbage import collect_seldom
from gateway.images.addresses import is_public
from gateway.malloc import keep_large_blocks
from gateway.routes import HotPath
from gateway.settings import load
from gateway.telemetry import configure_logging
from gateway.upstream.discovery import resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from gateway.asgi import Asgi
    from gateway.images.addresses import AddressPolicy
    from gateway.settings import Settings
    from gateway.upstream.client import EngineClient
    from gateway.upstream.discovery import Resolve

DESCRIPTION = """Qwen3-VL behind an OpenAI-compatible API: `/v1/chat/completions`, `/v1/completions`, `/v1/responses`,
`/v1/models`, Anthropic's `/v1/messages`, and the simple `/predict`. Use the OpenAI SDK with this server's `/v1` as
`base_url`, Anthropic's with this server."""


class Gateway(FastAPI):
    """FastAPI, but that the hot path comes before its middleware, which costs more than the whole pipeline."""

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - FastAPI's own
        """As FastAPI's."""
        super().__init__(**arguments)
        self.hot_path = cast("Asgi", super().__call__)
        """What answers; FastAPI itself until something is put before it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - likewise
        """One ASGI call."""
        await self.hot_path(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    client: EngineClient | None = None,
    image_address_allowed: AddressPolicy = is_public,
    look_up: Resolve = resolve,
    on_sigterm: bool = False,
) -> FastAPI:
    """The whole gateway for one worker process; `on_sigterm` says that the process is its own, to drain by signal.

    The seams are for tests: `client` speaks to the engines, `image_address_allowed` says which addresses pictures may
    be fetched from, `look_up` resolves the engines' names.
    """
    drain = Drain()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            hot_path.pipeline = await assemble(settings, client, image_address_allowed, look_up, held)
            app.state.pipeline = hot_path.pipeline
            if on_sigterm:
                drain.on_sigterm(settings.drain_delay_s)
                collect_seldom()
            yield

    app = Gateway(
        title="Qwen3-VL gateway", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.state.drain = drain
    app.hot_path = hot_path = HotPath(ClosingConnections(app.hot_path, drain), drain)

    @app.get("/healthz", summary="Whether this process runs")
    @app.get("/health", summary="The same")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether an engine can answer")
    async def readyz() -> JSONResponse:
        if drain.begun:
            return JSONResponse({"status": "draining"}, status_code=503)
        if await app.state.pipeline.upstream.ready():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "no engine is ready"}, status_code=503)

    @app.exception_handler(404)
    async def unknown(request: Request, _: Exception) -> JSONResponse:
        return _rendered(UnknownPath(f"There is no {request.url.path[:100]} here; see /docs for what there is."))

    return app


def _rendered(error: GatewayError) -> JSONResponse:
    import orjson  # noqa: PLC0415 - off the hot path

    return JSONResponse(orjson.loads(body_of(error)), status_code=error.status)


def from_environment() -> FastAPI:
    """Application factory of a worker process."""
    keep_large_blocks()
    settings = load()
    configure_logging(settings.log_level)
    return create_app(settings, on_sigterm=True)
