"""Asks an engine for one token: the only proof that it serves. /health stays 200 while the engine's core hangs.

Standard library only: it runs in the engine's container, every few seconds.
"""

from __future__ import annotations

import http.client
import json
import time

ONE_TOKEN = b'{"prompt":"ping","max_tokens":1,"temperature":0}'
"""No `model`: vLLM then takes the first one that it serves."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""An address to listen on -> one to connect to."""


class NotReady(Exception):
    """No token came; the message says why."""


def generate_one_token(host: str, port: int, api_key: str | None, timeout_s: float) -> float:
    """Return the seconds that one token took. Raises NotReady."""
    headers = {"content-type": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    began = time.monotonic()
    connection = http.client.HTTPConnection(EVERYWHERE.get(host, host), port, timeout=timeout_s)
    try:
        connection.request("POST", "/v1/completions", ONE_TOKEN, headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except TimeoutError:
        raise NotReady(f"no token within {timeout_s:g} s: the engine hangs, or works through a long queue") from None
    except (OSError, http.client.HTTPException) as exc:
        raise NotReady(f"nothing answers on {host}:{port}: {exc}") from exc
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise NotReady(f"status {status}: {body[:200].decode(errors='replace')}")
    if fault := fault_in(body):
        raise NotReady(fault)
    return time.monotonic() - began


def fault_in(body: bytes) -> str | None:
    """Return why an answer proves nothing, None when it has a token. While draining vLLM aborts with status 200."""
    try:
        answer = json.loads(body)
        tokens, finish = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
    except (json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError):
        return "the answer is no completion: is this port vLLM's?"
    if finish == "abort" or not tokens:
        return f"{tokens} tokens, finish_reason {finish}: the engine is going down"
    return None
