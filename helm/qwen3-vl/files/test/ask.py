"""Asks one question about a picture through the OpenAI API, again until the right answer comes or the time is over.

Runs in the gateway's image with nothing but the standard library. The key comes in API_KEY, never in an argument.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

QUESTION = "What colour is the shirt?"
ANSWER = re.compile(r"\bred\b", re.IGNORECASE)
PAUSE_S = 2.0
TIMEOUT_S = 120.0
"""For one answer."""


def call(url: str, key: str, body: dict | None = None) -> dict:
    """One request; raises OSError for what did not work, with the server's own words."""
    request = urllib.request.Request(  # noqa: S310  # the chart's own Service
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  # likewise
            return json.load(response)
    except urllib.error.HTTPError as exc:
        raise OSError(f"status {exc.code}: {exc.read()[:300].decode(errors='replace')}") from exc


def ask(url: str, key: str, picture: bytes, question: str = QUESTION) -> str:
    """The model's answer to a question about the picture."""
    model = call(f"{url}/v1/models", key)["data"][0]["id"]
    picture_url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": picture_url}},
        {"type": "text", "text": question},
    ]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "temperature": 0,
    }
    return call(f"{url}/v1/chat/completions", key, body)["choices"][0]["message"]["content"]


def main() -> int:
    """Exit code 0 when the right answer came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--timeout-s", type=float, default=300.0)
    asked = parser.parse_args()
    key, picture = os.environ["API_KEY"], asked.picture.read_bytes()
    deadline = time.monotonic() + asked.timeout_s
    while True:
        try:
            answer = ask(asked.url.rstrip("/"), key, picture)
        except (OSError, ValueError, LookupError) as exc:
            print(f"no answer yet: {exc}", flush=True)
        else:
            right = ANSWER.search(answer) is not None
            print(f"{QUESTION} {answer!r} ({'right' if right else 'wrong'})", flush=True)
            return 0 if right else 1
        if time.monotonic() > deadline:
            print(f"no answer within {asked.timeout_s:g} s", flush=True)
            return 1
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main())
