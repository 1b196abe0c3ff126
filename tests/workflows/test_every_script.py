"""Every script that a workflow or an action runs, by itself or through another, was really run by these tests. Runs last."""

from __future__ import annotations

import re

import pytest

from tests.workflows.recorder import started
from tests.workflows.test_inline import RUN_HERE, inline
from tests.workflows.yaml_files import ACTIONS, GITHUB, ROOT, WORKFLOWS, steps

SCRIPT = re.compile(r"(?<![\w$])\.?[\w-]+(?:/[\w.-]+)*\.(?:sh|py)\b")
BESIDE = re.compile(r"\$\(dirname \"\$0\"\)/([\w.-]+\.sh)")
MODULE = re.compile(r"python3?\}?\"? -m ([a-z][\w.]*)")
STANDARD = {"venv", "pip"}


def named():
    """Paths of scripts in any step, and of those that these scripts and the Makefile's targets run in turn."""
    texts = [step.get("run", "") for _, step in steps()] + [(ROOT / "Makefile").read_text()]
    found, new = set(), {path for text in texts for path in SCRIPT.findall(text) if path.startswith(".github/")}
    while new:
        found |= new
        texts = [(ROOT / path).read_text() for path in new if (ROOT / path).is_file()]
        beside = {f".github/scripts/{name}" for text in texts for name in BESIDE.findall(text)}
        new = (
            beside | {path for text in texts for path in SCRIPT.findall(text) if path.startswith(".github/")}
        ) - found
    return found


def sourced():
    """Those that another reads in, and that are no program of their own: they ran when it did."""
    scripts = (GITHUB / "scripts").glob("*.sh")
    return {
        f".github/scripts/{name}"
        for path in scripts
        for name in re.findall(r'source "\$\(dirname "\$0"\)/([\w.-]+)"', path.read_text())
    }


def test_a_name_is_found_however_it_stands():
    assert named() >= {
        ".github/scripts/ci_plan.py",  # python3 PATH
        ".github/scripts/only-ours.sh",  # $(PATH …)
        ".github/scripts/signed-by.sh",  # in a loop, and by only-ours.sh
        ".github/scripts/canary-words.sh",  # read in by another
        ".github/scripts/audit.sh",  # by make security
    }
    # No script is named in a way that this test does not see.
    every = "".join(path.read_text() for path in [*WORKFLOWS, *ACTIONS])
    assert {f".github/scripts/{name}" for name in re.findall(r"scripts/([\w-]+\.(?:sh|py))", every)} <= named()


def test_a_script_that_is_only_named_is_not_taken_for_run():
    assert started(["bash", "-e", "a.sh", "b.sh"]) == "a.sh"
    assert started(["/usr/bin/python3.11", "-IS", "a.py", "-c"]) == "a.py"
    assert started(["./a.sh", "b.sh"]) == "./a.sh"
    assert started(["shellcheck", "-x", "a.sh"]) == "shellcheck"
    assert started(["python3", "-m", "shellcheck", "a.sh"]) == "-m"
    assert started(["bash", "-c", "true", "a.sh"]) == "-c"


def test_every_script_that_a_workflow_runs_is_there():
    assert [path for path in sorted(named()) if not (ROOT / path).is_file()] == []


def test_every_script_that_a_workflow_runs_was_run_by_a_test(recorder):
    assert named() - recorder.ran() - sourced() == set()


def test_every_script_that_is_there_is_run_by_a_workflow():
    here = {str(path.relative_to(ROOT)) for path in (GITHUB / "scripts").glob("*") if path.suffix in {".sh", ".py"}}
    assert here - named() == set()


def test_what_a_step_says_in_bash_itself_was_run_by_a_test():
    assert set(inline()) == set(RUN_HERE)


@pytest.mark.parametrize("module", sorted({
    module
    for text in [step.get("run", "") for _, step in steps()] + [path.read_text() for path in (GITHUB / "scripts").glob("*.sh")]
    for module in MODULE.findall(text)
} - STANDARD))  # fmt: skip
def test_every_module_that_is_run_as_a_program_is_run_by_a_test(module):
    package, _, name = module.rpartition(".")
    ways = [
        rf"^\s*import {re.escape(module)}\b",
        rf"^\s*from {re.escape(module)}(\.__main__)? import ",
        rf"^\s*from {re.escape(package)} import .*\b{name}\b" if package else r"(?!)",
        rf'"-m",\s*"{re.escape(module)}"',
    ]
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    assert any(re.search(way, text, re.MULTILINE) for way in ways for text in texts)
