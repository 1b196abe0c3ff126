"""Prices: pictures exact, texts close, answers at their longest; no body makes it fail."""

from __future__ import annotations

import math
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images import target_size
from gateway.pricing import Price, image_tokens, output_tokens, price, prompt_text_tokens, text_tokens
from gateway.stages import Operation


def smart_resize(height, width, min_pixels, max_pixels, factor=32):
    """transformers' own, models/qwen2_vl/image_processing_qwen2_vl.py, without the check of the aspect ratio."""
    h_bar = round(height / factor) * factor
    w_bar = round(width / factor) * factor
    if h_bar * w_bar > max_pixels:
        beta = math.sqrt((height * width) / max_pixels)
        h_bar = max(factor, math.floor(height / beta / factor) * factor)
        w_bar = max(factor, math.floor(width / beta / factor) * factor)
    elif h_bar * w_bar < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        h_bar = math.ceil(height * beta / factor) * factor
        w_bar = math.ceil(width * beta / factor) * factor
    return h_bar, w_bar


def parsed(body, operation=Operation.CHAT):
    raw = SimpleNamespace(operation=operation)
    return SimpleNamespace(identified=SimpleNamespace(allowed=SimpleNamespace(raw=raw)), body=body)


def located(body, *sizes, operation=Operation.CHAT, budget=512 * 512):
    pictures = [
        SimpleNamespace(info=SimpleNamespace(width=width, height=height), part=SimpleNamespace(max_pixels=budget))
        for width, height in sizes
    ]
    return SimpleNamespace(parsed=parsed(body, operation), pictures=tuple(pictures))


class TestPictures:
    @pytest.mark.parametrize(
        ("width", "height", "tokens"),
        [
            (512, 512, 256),
            (4032, 3024, 18 * 13),
            (512, 256, 16 * 8),
            (300, 200, 10 * 7),  # 9 x 6 cells are fewer than the engine's least.
            (1, 1, 64),
            (16, 16, 64),
            (256, 256, 64),
        ],
    )
    def test_a_picture_costs_what_the_engine_makes_of_it(self, width, height, tokens):
        assert image_tokens(width, height, 512 * 512) == tokens

    @given(width=st.integers(1, 5000), height=st.integers(1, 5000), budget=st.integers(65_536, 2_000_000))
    def test_a_picture_costs_what_the_engine_makes_of_what_the_gateway_sends(self, width, height, budget):
        sent_width, sent_height = target_size(width, height, budget)
        rows, columns = smart_resize(sent_height, sent_width, 65_536, 16_777_216)
        assert image_tokens(width, height, budget) == rows * columns // 1024

    @given(width=st.integers(1, 512), height=st.integers(1, 512), least=st.sampled_from([1024, 40_960, 65_536]))
    def test_a_picture_within_the_budget_costs_what_smart_resize_says(self, width, height, least):
        rows, columns = smart_resize(height, width, least, 10**9)
        if rows * columns <= 512 * 512:
            assert image_tokens(width, height, 512 * 512, least) == rows * columns // 1024


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "count"),
        [
            # Counted with Qwen's vocabulary.
            ("What is in this picture? Describe the product's colour, style and material in one sentence.", 19),
            ("这张图片里有什么？请描述商品的颜色、款式和材质。", 14),
            ("この写真には何が写っていますか。商品の色とスタイルを説明してください。", 21),
            ("이 사진에는 무엇이 있나요? 상품의 색상과 스타일을 설명해 주세요.", 27),
            ("Was ist auf diesem Bild zu sehen? Beschreibe Farbe, Stil und Material des Produkts in einem Satz.", 26),
        ],
    )
    def test_the_estimate_is_close_to_the_count(self, text, count):
        assert 0.8 * count <= text_tokens(text) <= 1.4 * count

    @pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("2026", 4), ("{}", 1), ("!", 1), ("abcde", 2)])
    def test_digits_count_one_each_marks_half_the_rest_a_quarter(self, text, tokens):
        assert text_tokens(text) == tokens

    @given(st.text(), st.text())
    def test_more_text_never_costs_less(self, one, two):
        assert text_tokens(one) <= text_tokens(one + two) <= text_tokens(one) + text_tokens(two)

    def test_a_lone_surrogate_has_a_price(self):
        assert text_tokens("\ud800") == 1


