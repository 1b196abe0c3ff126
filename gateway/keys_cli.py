"""`python -m gateway keys create|list|revoke`: the command line over the key file. It holds no rules of its own.

Only a new key goes to standard output, so that `KEY=$(python -m gateway keys create …)` works; all explanations go to
standard error. Exit codes: 0 done, 1 refused (the text says what to do), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import sys
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.address import Networks, parse_networks
from gateway.key_ring import render_time
from gateway.keys import Key, KeyFile, KeyFileError, hash_secret, new_secret, update, utc_now

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Callable, Sequence
    from datetime import datetime

FILE_VARIABLE = "GATEWAY_KEYS_FILE"

_ID_BYTES = 6
"""48 random bits: ids only have to differ within a file, and `update` refuses a pair that does not."""

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([hdw])")
