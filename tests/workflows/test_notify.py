"""Every chat service is told, signed as it wants, and none of them can fail a deployment."""

from __future__ import annotations

import pytest
from delivery import notify
from delivery.channels import CHANNELS, refusal
from delivery.record import Entry, Result


def entry(**more):
    usual = {
        "kind": "deploy",
        "environment": "production",
        "release": "qwen3-vl",
        "actor": "ada",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "version": "v0.2.0",
        "run_url": "https://github.com/o/r/actions/runs/7",
        "started_at": "2026-11-22T08:00:00+00:00",
    }
    return Entry(**(usual | more))


def tell(receiver, told, environ=None, **more):
    return notify.tell(
        told, environ or receiver.environ(), lambda text: more.setdefault("said", []).append(text), lambda: receiver.now
    )


@pytest.mark.parametrize(
    ("result", "words", "event"),
    [
        (Result.UNDER_WAY, "deploy of qwen3-vl to production started", "started"),
        (Result.SUCCEEDED, "succeeded", "succeeded"),
        (Result.FAILED, "FAILED, nothing was changed", "failed"),
        (Result.ROLLED_BACK, "FAILED and was rolled back", "rolled_back"),
        (Result.ROLLBACK_FAILED, "SO DID THE ROLLBACK", "rollback_failed"),
        (Result.CANCELLED, "was cancelled", "cancelled"),
    ],
)
def test_every_service_takes_every_event_with_the_right_signature(receiver, result, words, event):
    assert tell(receiver, entry(result=result, reason="canary: 7 of 9", revision_before=3, revision_after=4))
    assert set(receiver.taken) == set(CHANNELS)
    texts = {
        "wecom": receiver.taken["wecom"][0]["markdown"]["content"],
        "dingtalk": receiver.taken["dingtalk"][0]["markdown"]["title"]
        + receiver.taken["dingtalk"][0]["markdown"]["text"],
        "feishu": str(receiver.taken["feishu"][0]["content"]["post"]["zh_cn"]),
        "slack": receiver.taken["slack"][0]["text"],
        "webhook": str(receiver.taken["webhook"][0]),
    }
    for text in texts.values():
        assert words in text
        assert "version v0.2.0, commit 0123456789ab, by ada" in text
        assert "revision 3 → 4" in text
        assert "canary: 7 of 9" in text
        assert "https://github.com/o/r/actions/runs/7" in text
    assert receiver.taken["webhook"][0]["event"] == event


def test_a_first_release_that_failed_is_not_called_unchanged():
    told = notify.message_of(entry(result=Result.FAILED, revision_before=None, revision_after=1))
    assert "there was no release before" in told.title


@pytest.mark.parametrize("service", ["dingtalk", "feishu", "webhook"])
def test_a_wrong_secret_is_refused_and_told_apart_from_success(receiver, service):
    said = []
    environ = receiver.environ() | {f"NOTIFY_{service.upper()}_SECRET": "another"}
    assert not tell(receiver, entry(), environ, said=said)
    assert set(receiver.taken) == set(CHANNELS) - {service}
    (fault,) = [line for line in said if not line.endswith(": told")]
    assert fault.startswith(f"notify: {service}: ")
    assert "another" not in fault


def test_a_clock_that_is_wrong_is_refused_by_those_that_look(receiver):
    said = []
    environ = receiver.environ()
    assert not notify.tell(entry(), environ, said.append, lambda: receiver.now - 7200)
    assert set(receiver.taken) == {"wecom", "slack", "webhook"}


def test_a_service_that_is_not_configured_is_not_told(receiver):
    assert tell(receiver, entry(), {"NOTIFY_SLACK_URL": f"{receiver.url}/slack", "NOTIFY_WECOM_URL": ""})
    assert set(receiver.taken) == {"slack"}


def test_a_service_that_stumbles_once_is_asked_again(receiver):
    receiver.failing = 1
    assert tell(receiver, entry(), {"NOTIFY_SLACK_URL": f"{receiver.url}/slack"})
    assert receiver.posts == 2


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/secret-path?key=secret-key", "secret-path", "https://[secret-path/", "ftp://secret-path/"],
)
def test_a_service_that_cannot_be_reached_is_said_without_its_address(receiver, address):
    said = []
    environ = {"NOTIFY_WECOM_URL": address, "NOTIFY_SLACK_URL": f"{receiver.url}/slack"}
    assert not tell(receiver, entry(), environ, said=said)
    assert set(receiver.taken) == {"slack"}
    assert "notify: wecom: " in said[0]
    assert "secret-" not in said[0]


def test_nobodys_name_becomes_a_mention_a_tag_or_a_link():
    told = notify.message_of(entry(actor='<!channel> <at user_id="all">', reason="@all [x](https://evil) `rm`\nsecond"))
    text = told.title + told.text
    assert not set("<>@[]`*") & set(text)
    assert "second" in told.lines[-1]


def test_a_long_reason_is_cut():
    assert len(notify.message_of(entry(reason="x" * 5000)).lines[-1]) == notify.LONGEST + 1


@pytest.mark.parametrize("address", ["javascript:alert(1)", "https://github.com/a b", ""])
def test_only_an_https_address_becomes_a_link(address):
    assert notify.message_of(entry(run_url=address)).link == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"ok", None),
        (b"", None),
        (b"[]", None),
        (b'{"errcode":0,"errmsg":"ok"}', None),
        (b'{"StatusCode":0,"code":0}', None),
        (b'{"errcode":93000,"errmsg":"invalid webhook url"}', "code 93000: invalid webhook url"),
        (b'{"code":19024,"msg":"Key Words Not Found"}', "code 19024: Key Words Not Found"),
    ],
)
def test_what_services_answer_with_status_200_is_read(answer, said):
    assert refusal(answer) == said
