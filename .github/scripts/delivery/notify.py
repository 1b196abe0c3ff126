"""Tells people that a deployment began and how it ended. Fails nothing: what goes wrong is said, and that is all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from delivery.channels import CHANNELS, Message, refusal
from delivery.record import Entry, Result
from serving.exchange import NoExchange, request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_S = 10.0
TRIES = 2
LONGEST = 300
TITLES = {
    Result.UNDER_WAY: "started",
    Result.SUCCEEDED: "succeeded",
    Result.FAILED: "FAILED, nothing was changed",
    Result.ROLLED_BACK: "FAILED and was rolled back",
    Result.ROLLBACK_FAILED: "FAILED, AND SO DID THE ROLLBACK: look now",
    Result.UNKNOWN: "ended in a way that is not known: look now",
    Result.CANCELLED: "was cancelled: run it again",
}


def message_of(entry: Entry) -> Message:
    """Put an entry into words."""
    title = f"{entry.kind} of {entry.release} to {entry.environment} {TITLES[entry.result]}"
    if entry.result is Result.FAILED and entry.revision_before is None and entry.revision_after:
        title = f"{entry.kind} of {entry.release} to {entry.environment} FAILED, there was no release before"
    lines = [f"version {entry.version or '?'}, commit {entry.commit[:12] or '?'}, by {entry.actor or '?'}"]
    if entry.revision_after is not None:
        lines.append(f"revision {entry.revision_before or '-'} → {entry.revision_after}, {entry.seconds:.0f} s")
    if entry.reason:
        lines.append(entry.reason)
    event = {
        "event": {Result.UNDER_WAY: "started"}.get(entry.result, entry.result.value),
        "kind": entry.kind,
        "environment": entry.environment,
        "release": entry.release,
        "version": entry.version,
        "commit": entry.commit,
        "actor": entry.actor,
        "reason": entry.reason,
        "run_url": entry.run_url,
    }
    link = entry.run_url if entry.run_url.startswith("https://") and " " not in entry.run_url else ""
    return Message(plain(title), tuple(plain(line) for line in lines), link, event)


def plain(text: str) -> str:
    """Take out what a service could read as a mention, a tag or a link."""
    flat = " ".join(text.split())
    for sign, harmless in (("<", "‹"), (">", "›"), ("@", "＠"), ("[", "("), ("]", ")"), ("*", "·"), ("`", "'")):
        flat = flat.replace(sign, harmless)
    return flat if len(flat) <= LONGEST else f"{flat[:LONGEST]}…"


def tell(
    entry: Entry, environ: Mapping[str, str], say: Callable[[str], None], clock: Callable[[], float] = time.time
) -> bool:
    """Post to every service that has an address; return whether all took it. Raises nothing."""
    message, well = message_of(entry), True
    for name, make in CHANNELS.items():
        if url := environ.get(f"NOTIFY_{name.upper()}_URL"):
            secret = environ.get(f"NOTIFY_{name.upper()}_SECRET", "")
            fault = None
            for _ in range(TRIES):
                post = make(message, url, secret, clock())
                if (fault := _put(post.url, post.headers, post.body)) is None:
                    break
            say(f"notify: {name}: {fault or 'told'}")
            well = well and fault is None
    return well


def _put(url: str, headers: dict[str, str], body: bytes) -> str | None:
    try:
        status, answer = request("POST", url, headers, body, TIMEOUT_S)
    except NoExchange as exc:
        return str(exc)
    if status // 100 != 2:  # noqa: PLR2004  # a status class
        return f"status {status}"
    return refusal(answer)
