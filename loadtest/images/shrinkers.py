"""Shrinking a 12-megapixel JPEG: libvips as the gateway uses it, Pillow in two ways, and libjpeg-turbo itself."""

from __future__ import annotations

import io
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from PIL import Image

from gateway.images import inspect, shrink, target_size

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 512 * 512
MAX_SOURCE_PIXELS = 50_000_000


def by_libvips(jpeg: bytes) -> bytes:
    """The gateway's own."""
    return shrink(jpeg, inspect(jpeg, max_pixels=MAX_SOURCE_PIXELS), max_pixels=BUDGET).data


def by_pillow(jpeg: bytes, *, draft: bool = False) -> bytes:
    """Pillow: decoded whole, or (`draft`) at the smallest DCT fraction that is large enough."""
    picture = Image.open(io.BytesIO(jpeg))
    size = target_size(*picture.size, BUDGET)
    if draft:
        picture.draft("RGB", (int(size[0] * 1.5), int(size[1] * 1.5)))  # as much left to resample as the gateway leaves
    out = io.BytesIO()
    picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()


def by_turbojpeg(jpeg: bytes) -> bytes:
    """libjpeg-turbo by simplejpeg, decoded at 1/4, with Pillow's resampling."""
    import numpy as np  # noqa: PLC0415 - the benchmark's own, and only here
    import simplejpeg  # noqa: PLC0415 - likewise

    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    size = target_size(width, height, BUDGET)
    pixels = simplejpeg.decode_jpeg(jpeg, "RGB", min_height=height // 4, min_width=width // 4)
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    pixels = np.ascontiguousarray(resized)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling="444"))


def times_ms(jpegs: list[bytes], rounds: int = 5) -> dict[str, float]:
    """Median milliseconds of each way, in turns."""
    ways: dict[str, Callable[[bytes], bytes]] = {
        "libvips (the gateway)": by_libvips,
        "Pillow draft": lambda jpeg: by_pillow(jpeg, draft=True),
        "Pillow full decode": by_pillow,
        "turbojpeg 1/4": by_turbojpeg,
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for jpeg in jpegs:
            for name, way in ways.items():
                begun = time.process_time()  # libvips works in a thread of its own
                way(jpeg)
                spent[name].append((time.process_time() - begun) * 1000)
    return {name: statistics.median(found) for name, found in spent.items()}


PEAK = """
import sys
from pathlib import Path
from loadtest.images.shrinkers import by_libvips, by_pillow
data = sys.stdin.buffer.read()
way = {"libvips": by_libvips, "pillow": by_pillow, "draft": lambda jpeg: by_pillow(jpeg, draft=True)}[sys.argv[1]]
way(open(sys.argv[2], "rb").read())
def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
before = kib("VmRSS")
way(data)
print(kib("VmHWM") - before)
"""


def peak_mib(way: str, picture: bytes, warm_path: str) -> float:
    """How much one picture raises the peak of a process that has shrunk a small one (`warm_path`) before, in MiB."""
    done = subprocess.run([sys.executable, "-c", PEAK, way, warm_path], input=picture, capture_output=True, check=True)
    return int(done.stdout) / 1024


def rss_mib() -> float:
    """This process's memory now, in MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)
