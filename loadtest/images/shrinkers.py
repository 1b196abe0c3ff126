"""Shrinking a 12-megapixel JPEG: libvips as the gateway uses it, Pillow in two ways, turbojpeg if it is there."""

from __future__ import annotations

import io
import os
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


def turbojpeg_way() -> Callable[[bytes], bytes] | None:
    """PyTurboJPEG (below 2 for Debian's libturbojpeg0) with Pillow's resampling; None where either is missing.

    TURBOJPEG_LIBRARY may name the library's file.
    """
    try:
        import turbojpeg  # noqa: PLC0415

        codec = turbojpeg.TurboJPEG(os.environ.get("TURBOJPEG_LIBRARY"))
    except (ImportError, RuntimeError, OSError):
        return None

    def by_turbojpeg(jpeg: bytes) -> bytes:
        width, height, *_ = codec.decode_header(jpeg)
        size = target_size(width, height, BUDGET)
        pixels = codec.decode(jpeg, pixel_format=turbojpeg.TJPF_RGB, scaling_factor=(1, 4))
        import numpy as np  # noqa: PLC0415

        resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        return bytes(
            codec.encode(
                np.asarray(resized), quality=90, pixel_format=turbojpeg.TJPF_RGB, jpeg_subsample=turbojpeg.TJSAMP_444
            )
        )

    return by_turbojpeg


def times_ms(jpegs: list[bytes], rounds: int = 5) -> dict[str, float | None]:
    """Median milliseconds of each way, in turns; None for one that is not there."""
    ways: dict[str, Callable[[bytes], bytes] | None] = {
        "libvips (the gateway)": by_libvips,
        "Pillow draft": lambda jpeg: by_pillow(jpeg, draft=True),
        "Pillow full decode": by_pillow,
        "turbojpeg 1/4": turbojpeg_way(),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for jpeg in jpegs:
            for name, way in ways.items():
                if way is not None:
                    begun = time.process_time()  # libvips works in a thread of its own
                    way(jpeg)
                    spent[name].append((time.process_time() - begun) * 1000)
    return {name: statistics.median(found) if found else None for name, found in spent.items()}


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
