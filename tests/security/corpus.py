"""The hostile corpus: every input, the status, code and words it must be answered with, and the part that is named."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from tests.security.hostile_files import files
from tests.security.hostile_servers import PATHS
from tests.support.pictures import data_url, png
from tests.unit.gateway.images.test_urls import MALFORMED, NUMBER_NOTATIONS

URL_PARAM = "messages[0].content[0].image_url.url"
GOOD = base64.b64encode(png()).decode()
MAX_BYTES = 2 << 20
"""What the gateway under test takes a picture to be at most."""


@dataclass(frozen=True)
class Case:
    """A part of a message, and how the gateway must refuse it."""

    name: str
    part: Any
    code: str | None
    words: str
    param: str = URL_PARAM
    status: int = 400

    @property
    def body(self) -> dict[str, Any]:
        content = [self.part, {"type": "text", "text": "What is this?"}]
        return {"model": "scripted", "messages": [{"role": "user", "content": content}], "temperature": 0}


def at(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def corpus(port: int) -> list[Case]:
    """All cases; `port` is that of the hostile servers."""
    return [*of_files(), *of_data_urls(), *of_notations(), *of_private_hosts(port), *of_servers(port), *of_parts()]


def of_files() -> list[Case]:
    return [Case(name, at(data_url(data)), code, words) for name, (data, code, words) in files().items()]


def of_data_urls() -> list[Case]:
    start, base64_words = "does not start with an image type", "base64 is not valid"
    heads = {
        "no type": f"data:;base64,{GOOD}",
        "no picture's type": f"data:text/html;base64,{GOOD}",
        "half a type": f"data:image/;base64,{GOOD}",
        "no base64": f"data:image/png,{GOOD}",
        "base32": f"data:image/png;base32,{GOOD}",
        "base64 in the middle": f"data:image/png;base64;charset=a,{GOOD}",
        "a space behind the scheme": f"data: image/png;base64,{GOOD}",
        "a line break in the type": f"data:image/png\r\n;base64,{GOOD}",
        "a second type": f"data:image/png,image/jpeg;base64,{GOOD}",
        "no comma": "data:image/png;base64" + GOOD,
        "an endless head": "data:image/png;" + "a=b;" * 1_000 + f"base64,{GOOD}",
        "nothing but the scheme": "data:",
    }
    bodies = {
        "a line break": GOOD[:40] + "\r\n" + GOOD[42:],
        "spaces": GOOD[:40] + "    " + GOOD[44:],
        "the url alphabet": "-_" + GOOD[2:],
        "percent-encoding": GOOD[:-3] + "%3D",
        "padding in the middle": "QQ==" + GOOD,
        "nothing but padding": "====",
        "wide digits": "\uff21\uff21\uff21\uff21",
        "a nul": "AA\0A",
        "a fragment": GOOD[:-2] + "#a",
    }
    return [
        *(Case(f"data url: {name}", at(url), "invalid_data_url", start) for name, url in heads.items()),
        *(
            Case(f"data url: {name}", at(f"data:image/png;base64,{body}"), "invalid_data_url", base64_words)
            for name, body in bodies.items()
        ),
        Case("data url: nothing", at("data:image/png;base64,"), "invalid_data_url", "no picture"),
        *(
            Case(f"data url: {cut} cut off", at(f"data:image/png;base64,{GOOD[:-cut]}"), "invalid_data_url", "multiple of 4")
            for cut in (1, 2, 3)
        ),
        Case("data url: in a data url", at(data_url(data_url(png()).encode())), "unsupported_image", "not recognised"),
        Case("data url: as a host", at(f"http://data:image/png;base64,{GOOD}"), "invalid_url", "URL is refused"),
    ]  # fmt: skip


def of_notations() -> list[Case]:
    """What two URL parsers would read differently."""
    urls = [
        url
        for url in NUMBER_NOTATIONS + MALFORMED
        if not url.startswith("data:") and url != "http://[0:0:0:0:0:0:0:0:1]/"
    ]
    return [Case(f"url: {url[:60]!r}", at(url), "invalid_url", "URL is refused") for url in urls]


def of_private_hosts(port: int) -> list[Case]:
    """Well-formed URLs of what is not the Internet; 127.0.0.1 itself stands for the Internet here."""
    hosts = [
        "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1",
        "169.254.169.254", "169.254.170.2", "100.100.100.200", "100.96.0.96", "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[fe80::1]", "[fd00:ec2::254]", "[fc00::1]", "[ff02::1]",
        "[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[::ffff:a9fe:a9fe]", "[::127.0.0.2]", "[64:ff9b::127.0.0.2]", "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]", "[2002:7f00:2::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:2::]", "[2001:db8::1]", "[2606:4700::5efe:7f00:2]",
    ]  # fmt: skip
    words = "not on the public Internet"
    return [Case(f"host: {host}", at(f"http://{host}:{port}/"), "private_address", words) for host in hosts]


def of_servers(port: int) -> list[Case]:
    return [
        Case(f"server: {path}", at(f"http{'s' * (path == 'tls')}://127.0.0.1:{port}/{path}"), code, words)
        for path, (code, words) in PATHS.items()
    ]


def of_parts() -> list[Case]:
    """Parts that are no picture at all."""
    kind = {"param": "messages[0].content[0].type", "code": "unsupported_part", "words": "send text and image_url"}
    holder = {"param": "messages[0].content[0].image_url", "code": None, "words": "object with a `url`"}
    detail = {"param": "messages[0].content[0].image_url.detail", "code": None, "words": "low, auto or high"}
    good = data_url(png())
    return [
        Case("part: video", {"type": "video_url", "video_url": {"url": good}}, **kind),
        Case("part: audio", {"type": "input_audio", "input_audio": {"data": GOOD, "format": "wav"}}, **kind),
        Case("part: audio url", {"type": "audio_url", "audio_url": {"url": good}}, **kind),
        Case("part: file", {"type": "file", "file": {"file_id": "file-1"}}, **kind),
        Case("part: embeddings", {"type": "image_embeds", "image_embeds": GOOD}, **kind),
        Case("part: PIL", {"type": "image_pil", "image_pil": GOOD}, **kind),
        Case("part: no type", {"image_url": {"url": good}}, **kind | {"words": "needs a `type`"}),
        Case("part: a type that is no text", {"type": ["image_url"], "image_url": {"url": good}}, **kind | {"words": "needs a `type`"}),
        Case("part: a text", "hello", None, "must be an object", "messages[0].content[0]"),
        Case("part: no url", {"type": "image_url", "image_url": {}}, **holder),
        Case("part: no object", {"type": "image_url", "image_url": 7}, **holder),
        Case("part: nothing but a name", {"type": "image_url", "uuid": "a" * 64}, **holder),
        Case("part: a list of urls", at([good]), **holder),
        Case("part: an object as url", at({"url": good}), **holder),
        Case("part: null", at(None), **holder),
        Case("part: detail of 7", {"type": "image_url", "image_url": {"url": good, "detail": 7}}, **detail),
        Case("part: detail ultra", {"type": "image_url", "image_url": {"url": good, "detail": "ultra"}}, **detail),
    ]  # fmt: skip
