import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.weights import manifest
from serving.weights.errors import Misconfigured, NotThere, Refused
from serving.weights.manifest import Checksum, Entry, Promise

HEX = "ab" * 32


def entry(name, size=5, checksum=None, version="v"):
    return Entry(name, size, checksum, version)


MODEL = (entry("config.json"), entry("model.safetensors"))


def test_sha256sums_is_read_as_sha256sum_writes_it():
    text = f"{HEX}  config.json\n{HEX.upper()} *model.safetensors\n\n{HEX}  ./merges.txt\n"
    assert manifest.parse(text, "x") == {
        "config.json": Promise(HEX, None),
        "model.safetensors": Promise(HEX, None),
        "merges.txt": Promise(HEX, None),
    }


@given(
    st.dictionaries(
        st.sampled_from(["config.json", "model.safetensors", "merges.txt"]),
        st.tuples(st.integers(0, 2**40), st.binary().map(lambda data: hashlib.sha256(data).hexdigest())),
        min_size=1,
    )
)
def test_what_is_written_is_read_back(files):
    read = manifest.parse(manifest.render(files), "x")
    assert {name: (promise.size, promise.sha256) for name, promise in read.items()} == files


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "not a sum", f"{HEX} x", "{", "{}", '{"version": 1}', '{"version": 1, "files": []}',
        '{"version": 1, "files": {}}', '{"version": 2, "files": {}}', '{"version": 1, "files": {"a": 1}}',
        json.dumps({"version": 1, "files": {"a": {"sha256": "x", "size": 1}}}),
        json.dumps({"version": 1, "files": {"a": {"sha256": HEX, "size": True}}}),
        json.dumps({"version": 1, "files": {"a": {"sha256": 5, "size": 1}}}),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_read_is_never_ignored(text):
    with pytest.raises(Misconfigured, match="mine"):
        manifest.parse(text, "mine")


def test_a_manifest_with_a_hostile_name_is_refused():
    with pytest.raises(Refused, match="leave the folder"):
        manifest.parse(f"{HEX}  ../x.json\n", "x")


def test_the_digest_names_the_content_and_nothing_else():
    plan = manifest.plan(MODEL, None, "here")
    assert plan.digest == manifest.plan(MODEL[::-1], None, "there").digest
    assert plan.digest != manifest.plan((MODEL[0], entry("model.safetensors", version="w")), None, "here").digest
    vouched = [entry(item.name, checksum=Checksum("sha256", HEX), version=version) for item, version in zip(MODEL, "ab", strict=True)]  # fmt: skip
    again = [entry(item.name, checksum=Checksum("sha256", HEX), version="c") for item in MODEL]
    assert manifest.plan(vouched, None, "here").digest == manifest.plan(again, None, "here").digest


def test_without_a_manifest_everything_known_is_fetched_and_what_nobody_vouches_for_is_told():
    files = (*MODEL, entry("README.md", checksum=Checksum("git-sha1", "a" * 40)), entry("x.py"), entry("y.bin"))
    plan = manifest.plan(files, None, "here")
    assert [item.name for item in plan.files] == ["README.md", "config.json", "model.safetensors"]
    assert [name for name, _ in plan.left_out] == ["x.py", "y.bin"]
    assert plan.unvouched == ("config.json", "model.safetensors")
    assert plan.total_bytes == 15


def test_with_a_manifest_only_what_it_names_is_fetched():
    promises = {"config.json": Promise(HEX, None), "model.safetensors": Promise(HEX, 5)}
    plan = manifest.plan((*MODEL, entry("README.md")), promises, "here")
    assert plan.unvouched == ()
    assert plan.left_out == (("README.md", "the manifest does not name it"),)


def test_a_manifest_overrules_gits_weaker_sum():
    files = (entry("config.json", checksum=Checksum("git-sha1", "a" * 40)), MODEL[1])
    promises = {"config.json": Promise(HEX, None), "model.safetensors": Promise(HEX, 5)}
    assert manifest.plan(files, promises, "x").files[0].checksum == Checksum("sha256", HEX)


def test_what_the_manifest_names_must_be_there_but_for_what_is_never_fetched():
    promises = {name: Promise(HEX, None) for name in ("config.json", "model.safetensors", "a.bin", "manifest.json")}
    manifest.plan(MODEL, promises, "here")
    many = promises | {f"model-{i}.safetensors": Promise(HEX, None) for i in range(5)}
    with pytest.raises(NotThere, match=r"model-2.safetensors and 2 more"):
        manifest.plan(MODEL, many, "here")


def test_a_manifest_of_another_revision_is_noticed_before_a_byte_is_fetched():
    with pytest.raises(Refused, match="5 bytes at the source, and 6 in the manifest"):
        manifest.plan(MODEL, {"model.safetensors": Promise(HEX, 6)}, "here")
    files = (entry("model.safetensors", checksum=Checksum("sha256", "cd" * 32)),)
    with pytest.raises(Refused, match="another SHA-256"):
        manifest.plan(files, {"model.safetensors": Promise(HEX, 5)}, "here")


def test_pickles_alone_are_refused_with_the_way_out():
    with pytest.raises(Refused, match=r"only as pickles \(pytorch_model.bin\).*convert"):
        manifest.plan((MODEL[0], entry("pytorch_model.bin")), None, "here")


@pytest.mark.parametrize(
    ("files", "what"),
    [((), "nothing is there"), ((entry("a.txt"),), "it has a.txt"), ((MODEL[1],), "no config.json")],
)
def test_what_is_no_checkpoint_is_not_there(files, what):
    with pytest.raises(NotThere, match=what):
        manifest.plan(files, None, "here")


def test_an_adapter_is_a_checkpoint_too():
    assert manifest.plan((entry("adapter_config.json"), entry("adapter_model.safetensors")), None, "x").files
