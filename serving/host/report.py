"""What is left of an attempt: a line in deploy.log, a metric for node-exporter, messages to people."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from delivery import notify
from delivery.record import Entry, Result

from serving.host.state import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

METRICS = (
    ("last_success", "Whether the last deployment or rollback of this host ended as it should (1) or not (0)."),
    ("last_end_timestamp_seconds", "When it ended."),
    ("last_duration_seconds", "How long it took."),
)


@dataclass(frozen=True)
class Reporter:
    """Where it goes."""

    log: Path
    textfile: Path
    environ: Mapping[str, str]
    """NOTIFY_…"""
    say: Callable[[str], None]

    def began(self, entry: Entry) -> None:
        """Tell people."""
        notify.tell(entry, self.environ, self.say)

    def ended(self, entry: Entry, at: float) -> None:
        """Write the line and the metric, then tell people: whatever follows may be cut short."""
        torn = self.log.is_file() and not self.log.read_bytes().endswith(b"\n")  # by a loss of power
        with self.log.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(asdict(entry), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        write_whole(self.textfile, metrics(entry, at), 0o644)
        notify.tell(entry, self.environ, self.say)

    def last(self) -> dict[str, object] | None:
        """Return the last line; None when there is none, or it was cut off by a loss of power."""
        if not self.log.is_file():
            return None
        lines = self.log.read_text(encoding="utf-8").splitlines()
        try:
            content = json.loads(lines[-1]) if lines else None
        except ValueError:
            return None
        return content if isinstance(content, dict) else None


def metrics(entry: Entry, at: float) -> str:
    """Write an ended attempt for node-exporter's textfile collector. A version has neither quotes nor line feeds."""
    labels = f'kind="{entry.kind}",result="{entry.result.value}",version="{entry.version}"'
    values = (f"{int(entry.result is Result.SUCCEEDED)}", f"{at:.0f}", f"{entry.seconds:.1f}")
    lines = []
    for (name, text), value in zip(METRICS, values, strict=True):
        full = f"qwen3vl_host_deploy_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge", f"{full}{{{labels}}} {value}"]
    return "\n".join([*lines, ""])
