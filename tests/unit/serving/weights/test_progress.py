import sys

import pytest

from serving.weights import progress


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (17.5e9, "16.3 GiB"), (3 * 2**40, "3.0 TiB")],
)
def test_bytes_are_written_for_people(count, text):
    assert progress.size(count) == text


def test_a_log_gets_a_line_now_and_then_with_rate_and_rest():
    now, said = [0.0], []
    lines = progress.Lines(100 * 2**20, said.append, clock=lambda: now[0], every_s=10)
    lines.advance(2**20)
    now[0] = 10.0
    lines.advance(49 * 2**20)
    now[0] = 12.0
    lines.advance(2**20)
    assert said == [" 50%  50.0 MiB of 100.0 MiB, 5.0 MiB/s, about 10 s left"]


def test_nothing_to_fetch_is_nothing_to_say():
    lines = progress.Lines(0, pytest.fail, every_s=0)
    lines.advance(0)


def test_a_terminal_gets_a_bar(capsys):
    with progress.shown(10, pytest.fail, terminal=True) as bar:
        bar.advance(10)
    assert "fetching" in capsys.readouterr().err


def test_without_rich_a_terminal_gets_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress.shown(10, pytest.fail, terminal=True) as shown:
        assert isinstance(shown, progress.Lines)
