from __future__ import annotations

import re

import pytest

from gateway.__main__ import main
from gateway.metrics_reference import families, page


@pytest.mark.parametrize("family", [*families()], ids=lambda family: family.name)
def test_a_metric_is_named_as_prometheus_advises(family):
    assert re.fullmatch(r"(gateway|gen_ai)_[a-z0-9_]+", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.kind != "histogram" or family.name.endswith("_seconds")
    assert not re.search(r"_(ms|millis|minutes|kb|mb|percent)(_|$)", family.name)
    assert family.meaning.endswith(".")
    assert not {"prompt", "key", "address", "user", "url"} & set(family.labels)


def test_the_page_has_every_metric_and_its_buckets():
    text = page()
    assert all(f"| `{family.name}` | {family.kind} |" in text for family in families())
    assert "Buckets: 0.005, 0.02, 0.05" in text


def test_series_are_what_prometheus_stores():
    series = {family.name: family.series() for family in families()}
    assert series["gateway_requests_total"] == ("gateway_requests_total",)
    assert series["gateway_queue_wait_seconds"] == tuple(
        f"gateway_queue_wait_seconds_{end}" for end in ("bucket", "sum", "count")
    )


def test_the_page_is_written_checked_and_printed(tmp_path, capsys):
    path = tmp_path / "metrics.md"
    assert main(["metrics", "--check", str(path)]) == 1
    assert main(["metrics", "--write", str(path)]) == 0
    assert main(["metrics", "--check", str(path)]) == 0
    path.write_text("old")
    assert main(["metrics", "--check", str(path)]) == 1
    assert "make generate" in capsys.readouterr().err
    assert main(["metrics"]) == 0
    assert capsys.readouterr().out == page()
