import argparse
import os
import signal
import subprocess
import threading

import pytest

from serving.weights import cli
from tests.unit.serving.weights.support import COMMAND, checkpoint, environ, sums, write


@pytest.fixture
def parse():
    top = argparse.ArgumentParser()
    cli.add_parser(top.add_subparsers())
    return lambda *argv: top.parse_args(["fetch", *map(str, argv)])


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "from", checkpoint(shards=1, shard_bytes=1000))


def test_it_prints_the_path_and_a_second_run_is_done_at_once(parse, folder, tmp_path, capsys):
    args = parse("--from", f"file://{folder}", "--to", tmp_path / "to")
    assert cli.run(args) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'to' / 'current'}\n"
    assert "fetched, verified" in err
    assert cli.run(args) == 0
    assert "already here, verified" in capsys.readouterr().err


def test_a_manifest_from_a_file_is_held(parse, folder, tmp_path, capsys):
    sums_file = tmp_path / "SUMS"
    sums_file.write_text(sums(dict.fromkeys(checkpoint(shards=1), b"other")))
    assert cli.run(parse("--from", f"file://{folder}", "--to", tmp_path / "to", "--manifest", sums_file)) == 65
    assert "does not match its checksum" in capsys.readouterr().err
    assert cli.run(parse("--from", f"file://{folder}", "--to", tmp_path / "to", "--manifest", tmp_path / "no")) == 78
    assert "cannot be read" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written_is_73(parse, folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.run(parse("--from", f"file://{folder}", "--to", tmp_path / "file" / "to")) == 73
    assert "give a folder that you may write to" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--keep", "0"), ("--parallel", "65"), ("--parallel", "x"), ("--part-mib", "-1")])  # fmt: skip
def test_a_wrong_number_is_a_usage_error(parse, option, value, capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--from", "file:///x", "--to", "x", option, value)
    assert caught.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_code_and_gives_the_handlers_back(parse, folder, tmp_path, capsys, monkeypatch, number, code):  # fmt: skip
    before = signal.getsignal(number)
    monkeypatch.setattr(cli, "fetch", lambda *_: os.kill(os.getpid(), number))
    assert cli.run(parse("--from", f"file://{folder}", "--to", tmp_path / "to")) == code
    assert "run the same command to go on" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_it_runs_in_a_thread_without_touching_signals(parse, folder, tmp_path):
    codes = []
    args = parse("--from", f"file://{folder}", "--to", tmp_path / "to")
    thread = threading.Thread(target=lambda: codes.append(cli.run(args)))
    thread.start()
    thread.join(30)
    assert codes == [0]


def test_help_explains_forms_codes_and_examples():
    run = subprocess.run([*COMMAND, "--help"], env=environ(), capture_output=True, text=True, check=True)
    for part in ("modelscope://", "exit codes", "--stale-ok", "AWS_*", "examples"):
        assert part in run.stdout


def test_the_command_loads_no_client_that_it_does_not_need(folder, tmp_path):
    program = (
        "import sys, argparse; from serving.weights import cli; p = argparse.ArgumentParser();"
        "cli.add_parser(p.add_subparsers());"
        f"code = cli.run(p.parse_args(['fetch', '--from', 'file://{folder}', '--to', '{tmp_path}/to']));"
        "bad = {'botocore', 'huggingface_hub', 'modelscope_hub', 'torch', 'vllm'} & set(sys.modules); print(bad); sys.exit(code or len(bad))"
    )
    run = subprocess.run([COMMAND[0], "-c", program], env=environ(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
