"""The lock on libvips: what must not be reachable from any bytes."""

from __future__ import annotations

import pytest
import pyvips

from gateway.images import ImageRefused, inspect
from gateway.images.loaders import refusing_corrupt
from gateway.images.sniff import Format
from tests.unit.gateway.images.samples import encode, photo

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize("data", [SVG, b"%PDF-1.4\n", b"push graphic-context\n", b"#?RADIANCE\n", b"P5 1 1 255 a"])
def test_libvips_own_sniffing_finds_no_loader_for_languages(data):
    with pytest.raises((pyvips.Error, UnicodeDecodeError)):
        pyvips.Image.new_from_buffer(data, "")


@pytest.mark.parametrize("operation", ["svgload_buffer", "uhdrload_buffer", "jpegload_buffer"])
def test_loaders_that_are_not_ours_are_blocked(operation):
    data = SVG if operation == "svgload_buffer" else encode(photo(8, 8), "JPEG")
    with pytest.raises(pyvips.Error, match="blocked"):
        getattr(pyvips.Image, operation)(data)


@pytest.mark.parametrize("operation", ["jpegload", "pngload", "csvload", "matrixload", "vipsload", "svgload"])
def test_no_loader_reads_a_file(operation, tmp_path):
    (tmp_path / "a").write_bytes(encode(photo(8, 8), "JPEG"))
    with pytest.raises(pyvips.Error, match="blocked"):
        getattr(pyvips.Image, operation)(str(tmp_path / "a"))


def test_no_saver_writes_a_file(tmp_path):
    with pytest.raises(pyvips.Error, match="blocked"):
        pyvips.Image.black(8, 8).pngsave(str(tmp_path / "a.png"))
    assert not list(tmp_path.iterdir())


def test_libvips_runs_one_thread_and_keeps_nothing():
    assert pyvips.concurrency_get() == 1
    assert pyvips.cache_get_max() == 0


def test_an_error_that_quotes_binary_does_not_poison_the_next():
    """libvips' error buffer is one per process; pyvips fails to read it when it holds a file's raw bytes, and leaves it."""
    with pytest.raises(ImageRefused) as caught, refusing_corrupt(Format.JPEG):
        pyvips.Image.new_from_file("/\xff".encode("latin-1"))
    assert caught.value.reason == "invalid_image"
    assert pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()) == b""
    assert inspect(encode(photo(8, 8), "JPEG"), max_pixels=100).width == 8
