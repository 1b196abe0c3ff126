"""Which of the repository's scripts the tests really start, by themselves or through another script.

An audit hook sees what Python starts; BASH_ENV, which every script in bash reads first, sees what scripts start.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = re.compile(r"[\w./-]+\.(?:sh|py)")


def started(words):
    """The script that a command line starts; one that is only named in it, as shellcheck's are, is not started."""
    if re.fullmatch(r"(ba|da)?sh|python[\d.]*", Path(words[0]).name):
        words = list(itertools.dropwhile(lambda word: re.fullmatch("-[A-Zefopuxil]+|-", word), words[1:])) or [""]
    return words[0]


class Recorder:
    """Scripts below the repository's root that were started in this session."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="scripts-that-ran-")
        self._log = Path(self._folder.name, "log")
        note = Path(self._folder.name, "note.sh")
        note.write_text(f"printf '%s\\n' \"$0\" >>'{self._log}'\n")
        os.environ["BASH_ENV"] = str(note)
        self._seen: set[Path] = set()
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if event == "subprocess.Popen":
            words = arguments[1] if isinstance(arguments[1], (list, tuple)) else [arguments[1]]
            self._note(
                started([os.fsdecode(word) if isinstance(word, (str, bytes, os.PathLike)) else "" for word in words])
            )

    def _note(self, word):
        if SCRIPT.fullmatch(word):
            self._seen.add((ROOT / word).resolve())

    def ran(self) -> set[str]:
        """Their paths below the root."""
        for line in self._log.read_text().splitlines() if self._log.exists() else ():
            self._note(line)
        return {str(path.relative_to(ROOT)) for path in self._seen if path.is_relative_to(ROOT) and path.is_file()}

    def end(self) -> None:
        del os.environ["BASH_ENV"]
        self._folder.cleanup()
