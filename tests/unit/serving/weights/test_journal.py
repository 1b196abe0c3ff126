import pytest

from serving.weights.journal import Journal, Mark, Past


@pytest.fixture
def journal(tmp_path):
    made = []

    def make(identity="one"):
        made.append(Journal(tmp_path / "a.jsonl", identity))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_last_claim_of_each_part_counts(journal):
    first = journal()
    first.open(fresh=True)
    first.mark(0, Mark(5, "aa"))
    first.mark(100, Mark(7, "bb"))
    first.mark(0, Mark(9, "cc"))
    assert journal().load() == Past({0: Mark(9, "cc"), 100: Mark(7, "bb")}, None)
    first.finish("dd")
    assert journal().load().whole == "dd"


def test_a_journal_of_another_file_counts_for_nothing(journal):
    first = journal()
    first.open(fresh=True)
    first.mark(0, Mark(5, "aa"))
    assert journal("two").load() == Past()


def test_a_line_torn_by_a_kill_spoils_neither_itself_nor_the_next(journal, tmp_path):
    first = journal()
    first.open(fresh=True)
    first.mark(0, Mark(5, "aa"))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"start": 0, "done": 7, "sh')
    assert journal().load().marks == {0: Mark(5, "aa")}
    second = journal()
    second.open(fresh=False)
    second.mark(0, Mark(8, "bb"))
    assert journal().load().marks == {0: Mark(8, "bb")}


@pytest.mark.parametrize("text", ["", "\x00\xff", "[1]\n", '{"identity": "one"}\n{"start": "0"}\n[]\n'])
def test_what_cannot_be_read_counts_for_nothing(journal, tmp_path, text):
    (tmp_path / "a.jsonl").write_bytes(text.encode("latin-1"))
    assert journal().load() == Past()


def test_a_fresh_start_forgets(journal):
    first = journal()
    first.open(fresh=True)
    first.mark(0, Mark(5, "aa"))
    second = journal()
    second.open(fresh=True)
    assert journal().load() == Past()


def test_a_closed_journal_takes_no_claim(journal):
    with pytest.raises(RuntimeError, match="not open"):
        journal().mark(0, Mark(1, "aa"))
