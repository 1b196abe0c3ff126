"""Questions about scenes: one right answer, derivable from what the picture shows, in both languages."""

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.demo import words
from serving.demo.phrasings import HELLO, NEEDS_PICTURE, PHRASINGS
from serving.demo.questions import KINDS, WITHOUT_PICTURE, ask, tags_schema
from serving.demo.scenes import COLOURS, PATTERNS, PRODUCTS, scene

SCENES = st.builds(scene, st.integers(min_value=0, max_value=1 << 40), st.sampled_from([1, 2, 3]))
DICE = st.integers(min_value=0, max_value=1 << 30).map(random.Random)
LANGUAGE = st.sampled_from(words.LANGUAGES)
CHINESE = re.compile("[\u4e00-\u9fff]")

EN_ONE = {words.en_one(product=name).capitalize() + ".": name for name in PRODUCTS}
ZH_ONE = {words.zh_one(product=name) + "。": name for name in PRODUCTS}
ZH_NAMES = {value: key for key, value in (words.ZH_PRODUCTS | words.ZH_COLOURS | words.ZH_PATTERNS).items()}


def told(answer, language):
    """The English key that a one-word answer means."""
    return answer.rstrip(".").lower() if language == "en" else ZH_NAMES[answer.rstrip("。")]


def matching(picture, text, language, *, without):
    """The products that fit every word of the question; `without` names the attribute that is asked for."""
    names = (lambda word: word) if language == "en" else (words.ZH_PRODUCTS | words.ZH_COLOURS | words.ZH_PATTERNS).get
    said = {
        key: [
            value for value in values if re.search(rf"\b{value}\b" if language == "en" else names(value), text.lower())
        ]
        for key, values in (("product", PRODUCTS), ("colour", COLOURS), ("pattern", PATTERNS))
        if key != without
    }
    if without == "pattern":
        # "pattern" stands in the question itself; only the other attributes pick the product out.
        said.pop("pattern", None)
    places = words.EN_ENDS if language == "en" else words.ZH_ENDS
    spots = [spot for (layout, spot), place in places.items() if layout == picture.layout and place in text]
    items = list(picture.items)
    if spots:
        items = [items[spots[0]]]
    return [item for item in items if all(getattr(item, key) in values for key, values in said.items() if values)]


@given(SCENES, st.sampled_from(KINDS), LANGUAGE, st.integers())
def test_the_same_dice_ask_the_same_question(picture, kind, language, seed):
    assert ask(picture, kind, language, random.Random(seed)) == ask(picture, kind, language, random.Random(seed))


@given(SCENES, st.sampled_from(KINDS), LANGUAGE, DICE)
def test_a_question_is_plain_text_in_its_language(picture, kind, language, dice):
    question = ask(picture, kind, language, dice)
    assert (question.kind, question.language) == (kind, language)
    assert question.text.strip() == question.text
    assert question.answer
    for text in (question.text, question.answer):
        assert not re.search("[\ue000-\uf8ff{]", text.replace('{"', "")), text
        assert language == "zh" or not CHINESE.search(text)
    assert language == "en" or CHINESE.search(question.text)


@given(SCENES, st.sampled_from(KINDS), LANGUAGE, DICE)
def test_mentions_point_at_words_and_at_products_that_are_there(picture, kind, language, dice):
    question = ask(picture, kind, language, dice)
    for mention in question.mentions:
        text = question.text if mention.part == "text" else question.answer
        assert 0 <= mention.start < mention.end <= len(text)
        assert mention.items
        assert set(mention.items) <= set(range(len(picture.items)))
    assert not question.mentions or kind not in WITHOUT_PICTURE


@pytest.mark.parametrize("key", ["colour", "pattern"])
@given(picture=SCENES, language=LANGUAGE, dice=DICE)
def test_attribute_questions_mean_one_product_and_tell_its_value(key, picture, language, dice):
    question = ask(picture, key, language, dice)
    fitting = matching(picture, question.text, language, without=key)
    assert len(fitting) == 1, question.text
    assert told(question.answer, language) == getattr(fitting[0], key)


@given(SCENES, LANGUAGE, DICE)
def test_product_questions_mean_one_product_and_name_it(picture, language, dice):
    question = ask(picture, "product", language, dice)
    fitting = matching(picture, question.text, language, without="product")
    assert len(fitting) == 1, question.text
    assert (EN_ONE if language == "en" else ZH_ONE)[question.answer] == fitting[0].product


