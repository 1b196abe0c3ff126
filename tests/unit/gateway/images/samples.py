"""Pictures drawn for these tests, as files of every kind. Seeded: the same bytes each time."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, ImageDraw

from gateway.images import ImageRefused

if TYPE_CHECKING:
    from collections.abc import Callable

CAP = 40_000_000
BUDGET = 512 * 512


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Photo-like: smooth colour fields, shapes with edges, fine noise. Top left is red, so a turn is seen."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        r = int(rng.integers(min(width, height) // 12 + 1, min(width, height) // 5 + 2))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    draw.rectangle((0, 0, width // 3, height // 3), fill=(230, 20, 20))
    noise = rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def verdict(call: Callable[..., object], *args: object, **options: object) -> object:
    """What `call` gives, a refusal included: for tests where either is right and anything else is not."""
    try:
        return call(*args, **options)
    except ImageRefused as refused:
        return refused


def pixels(data: bytes | Image.Image) -> np.ndarray:
    picture = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
    return np.asarray(picture.convert("RGB"), dtype=float)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference in grey levels (0-255) after a 4x4 box: what an eye, or a ViT patch, would notice."""
    assert one.shape == other.shape
    height, width = one.shape[0] // 4 * 4, one.shape[1] // 4 * 4

    def boxed(a: np.ndarray) -> np.ndarray:
        return a[:height, :width].reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))

    return float(np.abs(boxed(one) - boxed(other)).mean())


def with_orientation(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gbr_profile() -> bytes:
    """An sRGB profile whose primaries are rotated: red means green, so ignoring or applying it is plain to see."""
    profile = bytearray(srgb_profile())
    count = struct.unpack_from(">I", profile, 128)[0]
    at = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(count)}
    places = [bytes(profile[at[tag] : at[tag] + 8]) for tag in (b"gXYZ", b"bXYZ", b"rXYZ")]
    for tag, place in zip((b"rXYZ", b"gXYZ", b"bXYZ"), places, strict=True):
        profile[at[tag] : at[tag] + 8] = place
    return bytes(profile)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_bomb(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it is `width` x `height` and holds a few kilobytes of zeros."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20), 9)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def jpeg_sized(width: int, height: int, **options: object) -> bytes:
    """A real small JPEG whose frame header claims another size."""
    data = bytearray(encode(photo(64, 48), "JPEG", **options))
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def gif_sized(width: int, height: int) -> bytes:
    """Screen and first frame both: the decoder takes an implausible screen alone for a mistake and ignores it."""
    data = bytearray(encode(photo(64, 48).convert("P"), "GIF"))
    struct.pack_into("<HH", data, 6, width, height)
    frame = data.find(b"\x2c" + struct.pack("<HHHH", 0, 0, 64, 48))
    struct.pack_into("<HH", data, frame + 5, width, height)
    return bytes(data)


def webp_sized(width: int, height: int) -> bytes:
    """An extended WebP whose canvas claims another size than its frame has."""
    frame = encode(photo(64, 48), "WEBP")[12:]
    canvas = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + canvas + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_sized(width: int, height: int) -> bytes:
    data = bytearray(encode(photo(64, 48), "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def tiff_sized(width: int, height: int) -> bytes:
    data = bytearray(encode(photo(64, 48), "TIFF"))
    (ifd,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, ifd)
    for entry in range(ifd + 2, ifd + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in {256, 257}:
            assert kind in {3, 4}
            struct.pack_into("<HHII", data, entry, tag, 4, 1, width if tag == 256 else height)
    return bytes(data)


def avif_sized(width: int, height: int) -> bytes:
    data = bytearray(encode(photo(64, 48), "AVIF", speed=10))
    at = data.find(b"ispe")
    struct.pack_into(">II", data, at + 8, width, height)
    return bytes(data)
