"""Prometheus' HTTP API, as much of it as a report and a proof need. Blocking; for command lines, not for requests."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

import orjson

TIMEOUT_S = 30.0


class PrometheusError(Exception):
    """Prometheus cannot be asked, or refuses the query; the text says which and what to do."""


@dataclass(frozen=True)
class Series:
    """One series of an answer."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]
    """Seconds since the epoch, value."""

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


class Prometheus:
    """A server."""

    def __init__(self, url: str) -> None:
        """`url` as in a browser, with or without a path prefix."""
        if not url.startswith(("http://", "https://")):
            raise PrometheusError(f"{url} is no http(s) URL: take one like http://127.0.0.1:9091")
        self._url = url.rstrip("/")

    def query(self, expr: str, at_s: float | None = None) -> list[Series]:
        """Series at one moment, now if none is given. Raises PrometheusError."""
        when = {} if at_s is None else {"time": f"{at_s:.3f}"}
        return [
            Series(found["metric"], (_point(found["value"]),))
            for found in self._ask("query", {"query": expr, **when})["result"]
        ]

    def query_range(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Series over a range, both ends included. Raises PrometheusError."""
        words = {"query": expr, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        return [
            Series(found["metric"], tuple(_point(pair) for pair in found["values"]))
            for found in self._ask("query_range", words)["result"]
        ]

    def firing(self) -> set[str]:
        """Names of the alerts that fire now. Raises PrometheusError."""
        return {
            str(alert["labels"]["alertname"])
            for alert in self._ask("alerts", {})["alerts"]
            if alert["state"] == "firing"
        }

    def _ask(self, what: str, words: dict[str, str]) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s), checked above
                answer: dict[str, Any] = orjson.loads(response.read())
        except urllib.error.HTTPError as exc:
            raise PrometheusError(f"{self._url} refuses {words}: {exc.code} {_reason(exc.read())}") from exc
        except (OSError, ValueError) as exc:
            raise PrometheusError(f"{self._url} does not answer as Prometheus does: {exc}") from exc
        data: dict[str, Any] = answer["data"]
        return data


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _reason(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "without a reason"
