"""How each chat service wants a message: its body, its signature, and what it answers when it took one. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Message:
    """What is told; plain text, with no markup that a service could read as a mention."""

    title: str
    lines: tuple[str, ...]
    link: str
    """https address of the run; empty when there is none."""
    event: dict[str, Any]
    """The same for programs."""

    @property
    def text(self) -> str:
        """The lines under the title."""
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Post:
    """One HTTP request."""

    url: str
    body: bytes
    headers: dict[str, str]


def _json(url: str, content: dict[str, Any], headers: dict[str, str] | None = None) -> Post:
    body = json.dumps(content, ensure_ascii=False).encode()
    return Post(url, body, {"content-type": "application/json; charset=utf-8", **(headers or {})})


def _sign(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def wecom(message: Message, url: str, secret: str, now: float) -> Post:  # noqa: ARG001  # the key is in the address
    """Enterprise WeChat's group robot: markdown of at most 4,096 bytes."""
    link = f"\n[run]({message.link})" if message.link else ""
    return _json(url, {"msgtype": "markdown", "markdown": {"content": f"**{message.title}**\n{message.text}{link}"}})


def dingtalk(message: Message, url: str, secret: str, now: float) -> Post:
    """DingTalk's group robot: the signature of timestamp (ms), line feed, secret is part of the address."""
    if secret:
        stamp = f"{round(now * 1000)}"
        signed = urllib.parse.urlencode({"timestamp": stamp, "sign": _sign(secret, f"{stamp}\n{secret}")})
        url += ("&" if "?" in url else "?") + signed
    link = f"\n\n[run]({message.link})" if message.link else ""
    text = f"**{message.title}**\n\n" + "\n\n".join(message.lines) + link
    return _json(url, {"msgtype": "markdown", "markdown": {"title": message.title, "text": text}})


def feishu(message: Message, url: str, secret: str, now: float) -> Post:
    """Feishu's group robot: timestamp (s), line feed, secret is the key that signs nothing at all."""
    lines: list[list[dict[str, str]]] = [[{"tag": "text", "text": line}] for line in message.lines]
    if message.link:
        lines.append([{"tag": "a", "text": "run", "href": message.link}])
    content: dict[str, Any] = {
        "msg_type": "post",
        "content": {"post": {"zh_cn": {"title": message.title, "content": lines}}},
    }
    if secret:
        stamp = f"{int(now)}"
        content |= {"timestamp": stamp, "sign": _sign(f"{stamp}\n{secret}", "")}
    return _json(url, content)


def slack(message: Message, url: str, secret: str, now: float) -> Post:  # noqa: ARG001  # the key is in the address
    """Slack's incoming webhook."""
    link = f"\n<{message.link}|run>" if message.link else ""
    text = f"*{message.title}*\n{message.text}".replace("&", "&amp;") + link
    return _json(url, {"text": text})


def webhook(message: Message, url: str, secret: str, now: float) -> Post:  # noqa: ARG001  # signed without a time
    """Anything else: the event as JSON, signed as GitHub signs its own."""
    post = _json(url, {"title": message.title, "text": message.text, **message.event})
    if not secret:
        return post
    digest = hmac.new(secret.encode(), post.body, hashlib.sha256).hexdigest()
    return Post(post.url, post.body, {**post.headers, "x-signature-256": f"sha256={digest}"})


CHANNELS: dict[str, Callable[[Message, str, str, float], Post]] = {
    "wecom": wecom,
    "dingtalk": dingtalk,
    "feishu": feishu,
    "slack": slack,
    "webhook": webhook,
}
"""By name; NOTIFY_<NAME>_URL is the address, NOTIFY_<NAME>_SECRET the secret, where the service has one."""


def refusal(answer: bytes) -> str | None:
    """Say why a service refused a message that it answered with status 200: the Chinese three report so."""
    try:
        content = json.loads(answer)
    except ValueError:
        return None  # Slack says `ok`, others anything
    if not isinstance(content, dict):
        return None
    code = content.get("errcode", content.get("code", 0))
    if code in {0, "0"}:
        return None
    return f"code {code}: {str(content.get('errmsg', content.get('msg', '')))[:200]}"
