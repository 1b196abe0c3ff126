from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from gateway.images import ImageRefused
from gateway.images.bmp import open_bmp
from tests.unit.gateway.images.samples import bmp_sized, encode, photo


def read(data: bytes) -> np.ndarray:
    picture = open_bmp(data)
    assert picture.interpretation == "srgb"
    return np.frombuffer(picture.write_to_memory(), np.uint8).reshape(picture.height, picture.width, picture.bands)


def bmp_v5(picture: Image.Image, alpha_mask: int = 0xFF000000, *, top_down: bool = False) -> bytes:
    """A 32-bit BMP with declared channel masks, as browsers and Windows put on the clipboard."""
    rgba = np.asarray(picture.convert("RGBA"))
    rows = rgba if top_down else rgba[::-1]
    body = np.ascontiguousarray(rows[..., [2, 1, 0, 3]]).tobytes()
    height = -picture.height if top_down else picture.height
    header = struct.pack("<IiiHHIIiiII", 124, picture.width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, alpha_mask) + bytes(68)
    return b"BM" + struct.pack("<IHHI", 138 + len(body), 0, 0, 138) + header + body


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 61])
@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_pixels_are_those_that_pillow_wrote(mode, width):
    picture = photo(width, 33).convert(mode)
    assert np.array_equal(read(encode(picture, "BMP")), np.asarray(picture.convert("RGB")))


def test_32_bits_without_a_declared_alpha_are_opaque():
    picture = photo(20, 10).convert("RGBA")
    picture.putalpha(0)
    assert np.array_equal(read(encode(picture, "BMP")), np.asarray(picture)[..., :3])
    assert read(bmp_v5(picture, alpha_mask=0)).shape == (10, 20, 3)


@pytest.mark.parametrize("top_down", [False, True])
def test_declared_alpha_is_kept(top_down):
    picture = photo(20, 10).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((20, 10)))
    assert np.array_equal(read(bmp_v5(picture, top_down=top_down)), np.asarray(picture))


def test_a_short_palette_is_filled_with_black():
    data = bytearray(encode(photo(8, 8).convert("P"), "BMP"))
    struct.pack_into("<I", data, 46, 1)
    data[data[10] + 256 * data[11] :] = bytes([200]) * 64
    assert not read(bytes(data)).any()


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (14, struct.pack("<I", 12), "unsupported_image"),  # OS/2
        (28, struct.pack("<H", 16), "unsupported_image"),
        (28, struct.pack("<H", 1), "unsupported_image"),
        (28, struct.pack("<H", 0), "unsupported_image"),
        (30, struct.pack("<I", 1), "unsupported_image"),  # RLE
        (30, struct.pack("<I", 4), "unsupported_image"),  # an embedded JPEG
        (30, struct.pack("<I", 3), "unsupported_image"),  # masks, but 24 bits
        (18, struct.pack("<i", 0), "invalid_image"),
        (18, struct.pack("<i", -5), "invalid_image"),
        (22, struct.pack("<i", 0), "invalid_image"),
        (22, struct.pack("<i", 49), "invalid_image"),  # a row more than there is
        (10, struct.pack("<I", 2), "invalid_image"),  # pixels inside the header
        (10, struct.pack("<I", 0xFFFFFFFF), "invalid_image"),
    ],
)
def test_other_kinds_and_lies_are_refused(at, value, reason):
    data = bytearray(bmp_sized(64, 48))
    data[at : at + len(value)] = value
    with pytest.raises(ImageRefused) as caught:
        open_bmp(bytes(data))
    assert caught.value.reason == reason


def test_unusual_masks_are_refused():
    data = bmp_v5(photo(4, 4)).replace(struct.pack("<I", 0xFF0000), struct.pack("<I", 0x3FF00000), 1)
    with pytest.raises(ImageRefused, match="kind of BMP"):
        open_bmp(data)


@pytest.mark.parametrize("size", [2, 13, 20, 40, 53])
def test_a_cut_header_is_refused(size):
    with pytest.raises(ImageRefused) as caught:
        open_bmp(bmp_sized(64, 48)[:size])
    assert caught.value.reason == "invalid_image"