@given(SCENES, LANGUAGE, DICE)
def test_counts_are_those_of_the_picture(picture, language, dice):
    question = ask(picture, "count", language, dice)
    names = {name: words.EN_PLURALS[name] if language == "en" else words.ZH_PRODUCTS[name] for name in PRODUCTS}
    asked = [name for name, plural in names.items() if plural in question.text]
    number = len([item for item in picture.items if not asked or item.product == asked[0]])
    if language == "en":
        assert question.answer.split()[0].lower() == words.EN_NUMBERS[number]
    else:
        assert question.answer.startswith(words.ZH_NUMBERS[number] if number else "没有")


@given(SCENES, LANGUAGE, DICE)
def test_a_product_is_said_to_be_there_exactly_when_it_is(picture, language, dice):
    question = ask(picture, "has_product", language, dice)
    (asked,) = [name for name in PRODUCTS if words.named(name, language) in question.text]
    there = asked in {item.product for item in picture.items}
    assert (
        question.answer
        == {("en", True): "Yes.", ("en", False): "No.", ("zh", True): "有。", ("zh", False): "没有。"}[language, there]
    )


@given(SCENES, LANGUAGE, DICE)
def test_an_attribute_is_affirmed_exactly_when_it_holds(picture, language, dice):
    question = ask(picture, "has_attribute", language, dice)
    text = question.text
    yes = question.answer in {"Yes.", "有。", "是的。"}
    if question.answer in {"No.", "没有。", "有。"} or (yes and re.search(r"\b(there|see|show)\b|有没有", text)):
        fitting = matching(picture, text, language, without=None)
        assert bool(fitting) == yes, text
    elif not yes:
        corrected = [
            word for word in (*COLOURS, *PATTERNS) if (word if language == "en" else ZH_WORD[word]) in question.answer
        ]
        assert len(corrected) == 1
        assert any(corrected[0] in {item.colour, item.pattern} for item in picture.items)


ZH_WORD = words.ZH_COLOURS | words.ZH_PATTERNS


@given(SCENES, LANGUAGE, DICE)
def test_tags_list_every_product_in_reading_order_and_fit_the_schema(picture, language, dice):
    question = ask(picture, "tags", language, dice)
    tags = json.loads(question.answer)
    schema = tags_schema(language)
    fields = schema["properties"]["items"]["items"]
    assert list(tags) == schema["required"] == ["items"]
    assert len(tags["items"]) == len(picture.items) <= schema["properties"]["items"]["maxItems"]
    for tag, item in zip(tags["items"], picture.items, strict=True):
        assert list(tag) == fields["required"]
        assert all(value in fields["properties"][key]["enum"] for key, value in tag.items())
        keys = [tag["product"], tag["colour"], tag["pattern"]]
        if language == "zh":
            keys = [ZH_NAMES[value] for value in keys]
        assert keys == [item.product, item.colour, item.pattern]


@given(SCENES, LANGUAGE, DICE)
def test_a_caption_tells_every_product_in_reading_order(picture, language, dice):
    answer = ask(picture, "caption", language, dice).answer
    at = 0
    for item in picture.items:
        for word in (item.product, item.colour, item.pattern):
            assert (word if language == "en" else (words.ZH_PRODUCTS | ZH_WORD)[word]) in answer[at:].lower()
        at = answer.lower().index(item.product if language == "en" else words.ZH_PRODUCTS[item.product], at)


@given(SCENES, LANGUAGE, DICE)
def test_what_is_not_there_is_said_not_to_be_there(picture, language, dice):
    question = ask(picture, "absent", language, dice)
    (named,) = [name for name in PRODUCTS if words.named(name, language) in question.answer]
    assert named not in {item.product for item in picture.items}


@given(SCENES, LANGUAGE, DICE)
def test_without_a_picture_the_answer_asks_for_one(picture, language, dice):
    assert ask(picture, "no_picture", language, dice).answer == NEEDS_PICTURE[language]
    assert ask(picture, "chat", language, dice).answer == HELLO[language]


def test_every_question_has_several_phrasings():
    assert all(len(set(texts)) == len(texts) >= 3 for texts in PHRASINGS.values())
    assert {language for _, language in PHRASINGS} == set(words.LANGUAGES)


def test_yes_and_no_are_asked_for_about_equally_often():
    dice = random.Random(0)
    for kind in ("has_product", "has_attribute"):
        answers = [ask(scene(seed), kind, "en", dice).answer for seed in range(1500)]
        assert 0.42 < sum(answer == "Yes." for answer in answers) / len(answers) < 0.58
