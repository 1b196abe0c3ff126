"""The two languages' words for what a catalogue picture can show, and how they join.

Data and plain string building only; which question is asked of which scene is `questions`' job.
"""

from __future__ import annotations

from typing import Final, Literal

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")

ZH_PRODUCTS: Final = {"dress": "连衣裙", "shirt": "衬衫", "trousers": "裤子", "bag": "包", "shoe": "鞋", "hat": "帽子"}
ZH_MEASURES: Final = {"dress": "条", "shirt": "件", "trousers": "条", "bag": "个", "shoe": "只", "hat": "顶"}
ZH_COLOURS: Final = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "black": "黑色",
}
ZH_PATTERNS: Final = {"plain": "纯色", "striped": "条纹", "dotted": "波点", "floral": "碎花"}
EN_PLURALS: Final = {
    "dress": "dresses",
    "shirt": "shirts",
    "trousers": "pairs of trousers",
    "bag": "bags",
    "shoe": "shoes",
    "hat": "hats",
}
EN_NUMBERS: Final = ("no", "one", "two", "three")
ZH_NUMBERS: Final = ("零", "一", "两", "三")

EN_ENDS: Final = {
    ("row", 0): "on the left",
    ("row", -1): "on the right",
    ("row", 1): "in the middle",
    ("column", 0): "at the top",
    ("column", -1): "at the bottom",
    ("column", 1): "in the middle",
}
ZH_ENDS: Final = {
    ("row", 0): "左边",
    ("row", -1): "右边",
    ("row", 1): "中间",
    ("column", 0): "上面",
    ("column", -1): "下面",
    ("column", 1): "中间",
}

ZH_WORDS: Final = (*ZH_PRODUCTS.values(), *ZH_COLOURS.values(), *ZH_PATTERNS.values())
"""Words the tokenizer keeps whole, so that a phrase is never one token."""


def article(word: str) -> str:
    """Give the English indefinite article that `word` takes."""
    return "an" if word[0] in "aeiou" else "a"


def en_is(product: str) -> str:
    """Give the verb that agrees with the English product name."""
    return "are" if product == "trousers" else "is"


def en_one(*adjectives: str, product: str) -> str:
    """Name one product with its adjectives and article: "a red striped dress"."""
    words = " ".join([*adjectives, product])
    return f"a pair of {words}" if product == "trousers" else f"{article(words)} {words}"


def zh_one(*adjectives: str, product: str) -> str:
    """Name one product with number, measure word and adjectives; all words English keys."""
    names = ZH_COLOURS | ZH_PATTERNS
    return "一" + ZH_MEASURES[product] + "".join(names[word] for word in adjectives) + ZH_PRODUCTS[product]


def joined(parts: list[str], language: Language) -> str:
    """Join names as the language lists them: "a, b and c" or "a、b和c"."""
    comma, last = (", ", " and ") if language == "en" else ("、", "和")
    return parts[0] if len(parts) == 1 else comma.join(parts[:-1]) + last + parts[-1]


def named(product: str, language: Language) -> str:
    """Give the product's name in the language."""
    return product if language == "en" else ZH_PRODUCTS[product]


def coloured(colour: str, language: Language) -> str:
    """Give the colour's name in the language."""
    return colour if language == "en" else ZH_COLOURS[colour]


def patterned(pattern: str, language: Language) -> str:
    """Give the pattern's name in the language."""
    return pattern if language == "en" else ZH_PATTERNS[pattern]
