"""The decisions of a deployment and a rollback, with a recorded helm, kubectl and canary on PATH."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from delivery import __main__ as cli
from delivery import change, helm, record, tools
from delivery.record import Result

from tests.workflows.cluster import Cluster

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "a" * 64
COMMON = ("--release", "qwen3-vl", "--namespace", "vision")
RUN = ("--environment", "production", "--canary", "canary --base-url https://v.example/v1 --set demo", "--soak-s", "0")
DEPLOY = ("deploy", *COMMON, *RUN, "--chart", "oci://r.example/qwen3-vl", "--version", "v0.9.0")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Cluster(tmp_path)
    monkeypatch.setenv("PATH", made.environ()["PATH"])
    return made


@pytest.fixture
def delivery(cluster, tmp_path):
    """Run a command line in this process; returns the exit code and the log entry."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def go(*words, **environ):
        log = tmp_path / "deploy-log.json"
        github = {"GITHUB_ACTOR": "ada", "GITHUB_SHA": "c0ffee" * 6 + "c0ff", "GITHUB_RUN_ID": "7"}
        github |= {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r"}
        code = cli.main([*words, "--log", str(log)], github | environ)
        return code, json.loads(log.read_text())

    yield go
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_release_that_sees_stays(cluster, delivery):
    cluster.released("superseded", "deployed")
    code, entry = delivery(
        *DEPLOY, "--values", "a.yaml", "--set-string", f"gateway.image.digest={DIGEST}", "--chart-version", "0.9.0"
    )
    assert (code, entry["result"]) == (0, "succeeded")
    assert cluster.verbs() == ["upgrade", "canary"]
    (upgrade,) = [call for call in cluster.calls if call[1] == "upgrade"]
    assert upgrade[1:4] == ["upgrade", "qwen3-vl", "oci://r.example/qwen3-vl"]
    for words in (["--namespace", "vision"], ["--values", "a.yaml"], ["--set-string", f"gateway.image.digest={DIGEST}"],
                  ["--version", "0.9.0"], ["--timeout", "1500s"], ["--description", "v0.9.0 c0ffeec0ffee"]):  # fmt: skip
        assert upgrade[upgrade.index(words[0]) :][:2] == words
    assert {"--install", "--wait", "--cleanup-on-fail"} <= set(upgrade)


def test_the_log_says_who_what_when_and_how_long(cluster, delivery, tmp_path):
    cluster.released("deployed")
    _, entry = delivery(*DEPLOY, "--set-string", f"engine.image.digest={DIGEST}", "--set-string", "a.b=c")
    assert entry["actor"] == "ada"
    assert entry["commit"].startswith("c0ffee")
    assert entry["images"] == {"engine.image.digest": DIGEST}
    assert (entry["revision_before"], entry["revision_after"]) == (1, 2)
    assert entry["run_url"] == "https://github.com/o/r/actions/runs/7"
    assert [step["name"] for step in entry["steps"]] == ["upgrade", "canary"]
    assert entry["canary"]["canary"]["golden"] == "demo"
    assert entry["started_at"] <= entry["finished_at"]
    (kept,) = cluster.state["entries"]
    assert json.loads(kept["data"]["entry.json"]) == entry
    assert kept["metadata"]["labels"]["app.kubernetes.io/component"] == "deploy-log"


def test_a_release_that_does_not_get_ready_in_time_is_taken_back(cluster, delivery):
    cluster.released("superseded", "deployed")
    cluster.write(script={"helm upgrade": ["context deadline exceeded"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "rolled_back")
    assert entry["reason"] == "upgrade: Error: UPGRADE FAILED: context deadline exceeded"
    assert cluster.verbs() == ["upgrade", "rollback qwen3-vl 2", "canary"]
    assert cluster.state["history"][-1]["description"] == "Rollback to 2: v0.2.0 000000000002"


def test_a_release_that_cannot_see_is_taken_back(cluster, delivery):
    cluster.released("superseded", "deployed")
    cluster.write(script={"canary": ["7 of 9 answers are right"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "rolled_back")
    assert entry["reason"] == "canary: canary: BAD: 7 of 9 answers are right"
    assert cluster.verbs() == ["upgrade", "canary", "rollback qwen3-vl 2", "canary"]
    assert (entry["revision_before"], entry["revision_after"]) == (2, 4)


def test_an_upgrade_that_never_ends_is_stopped_and_taken_back(cluster, delivery, monkeypatch):
    monkeypatch.setattr(helm, "BEYOND_S", 9.5)  # the rollback has to end within it on a busy machine
    cluster.released("superseded", "deployed")
    cluster.write(script={"helm upgrade": ["hang"]})
    code, entry = delivery(*DEPLOY, "--timeout-s", "0.5")
    assert (code, entry["result"]) == (1, "rolled_back")
    assert entry["reason"] == "upgrade: helm took more than 10 s and was stopped"
    assert cluster.verbs() == ["upgrade", "rollback qwen3-vl 2", "canary"]


def test_a_canary_that_never_ends_is_a_bad_one(cluster, delivery, monkeypatch):
    monkeypatch.setattr(change, "CANARY_BEYOND_S", 10.0)  # the second one has to end within it
    cluster.released("deployed")
    cluster.write(script={"canary": ["hang"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "rolled_back")
    assert entry["reason"] == "canary: canary took more than 10 s and was stopped"
    assert cluster.verbs() == ["upgrade", "canary", "rollback qwen3-vl 1", "canary"]


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ({}, "succeeded"),
        ({"helm upgrade": ["render"]}, "failed"),
        ({"canary": ["blind"]}, "rolled_back"),
        ({"helm upgrade": ["timed out"], "helm rollback": ["no such host"]}, "rollback_failed"),
    ],
)
def test_however_it_ends_it_is_in_the_file_that_becomes_the_artifact_and_in_the_cluster(
    cluster, delivery, script, result
):
    cluster.released("deployed")
    cluster.write(script=script)
    _, entry = delivery(*DEPLOY)
    assert entry["result"] == result
    (kept,) = cluster.state["entries"]
    assert json.loads(kept["data"]["entry.json"]) == entry
    assert kept["immutable"] is True


def test_a_step_that_failed_before_is_written_down_and_told(cluster, delivery, receiver):
    words = ("given-up", *COMMON, "--environment", "staging", "--kind", "rollback", "--version", "v0.9.0")
    code, entry = delivery(*words, NOTIFY_SLACK_URL=f"{receiver.url}/slack")
    assert (code, entry["kind"], entry["result"], entry["version"]) == (1, "rollback", "failed", "v0.9.0")
    assert "rollback of qwen3-vl to staging FAILED, nothing was changed" in receiver.taken["slack"][-1]["text"]
    assert len(cluster.state["entries"]) == 1
    assert cluster.verbs() == []


def test_a_rollback_that_fails_needs_a_person(cluster, delivery):
    cluster.released("deployed")
    cluster.write(script={"canary": ["blind"], "helm rollback": ["no such host"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (cli.EX_PERSON, "rollback_failed")
    assert entry["reason"] == "canary: canary: BAD: blind; then the rollback: Error: no such host"


def test_a_rollback_to_a_release_that_cannot_see_either_needs_a_person(cluster, delivery):
    cluster.released("deployed")
    cluster.write(script={"canary": ["blind", "blind, too"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (cli.EX_PERSON, "rollback_failed")
    assert "the release before is no better: canary: BAD: blind, too" in entry["reason"]


def test_a_chart_that_does_not_render_changes_nothing_and_needs_no_way_back(cluster, delivery):
    cluster.released("superseded", "deployed")
    cluster.write(script={"helm upgrade": ["render"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "failed")
    assert cluster.verbs() == ["upgrade"]
    assert "specifications of the schema" in entry["reason"]


def test_where_helm_does_not_tell_whether_it_changed_anything_the_way_back_is_taken(cluster, delivery):
    cluster.released("deployed")
    cluster.write(script={"helm history": ["ok", "connection refused"], "helm upgrade": ["connection lost"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "rolled_back")


@pytest.mark.parametrize("script", [{"helm upgrade": ["timed out"]}, {"canary": ["blind"]}])
def test_a_first_release_has_nothing_to_go_back_to_and_is_left_to_be_looked_at(cluster, delivery, script):
    cluster.write(script=script)
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "failed")
    assert "nothing to go back to" in entry["reason"]
    assert "rollback" not in " ".join(cluster.verbs())


def test_a_first_release_that_sees_stays(cluster, delivery):
    code, entry = delivery(*DEPLOY)
    assert (code, entry["revision_before"], entry["revision_after"]) == (0, None, 1)


def test_a_cluster_that_does_not_answer_is_left_alone(cluster, delivery):
    cluster.write(script={"helm history": ["Kubernetes cluster unreachable"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"], entry["reason"]) == (1, "failed", "Error: Kubernetes cluster unreachable")
    assert cluster.verbs() == []


def test_what_a_killed_run_left_is_recovered_first(cluster, delivery):
    cluster.released("superseded", "deployed", "pending-upgrade")
    code, entry = delivery(*DEPLOY)
    assert code == 0
    assert cluster.verbs() == ["rollback qwen3-vl 2", "upgrade", "canary"]
    assert entry["steps"][0]["name"] == "recover from pending-upgrade"
    assert entry["revision_before"] == 4


def test_a_first_release_that_a_killed_run_left_is_taken_away_first(cluster, delivery):
    cluster.released("pending-install")
    code, _ = delivery(*DEPLOY)
    assert code == 0
    assert cluster.verbs() == ["uninstall", "upgrade", "canary"]


def test_what_somebody_else_has_just_begun_is_not_touched(cluster, delivery, monkeypatch):
    cluster.released("deployed", "pending-upgrade")
    history = cluster.state["history"]
    history[-1]["updated"] = record.stamp(cli.time.time())
    cluster.write(history=history)
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "failed")
    assert "another operation seems to be under way" in entry["reason"]
    assert cluster.verbs() == []


def test_what_cannot_be_recovered_is_said(cluster, delivery):
    cluster.released("deployed", "pending-upgrade")
    cluster.write(script={"helm rollback": ["no such host"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "failed")
    assert "cannot be recovered: Error: no such host" in entry["reason"]


def test_a_release_that_was_overtaken_does_not_go_back(cluster, delivery):
    cluster.released("superseded", "deployed")
    words = [*DEPLOY[:-1], "v0.1.9"]
    code, entry = delivery(*words)
    assert (code, entry["reason"]) == (1, "v0.2.0 serves already, which is newer than v0.1.9")
    assert cluster.verbs() == []
    code, _ = delivery(*words, "--allow-older")
    assert code == 0


@pytest.mark.parametrize(
    ("served", "mine", "newer"),
    [
        ("0.2.0-main.9 abc", "0.2.0-main.8", True),
        ("0.2.0-main.9 abc", "0.2.0-main.9", False),
        ("0.2.0-main.9 abc", "0.2.0-main.10", False),
        ("0.2.0 abc", "0.2.0-main.10", True),
        ("0.2.0-main.9 abc", "0.2.0", False),
        ("v0.10.0 abc", "v0.9.0", True),
        ("Rollback to 3: 0.2.0-main.7 abc", "0.2.0-main.8", False),
        ("Rollback to 3: 0.2.0-main.9 abc", "0.2.0-main.8", True),
        ("Install complete", "0.2.0", False),
        ("0.2.0 abc", "", False),
    ],
)
def test_which_of_two_versions_is_newer(served, mine, newer):
    assert bool(helm.overtaken(history(("deployed", served)), mine)) is newer


def test_nothing_is_newer_than_a_first_release():
    assert helm.overtaken((), "0.1.0") is None


def test_errors_and_p99_are_compared_after_a_deployment_only(cluster, delivery):
    cluster.released("deployed")
    cluster.write(script={"canary": ["slow"]})
    delivery(*DEPLOY, "--compare", "--prometheus http://p:9090")
    first, second = [call for call in cluster.calls if call[0] == "canary"]
    assert {"--prometheus", "--before-at", "--soak-s"} <= set(first)
    assert not {"--prometheus", "--before-at", "--soak-s"} & set(second)


class TestRollback:
    def test_by_hand_looks_as_well(self, cluster, delivery):
        cluster.released("superseded", "superseded", "deployed")
        code, entry = delivery("rollback", *COMMON, *RUN, "--to", "1")
        assert (code, entry["kind"], entry["result"]) == (0, "rollback", "succeeded")
        assert cluster.verbs() == ["rollback qwen3-vl 1", "canary"]
        assert entry["version"] == "v0.1.0 000000000001"

    def test_to_a_release_that_is_no_better_returns(self, cluster, delivery):
        cluster.released("superseded", "deployed")
        cluster.write(script={"canary": ["blind"]})
        code, entry = delivery("rollback", *COMMON, *RUN, "--to", "v0.1.0")
        assert (code, entry["result"]) == (1, "rolled_back")
        assert cluster.verbs() == ["rollback qwen3-vl 1", "canary", "rollback qwen3-vl 2", "canary"]

    def test_to_what_is_not_kept_changes_nothing(self, cluster, delivery):
        cluster.released("superseded", "deployed")
        code, entry = delivery("rollback", *COMMON, *RUN, "--to", "v7.0.0")
        assert (code, entry["result"]) == (1, "failed")
        assert "no kept release that was good is v7.0.0" in entry["reason"]
        assert cluster.verbs() == []


def history(*entries):
    return helm.parse(json.dumps([
        {"revision": number, "status": status, "updated": "2026-11-20T08:00:00Z", "app_version": "0.1.0", "description": text}
        for number, (status, text) in enumerate(entries, start=1)
    ]))  # fmt: skip


KEPT = history(
    ("superseded", "v0.1.0 aaaaaaaaaaaa"),
    ("superseded", "v0.2.0 bbbbbbbbbbbb"),
    ("failed", "v0.3.0 cccccccccccc"),
    ("superseded", "Rollback to 2: v0.2.0 bbbbbbbbbbbb"),
    ("deployed", "v0.4.0 dddddddddddd"),
)


@pytest.mark.parametrize(
    ("wanted", "revision"),
    [("1", 1), ("4", 4), ("v0.2.0", 4), ("0.2.0", 4), ("v0.1.0", 1), ("aaaaaaaaaaaa" + "0" * 28, 1), ("aaaaaaa", 1)],
)
def test_a_release_is_found_by_revision_version_or_commit(wanted, revision):
    assert helm.find(KEPT, wanted).number == revision


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("3", "no kept release"),
        ("v0.3.0", "no kept"),
        ("9", "no kept"),
        ("5", "serves already"),
        ("v0.4.0", "serves already"),
        ("aaa", "no kept"),
    ],
)
def test_what_was_never_good_or_serves_already_is_not_gone_back_to(wanted, said):
    with pytest.raises(LookupError, match=said):
        helm.find(KEPT, wanted)


def test_a_failed_upgrade_does_not_serve():
    assert helm.serving(history(("superseded", "a"), ("deployed", "b"), ("failed", "c"))).number == 2
    assert helm.serving(history(("superseded", "a"), ("failed", "c"))).number == 1
    assert helm.serving(()) is None


@pytest.mark.parametrize("text", ["", "{}", '[{"revision": "x"}]', '[{"revision": 1}]'])
def test_a_history_that_is_none_is_an_error(text):
    with pytest.raises(helm.HelmError):
        helm.parse(text)


def test_releases_are_listed_the_newest_first(cluster, capsys):
    cluster.released("superseded", "failed", "deployed")
    assert cli.main(["releases", *COMMON]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["3", "deployed"], ["2", "failed"], ["1", "superseded"]]
    assert "v0.3.0" in lines[1]


def test_a_time_that_helm_does_not_tell_is_a_question_mark():
    revision = helm.Revision(1, "deployed", None, "c", "1", "d")
    assert helm.table((revision,), 0.0).splitlines()[1].split()[2] == "?"


def test_releases_of_a_cluster_that_does_not_answer_are_an_error(cluster, capsys):
    cluster.write(script={"helm history": ["unreachable"]})
    assert cli.main(["releases", *COMMON]) == cli.EX_BAD
    assert "unreachable" in capsys.readouterr().err


def test_everybody_is_told_the_beginning_and_the_end(cluster, delivery, receiver):
    receiver.now = cli.time.time()
    cluster.released("deployed")
    cluster.write(script={"canary": ["blind"]})
    code, _ = delivery(*DEPLOY, **receiver.environ())
    assert code == 1
    for service in ("wecom", "dingtalk", "feishu", "slack", "webhook"):
        assert len(receiver.taken[service]) == 2
    assert [event["event"] for event in receiver.taken["webhook"]] == ["started", "rolled_back"]


def test_webhooks_that_fail_fail_nothing(cluster, delivery, receiver, capsys):
    receiver.failing = 99
    code, entry = delivery(*DEPLOY, **receiver.environ())
    assert (code, entry["result"]) == (0, "succeeded")
    assert "::warning::notify: slack: status 500" in capsys.readouterr().out


def test_a_log_that_the_cluster_does_not_take_fails_nothing_and_is_said(cluster, delivery, capsys):
    cluster.write(script={"kubectl create": ["forbidden"]})
    code, _ = delivery(*DEPLOY)
    assert code == 0
    assert "::warning::the deploy log is not in the cluster" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["get", "delete"])
def test_old_entries_are_taken_away_and_a_fault_in_that_is_said(cluster, delivery, capsys, verb):
    names = [f"configmap/qwen3-vl-deploy-{number:014d}" for number in range(record.KEEP + 2)]
    cluster.write(listed=names[::-1])
    delivery(*DEPLOY)
    (gone,) = [call for call in cluster.calls if "delete" in call]
    assert gone[-2:] == names[:2]
    cluster.write(script={f"kubectl {verb}": ["forbidden"]})
    delivery(*DEPLOY)
    assert "::warning::the deploy log" in capsys.readouterr().out


def test_the_outcome_is_on_the_runs_page(cluster, delivery, tmp_path):
    page = tmp_path / "summary.md"
    delivery(*DEPLOY, GITHUB_STEP_SUMMARY=str(page))
    assert "### deploy of qwen3-vl to production succeeded" in page.read_text()
    assert "| canary | ok |" in page.read_text()


def start(cluster, tmp_path, *words):
    argv = [sys.executable, "-m", "delivery", *words, "--log", str(tmp_path / "log.json")]
    env = cluster.environ(PYTHONPATH=f"{ROOT / '.github' / 'scripts'}:{ROOT}")
    return subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_run_that_is_cancelled_writes_it_down_and_leaves_nobody_behind(cluster, tmp_path):
    cluster.released("deployed")
    cluster.write(script={"helm upgrade": ["hang"]})
    with start(cluster, tmp_path, *DEPLOY) as process:
        assert process.stdout.readline() == "delivery: upgrade …\n"
        while not any(call[1] == "upgrade" for call in cluster.calls):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads((tmp_path / "log.json").read_text())["result"] == "cancelled"
    assert "delivery: cancelled" in out
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(cluster.bin) not in running


def alive(pid):
    """Whether a process runs; what is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_tool_that_fails_itself_says_so_and_needs_a_person(cluster, delivery, monkeypatch, receiver):
    def fail(*_, **__):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(change.Change, "deploy", fail)
    code, entry = delivery(*DEPLOY, NOTIFY_SLACK_URL=f"{receiver.url}/slack")
    assert (code, entry["result"]) == (cli.EX_PERSON, "unknown")
    assert "a fault of ours" in entry["reason"]
    assert "look now" in receiver.taken["slack"][-1]["text"]


def test_a_canary_report_that_was_cut_off_changes_no_decision(cluster, delivery):
    cluster.released("deployed")
    cluster.write(script={"canary": ["cut"]})
    code, entry = delivery(*DEPLOY)
    assert (code, entry["result"]) == (1, "rolled_back")
    assert "canary" not in entry["canary"]


def test_a_program_that_hangs_is_stopped_with_its_children(tmp_path):
    done = tools.run(["sh", "-c", f"sleep 300 & echo $! > {tmp_path}/child; wait"], 0.5)
    assert done.code == tools.EX_TIMEOUT
    assert "took more than 0.5 s" in done.reason
    child = int((tmp_path / "child").read_text())
    while alive(child):
        pass


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(tools, "GRACE_S", 0.2)
    done = tools.run(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], 0.3)
    assert done.code == tools.EX_TIMEOUT


def test_output_that_is_no_text_ends_nothing():
    assert tools.run(["printf", r"\377"], 5) == tools.Done(0, "\N{REPLACEMENT CHARACTER}", "")


def test_a_program_that_is_not_there_is_said():
    done = tools.run(["no-such-program"], 1)
    assert (done.code, done.reason) == (tools.EX_MISSING, "no-such-program cannot be run: No such file or directory")
    assert tools.Done(3).reason == "exit code 3"


def test_a_name_that_is_none_in_kubernetes_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["releases", "--release", "x;rm", "--namespace", "y"])
    assert "is no name in Kubernetes" in capsys.readouterr().err


def test_a_test_message_fails_where_a_service_does_not_take_it(receiver, capsys):
    receiver.now = cli.time.time()
    assert cli.main(["notify"], receiver.environ()) == 0
    assert cli.main(["notify"], receiver.environ() | {"NOTIFY_FEISHU_SECRET": "wrong"}) == cli.EX_BAD


def test_every_result_has_its_words():
    assert set(cli.notify.TITLES) == set(Result)


def test_the_canary_command_without_a_report_is_the_words_alone():
    assert change.Canary(("canary",)).command(None) == ["canary"]
