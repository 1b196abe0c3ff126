"""Asks about a catalogue scene, and knows the answer: pure, seeded, English and Chinese.

A question never needs a guess: whatever it refers to is there once, or the question is about how many there are, or
the answer says that there is none. Answers are exact strings. Which words of a question or an answer speak of which
products is kept (`mentions`), so that training can show the model where to look.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from serving.demo import words
from serving.demo.mentions import Mention, capital, mark, plain
from serving.demo.phrasings import HELLO, NEEDS_PICTURE, phrase
from serving.demo.scenes import COLOURS, PATTERNS, PRODUCTS, Item, Scene

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from serving.demo.words import Language

Kind = Literal[
    "caption",
    "product",
    "colour",
    "pattern",
    "count",
    "has_product",
    "has_attribute",
    "tags",
    "absent",
    "no_picture",
    "chat",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
WITHOUT_PICTURE: Final[frozenset[Kind]] = frozenset({"no_picture", "chat"})
"""Kinds that are asked without sending the picture."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the only right answer."""

    text: str
    answer: str
    kind: Kind
    language: Language
    mentions: tuple[Mention, ...] = ()


def _like(scene: Scene, **attributes: str) -> list[int]:
    """Find the products with all of these attributes."""
    return [
        i for i, item in enumerate(scene.items) if all(getattr(item, key) == value for key, value in attributes.items())
    ]


def _place(scene: Scene, index: int, language: Language) -> str:
    spot = -1 if index == len(scene.items) - 1 else min(index, 1)
    ends = words.EN_ENDS if language == "en" else words.ZH_ENDS
    return mark(ends[scene.layout, spot], [index])


def _refer(scene: Scene, index: int, language: Language, dice: random.Random, asked: str) -> tuple[str, str]:
    """Give words that mean this product and no other, never telling the attribute asked for; and the verb."""
    item = scene.items[index]
    name = words.named(item.product, language)
    the = "the " if language == "en" else ""
    be = words.en_is(item.product)
    ways = []
    if _like(scene, product=item.product) == [index]:
        ways += [(the + mark(name, [index]), be)] * 3
    if len(scene.items) == 1:
        ways += (
            [(mark("the product", [0]), "is"), (mark("it", [0]), "is")]
            if language == "en"
            else [(mark("商品", [0]), ""), (mark("它", [0]), "")]
        )
    else:
        place = _place(scene, index, language)
        ways.append((f"the product {place}", "is") if language == "en" else (f"{place}的商品", ""))
        other = "pattern" if asked == "colour" else "colour"
        value = getattr(item, other)
        if _like(scene, **{other: value, "product": item.product}) == [index]:
            says = words.coloured(value, language) if other == "colour" else words.patterned(value, language)
            hint = mark(says, _like(scene, **{other: value}))
            ways.append(
                (f"the {hint} {mark(name, [index])}", be) if language == "en" else (f"{hint}{mark(name, [index])}", "")
            )
    return dice.choice(ways)


def _each(item: Item, index: int, language: Language) -> str:
    if language == "en":
        return mark(words.en_one(item.pattern, item.colour, product=item.product), [index])
    return mark(words.zh_one(item.colour, item.pattern, product=item.product), [index])


def _stop(language: Language) -> str:
    return "." if language == "en" else "。"


