"""Results of `vllm bench serve` to one Markdown page that can be sent in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLES = ("engine", "load", "requests/s", "tokens/s", "TTFT P50 ms", "TTFT P99 ms", "ITL P50 ms", "ITL P99 ms")
THROUGH = ("gateway requests/s", "of direct", "gateway TTFT P50 ms")


class ResultError(Exception):
    """A measurement failed or is not what was asked for."""


@dataclass(frozen=True)
class Measured:
    """One variant under one load, directly and through the gateway: vLLM's results as it saves them."""

    variant: str
    load: str
    direct: dict[str, Any]
    gateway: dict[str, Any]


def check(result: dict[str, Any], prompts: int) -> dict[str, Any]:
    """Take a result only if every request succeeded. Raises ResultError."""
    if (completed := result.get("completed")) != prompts:
        raise ResultError(f"{completed} of {prompts} requests succeeded: see the log; a table of failures helps nobody")
    return result


def page(facts: dict[str, str], rows: Sequence[Measured], commands: Sequence[str]) -> str:
    """Make the page: what was measured on, the table, the commands."""
    head = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    titles = (*TITLES, *THROUGH)
    rule = ["---", "---"] + ["--:"] * (len(titles) - 2)
    lines = [titles, rule, *(_cells(row) for row in rows)]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    blocks = "\n".join(commands)
    return f"{head}\n{table}\n<details><summary>Commands</summary>\n\n```bash\n{blocks}\n```\n\n</details>\n"


def publish(document: str, profile: str, page: str) -> str:
    """Put a profile's page into the document: in place of its last one, or as a new section at the end."""
    begin, end = f"<!-- bench-engine {profile} -->", f"<!-- bench-engine {profile} end -->"
    section = f"{begin}\n\n{page}\n{end}"
    before, found, rest = document.partition(begin)
    if not found:
        return f"{document.rstrip()}\n\n## {profile}\n\n{section}\n"
    _, _, after = rest.partition(end)
    return f"{before}{section}{after}"


def _cells(row: Measured) -> list[str]:
    direct, gateway = row.direct, row.gateway
    return [
        row.variant,
        row.load,
        f"{direct['request_throughput']:.2f}",
        f"{direct['output_throughput']:.0f}",
        *(f"{direct[name]:.1f}" for name in ("p50_ttft_ms", "p99_ttft_ms", "p50_itl_ms", "p99_itl_ms")),
        f"{gateway['request_throughput']:.2f}",
        f"{gateway['request_throughput'] / direct['request_throughput']:.2f}x",
        f"{gateway['p50_ttft_ms']:.1f}",
    ]
