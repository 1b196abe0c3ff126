"""The golden sets that are shipped, and how tolerant their judgement is."""

from __future__ import annotations

import pytest

from serving.canary import draw, golden
from serving.canary.golden import Expected


@pytest.mark.parametrize("name", golden.names())
def test_a_shipped_set_can_be_read_and_not_everything_passes_it(name):
    found = golden.load(name)
    assert len(found.cases) >= 8
    for case in found.cases:
        assert case.expected.fault("I cannot see a picture."), case.name
        assert case.expected.fault(""), case.name


def test_the_sets_are_for_the_demo_and_for_the_8b():
    assert {name: golden.load(name).model for name in golden.names()} == {
        "demo": "qwen3-vl-demo",
        "qwen3-vl-8b": "qwen3-vl-8b",
    }


def test_one_wrong_answer_of_the_8b_is_tolerated_and_two_are_not():
    found = golden.load("qwen3-vl-8b")
    total = len(found.cases)
    assert (total - 1) / total >= found.least_right > (total - 2) / total


def test_the_pictures_and_the_demos_answers_are_those_that_are_drawn(capsys):
    assert draw.main(["--check"]) == 0


def test_a_picture_that_was_changed_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(draw, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(draw, "FOLDER", tmp_path)
    assert draw.main(["--write"]) == 0
    assert draw.main(["--check"]) == 0
    (tmp_path / "pictures" / "bars.png").write_bytes((tmp_path / "pictures" / "label.png").read_bytes())
    (tmp_path / "pictures" / "demo-0.jpg").write_bytes((tmp_path / "pictures" / "demo-1.jpg").read_bytes())
    (tmp_path / "pictures" / "stray.png").touch()
    (tmp_path / "demo.toml").unlink()
    assert draw.main(["--check"]) == 1
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "bars.png",
        "demo-0.jpg",
        "demo.toml",
        "stray.png",
    ]


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (Expected(equals="A plain pink hat."), "  a plain  PINK hat"),
        (Expected(equals="一顶帽子。"), "一顶帽子"),
        (Expected(all=(("red", "crimson"), ("circle",))), "It's a *Red* circle."),
        (Expected(all=(("5", "five"),)), "There are five triangles."),
        (Expected(all=(("5",),)), "５"),
        (Expected(all=(("红",),)), "图形是红色的。"),
        (Expected(all=(("b",),), none=("c",)), "B."),
    ],
)
def test_a_right_answer_may_be_worded_otherwise(expected, answer):
    assert expected.fault(answer) is None


@pytest.mark.parametrize(
    ("expected", "answer", "fault"),
    [
        (Expected(equals="A plain pink hat."), "A plain pink bag.", "not 'A plain pink hat.'"),
        (Expected(all=(("red",),)), "reddish", "none of red"),
        (Expected(all=(("5", "five"),)), "15", "none of 5, five"),
        (Expected(all=(("4271",),)), "42710", "none of 4271"),
        (Expected(all=(("b",),), none=("c",)), "B or C", "says c"),
        (Expected(all=(("红",),), none=("蓝",)), "红色和蓝色", "says 蓝"),
    ],
)
def test_a_wrong_answer_is_told_with_what_is_wrong(expected, answer, fault):
    assert expected.fault(answer) == fault


CASE = '[[case]]\nname = "x"\nquestion = "?"\npicture = "x.png"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = ", "cannot be read"),
        (f'least_right = 1\n{CASE}equals = "y"', "'model'"),
        (f'model = "m"\nleast_right = 1\n{CASE}', "neither `equals` nor `all`"),
        (f'model = "m"\nleast_right = 0\n{CASE}equals = "y"', "would pass whatever"),
        ('model = "m"\nleast_right = 1\ncase = []', "would pass whatever"),
        (f'model = "m"\nleast_right = 1\n{CASE.replace("x.png", "no.png")}equals = "y"', "no picture"),
    ],
)
def test_a_set_that_cannot_judge_is_refused(tmp_path, text, said):
    (tmp_path / "x.png").touch()
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(golden.GoldenError, match=said):
        golden.load(str(tmp_path / "own.toml"))


def test_a_set_of_ones_own_has_its_pictures_beside_it(tmp_path):
    (tmp_path / "x.png").touch()
    (tmp_path / "own.toml").write_text(f'model = "m"\nleast_right = 1\n{CASE}equals = "y"')
    assert golden.load(str(tmp_path / "own.toml")).cases[0].picture == tmp_path / "x.png"
