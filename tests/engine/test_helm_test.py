"""`helm test`: what its pod runs, before the gateway and real vLLM."""

from __future__ import annotations

import subprocess
import sys

from tests.support.chart import CHART

FILES = CHART / "files" / "test"


def test_the_test_pods_question_has_its_right_answer(demo):
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            FILES / "ask.py",
            "--url",
            demo.base_url.removesuffix("/v1"),
            "--picture",
            FILES / "picture.jpg",
        ],
        env={"API_KEY": "sk-demo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout
