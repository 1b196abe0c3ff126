"""The drift check against a tiny package that stands in for vLLM; `make verify-engine` runs it against the real one."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from serving import overrides, profile
from serving.engine import defaults, verify

V = "vllm" + ":"  # so that the real check does not find the names that are made up here

CLI_ARGS = """
def make_arg_parser(parser):
    for name in {flags!r}:
        parser.add_argument("--" + name, nargs="?", const=True)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--served-model-name", nargs="*")
    for name in {short!r}:
        parser.add_argument(name)
    parser.set_defaults(shutdown_timeout=0, gpu_memory_utilization=0.92)
    return parser

def validate_parsed_serve_args(args):
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
"""
REGISTRIES = {
    "tool_parsers/__init__.py": "class ToolParserManager:\n    list_registered = staticmethod(lambda: {tools!r})",
    "reasoning/__init__.py": "class ReasoningParserManager:\n    list_registered = staticmethod(lambda: ['qwen3'])",
    "model_executor/model_loader/__init__.py": "_LOAD_FORMAT_TO_MODEL_LOADER = {loaders!r}",
}
BATCH_DEFAULTS = """
from vllm.usage.usage_lib import UsageContext

current_platform = None

class EngineArgs:
    @classmethod
    def get_batch_defaults(cls, world_size):
        if current_platform.is_cpu():
            tokens, seqs = 2048, 128
        elif current_platform.get_device_total_memory() > 70 << 30 and "a100" not in current_platform.get_device_name().lower():
            tokens, seqs = 8192, {large}
        else:
            tokens, seqs = 2048, 256
        return {{UsageContext.OPENAI_API_SERVER: tokens}}, {{UsageContext.OPENAI_API_SERVER: seqs}}
