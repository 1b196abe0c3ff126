"""How a message's head was sent, to know it again: most differ from the one before in the length of their bodies alone.

Such a head is compared, not parsed. A parser has read these very bytes as one head with one `content-length`; other
digits in there change nothing else that it would find: neither where the head ends nor what frames the body. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTH = b"content-length"
MAX_DIGITS = 9
"""Of a body's length in a head that is known again: a gigabyte."""
MOST_BYTES = 4096
"""Longer heads are parsed each time: an idle connection keeps its last one."""


class SentHead:
    """A head as it was sent, from its first byte to the empty line's last."""

    __slots__ = ("_after", "_after_bytes", "_before", "_before_bytes", "length")

    def __init__(self, before: bytes, length: bytes, after: bytes) -> None:
        """`length` are the digits of the body's, between what stands before and after them."""
        self.length = length
        self._before, self._before_bytes = before, len(before)
        self._after, self._after_bytes = after, len(after)

    @classmethod
    def of(cls, sent: bytes, headers: Mapping[bytes, bytes], lines: int) -> Self | None:
        """The head that was `sent`, as a parser has found `headers` in so many lines of it; None if it is not sure.

        Not sure: whatever has not one plain `content-length`, or more or fewer lines than the parser saw.
        """
        length = headers.get(LENGTH, b"")
        folded = sent.lower()
        at = folded.find(b"\r\n" + LENGTH + b":") + len(LENGTH) + 3
        start = sent.find(length, at)
        end = start + len(length)
        sure = (
            len(sent) <= MOST_BYTES
            and length.isdigit()
            and len(length) <= MAX_DIGITS
            and b"transfer-encoding" not in headers
            and folded.count(LENGTH) == 1
            and not sent[at:start].strip(b" \t")
            and sent.startswith(b"\r\n", end)
            and sent.find(b"\r\n\r\n") == len(sent) - 4
            and sent.count(b"\n") == sent.count(b"\r") == lines + 2  # The first line and the empty one.
        )
        return cls(sent[:start], length, sent[end:]) if sure else None

    def with_length(self, digits: bytes) -> SentHead:
        """The same head for a body of another length."""
        return SentHead(self._before, digits, self._after)

    def found_in(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The digits of the body's length, and what has come of the body, if `data` begins with this head.

        None for any other head, for half of one, and where more has come than one message: they are to be parsed.
        """
        start = self._before_bytes
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if not (data.startswith(self._before) and data.startswith(self._after, end)):
            return None
        digits, body = data[start:end], data[end + self._after_bytes :]
        return (digits, body) if digits.isdigit() and len(body) <= int(digits) else None
