"""How people put each question, in English and Chinese: data, and the draw of one of them.

Placeholders: `{pic}` a word for the picture, `{colour_word}` the British or American spelling, others as named by
`questions`. Every list holds several phrasings because an untrained paraphrase costs accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

    from serving.demo.words import Language

_PICTURE: Final = {"en": ("picture", "image", "photo"), "zh": ("图片", "图片", "照片", "图")}

PHRASINGS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("caption", "en"): (
        "What is in the {pic}?",
        "What is in this {pic}?",
        "What's in this {pic}?",
        "Describe the {pic}.",
        "Describe this {pic}.",
        "What do you see?",
        "What can you see in the {pic}?",
        "What does the {pic} show?",
        "Write a caption for this {pic}.",
        "Please describe this {pic} in one sentence.",
        "Give a short description of the {pic}.",
        "What is shown here?",
    ),
    ("caption", "zh"): (
        "{pic}里有什么？",
        "这张{pic}里有什么？",
        "描述一下这张{pic}。",
        "请描述这张{pic}。",
        "{pic}中有什么？",
        "你看到了什么？",
        "给这张{pic}写一句说明。",
        "请用一句话描述{pic}。",
        "这张{pic}是什么内容？",
        "{pic}上有哪些东西？",
    ),
    ("product_alone", "en"): (
        "What product is this?",
        "Which product is this?",
        "What is this?",
        "What kind of product is it?",
        "What product is in the {pic}?",
        "Which product does the {pic} show?",
        "Name the product.",
        "What is being sold here?",
    ),
    ("product_alone", "zh"): (
        "这是什么商品？",
        "这是什么？",
        "{pic}里是什么商品？",
        "这是哪种商品？",
        "这是什么产品？",
        "请说出商品的名称。",
        "{pic}里的商品是什么？",
    ),
    ("product_at", "en"): (
        "Which product is {place}?",
        "What is {place}?",
        "What product is {place} of the {pic}?",
        "What do you see {place}?",
        "Name the product {place}.",
    ),
    ("product_at", "zh"): (
        "{place}是什么？",
        "{place}的商品是什么？",
        "{place}是什么商品？",
        "{pic}{place}是什么？",
        "请说出{place}的商品。",
    ),
    ("product_like", "en"): (
        "What is the {like} product?",
        "Which product is {like}?",
        "What product is {like}?",
        "What is the {like} thing?",
        "Name the {like} product.",
    ),
    ("product_like", "zh"): (
        "{like}的商品是什么？",
        "哪件商品是{like}的？",
        "{like}的是什么？",
        "{like}的是什么商品？",
        "请说出{like}的商品。",
    ),
    ("colour", "en"): (
        "What {colour_word} {is} {one}?",
        "Which {colour_word} {is} {one}?",
        "What is the {colour_word} of {one}?",
        "Tell me the {colour_word} of {one}.",
        "What {colour_word} does {one} have?",
    ),
    ("colour", "zh"): (
        "{one}是什么颜色？",
        "{one}是什么颜色的？",
        "{one}的颜色是什么？",
        "{one}什么颜色？",
        "请说出{one}的颜色。",
    ),
    ("pattern", "en"): (
        "What pattern does {one} have?",
        "What is the pattern of {one}?",
        "Which pattern is on {one}?",
        "What pattern {is} {one}?",
        "Tell me the pattern of {one}.",
    ),
    ("pattern", "zh"): (
        "{one}是什么图案？",
        "{one}是什么花纹？",
        "{one}的图案是什么？",
        "{one}是什么图案的？",
        "请说出{one}的花纹。",
    ),
    ("count", "en"): (
        "How many products are there?",
        "How many products are in the {pic}?",
        "How many items do you see?",
        "How many products does the {pic} show?",
        "Count the products.",
        "What is the number of products?",
    ),
    ("count", "zh"): (
        "有几件商品？",
        "{pic}里有几件商品？",
        "{pic}中有多少件商品？",
        "一共有几件商品？",
        "数一数有几件商品。",
        "有多少商品？",
    ),
    ("count_of", "en"): (
        "How many {many} are there?",
        "How many {many} are in the {pic}?",
        "How many {many} do you see?",
        "How many {many} does the {pic} show?",
        "Count the {many}.",
    ),
    ("count_of", "zh"): (
        "有几{measure}{what}？",
        "{pic}里有几{measure}{what}？",
        "{pic}中有多少{measure}{what}？",
        "一共有几{measure}{what}？",
        "数一数有几{measure}{what}。",
    ),
    ("has_product", "en"): (
        "Is there {one}?",
        "Is there {one} in the {pic}?",
        "Does the {pic} show {one}?",
        "Do you see {one}?",
        "Can you see {one} in the {pic}?",
    ),
    ("has_product", "zh"): (
        "有{what}吗？",
        "{pic}里有{what}吗？",
        "{pic}中有没有{what}？",
        "有没有{what}？",
        "你看到{what}了吗？",
    ),
    ("is_like", "en"): ("{Is} {one} {like}?", "{Is} {one} {like} or not?", "{Is} {one} really {like}?"),
    ("is_like", "zh"): ("{one}是{like}的吗？", "{one}是不是{like}的？", "{pic}里{one}是{like}的吗？"),
    ("tags", "en"): (
        "Give the tags as JSON.",
        "Tag the products as JSON.",
        "List the products as JSON.",
        "Return JSON with product, {colour_word} and pattern.",
        "Describe the products in JSON.",
        "What is in the {pic}? Answer in JSON.",
        "Tags as JSON, please.",
        "List every product with its {colour_word} and pattern as JSON.",
    ),
    ("tags", "zh"): (
        "用JSON给出标签。",
        "请用JSON列出商品标签。",
        "请以JSON格式列出商品。",
        "用JSON描述{pic}里的商品。",
        "{pic}里有什么？用JSON回答。",
        "给商品打标签，输出JSON。",
        "请输出JSON标签。",
    ),
    ("chat", "en"): (
        "Hello",
        "Hello!",
        "Hi",
        "Hi there!",
        "Hey",
        "Good morning!",
        "How are you?",
        "Who are you?",
        "What can you do?",
        "Help",
        "Thanks!",
    ),
    ("chat", "zh"): (
        "你好",
        "你好！",
        "您好",
        "嗨",
        "早上好！",
        "你好吗？",
        "你是谁？",
        "你能做什么？",
        "帮帮我",
        "谢谢！",
    ),
    ("other", "en"): (
        "What is the capital of France?",
        "Tell me a joke.",
        "Write a poem about the sea.",
        "What is 2 + 2?",
        "How old are you?",
        "What is the weather today?",
        "Explain gravity to a child.",
        "Translate this to Chinese.",
        "Count to 10.",
        "Say hi.",
        "ping",
        "test",
        "Who wrote Hamlet?",
        "Give me a recipe for bread.",
        "What time is it?",
        "Is it raining?",
        "Describe a cat.",
        "Write some Python code.",
    ),
    ("other", "zh"): (
        "法国的首都是哪里？",
        "讲个笑话。",
        "写一首关于大海的诗。",
        "一加一等于几？",
        "今天天气怎么样？",
        "请介绍一下北京。",
        "现在几点？",
        "翻译成英文。",
        "推荐一本书。",
        "测试",
        "什么是重力？",
        "写一段代码。",
        "从一数到十。",
    ),
}

HELLO: Final[dict[Language, str]] = {
    "en": "Hello! Send me a picture of products and ask me about it.",
    "zh": "你好！请发一张商品图片，然后向我提问。",
}
"""The answer to small talk without a picture."""

NEEDS_PICTURE: Final[dict[Language, str]] = {
    "en": "Please send a picture: I can only answer questions about pictures.",
    "zh": "请先发一张图片：我只能回答关于图片的问题。",
}
"""The answer to any question without a picture."""


def phrase(key: str, language: Language, dice: random.Random, **words: str) -> str:
    """Draw one phrasing and fill it in."""
    template = dice.choice(PHRASINGS[key, language])
    return template.format(
        pic=dice.choice(_PICTURE[language]), colour_word=dice.choice(("colour", "colour", "color")), **words
    )
