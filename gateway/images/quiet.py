"""What libvips and GLib have to say goes to the debug log. Nothing a picture causes is written to standard error.

pyvips' own handler covers the domain VIPS only, and raises on text that is not UTF-8 (warnings quote a file's tags):
cffi would print that traceback. GLib's warnings about absurd sizes have no handler at all and go to standard error.
"""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Final

import pyvips

if TYPE_CHECKING:
    from typing import Any

_log = logging.getLogger(__name__)
_DOMAINS: Final = (b"VIPS", b"GLib", b"GLib-GObject")
_ALL_LEVELS: Final = -1  # GLogLevelFlags with every bit set, fatal and recursion included


def _write(_domain: Any, _level: int, message: Any, _user_data: Any) -> None:  # noqa: ANN401 - C pointers
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s", pyvips.ffi.string(message).decode(errors="backslashreplace"))


# Kept for the life of the process: C calls it. Of several handlers of a domain GLib asks the newest.
_callback: Final = pyvips.ffi.callback("GLogFunc", _write)


def quieten() -> None:
    """Take over the log domains. Call once, after pyvips has been imported (and so has set up its own handler)."""
    for domain in _DOMAINS:
        handler = pyvips.glib_lib.g_log_set_handler(domain, _ALL_LEVELS, _callback, pyvips.ffi.NULL)
        # Removed at exit: C must not call into an interpreter that is gone.
        atexit.register(pyvips.glib_lib.g_log_remove_handler, domain, handler)
