"""`make bench-images`: the image path against real vLLM on the CPU, direct and through the gateway, side by side.

    python -m loadtest.bench_images [--only rates shrink formats memory lag] [--rounds 3] [--count 64]

Prints ratios that hold on one machine in one run; the goals stand beside them. Exit code 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from gateway.malloc import keep_large_blocks
from loadtest.images.formats import LAYOUTS, cost
from loadtest.images.forms import compare
from loadtest.images.photos import photos, small_pictures
from loadtest.images.rates import measure
from loadtest.images.shrinkers import peak_mib, times_ms
from loadtest.images.stack import engine, stack
from loadtest.images.steady import loop_lag, memory_growth

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("shrink", "forms", "formats", "memory", "lag", "rates")
MIB = 1 << 20


def say(text: str) -> None:
    """A line at once, also into a pipe."""
    print(text, flush=True)


def verdict(name: str, value: float, goal: float, *, at_least: bool, unit: str = "") -> bool:
    """Print a figure beside its goal; whether it is met."""
    met = value >= goal if at_least else value <= goal
    bound = "at least" if at_least else "at most"
    say(f"  {'ok  ' if met else 'MISS'} {name}: {value:.2f}{unit} (goal: {bound} {goal:g}{unit})")
    return met


def shrink_part() -> bool:
    """Milliseconds of one core, and peak memory."""
    say("Shrinking a 12-megapixel JPEG to 512x512 on one core, median CPU time, memory kept as the gateway keeps it:")
    keep_large_blocks()
    pictures = list(islice(photos(3), 6))
    times = times_ms(pictures)
    for name, spent in times.items():
        say(f"  {name:24}{spent:7.1f} ms")
    ours = times.pop("libvips (the gateway)")
    best = min(times.values())
    met = verdict("libvips to the fastest other way", ours / best, 1.05, at_least=False)
    with tempfile.NamedTemporaryFile(suffix=".jpg") as warm:
        warm.write(next(small_pictures()))
        warm.flush()
        for way in ("libvips", "draft", "pillow"):
            peak = peak_mib(way, pictures[0], warm.name)
            if way == "libvips":
                met &= verdict("peak memory of a picture, libvips", peak, 80, at_least=False, unit=" MiB")
            else:
                say(
                    f"       peak memory of a picture, {'Pillow draft' if way == 'draft' else 'Pillow'}: {peak:.2f} MiB"
                )
    return met


def forms_part(pictures: int) -> bool:
    """Answers by the form in which the engine is sent a picture."""
    say(f"{pictures} shrunk pictures in each form that the engine could get; real vLLM's answers beside PNG's:")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, engine(Path(folder)) as (side, _):
        found = compare(side, pictures)
    for name, form in found.items():
        say(
            f"  {name:32}{form.kib:7.1f} KiB {form.encode_ms:6.2f} ms to encode; "
            f"the same {form.same} of {form.asked}, right {form.right}"
        )
    ours = next(form for name, form in found.items() if "the gateway's" in name)
    return verdict("the gateway's form keeps of PNG's answers", ours.same / ours.asked, 0.99, at_least=True)


def formats_part() -> bool:
    """Peak memory beside the price."""
    say("Memory for decoding one picture of 12 megapixels to 512x512, MiB: 4000x3000, 10000x1200 (price)")
    met = True
    for name, make in LAYOUTS.items():
        costs = [cost(make(*size)) for size in ((4000, 3000), (10_000, 1200))]
        say(f"  {name:38}" + "".join(f"{one.peak / MIB:9.1f} ({one.price / MIB:.1f})" for one in costs))
        met &= all(one.peak <= one.price for one in costs)
    say(f"  {'ok  ' if met else 'MISS'} no picture takes more than its price")
    return met


def memory_part(count: int) -> bool:
    """Growth per 1,000 pictures."""
    say(f"Memory of a process over {count} 12-megapixel pictures, after each 1,000:")
    found = memory_growth(photos(6), count=count)
    say("  " + "  ".join(f"{rss:.1f}" for rss in found) + " MiB")
    growth = (found[-1] - found[1]) / max(1, len(found) - 2)
    return verdict("growth per 1,000 after the second", growth, 1.0, at_least=False, unit=" MiB")


def lag_part() -> bool:
    """The event loop under 64 concurrent 4-MiB data URLs."""
    pictures = [jpeg + bytes(max(0, 4 * MIB - len(jpeg))) for jpeg in islice(photos(6), 128)]
    lag = loop_lag(pictures)
    say(f"The event loop while 64 clients send 4-MiB data URLs ({lag.rate:.1f} requests/s), {lag.looks} looks at it:")
    whole, own = (lag.longest_s[part] * 1000 for part in ("whole", "own"))
    say(f"       later than 50 ms for whatever reason: {lag.late['whole']}; the longest {whole:.1f} ms")
    say(f"       without waiting for a core of this machine: {lag.late['own']}; the longest {own:.1f} ms")
    return verdict("times it was later than 50 ms, by its own doing", lag.late["own"], 0, at_least=False)


def rates_part(rounds: int, count: int) -> bool:
    """Direct against gateway."""
    met = True
    say("Requests per second with 8 clients and answers of 4 tokens, real vLLM on the CPU; rounds in turns:")
    with stack() as running:
        plans = (
            ("12-megapixel photos, distinct", photos(6), count, False, 2.5),
            ("the same 12-megapixel photo, different questions", photos(3), count * 2, True, 4.0),
            ("small clean pictures, distinct", small_pictures(), count * 4, False, 0.9),
            ("the same small clean picture, different questions", small_pictures(), count * 6, True, 0.9),
        )
        measure(running, small_pictures(), count=16, same=False, rounds=1)  # both warm
        for name, pictures, requests, same, goal in plans:
            rates = measure(running, pictures, count=requests, same=same, rounds=rounds)
            for side in ("direct", "gateway"):
                found = ", ".join(f"{value:.1f}" for value in getattr(rates, side))
                say(f"  {name}, {side}: {found}; CPU {median(rates.cpu_ms[side]):.1f} ms a request")
            met &= verdict(name, rates.ratio, goal, at_least=True, unit="x")
    return met


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, or 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description="Measure the image path.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--count",
        type=int,
        default=64,
        help="requests of a round of distinct photos; a round begins with all clients at once",
    )
    parser.add_argument("--pictures", type=int, default=5000, help="pictures of the memory part")
    parser.add_argument("--scenes", type=int, default=60, help="pictures of the forms part")
    args = parser.parse_args(argv)
    parts: dict[str, Callable[[], bool]] = {
        "shrink": shrink_part,
        "forms": lambda: forms_part(args.scenes),
        "formats": formats_part,
        "memory": lambda: memory_part(args.pictures),
        "lag": lag_part,
        "rates": lambda: rates_part(args.rounds, args.count),
    }
    results = [parts[name]() for name in args.only]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
