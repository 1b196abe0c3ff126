from __future__ import annotations

from gateway.images.inspect import ImageInfo
from gateway.images.known import KnownPictures
from gateway.images.sniff import Format


def info(width: int) -> ImageInfo:
    return ImageInfo(Format.JPEG, width, 1, 1, 1, has_alpha=False, several_passes=False, decode_bytes=1)


def test_what_was_found_out_is_known_for_the_same_budget_only():
    known = KnownPictures(2)
    known.put((b"a", 1024), info(1))
    assert known.get((b"a", 1024)) == info(1)
    assert known.get((b"a", 2048)) is None


def test_the_one_not_asked_for_the_longest_is_forgotten():
    known = KnownPictures(2)
    known.put((b"a", 1), info(1))
    known.put((b"b", 1), info(2))
    known.get((b"a", 1))
    known.put((b"c", 1), info(3))
    assert [known.get((name, 1)) for name in (b"a", b"b", b"c")] == [info(1), None, info(3)]
