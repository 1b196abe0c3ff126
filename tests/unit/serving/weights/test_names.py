import pytest

from serving.weights.errors import Refused
from serving.weights.names import Kind, judge


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.safetensors", Kind.WEIGHTS),
        ("model-00001-of-00004.safetensors", Kind.WEIGHTS),
        ("model.safetensors.index.json", Kind.JSON),
        ("config.json", Kind.JSON),
        ("generation_config.json", Kind.JSON),
        ("preprocessor_config.json", Kind.JSON),
        ("video_preprocessor_config.json", Kind.JSON),
        ("tokenizer.json", Kind.JSON),
        ("tokenizer_config.json", Kind.JSON),
        ("vocab.json", Kind.JSON),
        ("merges.txt", Kind.TEXT),
        ("chat_template.jinja", Kind.TEXT),
        ("LICENSE", Kind.TEXT),
        ("README.md", Kind.TEXT),
    ],
)
def test_what_serving_needs_is_let_in(name, kind):
    assert judge(name).kind is kind
    assert judge(name).kind.accepted


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "a.pt", "a.pth", "a.PKL", "a.ckpt", "training_args.bin", "deep/model.bin", "x.npz"]
)
def test_pickles_are_told_apart_and_kept_out(name):
    assert judge(name).kind is Kind.PICKLE
    assert "pickle" in judge(name).reason


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("modeling_qwen.py", "code"),
        ("kernel.so", "code"),
        (".gitattributes", "plainly"),
        ("original/model.safetensors", "top"),
        ("модель.safetensors", "plainly"),
        ("a" * 300 + ".safetensors", "plainly"),
        (".fetch.json", "plainly"),
        ("manifest.json", "checksums"),
        ("SHA256SUMS", "checksums"),
        ("model.gguf", "needs"),
        ("video.mp4", "needs"),
        ("model.safetensors.bak", "needs"),
    ],
)
def test_the_unknown_is_left_out_with_a_reason(name, why):
    assert not judge(name).kind.accepted
    assert why in judge(name).reason


@pytest.mark.parametrize(
    "name",
    ["../x.json", "a/../../x", "..", "/etc/passwd", "..\\x", "\\x", "C:\\x", "a\x00.json", "config.json\n", "a/.."],
)
def test_a_name_that_leaves_the_folder_condemns_the_source(name):
    with pytest.raises(Refused, match="would leave the folder"):
        judge(name)
