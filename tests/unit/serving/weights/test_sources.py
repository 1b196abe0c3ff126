import os
import sys

import pytest

from serving.weights import sources
from serving.weights.errors import Changed, Misconfigured, NotThere, Unreachable
from serving.weights.sources import Reference, open_source, parse, window
from serving.weights.sources.local import LocalSource


@pytest.mark.parametrize(
    ("url", "reference"),
    [
        ("file:///models/q%20wen", Reference("file", "", "/models/q wen", None)),
        ("s3://bucket/a/b/", Reference("s3", "bucket", "a/b", None)),
        ("hf://Qwen/Qwen3-VL-8B-Instruct", Reference("hf", "Qwen/Qwen3-VL-8B-Instruct", "", None)),
        ("hf://Qwen/Qwen3@refs/pr/1", Reference("hf", "Qwen/Qwen3", "", "refs/pr/1")),
        ("modelscope://Qwen/Qwen3@v1", Reference("modelscope", "Qwen/Qwen3", "", "v1")),
    ],
)
def test_urls_name_a_place(url, reference):
    assert parse(url) == reference


@pytest.mark.parametrize(
    "url",
    [
        "", "/models", "http://x/y", "file://host/x", "file:relative", "s3://bucket", "s3:///x", "hf://Qwen",
        "hf://Qwen/a/b", "hf://Qwen/a@", "hf://../a", "ftp://a/b",
    ],
)  # fmt: skip
def test_other_urls_are_refused_with_the_forms_there_are(url):
    with pytest.raises(Misconfigured, match="hf://OWNER/NAME"):
        parse(url)


@pytest.mark.parametrize("url", ["s3://key:hush@bucket/x", "s3://hush@b/x", "s3://b/x?token=hush", "s3://b/x#hush"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(Misconfigured) as caught:
        parse(url)
    assert "hush" not in str(caught.value)


def test_only_a_commit_pins():
    assert parse(f"hf://a/b@{'0' * 40}").pinned
    assert not parse("hf://a/b@main").pinned
    assert not parse("hf://a/b").pinned


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("s3://b/x", "botocore.exceptions", "botocore"),
        ("hf://a/b", "huggingface_hub", "huggingface_hub"),
        ("modelscope://a/b", "modelscope_hub.errors", "modelscope-hub"),
    ],
)
def test_a_missing_client_is_a_message_with_the_command(monkeypatch, url, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Misconfigured, match=f"pip install {package}"):
        open_source(url, 1)


@pytest.mark.parametrize("url", ["s3://b/x", "hf://a/b", "modelscope://a/b"])
def test_each_scheme_has_its_adapter(monkeypatch, tmp_path, url):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source(url, 1).url == url


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(("skip", "take"), [(0, 10), (0, 4), (3, 4), (9, 1), (0, 0)])
def test_a_window_is_a_range_however_the_stream_is_cut(cut, skip, take):
    data = b"0123456789"
    pieces = (data[i : i + cut] for i in range(0, len(data), cut))
    assert b"".join(window(pieces, skip, take)) == data[skip : skip + take]


class TestFolder:
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "config.json").write_bytes(b"0123456789")
        (tmp_path / "below").mkdir()
        return open_source(f"file://{tmp_path}", 1)

    def test_files_are_listed_and_folders_are_not(self, source):
        assert [(entry.name, entry.size) for entry in source.listing().entries] == [("config.json", 10)]

    def test_a_range_is_a_range(self, source):
        (entry,) = source.listing().entries
        with source.read(entry, 2, 7) as stream:
            assert b"".join(stream) == b"23456"

    def test_a_file_that_changed_or_went_is_not_read(self, source, tmp_path):
        (entry,) = source.listing().entries
        os.utime(tmp_path / "config.json", (1, 1))
        with pytest.raises(Changed, match="has changed"), source.read(entry, 0, 10):
            pass
        (tmp_path / "config.json").unlink()
        with pytest.raises(Changed, match="has gone"), source.read(entry, 0, 10):
            pass

    def test_a_share_that_fails_is_unreachable(self, source, tmp_path):
        (entry,) = source.listing().entries
        (tmp_path / "config.json").unlink()
        (tmp_path / "config.json").mkdir()
        with pytest.raises(Unreachable, match="cannot be read"), source.read(entry, 0, 10):
            pass
        with pytest.raises(Unreachable, match="mounted"):
            LocalSource("x", Reference("file", "", f"{__file__}", None)).listing()
        with pytest.raises(NotThere, match="there is no folder"):
            LocalSource("x", Reference("file", "", f"{tmp_path}/no", None)).listing()


def test_an_endless_listing_is_given_up(monkeypatch):
    from serving.weights.sources.s3 import S3Source

    source = S3Source("s3://b/x", parse("s3://b/x"), 1)
    monkeypatch.setattr("serving.weights.sources.s3.MAX_FILES", 1)

    class Paginator:
        def paginate(self, **_):
            while True:
                yield {"Contents": [{"Key": "x/", "Size": 0, "ETag": "e"}, {"Key": "x/a", "Size": 1, "ETag": "e"}]}

    monkeypatch.setattr(source._client, "get_paginator", lambda _: Paginator())
    with pytest.raises(NotThere, match="more than 1 files"):
        source.listing()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchKey", "NotThere"),
        ("AccessDenied", "Denied"),
        ("PreconditionFailed", "Changed"),
        ("SlowDown", "Unreachable"),
    ],
)
def test_every_answer_of_s3_has_a_meaning(code, kind):
    from serving.weights.sources import s3

    assert type(s3._meaning(code, "x")).__name__ == kind


@pytest.mark.parametrize("reply", [{"ContentLength": 9, "ETag": "e"}, {"ContentLength": 1, "ETag": "other"}])
def test_a_service_that_ignores_the_condition_is_noticed(monkeypatch, reply):
    from serving.weights.manifest import Entry
    from serving.weights.sources.s3 import S3Source

    source = S3Source("s3://b/x", parse("s3://b/x"), 1)
    monkeypatch.setattr(source._client, "get_object", lambda **_: reply)
    with pytest.raises(Changed), source.read(Entry("config.json", 1, None, "e"), 0, 1):
        pass


def test_a_file_of_which_the_hub_knows_no_sum_is_unvouched():
    from huggingface_hub.hf_api import RepoSibling

    from serving.weights.sources.hf import _entry

    assert _entry(RepoSibling(rfilename="config.json", size=3), "c").checksum is None


def test_the_module_imports_no_client():
    assert "botocore" not in vars(sources)