"""
VARIABLE_DEFAULTS = {
    "VLLM_MAX_IMAGE_PIXELS": 178956970,
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": True,
    "VLLM_ENGINE_READY_TIMEOUT_S": 600,
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": 5,
}
SOURCE = """
FLASH_ATTN = TRITON_ATTN = TORCHINDUCTOR_CACHE_DIR = TRITON_CACHE_DIR = None
logger.info("Loading weights took %.2f seconds")
logger.info("Model loading took %s GiB memory and %.6f seconds")
logger.info("torch.compile took %.2f s in total")
logger.info("run together took %.2f s in total")
logger.info("Graph capturing finished in %.0f secs, took %.2f GiB")
logger.info(
    "init engine (profile, create kv cache, warmup model) took "
    "%.2f s",
)
"""


def flags_of_profiles():
    used = {flag for name in profile.names() for flag in profile.load(name).flags}
    used |= overrides.NUMBERS | overrides.WORDS | overrides.JSON
    used |= {"model", "host", "port", "enable-lora", "max-lora-rank", "lora-modules", "reasoning-parser"}
    return sorted(used - {"max-model-len", "served-model-name"})


def variables_of_profiles():
    return sorted({name for each in profile.names() for name in profile.load(each).env})


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """Put a stand-in for vLLM on the path; returns its folder."""

    def make(
        flags=None,
        variables=None,
        metrics=("num_requests_running", "request_success", "tool_calls_total"),
        tools=("hermes",),
        loaders=("runai_streamer", "sharded_state"),
        source=SOURCE,
        large=1024,
    ):
        package = tmp_path / "site" / "vllm"
        launchers = package / "entrypoints" / "launchers"
        others = [package / name for name in ("utils", "model_executor", "engine", "usage")]
        for folder in (launchers, *others):
            folder.mkdir(parents=True)
        for folder in (package, package / "entrypoints", launchers, *others):
            (folder / "__init__.py").write_text("")
        (package / "engine" / "arg_utils.py").write_text(BATCH_DEFAULTS.format(large=large))
        (package / "usage" / "usage_lib.py").write_text("class UsageContext:\n    OPENAI_API_SERVER = 'server'")
        for name, text in REGISTRIES.items():
            (package / name).parent.mkdir(exist_ok=True)
            (package / name).write_text(text.format(tools=list(tools), loaders=dict.fromkeys(loaders)))
        known = flags_of_profiles() if flags is None else flags
        (launchers / "cli_args.py").write_text(CLI_ARGS.format(flags=known, short=list(overrides.SHORT)))
        (package / "source.py").write_text(source)
        (package / "utils" / "argparse_utils.py").write_text(
            "from argparse import ArgumentParser as FlexibleArgumentParser"
        )
        read = variables_of_profiles() if variables is None else variables
        values = {name: VARIABLE_DEFAULTS.get(name) for name in read}
        (package / "envs.py").write_text(
            f"environment_variables = {{name: (lambda value=value: value) for name, value in {values!r}.items()}}"
        )
        (package / "metrics.py").write_text("\n".join(f'"vllm:{name}"' for name in metrics))
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
            monkeypatch.delitem(sys.modules, name)
        return package

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "helm").mkdir(parents=True)
    for made_by_tools in (".venv-x", ".cache"):
        (root / made_by_tools).mkdir()
        (root / made_by_tools / "other.py").write_text(f"{V}somebody_elses")
    (root / "picture.jpg").write_bytes(f"{V}not_text".encode())
    return root


def test_it_lists_what_it_checked(vllm, repository, capsys):
    vllm()
    (repository / "helm" / "rules.yaml").write_text(
        "expr: vllm:num_requests_running > rate(vllm:request_success_total[5m])"
    )
    assert verify.main(repository) == 0
    out = capsys.readouterr().out
    assert "profile l4: 14 flags" in out
    assert "metrics: 2 names" in out
    assert "words: 6 log messages" in out
    assert out.endswith("verify: ok\n")


def test_a_renamed_flag_fails(vllm, repository, capsys):
    vllm(flags=[flag for flag in flags_of_profiles() if flag != "allowed-media-domains"])
    assert verify.main(repository) == 1
    assert "profile cpu: vLLM refuses its command line: " in capsys.readouterr().err


def test_a_variable_that_nobody_reads_fails(vllm, repository, capsys):
    vllm(variables=[])
    assert verify.main(repository) == 1
    err = capsys.readouterr().err
    assert "VLLM_MAX_IMAGE_PIXELS (profile t4) is read nowhere in the installed vLLM" in err
    assert "HF_HUB_OFFLINE" not in err


def test_an_unknown_metric_fails_with_its_place(vllm, repository, capsys):
    vllm()
    board = repository / "helm" / "board.json"
    board.write_text(f'{{}}\n{{"expr": "{V}gpu_cache_usage_perc"}}')
    assert verify.main(repository) == 1
    assert f"{V}gpu_cache_usage_perc (helm/board.json:2) is unknown" in capsys.readouterr().err


def test_the_defaults_that_comments_name_are_read_from_every_profile():
    named = {
        (path.stem, name) for path in profile.PROFILES_DIR.glob("*.toml") for name, _ in defaults.said(path.read_text())
    }
    assert {("h100", "max-num-batched-tokens"), ("t4", "gpu-memory-utilization"), ("_gpu", "shutdown-timeout")} <= named
    assert {("_every", "VLLM_MAX_IMAGE_PIXELS"), ("cpu", "max-num-seqs"), ("l4", "max-num-batched-tokens")} <= named


def test_a_metric_named_as_absent_on_purpose_passes(vllm, repository):
    vllm()
    (repository / "notes.md").write_text(f"`{V}num_requests_swapped` is not in vLLM any more")
    assert verify.main(repository) == 0


@pytest.mark.parametrize(
    "series", ["request_success_total", "request_success", "tool_calls_total", "request_success_bucket"]
)
def test_the_series_of_a_metric_are_known_with_it(series):
    assert verify.unknown_metrics({series: "x"}, {"request_success", "tool_calls_total"}) == []


def test_values_that_the_parser_refuses_are_faults():
    def parse(words):
        raise ValueError("no such backend")

    assert verify.parse_fault(parse, []) == "no such backend"
    assert verify.parse_fault(lambda _: None, []) is None


def test_without_vllm_it_says_what_to_run(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert verify.main() == 127
    assert ".venv-engine/bin/python" in capsys.readouterr().err


def test_a_variable_that_any_file_names_is_checked_with_its_place(vllm, repository, capsys):
    vllm()
    (repository / "Dockerfile").write_text(f"FROM x\nENV {V.upper()[:4]}_CASH_ROOT=/cache\n")
    (repository / "notes.md").write_text(f"{V.upper()[:4]}_USE_V1 is not in vLLM any more")
    assert verify.main(repository) == 1
    err = capsys.readouterr().err
    assert "_CASH_ROOT (Dockerfile:2) is read nowhere" in err
    assert "_USE_V1" not in err


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"tools": ["pythonic"]}, "profile l4: vLLM refuses its command line: 'hermes' is no tool call parser"),
        (
            {"loaders": ["sharded_state"]},
            "with --model s3://models/qwen3-vl-8b: vLLM refuses its command line: 'runai_",
        ),
        ({"source": SOURCE.replace("Loading weights took", "Weights came in")}, "`Loading\\ weights\\ took\\ %"),
        ({"source": SOURCE.replace("TRITON_ATTN", "TRITON")}, "`TRITON_ATTN` is nowhere"),
        ({"large": 512}, "h100.toml: max-num-seqs: vLLM's default is 512, and the comment says 1024"),
        (
            {"flags": [flag for flag in flags_of_profiles() if flag != "kv-cache-dtype"]},
            "reads --kv-cache-dtype, which vLLM",
        ),
    ],
)
def test_what_serving_relies_on_besides_profiles_is_checked(vllm, repository, capsys, made, said):
    vllm(**made)
    assert verify.main(repository) == 1
    assert said in capsys.readouterr().err


def test_vllms_own_checks_of_a_command_line_are_run():
    def parse(words):
        raise KeyError("invalid tool call parser")

    assert "invalid tool call parser" in verify.parse_fault(parse, [])
