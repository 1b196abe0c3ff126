"""`python -m serving run`: looks at the GPUs, lets fitness.py judge, and becomes vLLM."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serving import arguments, command, fitness, hardware, overrides, profile, startup
from serving.capacity import model, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serving.fitness import Checkpointed, Findings

EX_CONFIG, EX_NOT_EXECUTABLE, EX_NOT_INSTALLED = 78, 126, 127
ROOT = Path(__file__).resolve().parent.parent

HELP = """\
Replaces itself by vLLM's OpenAI-compatible server, so signals reach vLLM and its exit code is yours.

Without --profile it asks NVIDIA's driver which GPUs are here and takes the profile for them. What cannot work on them
is refused with the reason and what comes nearest; a profile that is for another GPU is only warned about, if it fits.

Every value of a profile stands with its reason in serving/profiles/*.toml. What follows `--` goes to vLLM as it is,
last, and wins. Variables that are set already win over the profile's. Keys go into VLLM_API_KEY, never into argv.
Once the engine has generated a token, a line of JSON with the phases of the start appears in its log.
The engine's Python: $SERVING_ENGINE_PYTHON; else this one, when it has vLLM; else .venv-engine/bin/python.
"""
EXIT_CODES = """\
exit codes:
  2    the command line is wrong
  78   a profile, a checkpoint, the environment or the GPU is wrong (the message says which)
  126  the engine's Python cannot be executed
  127  the engine is not installed: run `make engine`
  any other code is vLLM's own: 0 after a clean stop, 1 when it fails to start, 128 + n when signal n kills it

example:
  python -m serving run --profile l4 --model /models/qwen3-vl-8b-fp8 --host 0.0.0.0 -- --max-num-seqs 16
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the command line of `python -m serving`."""
    run = subparsers.add_parser(
        "run",
        help="run vLLM as a profile says",
        description=HELP,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    titles = ", ".join(f"{name} ({profile.load(name).title})" for name in profile.names())
    run.add_argument("--profile", choices=profile.names(), metavar="NAME", help=f"default: the GPU's; {titles}")
    run.add_argument("--model", help="checkpoint: directory, hub name or s3:// address (default: the profile's)")
    run.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    run.add_argument("--port", type=arguments.port, default=8000, help="port to listen on (default: %(default)s)")
    run.add_argument("--served-model-name", nargs="+", default=(), metavar="NAME", help="what clients call the model")
    run.add_argument(
        "--load-format",
        metavar="FORMAT",
        help="vLLM's: auto, runai_streamer (default for s3://, gs:// and az://), sharded_state, tensorizer, dummy …",
    )
    run.add_argument(
        "--cache-dir",
        default=os.environ.get("SERVING_CACHE_DIR"),
        metavar="DIR",
        help="keep compiled code here over restarts (default: $SERVING_CACHE_DIR, else vLLM's own place)",
    )
    run.add_argument("--no-check", action="store_true", help="start even what is thought not to work")
    run.add_argument("--no-report", action="store_true", help="no start-up report in the log")
    run.add_argument("--print", action="store_true", help="print the command as shell, and do not run it")


def engine_python(environ: Mapping[str, str], root: Path = ROOT) -> str:
    """Choose the interpreter that has vLLM, as HELP says."""
    if chosen := environ.get("SERVING_ENGINE_PYTHON"):
        return chosen
    if importlib.util.find_spec("vllm"):
        return sys.executable
    return str(root / ".venv-engine" / "bin" / "python")


def run(
    asked: argparse.Namespace,
    extra: Sequence[str],
    environ: Mapping[str, str],
    bindings: Callable[[], hardware.Nvml] = hardware.bindings,
) -> int:
    """Become the engine; returns only an exit code for what stands in the way."""
    try:
        devices, unseen = look(asked, environ, bindings)
        chosen = profile.load(asked.profile or _choose(devices))
        invocation = command.build(
            chosen,
            command.Request(
                host=asked.host,
                port=asked.port,
                model=asked.model,
                served_model_names=tuple(asked.served_model_name),
                load_format=asked.load_format,
                cache_dir=asked.cache_dir,
                extra=tuple(extra),
            ),
            python=engine_python(environ),
            root=str(ROOT),
            inherited=environ,
        )
    except (profile.ProfileError, command.CommandError, hardware.NoGpu, fitness.NoProfile) as exc:
        return fail(str(exc), EX_CONFIG)
    findings = check(chosen, invocation, extra, devices, unseen)
    for note in findings.notes:
        say(f"note: {note}")
    if asked.print:
        for refusal in findings.refusals:
            say(f"note: this cannot work here: {refusal}")
        print(invocation.render())
        return 0
    if findings.refusals and not asked.no_check:
        return fail("\n".join(refused(chosen.name, findings)), EX_CONFIG)
    checkpoint = command.local_path(invocation.argv)
    if checkpoint is not None and not (Path(checkpoint) / "config.json").is_file():
        return fail(
            f"{checkpoint} has no config.json, so it is no checkpoint: put one there or give --model", EX_CONFIG
        )
    return become(invocation, chosen.name, asked, environ)


def look(
    asked: argparse.Namespace, environ: Mapping[str, str], bindings: Callable[[], hardware.Nvml]
) -> tuple[tuple[hardware.Device, ...], str | None]:
    """Return the GPUs, and why they are unknown where a profile was named that can be tried without knowing.

    Raises NoGpu where there is nothing to choose by.
    """
    if asked.profile and settings.gpu_of(asked.profile) is None:
        return (), None
    try:
        return hardware.detect(bindings(), environ), None
    except hardware.NoGpu as exc:
        if asked.profile and (asked.print or asked.no_check or isinstance(exc, hardware.Unknown)):
            return (), str(exc)
        raise


def _choose(devices: Sequence[hardware.Device]) -> str:
    choice = fitness.choose(devices)
    say(f"profile {choice.name}, {choice.why}")
    return choice.name


def check(
    chosen: profile.Profile,
    invocation: command.Invocation,
    extra: Sequence[str],
    devices: Sequence[hardware.Device],
    unseen: str | None,
) -> Findings:
    """Judge the engine on the GPUs that were found; without any there is nothing to judge by."""
    if not devices:
        return fitness.Findings(notes=(f"not checked against the GPU: {unseen}",) if unseen else ())
    name = invocation.argv[invocation.argv.index("--model") + 1]
    return fitness.judge(overrides.effective(chosen, extra), read_checkpoint(name), devices)


def read_checkpoint(name: str) -> Checkpointed | None:
    """Tell size and precision from a local config.json, or from the name; None when neither does."""
    if command.is_local(name):
        try:
            read = model.load(name)
            return fitness.checkpoint_read(read)
        except model.ModelError:
            return None
    return fitness.checkpoint_named(name)


def refused(profile_name: str, findings: Findings) -> list[str]:
    """Say why profile and GPU do not go together, and what does."""
    lines = [f"profile {profile_name} cannot work here:"]
    lines += [f"  - {refusal}" for refusal in findings.refusals]
    if findings.nearest:
        lines.append(f"The nearest that does, the rest as it is: {findings.nearest[0]}")
        lines += [f"  or: {other}" for other in findings.nearest[1:]]
    return [*lines, "--no-check starts it all the same."]


def become(
    invocation: command.Invocation, profile_name: str, asked: argparse.Namespace, environ: Mapping[str, str]
) -> int:
    """Replace this process by the engine, with the author of the start-up report beside it."""
    python, began = invocation.argv[0], time.time()
    if shutil.which(python) is None:
        if Path(python).exists():
            return fail(f"{python} cannot be executed: Permission denied", EX_NOT_EXECUTABLE)
        return fail(f"no engine is installed ({python} is missing): run `make engine`", EX_NOT_INSTALLED)
    env = {**environ, **invocation.env}
    if not asked.no_report:
        try:
            file, variables = startup.prepare(environ)
        except OSError as exc:
            say(f"note: no start-up report, as there is nowhere to write: {exc}")
        else:
            env |= variables
            startup.spawn(startup.Watched(profile_name, asked.host, asked.port, os.getpid(), began, file))
    try:
        os.execvpe(python, invocation.argv, env)  # noqa: S606  # argv is built by command.py
    except OSError as exc:
        return fail(f"{python} cannot be executed: {exc.strerror}", EX_NOT_EXECUTABLE)


def say(message: str) -> None:
    """Tell the operator something."""
    print(f"serving: {message}", file=sys.stderr)


def fail(message: str, code: int) -> int:
    """Say what stands in the way; return the exit code."""
    say(message)
    return code
