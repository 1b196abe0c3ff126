"""HTTP/1.1 towards clients, on asyncio and llhttp: in uvicorn's place for a protocol, a stricter and cheaper one."""

from gateway.http_server.connection import ServerProtocol

__all__ = ["ServerProtocol"]
