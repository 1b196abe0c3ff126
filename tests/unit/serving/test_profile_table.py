from __future__ import annotations

from pathlib import Path

from serving import profile, profile_table

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"


def test_the_page_is_in_step_with_the_profiles():
    assert profile_table.main(["--check", str(PAGE)]) == 0


def test_it_has_a_row_for_each_profile(capsys):
    assert profile_table.main([]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert sorted(row.split("|")[1].strip(" `") for row in rows) == sorted(profile.names())


def test_writing_puts_a_stale_page_in_step(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{profile_table.BEGIN}\nstale\n{profile_table.END}\nafter\n")
    assert profile_table.main(["--check", str(page)]) == 1
    assert "is out of step: run `python -m serving.profile_table --write" in capsys.readouterr().err
    assert profile_table.main(["--write", str(page)]) == 0
    assert profile_table.main(["--check", str(page)]) == 0
    assert "stale" not in page.read_text()


def test_a_page_without_the_markers_is_left_alone(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    assert profile_table.main(["--write", str(page)]) == 1
    assert "has no line" in capsys.readouterr().err
    assert page.read_text() == "nothing\n"
