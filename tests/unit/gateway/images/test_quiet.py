from __future__ import annotations

import logging

import pyvips

from gateway.images import inspect
from gateway.images.quiet import _write
from tests.unit.gateway.images import samples
from tests.unit.gateway.images.samples import CAP, verdict

ABSURD = samples.avif_sized(1_442_840_896, 5)


def test_what_the_libraries_say_goes_to_the_debug_log(caplog, capfd):
    with caplog.at_level(logging.DEBUG, "gateway.images.quiet"):
        verdict(inspect, ABSURD, max_pixels=CAP)
    assert "out of range for property" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_above_debug_nothing_is_said(caplog, capfd):
    with caplog.at_level(logging.INFO, "gateway.images.quiet"):
        verdict(inspect, ABSURD, max_pixels=CAP)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_message_that_quotes_binary_is_no_error(caplog):
    with caplog.at_level(logging.DEBUG, "gateway.images.quiet"):
        _write(pyvips.ffi.NULL, 16, pyvips.ffi.new("char[]", b"tag \xff\xfe\n\x1b[2J"), pyvips.ffi.NULL)
    assert r"tag \xff\xfe" in caplog.text
