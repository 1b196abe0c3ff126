from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from loadtest.load import answers, memory, pictures, scenario, settings, wire
from loadtest.load.answers import Checker, says
from loadtest.load.plan import Planned
from loadtest.load.scenario import Scenario, ScenarioError, Traffic


def pool(**more):
    traffic = Traffic(name="a", **{"pictures": 3, **more})
    return pictures.Pool(Scenario(title="t", traffic=(traffic,))), traffic


def test_the_exact_way_takes_only_the_exact_sentence():
    asked = pool()[0].asked(0, 0)
    checker = Checker("exact")
    assert checker.right(asked, f"{asked.question.answer}\n")
    assert not checker.right(asked, asked.question.answer + " Indeed.")
    assert not checker.right(asked, pool()[0].asked(0, 1).question.answer)


def test_an_answer_that_max_tokens_cut_must_begin_right():
    asked = pool()[0].asked(0, 0)
    checker = Checker("exact")
    begun = asked.question.answer[:1]
    assert checker.right(asked, begun, cut=True)
    assert not checker.right(asked, begun)
    assert not checker.right(asked, "zzz", cut=True)


def test_the_digest_way_tells_the_picture_and_the_question():
    some = pool()[0]
    asked, other = some.asked(0, 0), some.asked(0, 1)
    checker = Checker("digest")

    def answer(picture, text):
        return f"{answers.digest(picture.picture.jpeg)} salt {text}"

    assert checker.right(asked, answer(asked, asked.question.text))
    assert not checker.right(asked, answer(other, asked.question.text))
    assert not checker.right(asked, answer(asked, "another question"))
    assert not checker.right(asked, "nothing of the kind")


def test_a_shrunk_photograph_has_one_digest_of_its_own():
    some = pool()[0]
    asked, other = some.asked(0, 0), some.asked(0, 1)
    checker = Checker("digest")
    assert checker.right(asked, f"shrunk1 salt {asked.question.text}", photo=True)
    assert checker.right(asked, f"shrunk1 salt {asked.question.text}", photo=True)
    assert not checker.right(asked, f"shrunk2 salt {asked.question.text}", photo=True)
    assert not checker.right(other, f"shrunk1 salt {other.question.text}", photo=True)


@pytest.mark.parametrize(
    ("answer", "wanted", "right"),
    [
        ("The picture shows a plain, green hat on a table.", "A plain green hat.", True),
        ("The picture shows a plain red hat.", "A plain green hat.", False),
        ("There are 2 products.", "Two products.", True),
        ("There are two items: products", "Three products.", False),
        ("It's yellow", "Yellow.", True),
        ("这是一个绿色的包。", "一个包。", True),
        ("这是一顶帽子。", "一个包。", False),
    ],
)
def test_a_large_model_may_say_it_in_its_own_words(answer, wanted, right):
    assert says(answer, wanted) is right


def test_the_way_to_check_follows_from_the_model():
    assert answers.way_for("qwen3-vl-demo") == "exact"
    assert answers.way_for("Qwen/Qwen3-VL-8B-Instruct") == "words"


def test_questions_and_pictures_are_the_same_in_every_process_and_differ_between_traffics():
    first, again = pool()[0], pool()[0]
    assert first.asked(0, 2).picture.jpeg == again.asked(0, 2).picture.jpeg
    assert first.asked(0, 2).question == again.asked(0, 2).question
    assert first.asked(0, 0).picture.jpeg != first.asked(0, 1).picture.jpeg
    other = pictures.Pool(Scenario(title="t", traffic=(Traffic(name="b", pictures=1),)))
    assert other.asked(0, 0).picture.jpeg != first.asked(0, 0).picture.jpeg


def test_several_questions_share_a_picture():
    some, _ = pool(pictures=2, questions_per_picture=2)
    assert some.asked(0, 0).picture is some.asked(0, 2).picture
    assert some.asked(0, 0).picture is not some.asked(0, 1).picture


def test_a_photograph_is_large_and_never_the_same_bytes():
    traffic = Traffic(name="a", photo_scale=4)
    small, large = pictures.draw(5, Traffic(name="a")), pictures.draw(5, traffic)
    assert large.scene == small.scene
    size = Image.open(io.BytesIO(large.jpeg)).size
    assert size == (small.scene.size[0] * 4, small.scene.size[1] * 4)
    assert len(large.jpeg) > 20 * len(small.jpeg)


