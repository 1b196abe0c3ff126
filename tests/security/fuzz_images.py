"""Fuzzes the decoder entry (`inspect`, then `shrink`) with mutated pictures of every format.

    python -m tests.security.fuzz_images --minutes 10 [--seed 1] [--keep FOLDER]

Right is an encoded picture within the budget or an ImageRefused. Everything else (a signal, another exception, more
than HANG_S for one input, a picture above its budget) is a crash: the input is kept and the exit code is 1. The
decoders are native code, so they run in a child process; the input it works on is in a file that outlives it.
"""

from __future__ import annotations

import argparse
import mmap
import random
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

from PIL import Image

from gateway.images import ImageRefused, inspect, shrink
from tests.unit.gateway.images.samples import encode, photo, srgb_profile, with_orientation

HANG_S = 20.0
MAX_INPUT_BYTES = 1 << 16
SOURCE_PIXELS = 4_000_000
BUDGET = 64 * 64
REPORT_EVERY = 500
HEADER = struct.Struct("<QQI")  # executions, refusals, length of the input that follows
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Small whole pictures of every kind that is accepted."""
    picture = photo(72, 40)
    rgba = picture.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    frames = {"save_all": True, "append_images": [photo(72, 40, 1)]}
    profile = {"icc_profile": srgb_profile()}
    return [
        encode(picture, "JPEG"), encode(picture, "JPEG", progressive=True), encode(picture.convert("CMYK"), "JPEG", **profile),
        encode(picture.convert("L"), "JPEG", **with_orientation(6)), encode(picture, "JPEG", **profile), encode(picture, "PNG"),
        encode(picture, "PNG", **profile), encode(rgba, "PNG"), encode(picture.convert("P"), "PNG", transparency=3),
        encode(picture.convert("1"), "PNG"), encode(picture.convert("I;16"), "PNG"), encode(picture, "PNG", **frames),
        encode(picture, "WEBP"), encode(rgba, "WEBP"), encode(rgba, "WEBP", lossless=True), encode(picture, "WEBP", **frames),
        encode(picture, "GIF"), encode(picture, "GIF", **frames), encode(picture, "BMP"), encode(picture.convert("P"), "BMP"),
        encode(rgba, "BMP"), encode(picture, "TIFF"), encode(picture, "TIFF", compression="tiff_lzw"),
        encode(picture, "TIFF", compression="jpeg"), encode(picture.convert("1"), "TIFF", compression="group4"),
        encode(picture, "TIFF", compression="tiff_adobe_deflate"), encode(picture.convert("CMYK"), "TIFF"),
        encode(picture, "TIFF", big_tiff=True), encode(picture, "TIFF", **frames), encode(picture, "AVIF", speed=10),
        encode(rgba, "AVIF", speed=10),
    ]  # fmt: skip


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`data` with one to eight changes; checksums that would stop the decoder at once are often made right again."""
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        # Headers decide most, and are short: half of all changes go there.
        at = rng.randrange(min(len(new), 256) if rng.random() < 0.5 else len(new)) if new else 0
        match rng.randrange(8):
            case 0 if new:
                new[at] ^= 1 << rng.randrange(8)
            case 1 if new:
                new[at] = rng.randrange(256)
            case 2:
                size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
                new[at : at + size] = (rng.choice(INTERESTING) % (1 << 8 * size)).to_bytes(size, order)
            case 3:
                del new[at : at + rng.choice((1, 2, 4, 16, 256))]
            case 4:
                new[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
            case 5:
                new[at:at] = new[at : at + rng.choice((4, 16, 64, 512))] * rng.choice((1, 2, 20))
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                new[at : at + 64] = other[start : start + rng.choice((8, 64, 512))]
            case _:
                del new[max(at, 16) :]
    return repaired(bytes(new[:MAX_INPUT_BYTES])) if rng.random() < 0.7 else bytes(new[:MAX_INPUT_BYTES])


def repaired(data: bytes) -> bytes:
    """PNG chunks with right checksums, a RIFF with its right size; others as they are."""
    if data[:4] == b"RIFF":
        return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]
    if data[:4] != b"\x89PNG":
        return data
    new, at = bytearray(data), 8
    while at + 12 <= len(new):
        (length,) = struct.unpack_from(">I", new, at)
        end = at + 8 + length
        if end + 4 > len(new):
            break
        struct.pack_into(">I", new, end, zlib.crc32(new[at + 4 : end]))
        at = end + 4
    return bytes(new)


