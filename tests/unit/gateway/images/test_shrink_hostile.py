"""Corrupt and lying files behind headers that look well: refused, or a picture of the size they claim; never a crash."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from gateway.images import ImageRefused, inspect, shrink, target_size
from tests.unit.gateway.images import samples
from tests.unit.gateway.images.samples import BUDGET, CAP, encode, photo, verdict
from tests.unit.gateway.images.test_inspect import KINDS
from tests.unit.gateway.images.test_shrink import LARGE_KINDS, bring

REASONS = {"invalid_image", "image_too_large", "aspect_ratio", "unsupported_image", "too_many_frames"}
LOSES_ITS_END = sorted(set(LARGE_KINDS) - {"gif", "animated gif"})


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", LOSES_ITS_END)
def test_a_truncated_file_is_refused(kind, share):
    data = LARGE_KINDS[kind]
    with pytest.raises(ImageRefused) as caught:
        bring(data[: int(len(data) * (share if kind != "pages of tiff" else share / 2))])
    assert caught.value.reason == "invalid_image"


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "png", "palette png"])
def test_a_truncated_small_file_is_not_passed_through(kind):
    data = KINDS[kind][0]
    for cut in (data[: len(data) // 2], data[: len(data) // 2] + data[-12:], data[: len(data) // 2] + b"\xff\xd9"):
        match verdict(bring, cut):
            case ImageRefused(reason=reason):
                assert reason == "invalid_image"
            case out:  # a JPEG that ends where it should is merely short of data, and shown grey from there on
                assert kind.endswith("jpeg")
                assert (out.width, out.height) == (320, 200)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (samples.png_bomb(4000, 4000), "short of rows"),
        (samples.jpeg_sized(4000, 4000), "short of scan lines"),
        (samples.tiff_sized(3000, 3000), "short of strips"),
        (samples.avif_sized(640, 480), "not what it says"),
        (samples.webp_sized(640, 480), "a frame smaller than its canvas"),
        (samples.gif_sized(640, 480), "a frame larger than its data"),
        (samples.jpeg_sized(1, 1), "more data than it says"),
    ],
)  # fmt: skip
def test_a_lying_header_costs_a_refusal_or_a_picture_of_the_size_it_claims(data, kind):
    match verdict(bring, data):
        case ImageRefused(reason=reason):
            assert reason == "invalid_image", kind
        case out:
            info = inspect(data, max_pixels=CAP)
            assert (out.width, out.height) == target_size(info.width, info.height, BUDGET)


def test_a_gif_is_measured_by_its_frame_not_by_its_screen():
    data = bytearray(encode(Image.new("RGB", (2500, 2500), "green"), "GIF"))
    struct.pack_into("<HH", data, 6, 64, 48)
    with pytest.raises(ImageRefused, match="2500x2500"):
        inspect(bytes(data), max_pixels=5_000_000)


def test_an_avif_larger_than_it_says_is_not_decoded():
    """The container states one size, the coded frame another; only decoding finds out."""
    data = bytearray(encode(Image.new("RGB", (2000, 2000), "green"), "AVIF", speed=10))
    struct.pack_into(">II", data, data.find(b"ispe") + 8, 64, 48)
    info = inspect(bytes(data), max_pixels=CAP)
    assert (info.width, info.height) == (64, 48)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageRefused) as caught:
        shrink(bytes(data), info, max_pixels=BUDGET)
    assert caught.value.reason == "invalid_image"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_a_jpeg_of_countless_scans_is_not_decoded():
    data = encode(photo(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 200 + data[-2:]
    with pytest.raises(ImageRefused, match="more than 100 scans") as caught:
        bring(bomb)
    assert caught.value.reason == "invalid_image"


@pytest.mark.parametrize("kind", KINDS)
def test_scrambled_pixels_are_a_picture_or_a_refusal(kind):
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    original = np.frombuffer(KINDS[kind][0], np.uint8)
    for _ in range(12):
        data = original.copy()
        at = rng.integers(12, len(data), 6)
        data[at] = rng.integers(0, 256, 6)
        match verdict(bring, data.tobytes()):
            case ImageRefused(reason=reason):
                assert reason in REASONS
            case out:
                assert out.width * out.height <= BUDGET


def test_nothing_is_written_to_the_terminal():
    """libvips, libtiff and libjpeg warn on standard error; a hostile client must not write our logs."""
    script = (
        "import sys\n"
        "from gateway.images import ImageRefused, inspect, shrink\n"
        "files = sys.stdin.buffer.read().split(b'-- cut here --')\n"
        "assert len(files) > 20\n"
        "for data in files:\n"
        "    for cut in (data, data[:len(data) // 2], data[:400]):\n"
        "        try: shrink(cut, inspect(cut, max_pixels=10**7), max_pixels=64 * 64)\n"
        "        except ImageRefused: pass\n"
    )
    files = [data for data, *_ in KINDS.values()]
    files += [samples.tiff_sized(3000, 3000), samples.jpeg_sized(900, 900), samples.avif_sized(1_442_840_896, 5)]
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"-- cut here --".join(files), capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