def test_drawing_breathes_between_pictures():
    breaths = []
    traffic = Traffic(name="a", pictures=3)
    pictures.Pool(Scenario(title="t", traffic=(traffic,)), lambda: breaths.append(1))
    assert len(breaths) == 3


def body(traffic, some, *, turns=0, streamed=False, seed=7):
    planned = Planned(0, 0.0, 0, 0, streamed, turns, 33)
    return json.loads(wire.body("m", traffic, planned, some.asked(0, 0), seed))


def test_a_body_has_the_picture_the_question_and_what_was_planned():
    some, traffic = pool(service_tier="flex", earlier_turns=(1, 1))
    found = body(traffic, some, streamed=True)
    assert (found["model"], found["max_tokens"], found["temperature"], found["seed"]) == ("m", 33, 0, 7)
    assert (found["stream"], found["service_tier"]) == (True, "flex")
    (message,) = found["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][0]["image_url"]["url"] == some.asked(0, 0).picture.url


def test_earlier_turns_come_first_and_show_the_picture_once():
    some, traffic = pool(earlier_turns=(1, 1, 1))
    found = body(traffic, some, turns=2)
    assert [message["role"] for message in found["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert [part["type"] for part in found["messages"][0]["content"]] == ["image_url", "text"]
    assert "image_url" not in json.dumps(found["messages"][1:])
    assert "stream" not in found


def events(*datas):
    stream = wire.Stream()
    return stream, [stream.take(data) for data in datas]


def chunk(text, finish=None):
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]}).encode()


def test_only_text_is_what_a_reader_waits_for():
    stream, told = events(
        chunk(""),
        chunk("A "),
        b": keep-alive",
        chunk("hat."),
        b'data: {"choices": []}',
        chunk("", "stop"),
        b"data: [DONE]",
    )
    assert told == [False, True, False, True, False, False, False]
    assert (stream.text, stream.finish, stream.done, stream.fault) == ("A hat.", "stop", True, "")


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (b'data: {"error": {"message": "out of memory", "code": 500}}', "500"),
        (b"data: {", "no chunk"),
        (b'data: {"choices": 5}', "no chunk"),
        (b"data: [1]", "no chunk"),
    ],
)
def test_a_failure_within_a_stream_is_noticed(event, says):
    assert says in events(event)[0].fault


def test_a_refusal_is_named_by_its_code():
    assert wire.refusal(429, b'{"error": {"code": "rate_limited", "message": "m"}}') == "429 rate_limited"
    assert wire.refusal(503, b'{"error": "scaling"}') == "503 scaling"
    assert wire.refusal(502, b"<html>") == "502"
    assert wire.refusal(500, b"[]") == "500 error"


def test_a_whole_answer_must_be_one():
    assert wire.whole(b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}') == ("", "stop")
    for other in (b"{}", b"[]", b"<html>"):
        with pytest.raises(ValueError, match="no chat completion"):
            wire.whole(other)


def test_a_run_travels_through_the_environment_but_its_key_stays_out_of_it():
    run = settings.Run(scenario="steady", url="http://x", folder="f", per_s=2.0)
    environ = settings.to_environ(run, "sk-secret")
    assert settings.from_environ(environ) == (run, "sk-secret")
    assert "sk-secret" not in environ[settings.RUN]
    assert run.load().phases[0].per_s == 2


@pytest.mark.parametrize("environ", [{}, {settings.RUN: "{"}, {settings.RUN: '{"scenarios": 1}'}])
def test_a_missing_or_broken_run_is_said(environ):
    with pytest.raises(ScenarioError, match="LOAD_RUN"):
        settings.from_environ(environ)


def test_memory_is_the_sum_over_the_workers():
    text = '# HELP gateway_resident_memory_bytes x\ngateway_resident_memory_bytes{pid="1"} 5.0\n'
    text += 'gateway_resident_memory_bytes{pid="2"} 7\ngateway_resident_memory_bytes_other 100\n'
    assert memory.total(text, memory.RESIDENT) == 12
    assert scenario.names()
