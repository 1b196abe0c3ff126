"""The one exception of the image path: a picture was refused, and why.

Refuses to know about HTTP: the caller maps it to a status and adds which part of the request it was.
"""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "aspect_ratio",
    "fetch_failed",
    "fetch_timeout",
    "host_not_allowed",
    "image_too_large",
    "invalid_data_url",
    "invalid_image",
    "invalid_url",
    "private_address",
    "too_many_frames",
    "too_many_redirects",
    "unsupported_image",
]
"""Short machine code, stable: it is a metric label and part of the API."""


class ImageRefused(Exception):
    """A picture the gateway will not give to the model; the client's to mend, hence a 4xx.

    `reason` is one of `Reason`. `str()` is one sentence for the client with the next step where there is one.
    It never holds a URL's userinfo, path or query (signed URLs carry their secret there), nor an address a name
    resolved to (that would make the gateway an oracle for the internal DNS).
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