class TestPrompts:
    def test_text_in_either_form_costs_the_same_and_pictures_links_nothing(self):
        text = "Describe the style."
        plain = {"messages": [{"role": "user", "content": text}]}
        picture = {"type": "image_url", "image_url": {"url": "https://example.com/" + "a" * 1000}}
        parts = {"messages": [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]}
        assert prompt_text_tokens(plain) == prompt_text_tokens(parts) == 3 + 5 + text_tokens(text)

    def test_all_that_the_engine_reads_has_a_price(self):
        message = {"role": "assistant", "content": None}
        bare = prompt_text_tokens({"messages": [message]})
        for more in (
            {"messages": [message | {"tool_calls": [{"function": {"name": "search", "arguments": "{}"}}]}]},
            {"messages": [message | {"reasoning": "Let me see."}]},
            {"messages": [message, {"role": "user", "content": "Go on."}]},
            {"messages": [message], "tools": [{"type": "function", "function": {"name": "search"}}]},
            {"messages": [message], "response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
        ):
            assert prompt_text_tokens(more) > bare

    @pytest.mark.parametrize(
        ("prompt", "tokens"),
        [("abcdefgh", 2), (["abcd", "efgh"], 2), ([1, 2, 3], 3), ([[1, 2], [3, 4, 5]], 5), ([], 0), (None, 0), (7, 0)],
    )
    def test_completions_prompts_have_a_price_in_every_form(self, prompt, tokens):
        assert prompt_text_tokens({"prompt": prompt}) == tokens

    def test_what_is_nested_too_deeply_to_be_sent_costs_nothing(self):
        assert prompt_text_tokens({"tools": orjson.loads("[" * 300 + "]" * 300)}) == 0


class TestAnswers:
    @pytest.mark.parametrize(
        ("body", "tokens"),
        [
            ({}, 500),
            ({"max_tokens": 20}, 20),
            ({"max_tokens": 20, "max_completion_tokens": 30}, 30),
            ({"max_tokens": 10**9}, 4096),
            ({"max_tokens": 20, "n": 3}, 60),
            ({"max_tokens": 20, "n": 2, "best_of": 4}, 80),
            ({"max_tokens": True}, 500),
            ({"max_tokens": "20"}, 500),
            ({"max_tokens": -1, "n": 0}, 500),
            ({"max_tokens": 1.5}, 500),
        ],
    )
    def test_an_answer_costs_its_longest(self, body, tokens):
        assert output_tokens(parsed(body), 500, 4096) == tokens

    @pytest.mark.parametrize(
        ("body", "tokens"),
        [({"prompt": "a"}, 16), ({"prompt": ["a", "b"], "max_tokens": 5, "n": 2}, 20), ({"prompt": [1, 2, 3]}, 16)],
    )
    def test_completions_answer_every_prompt_and_are_short_by_default(self, body, tokens):
        assert output_tokens(parsed(body, Operation.COMPLETIONS), 500, 4096) == tokens


class TestPrice:
    def test_a_request_costs_its_text_its_pictures_and_its_longest_answer(self):
        body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}]}], "max_tokens": 100}
        whole = price(located(body, (4032, 3024), (512, 512)), default_output_tokens=500, max_output_tokens=4096)
        assert whole == Price(text=9, images=18 * 13 + 2 + 256 + 2, output=100)
        assert whole.total == 9 + 494 + 100

    def test_the_list_of_models_costs_nothing(self):
        free = price(located({}, operation=Operation.MODELS), default_output_tokens=500, max_output_tokens=4096)
        assert free.total == 0

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        ).flatmap(
            lambda value: st.dictionaries(
                st.sampled_from(["prompt", "tools", "n", "best_of", "max_tokens", "response_format"]), st.just(value)
            )
        ),
        st.sampled_from([Operation.CHAT, Operation.COMPLETIONS]),
    )
    def test_no_body_makes_it_fail(self, body, operation):
        cost = price(located(body, operation=operation), default_output_tokens=500, max_output_tokens=4096)
        assert cost.total >= 0
