"""`python -m serving plan`: what fits on a GPU, and how many GPUs a load needs. Prints; serving/capacity computes.

It imports neither torch nor vLLM, so it answers in a fraction of a second on any machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from serving import profile
from serving.capacity import fits, gpus, images, model, settings
from serving.capacity.figures import figures
from serving.capacity.gpus import GIB
from serving.capacity.question import Dtype, KvDtype, Load, Question
from serving.capacity.weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.capacity.figures import Figure
    from serving.capacity.fits import Verdict

EX_IMPOSSIBLE, EX_CONFIG = 1, 78
FILE_WIDTH = 120
"""Columns, where nobody's terminal says otherwise."""

HELP = """\
Computes, from a model's config.json and a GPU's datasheet, what vLLM will find: weights, KV cache, requests at once,
times, throughput, and the GPUs that a load needs. Nothing is measured; docs/capacity.md says what was checked.

What is not given comes from the profile of that GPU (serving/profiles), then from vLLM's defaults.
"""
EPILOG = """\
exit codes:
  0    the plan works
  1    it cannot work; the reason and the nearest thing that does are printed
  2    the command line is wrong
  78   a config.json or a profile is wrong (the message says which)

example:
  python -m serving plan --gpu a10 --checkpoint fp8 --context 16384 --image-pixels 262144 \\
    --requests-per-second 5 --output-tokens 128 --explain
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `plan` to the command line of `python -m serving`."""
    plan = subparsers.add_parser(
        "plan",
        help="compute what fits on a GPU and how many GPUs a load needs",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(f"{gpu.name} ({gpu.title})" for gpu in gpus.table().values())
    plan.add_argument("--gpu", required=True, choices=list(gpus.table()), metavar="NAME", help=known)
    plan.add_argument(
        "--checkpoint", type=Checkpoint, choices=list(Checkpoint), help="precision of the weights (default: profile's)"
    )
    plan.add_argument("--context", type=_positive, metavar="TOKENS", help="--max-model-len (default: profile's)")
    plan.add_argument(
        "--image-pixels",
        type=_size,
        default=images.Size(512, 512),
        metavar="N|WxH",
        help="a request's picture: area, or size (default: 262144, that is 512x512)",
    )
    plan.add_argument("--images", type=_natural, default=1, metavar="N", help="pictures of a request (default: 1)")
    plan.add_argument("--requests-per-second", type=_rate, default=1.0, metavar="N", help="load (default: 1)")
    plan.add_argument("--output-tokens", type=_positive, default=128, metavar="N", help="of an answer (default: 128)")
    plan.add_argument("--prompt-tokens", type=_positive, default=64, metavar="N", help="text only (default: 64)")
    plan.add_argument("--gpus-per-engine", type=_positive, metavar="N", help="tensor parallelism (default: 1)")
    plan.add_argument("--kv-dtype", type=KvDtype, choices=list(KvDtype), help="precision of the KV cache")
    plan.add_argument("--dtype", type=Dtype, choices=list(Dtype), help="precision of everything else")
    plan.add_argument("--model", default=model.DEFAULT, help=f"{', '.join(model.known())}, or a config.json's path")
    plan.add_argument("--max-num-seqs", type=_positive, metavar="N", help="requests at once (default: profile's)")
    plan.add_argument("--max-num-batched-tokens", type=_positive, metavar="N", help="of a step (default: profile's)")
    plan.add_argument("--gpu-memory-utilization", type=_share, metavar="SHARE", help="default: profile's")
    plan.add_argument("--explain", action="store_true", help="show formula and source of each figure")
    plan.add_argument("--json", action="store_true", help="print JSON, with formulas and sources")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan or the refusal; return the exit code."""
    try:
        question = question_of(arguments)
    except (model.ModelError, settings.SettingsError, profile.ProfileError) as exc:
        print(f"serving plan: {exc}", file=sys.stderr)
        return EX_CONFIG
    verdict = fits.fits(question)
    found = figures(question) if verdict.fits else ()
    if arguments.json:
        print(json.dumps(document(question, verdict, found), indent=2))
    elif verdict.fits:
        _print_table(question, found, explain=arguments.explain)
    else:
        print("\n".join(refusal(verdict)), file=sys.stderr)
    return 0 if verdict.fits else EX_IMPOSSIBLE


def question_of(arguments: argparse.Namespace) -> Question:
    """Complete the command line with the GPU's profile. Raises ModelError, ProfileError or SettingsError."""
    asked = model.load(arguments.model)
    gpu = gpus.table()[arguments.gpu]
    matching = _profile_for(gpu.name, arguments.gpus_per_engine or 1)
    engine = settings.engine_of(matching, gpu, _checkpoint(arguments.checkpoint, asked, matching))
    given = {
        "context_tokens": arguments.context,
        "gpus_per_engine": arguments.gpus_per_engine,
        "kv_dtype": arguments.kv_dtype,
        "dtype": arguments.dtype,
        "max_requests": arguments.max_num_seqs,
        "max_batched_tokens": arguments.max_num_batched_tokens,
        "memory_utilization": arguments.gpu_memory_utilization,
    }
    if arguments.checkpoint is Checkpoint.BF16 and not arguments.dtype:
        given["dtype"] = Dtype.BFLOAT16  # who asks for bfloat16 is not given float16 by a profile
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    load = Load(
        requests_per_second=arguments.requests_per_second,
        prompt_tokens=arguments.prompt_tokens,
        output_tokens=arguments.output_tokens,
        image=arguments.image_pixels,
        images_per_request=arguments.images,
    )
    return Question(asked, dataclasses.replace(engine, **changes), load)


def _profile_for(gpu_name: str, gpus_per_engine: int) -> profile.Profile:
    """Choose among the profiles of a GPU the one for as many GPUs, or else the one that bears its name."""
    for name in profile.names():
        found = settings.gpu_of(name)
        if found and found.name == gpu_name:
            candidate = profile.load(name)
            if candidate.flags.get(settings.TENSOR_PARALLEL, 1) == gpus_per_engine:
                return candidate
    return profile.load(gpu_name)


def _checkpoint(asked: Checkpoint | None, read: model.Model, matching: profile.Profile) -> Checkpoint:
    """Take what was asked for, what the config.json says, or what the profile's checkpoint is called."""
    if read.quantization is not None:
        try:
            stored = Checkpoint(read.quantization)
        except ValueError:
            raise model.ModelError(f"{read.name}: quantization {read.quantization!r} is not computed here") from None
        if asked not in (None, stored):
            raise model.ModelError(f"{read.name} is quantized to {stored}, so --checkpoint {asked} is not it")
        return stored
    if read.name not in model.known():
        return asked or Checkpoint.BF16  # somebody's own, which would say so if it were quantized
    # A profile without a checkpoint is the T4's, which needs four bits.
    return asked or settings.checkpoint_of(matching.model) or Checkpoint.W4A16


def refusal(verdict: Verdict) -> Iterator[str]:
    """Say why it cannot work, and what does."""
    yield "This cannot work:"
    yield from (f"  - {reason}" for reason in verdict.reasons)
    if not verdict.alternatives:
        yield "Nothing near it works either: take a smaller model."
        return
    nearest, *others = verdict.alternatives
    yield f"The nearest that does, the rest as asked: {nearest.changes}"
    yield from (f"  or: {other.changes}" for other in others)


def document(question: Question, verdict: Verdict, found: tuple[Figure, ...]) -> dict[str, Any]:
    """Make the JSON: what was asked with every default, the verdict, the figures by key."""
    engine, load = question.engine, question.load
    return {
        "asked": {
            "model": question.model.name,
            **dataclasses.asdict(engine),
            "gpu": engine.gpu.name,
            **dataclasses.asdict(load),
            "image": str(load.image),
        },
        "fits": verdict.fits,
        "reasons": list(verdict.reasons),
        "alternatives": [option.changes for option in verdict.alternatives],
        "figures": {
            figure.key: {name: value for name, value in dataclasses.asdict(figure).items() if name != "key"}
            for figure in found
        },
    }


def _print_table(question: Question, found: tuple[Figure, ...], *, explain: bool) -> None:
    from rich import box  # noqa: PLC0415  # a fifth of a second that --json and a refusal don't need
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("basis")
    for figure in found:
        table.add_row(figure.title, value_words(figure), str(figure.basis))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print(title(question), soft_wrap=True, markup=False)
    console.print(table)
    for figure in found if explain else ():
        console.print(f"[bold]{figure.title}[/bold]: {value_words(figure)} ({figure.basis})", soft_wrap=True)
        console.print(f"    = {figure.formula}\n    [dim]from {figure.source}[/dim]", soft_wrap=True)
    for note in notes(question):
        console.print(f"- {note}", soft_wrap=True)


def title(question: Question) -> str:
    """Say in one line what the plan is for."""
    engine, load = question.engine, question.load
    machine = f"{engine.gpus_per_engine} x {engine.gpu.title}"
    return (
        f"{question.model.name} ({engine.checkpoint}) on {machine}, context {engine.context_tokens:,}: "
        f"{load.requests_per_second:g} requests/s, picture {load.image}, answer {load.output_tokens} tokens"
    )


def notes(question: Question) -> Iterator[str]:
    """Say what a reader of the table must know besides."""
    engine, gpu = question.engine, question.engine.gpu
    if engine.checkpoint is Checkpoint.FP8 and not gpu.has_fp8:
        yield f"{gpu.title} has no FP8 arithmetic: FP8 weights save memory there, and time only in decode (Marlin)."
    if not gpu.has_bf16:
        yield f"{gpu.title} has no bfloat16: start vLLM with --dtype half. Qwen3-VL was trained in bfloat16."
    if fits.is_tight(question):
        yield "It fits by less than the estimate may be wrong (0.5 GiB): start it once before you rely on it."
    yield "Decoding pictures on the CPU is not in it, and often is the first bottleneck: watch time to the first token."


_WORDS = {"bytes": (GIB, "{:.2f} GiB"), "s": (1e-3, "{:,.1f} ms"), "requests/s": (1, "{:.2f}/s")}
_SMALL_BYTES = 10_000_000


def value_words(figure: Figure) -> str:
    """Write a figure's value for people."""
    if figure.unit == "bytes" and abs(figure.value) < _SMALL_BYTES:
        return f"{figure.value:,.0f} B"
    if figure.unit in _WORDS:
        unit, form = _WORDS[figure.unit]
        return form.format(figure.value / unit)
    return f"{figure.value:,.2f}" if isinstance(figure.value, float) else f"{figure.value:,}"


def _size(text: str) -> images.Size:
    try:
        return images.parse_size(text)
    except images.SizeError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of something")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _rate(text: str) -> float:
    if not 0 < _number(text) < float("inf"):
        raise argparse.ArgumentTypeError("it must be more than 0")
    return float(text)


def _share(text: str) -> float:
    if not 0 < _number(text) <= 1:
        raise argparse.ArgumentTypeError("it must be more than 0 and at most 1")
    return float(text)
