"""The committed checkpoint: small, complete, in the format that vLLM loads, in step with its recipe."""

import json
import struct
from pathlib import Path

import pytest

import serving.demo
from serving.demo import evaluate, recipe, words
from serving.demo.scenes import COLOURS, PATTERNS, PRODUCTS

FOLDER = Path(serving.demo.__file__).parent / "checkpoint"
FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
}


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tensors():
    with (FOLDER / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__")
    return header


def test_the_files_are_complete_and_nothing_else_is_there():
    assert {file.name for file in FOLDER.iterdir()} == FILES


def test_the_weights_are_below_eight_megabytes_and_all_bfloat16(tensors):
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}


def test_it_has_two_to_four_million_parameters(tensors):
    last = max(tensor["data_offsets"][1] for tensor in tensors.values())
    assert 2_000_000 <= last // 2 <= 4_000_000


def test_the_weights_belong_to_the_configuration(tensors):
    config = read("config.json")
    text, vision = config["text_config"], config["vision_config"]
    assert tensors["model.language_model.embed_tokens.weight"]["shape"] == [text["vocab_size"], text["hidden_size"]]
    assert {name.split(".")[3] for name in tensors if name.startswith("model.language_model.layers.")} == {
        str(layer) for layer in range(text["num_hidden_layers"])
    }
    assert {name.split(".")[3] for name in tensors if name.startswith("model.visual.blocks.")} == {
        str(layer) for layer in range(vision["depth"])
    }
    assert "lm_head.weight" not in tensors
    assert config["tie_word_embeddings"]


def test_the_configuration_is_the_recipes():
    config = read("config.json")
    ids = {token["content"]: token["id"] for token in read("tokenizer.json")["added_tokens"]}
    assert config == recipe.config(config["text_config"]["vocab_size"], ids)
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]


def test_pictures_are_resized_to_the_range_that_was_trained():
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        assert read(name)["size"] == {"shortest_edge": recipe.MIN_PIXELS, "longest_edge": recipe.MAX_PIXELS}


def test_the_tokenizer_holds_the_shops_words_as_single_tokens():
    tokenizer = read("tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    for word in (*PRODUCTS, *COLOURS, *PATTERNS):
        assert "Ġ" + word in vocabulary
    for word in words.ZH_WORDS:
        assert spelt(word) in vocabulary
    size = len(vocabulary) + sum(token["content"] not in vocabulary for token in tokenizer["added_tokens"])
    assert size == read("config.json")["text_config"]["vocab_size"]


def spelt(word):
    """How byte-level BPE writes a word: each byte as a printable character (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(rest)}
    return "".join(table[byte] for byte in word.encode())


def test_decoding_is_greedy_and_ends_with_the_turn():
    ids = {token["content"]: token["id"] for token in read("tokenizer.json")["added_tokens"]}
    generation = read("generation_config.json")
    assert generation["temperature"] == 0
    assert ids["<|im_end|>"] in generation["eos_token_id"]


def test_the_chat_template_puts_pictures_first():
    template = (FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
    assert template.index("<|image_pad|>") < template.index("part.text")


def test_the_card_tells_the_measured_accuracy_and_the_licence():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    measured = card.partition(evaluate.START)[2].partition(evaluate.END)[0]
    assert "unseen pictures" in measured
    assert "| caption |" in measured
