from __future__ import annotations

import pytest

from serving.engine import torch_build


def wheel(version, *requires):
    return {"install": [{"metadata": {"version": version, "requires_dist": list(requires)}}]}


COMMON = ("filelock", "typing-extensions>=4.10.0", "sympy>=1.13.3", 'optree>=0.13.0; extra == "optree"')


@pytest.mark.parametrize(
    "report",
    [
        wheel("2.13.0+cpu", *COMMON),
        wheel("2.13.0", *COMMON),
        wheel("2.13.0", *COMMON, "nvidia-ml-py>=12; extra == 'monitor'"),
        {"install": [{"metadata": {"version": "2.13.0"}}]},
    ],
)
def test_a_cpu_build_is_taken(report):
    assert torch_build.judge(report) == (report["install"][0]["metadata"]["version"], None)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (wheel("2.13.0+cu130", *COMMON), "it is labelled +cu130"),
        (wheel("2.13.0+rocm7.1", *COMMON), "it is labelled +rocm7.1"),
        (
            wheel("2.13.0", *COMMON, 'nvidia-cublas==13.1.0.3; platform_system == "Linux"'),
            "it requires nvidia-cublas",
        ),
        (wheel("2.13.0", *COMMON, "nvidia_cudnn_cu13 (==9.20)"), "it requires nvidia-cudnn-cu13"),
        (wheel("2.13.0", *COMMON, "cuda-bindings[all]<14"), "it requires cuda-bindings"),
        (wheel("2.13.0", *COMMON, "triton==3.9.0"), "it requires triton"),
    ],
)
def test_a_gpu_build_is_refused_with_the_reason(report, reason):
    assert torch_build.judge(report)[1] == reason


def test_the_machines_own_index_comes_first_and_pytorchs_second():
    own, pytorch = torch_build.sources()
    assert own.pip_arguments == ()
    assert pytorch.pip_arguments == ("--index-url", "https://download.pytorch.org/whl/cpu")
    assert own.requirement == pytorch.requirement == f"torch=={torch_build.TORCH_VERSION}+cpu"


def test_a_named_index_is_asked_alone_and_may_label_as_it_likes():
    (named,) = torch_build.sources("https://pypi.example/simple")
    assert named.requirement == f"torch=={torch_build.TORCH_VERSION}"
    assert named.pip_arguments == ("--index-url", "https://pypi.example/simple")
