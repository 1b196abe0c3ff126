"""What a picture of each format costs to decode, beside the price it is admitted by: the layouts that hold most."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

Make = "Callable[[int, int], bytes]"
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of Adam7: x and y of the first pixel, and the steps."""
_BANDS = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}
_PNG_BANDS = {0: 1, 2: 3, 6: 4}


def by_pillow(mode: str, kind: str, **options: object) -> Callable[[int, int], bytes]:
    """Of faint noise."""

    def make(width: int, height: int) -> bytes:
        tile = np.random.default_rng(1).integers(110, 140, (64, 64, _BANDS[mode]), dtype=np.uint8)
        pixels = np.tile(tile, (height // 64 + 1, width // 64 + 1, 1))[:height, :width]
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.squeeze())).save(out, kind, **options) if mode != "CMYK" else (
            Image.fromarray(np.ascontiguousarray(pixels), "CMYK").save(out, kind, **options)
        )
        return out.getvalue()

    return make


def png(depth: int, colour: int, *, interlaced: bool) -> Callable[[int, int], bytes]:
    """Of one colour; `colour` is PNG's colour type."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def make(width: int, height: int) -> bytes:
        packed, body = zlib.compressobj(1), b""
        for x, y, step_x, step_y in _PASSES if interlaced else ((0, 0, 1, 1),):
            row = b"\0" + b"\x7f" * ((width - x + step_x - 1) // step_x * _PNG_BANDS[colour] * depth // 8)
            body += b"".join(packed.compress(row) for _ in range((height - y + step_y - 1) // step_y))
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
        data = chunk(b"IDAT", body + packed.flush())
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")

    return make


def tiff(
    bands: int, bits: int, *, rows: int | None = None, tile: int = 0, apart: bool = False
) -> Callable[[int, int], bytes]:
    """Deflated; in strips of `rows` (None: one strip) or in tiles, its bands together or `apart`."""

    def make(width: int, height: int) -> bytes:
        strip = rows or height
        if tile:
            sizes = [tile * tile * bands] * (-(-width // tile) * -(-height // tile))
        else:
            row_samples = width if apart else width * bands
            sizes = [row_samples * min(strip, height - y) for y in range(0, height, strip)] * (bands if apart else 1)
        packed = {size: zlib.compress(b"\x7f" * (size * bits // 8), 1) for size in set(sizes)}
        parts = [packed[size] for size in sizes]
        at = [8 + sum(map(len, parts[:n])) for n in range(len(parts))] if len(parts) < 2000 else []  # noqa: PLR2004
        data = b"".join(parts)
        extra_at, extra = 8 + len(data), b""

        def elsewhere(code: str, values: list[int]) -> int:
            nonlocal extra
            extra += struct.pack(f"<{len(values)}{code}", *values)
            return extra_at + len(extra) - struct.calcsize(f"<{len(values)}{code}")

        def longs(tag: int, values: list[int]) -> tuple[int, int, int, int]:
            return tag, 4, len(values), values[0] if len(values) == 1 else elsewhere("I", values)

        tags = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, bands)]
        tags += [(284, 3, 1, 2 if apart else 1), (258, 3, bands, elsewhere("H", [bits] * bands))]
        tags += [(338, 3, 1, 2)] if bands == 4 else []  # noqa: PLR2004 - unassociated alpha
        tags += [(322, 4, 1, tile), (323, 4, 1, tile)] if tile else [(278, 4, 1, strip)]
        tags += [longs(324 if tile else 273, at), longs(325 if tile else 279, [len(part) for part in parts])]
        entries = b"".join(struct.pack("<HHII", *entry) for entry in sorted(tags))
        directory = struct.pack("<H", len(tags)) + entries + bytes(4)
        return b"II*\0" + struct.pack("<I", extra_at + len(extra)) + data + extra + directory

    return make


LAYOUTS: Final = MappingProxyType(
    {
        "JPEG": by_pillow("RGB", "JPEG", subsampling=0),
        "JPEG, CMYK": by_pillow("CMYK", "JPEG"),
        "JPEG, progressive": by_pillow("RGB", "JPEG", progressive=True),
        "JPEG, progressive 4:4:4": by_pillow("RGB", "JPEG", progressive=True, subsampling=0),
        "JPEG, progressive CMYK": by_pillow("CMYK", "JPEG", progressive=True),
        "PNG": png(8, 2, interlaced=False),
        "PNG, 16 bits with alpha": png(16, 6, interlaced=False),
        "PNG, interlaced": png(8, 2, interlaced=True),
        "PNG, interlaced, 16 bits with alpha": png(16, 6, interlaced=True),
        "WebP": by_pillow("RGB", "WEBP", quality=50, method=0),
        "WebP, lossless with alpha": by_pillow("RGBA", "WEBP", lossless=True, method=0, quality=0),
        "GIF": by_pillow("L", "GIF"),
        "TIFF": tiff(3, 8, rows=16),
        "TIFF, one strip": tiff(3, 8),
        "TIFF, 16 bits with alpha": tiff(4, 16, rows=16),
        "TIFF, tiles": tiff(3, 8, tile=256),
        "TIFF, bands apart": tiff(3, 8, apart=True),
        "TIFF, bands apart, 16 bits with alpha": tiff(4, 16, apart=True),
        "BMP": by_pillow("RGB", "BMP"),
        "AVIF": by_pillow("RGB", "AVIF", quality=40, speed=10),
        "AVIF, 4:4:4": by_pillow("RGB", "AVIF", quality=40, speed=10, subsampling="4:4:4"),
        "AVIF, 4:4:4 with alpha": by_pillow("RGBA", "AVIF", quality=40, speed=10, subsampling="4:4:4"),
    }
)
CHILD: Final = """
import sys
from pathlib import Path
from gateway.malloc import keep_large_blocks
keep_large_blocks()
from gateway.images import inspect, shrink
def taken_in(data):
    return inspect(data, max_pixels=10**9, budget_pixels=512 * 512, max_decode_bytes=1 << 40)
def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
data = sys.stdin.buffer.read()
warm = bytes.fromhex(sys.argv[1])
shrink(warm, taken_in(warm), max_pixels=64 * 64)
info = taken_in(data)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
before = kib("VmRSS")
shrink(data, info, max_pixels=512 * 512)
print((kib("VmHWM") - before) * 1024, info.decode_bytes)
"""


@dataclass(frozen=True)
class Cost:
    """Bytes: growth of the peak of a process that has shrunk one picture before, and the price."""

    peak: int
    price: int


def cost(picture: bytes) -> Cost:
    """Measured in a process of its own; the budget is 512x512."""
    warm = by_pillow("RGB", "JPEG")(96, 96).hex()
    done = subprocess.run([sys.executable, "-c", CHILD, warm], input=picture, capture_output=True, check=True)
    return Cost(*map(int, done.stdout.split()))