def _caption(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    parts = [_each(item, index, language) for index, item in enumerate(scene.items)]
    return phrase("caption", language, dice), capital(words.joined(parts, language)) + _stop(language)


def _product(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    index = dice.randrange(len(scene.items))
    item = scene.items[index]
    name = words.en_one(product=item.product) if language == "en" else words.zh_one(product=item.product)
    answer = capital(mark(name, [index])) + _stop(language)
    if len(scene.items) == 1:
        return phrase("product_alone", language, dice), answer
    colour, pattern = words.coloured(item.colour, language), words.patterned(item.pattern, language)
    by_colour, by_pattern = _like(scene, colour=item.colour), _like(scene, pattern=item.pattern)
    ways = []
    if by_colour == [index]:
        ways.append(mark(colour, [index]))
    if by_pattern == [index]:
        ways.append(mark(pattern, [index]))
    if _like(scene, colour=item.colour, pattern=item.pattern) == [index]:
        if language == "en":
            ways.append(f"{mark(pattern, by_pattern)} {mark(colour, [index])}")
        else:
            ways.append(mark(colour, by_colour) + mark(pattern, [index]))
    if not ways or dice.random() < 0.35:  # noqa: PLR2004 - about a third ask by place
        return phrase("product_at", language, dice, place=_place(scene, index, language)), answer
    return phrase("product_like", language, dice, like=dice.choice(ways)), answer


def _attribute(
    asked: Literal["colour", "pattern"], scene: Scene, language: Language, dice: random.Random
) -> tuple[str, str]:
    index = dice.randrange(len(scene.items))
    item = scene.items[index]
    one, be = _refer(scene, index, language, dice, asked)
    value = words.coloured(item.colour, language) if asked == "colour" else words.patterned(item.pattern, language)
    text = phrase(asked, language, dice, one=one, **{"is": be})
    return text, capital(mark(value, [index])) + _stop(language)


def _count(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    everything = list(range(len(scene.items)))
    if dice.random() < 0.6:  # noqa: PLR2004 - most people count everything
        number = len(everything)
        if language == "zh":
            return phrase("count", "zh", dice), words.ZH_NUMBERS[number] + "件商品。"
        return phrase(
            "count", "en", dice
        ), f"{words.EN_NUMBERS[number].capitalize()} product{'s' if number > 1 else ''}."
    product = dice.choice([*PRODUCTS, *(item.product for item in scene.items), *(item.product for item in scene.items)])
    found = _like(scene, product=product)
    number = len(found)
    if language == "zh":
        name, measure = words.ZH_PRODUCTS[product], words.ZH_MEASURES[product]
        text = phrase("count_of", "zh", dice, measure=measure, what=mark(name, found))
        return text, f"{words.ZH_NUMBERS[number]}{measure}{name}。" if number else f"没有{name}。"
    text = phrase("count_of", "en", dice, many=mark(words.EN_PLURALS[product], found))
    one = words.EN_PLURALS[product].replace("pairs", "pair") if product == "trousers" else product
    return text, f"{words.EN_NUMBERS[number].capitalize()} {one if number == 1 else words.EN_PLURALS[product]}."


def _yes(language: Language, items: list[int], *, there: bool) -> str:
    """Say that something is there or not; `items` are the products that had to be looked at to tell."""
    if language == "en":
        return mark("Yes" if there else "No", items) + "."
    return mark("有" if there else "没有", items) + "。"


def _has_product(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    shown = sorted({item.product for item in scene.items})
    product = dice.choice(shown if dice.random() < 0.5 else [name for name in PRODUCTS if name not in shown])  # noqa: PLR2004
    found = _like(scene, product=product)
    name = mark(words.named(product, language), found)
    one = f"a pair of {name}" if product == "trousers" else f"a {name}"
    return phrase("has_product", language, dice, one=one, what=name), _yes(language, found, there=bool(found))


def _has_attribute(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    """Ask "is the dress red?" or "is there a red dress?"; a wrong value is often another product's."""
    index = dice.randrange(len(scene.items))
    item = scene.items[index]
    key = dice.choice(("colour", "pattern"))
    true = getattr(item, key)
    others = sorted({getattr(other, key) for other in scene.items} - {true})
    rest = [value for value in (COLOURS if key == "colour" else PATTERNS) if value != true]
    false = dice.choice(others if others and dice.random() < 0.5 else rest)  # noqa: PLR2004
    value = dice.choice((true, false))
    say = words.coloured if key == "colour" else words.patterned
    said = mark(say(value, language), _like(scene, **{key: value}))
    if dice.random() < 0.5:  # noqa: PLR2004
        one, be = _refer(scene, index, language, dice, key)
        text = phrase("is_like", language, dice, one=one, like=said, Is=be.capitalize())
        right = mark(say(true, language), [index])
        it = "they are" if item.product == "trousers" else "it is"
        if language == "en":
            return text, mark("Yes", [index]) + "." if value == true else f"{mark('No', [index])}, {it} {right}."
        return text, mark("是的", [index]) + "。" if value == true else f"{mark('不是', [index])}，是{right}的。"
    found = _like(scene, **{key: value, "product": item.product})
    name = mark(words.named(item.product, language), _like(scene, product=item.product))
    lead = "a pair of" if item.product == "trousers" else words.article(value)
    text = phrase("has_product", language, dice, one=f"{lead} {said} {name}", what=f"{said}的{name}")
    return text, _yes(language, _like(scene, product=item.product), there=bool(found))


def _tags(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    parts = []
    for index, item in enumerate(scene.items):
        tag = {
            "product": words.named(item.product, language),
            "colour": words.coloured(item.colour, language),
            "pattern": words.patterned(item.pattern, language),
        }
        parts.append(mark(json.dumps(tag, ensure_ascii=False, separators=(",", ":")), [index]))
    return phrase("tags", language, dice), '{"items":[' + ",".join(parts) + "]}"


def _absent(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    product = dice.choice([name for name in PRODUCTS if not _like(scene, product=name)])
    name = words.named(product, language)
    one = f"the {name}" if language == "en" else name
    be = words.en_is(product)
    text = phrase(dice.choice(("colour", "pattern")), language, dice, one=one, **{"is": be})
    if language == "zh":
        return text, f"没有{name}。"
    return text, f"There {be} no {name}."


def _no_picture(scene: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    if dice.random() < 0.3:  # noqa: PLR2004
        return phrase("other", language, dice), NEEDS_PICTURE[language]
    kind = dice.choice([name for name in _BUILDERS if name not in WITHOUT_PICTURE])
    return _BUILDERS[kind](scene, language, dice)[0], NEEDS_PICTURE[language]


def _chat(_: Scene, language: Language, dice: random.Random) -> tuple[str, str]:
    return phrase("chat", language, dice), HELLO[language]


_BUILDERS: Final[dict[Kind, Callable[[Scene, Language, random.Random], tuple[str, str]]]] = {
    "caption": _caption,
    "product": _product,
    "colour": lambda scene, language, dice: _attribute("colour", scene, language, dice),
    "pattern": lambda scene, language, dice: _attribute("pattern", scene, language, dice),
    "count": _count,
    "has_product": _has_product,
    "has_attribute": _has_attribute,
    "tags": _tags,
    "absent": _absent,
    "no_picture": _no_picture,
    "chat": _chat,
}


def ask(scene: Scene, kind: Kind, language: Language, rng: random.Random) -> Question:
    """Ask one question of this kind; `rng` draws what it is about and how it is put."""
    text, answer = _BUILDERS[kind](scene, language, rng)
    plain_text, in_text = plain("text", text)
    plain_answer, in_answer = plain("answer", answer)
    if kind in WITHOUT_PICTURE:
        return Question(plain_text, plain_answer, kind, language)
    return Question(capital(plain_text), plain_answer, kind, language, (*in_text, *in_answer))


def tags_schema(language: Language = "en") -> dict[str, object]:
    """Give the JSON schema of the answer to a `tags` question, for `response_format`."""
    fields: dict[str, list[str]] = {
        "product": [words.named(name, language) for name in PRODUCTS],
        "colour": [words.coloured(name, language) for name in COLOURS],
        "pattern": [words.patterned(name, language) for name in PATTERNS],
    }
    tag = {
        "type": "object",
        "properties": {name: {"type": "string", "enum": values} for name, values in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"items": {"type": "array", "items": tag, "minItems": 1, "maxItems": 3}},
        "required": ["items"],
        "additionalProperties": False,
    }