def execute(data: bytes) -> bool:
    """Whether `data` was refused. Raises whatever should not happen."""
    try:
        info = inspect(data, max_pixels=SOURCE_PIXELS, budget_pixels=BUDGET)
        picture = shrink(data, info, max_pixels=BUDGET)
    except ImageRefused:
        return True
    if picture.width * picture.height > BUDGET:
        message = f"{picture.width}x{picture.height} is above the budget"
        raise AssertionError(message)
    return False


def work(path: Path, seed: int) -> None:
    """The child: mutate and execute until it is killed or dies. What it works on is in `path`."""
    rng, pictures = random.Random(seed), seeds()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), HEADER.size + MAX_INPUT_BYTES) as shared:
        executions = refusals = 0
        while True:
            data = mutated(rng.choice(pictures), pictures, rng)
            shared[HEADER.size : HEADER.size + len(data)] = data
            HEADER.pack_into(shared, 0, executions, refusals, len(data))
            refusals += execute(data)
            executions += 1


def fuzz(seconds: float, seed: int, keep: Path) -> tuple[int, int, list[Path]]:
    """Executions, refusals, and the inputs that crashed (kept in `keep`)."""
    deadline = time.monotonic() + seconds
    crashes: list[Path] = []
    total = refused = runs = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while time.monotonic() < deadline:
            path = Path(folder, f"input-{runs}")
            path.write_bytes(bytes(HEADER.size + MAX_INPUT_BYTES))
            argv = [
                sys.executable,
                "-m",
                "tests.security.fuzz_images",
                "--child",
                str(path),
                "--seed",
                str(seed + runs),
            ]
            errors = Path(folder, f"errors-{runs}")
            with errors.open("wb") as output, subprocess.Popen(argv, stderr=output) as child:
                why = watch(child, path, deadline)
                executions, refusals, size = HEADER.unpack_from(path.read_bytes())
                total, refused, runs = total + executions, refused + refusals, runs + 1
                if why is not None:
                    crash = keep / f"crash-{seed + runs - 1}-{executions}"
                    crash.write_bytes(path.read_bytes()[HEADER.size : HEADER.size + size])
                    crashes.append(crash)
                    print(  # noqa: T201
                        f"CRASH: {why}; the input is {crash.name}\n{errors.read_text(errors='replace')[-2000:]}"
                    )
    return total, refused, crashes


def watch(child: subprocess.Popen[bytes], path: Path, deadline: float) -> str | None:
    """Wait for the deadline, a death or a hang; what went wrong, None if nothing did. The child is gone then."""
    seen, moved, why = b"", time.monotonic(), None
    while time.monotonic() < deadline:
        try:
            code = child.wait(min(0.5, max(0.01, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            with path.open("rb") as file:
                now = file.read(HEADER.size)
            # Nothing but zeros: it is still starting, which takes long at a low priority on a busy machine.
            if now != seen or not any(now):
                seen, moved = now, time.monotonic()
            elif time.monotonic() - moved > HANG_S:
                why = f"one input took more than {HANG_S:g} s"
                break
        else:
            return f"the child ended with {code}"
    child.kill()
    child.wait()
    return why


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, or 1 after a crash."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders with mutated pictures.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for inputs that crash")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child is not None:
        try:
            work(args.child, args.seed)
        except Exception:  # noqa: BLE001 - any exception but a refusal is what is looked for
            traceback.print_exc()
            return 1
    begun = time.monotonic()
    executions, refusals, crashes = fuzz(args.minutes * 60, args.seed, args.keep)
    spent = time.monotonic() - begun
    print(  # noqa: T201
        f"{executions} executions in {spent:.0f} s ({executions / spent:.0f}/s), {refusals} refused, "
        f"{executions - refusals} decoded, {len(crashes)} crashes (seed {args.seed})"
    )
    return 1 if crashes or not executions else 0


if __name__ == "__main__":
    raise SystemExit(main())
