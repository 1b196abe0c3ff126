"""What can stand in the way of a fetch: a class for each exit code. Messages name the next step and hold no secret."""

from __future__ import annotations

from typing import ClassVar


class FetchError(Exception):
    """A fetch cannot go on. What was fetched stays for the next run; `current` is as it was."""

    exit_code: ClassVar[int] = 1


class Refused(FetchError):
    """The bytes are not what was promised, or are of a kind that is not let in (EX_DATAERR)."""

    exit_code = 65


class NotThere(FetchError):
    """The source answers, but has no such checkpoint (EX_NOINPUT)."""

    exit_code = 66


class Unreachable(FetchError):
    """The source does not answer, or breaks off: the same command may work later (EX_UNAVAILABLE)."""

    exit_code = 69


class NoRoom(FetchError):
    """The disk is too small, or cannot be written to (EX_CANTCREAT)."""

    exit_code = 73


class Busy(FetchError):
    """Another fetch holds the lock for longer than this one was told to wait (EX_TEMPFAIL)."""

    exit_code = 75


class Changed(FetchError):
    """The source changed between its listing and the reading: the next run sees one state of it (EX_TEMPFAIL)."""

    exit_code = 75


class Denied(FetchError):
    """The source wants credentials that the environment does not have (EX_NOPERM)."""

    exit_code = 77


class Misconfigured(FetchError):
    """The command, a manifest or the installation is wrong (EX_CONFIG)."""

    exit_code = 78


class Stopped(FetchError):
    """A signal asked for the end (128 + SIGTERM, or 128 + SIGINT)."""

    exit_code = 143


EXIT_CODES = """\
exit codes:
  0    DIR/current is the checkpoint that was asked for, and verified
  2    the command line is wrong
  65   the bytes do not match their checksum, or nothing but files that are refused
  66   the source has no such checkpoint
  69   the source cannot be reached, or broke off again and again: run the same command later
  73   the disk is too small or cannot be written to
  75   another fetch held the lock for longer than --wait, or the source changed meanwhile: run it again
  77   the source refuses the credentials of the environment, or wants some
  78   a client library is missing, or a manifest cannot be read
  130  stopped by SIGINT; 143 by SIGTERM. Nothing is lost: run it again
"""
