"""What the proof writes into the docs, of a run that is made up here."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest

from helm.observability import record
from helm.observability.faults import Fault, Seen
from helm.observability.live import Outcome
from helm.observability.queries import Asked, panel_queries

HUNG = Fault("engine hung", "EngineHung", "Failures by cause", {"cause": "hung"}, None, None)
SEEN = Seen(HUNG, 6.13, 0.0, 0.5, frozenset({"NoEngine"}))


def outcome():
    done = Outcome(alive=[next(panel_queries()), Asked("a", "x.yaml / A", "alert")])
    done.elsewhere["gpu"].append(Asked("max(DCGM_FI_DEV_GPU_UTIL)", "GPU / Use", "panel"))
    done.elsewhere["exporter"].append(Asked("probe_ssl_earliest_cert_expiry - time()", "x.yaml / B", "alert"))
    return done


def test_a_fault_is_one_row_with_its_alert_its_time_and_the_panel_that_names_the_cause():
    text = record.page(outcome(), [SEEN], datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "0.1")
    [row] = [line for line in text.splitlines() if line.startswith("| engine hung")]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "engine hung",
        "[EngineHung](runbooks/EngineHung.md)",
        "6.1 s",
        "15s",
        "Qwen3-VL / Gateway / Failures by cause",
        "`cause=hung`",
        "0.00",
        "0.50",
        "NoEngine",
    ]


def test_what_needs_a_gpu_or_a_cluster_is_named_with_who_documents_it():
    text = record.page(outcome(), [], datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "0.1")
    assert "- dcgm-exporter, files/dcgm/counters.csv: `DCGM_FI_DEV_GPU_UTIL`" in text
    assert "- blackbox_exporter, http and tcp probes: `probe_ssl_earliest_cert_expiry`" in text


def test_the_line_says_when_a_fault_was_not_seen():
    unseen = Seen(HUNG, None, 0.0, None, frozenset())
    assert not unseen.ok
    assert "DID NOT FIRE" in unseen.line()
    assert "NOTHING" in unseen.line()
    assert record.summary(outcome(), [SEEN, unseen]).endswith("; 1 of 2 faults seen")


def test_only_what_is_between_the_markers_changes():
    text = f"before\n{record.BEGIN}\nold\n{record.END}\nafter\n"
    assert record.put(text, "new \\1\n") == f"before\n{record.BEGIN}\nnew \\1\n{record.END}\nafter\n"
    with pytest.raises(ValueError, match="no lines"):
        record.put("a page without them", "new")


def test_the_committed_page_has_the_markers_and_the_pictures():
    text = (record.DOCS / "observability.md").read_text(encoding="utf-8")
    assert record.put(text, "x") != text
    for name in ("report.png", "top.svg"):
        assert f"({name})" in text
        assert (record.DOCS / name).is_file()


def test_the_pinned_engine_is_read_from_its_lock(tmp_path):
    lock = tmp_path / "engine.lock"
    lock.write_text("a==1\nvllm-cpu==9.8.7 \\\n    --hash=x\n")
    assert record.engine_version(lock) == "9.8.7"


def test_pictures_and_page_are_written_together(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nfor word; do case "$word" in --screenshot=*) echo drawn >"${{word#*=}}";; file:*) echo "$word" >{calls};; esac; done\n'
    )
    browser.chmod(0o755)
    monkeypatch.setattr(record, "BROWSER", str(browser))
    assert record.missing() is None
    run, docs = tmp_path / "run", tmp_path / "docs"
    run.mkdir()
    docs.mkdir()
    (run / "report.html").write_text("<p>")
    (run / "top.svg").write_text("<svg/>")
    shutil.copy(record.DOCS / "observability.md", docs)
    record.write(outcome(), [SEEN], run, docs)
    assert "| engine hung |" in (docs / "observability.md").read_text()
    assert (docs / "report.png").read_text() == "drawn\n"
    assert (docs / "top.svg").read_text() == "<svg/>"
    assert calls.read_text().strip() == (run / "report.html").resolve().as_uri()


def test_a_missing_browser_is_told(monkeypatch):
    monkeypatch.setattr(record, "BROWSER", "no-such-browser")
    assert record.missing() == "Install first: apt-get install no-such-browser"
