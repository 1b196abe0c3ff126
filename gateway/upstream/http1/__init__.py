"""HTTP/1.1 towards the engines, on asyncio and llhttp: what a relay needs, at a third of a general client's CPU."""

from gateway.upstream.http1.pool import Http1Client

__all__ = ["Http1Client"]
