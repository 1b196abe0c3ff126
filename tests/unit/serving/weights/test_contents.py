import contextlib
import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.weights import contents
from serving.weights.errors import Refused
from tests.unit.serving.weights.support import checkpoint, tensors, write


def weights(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensor(begin=0, end=4, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def refused(tmp_path, data, name="model.safetensors"):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refused) as caught:
        contents.check(tmp_path / name, name)
    return str(caught.value)


def test_a_sound_file_gives_its_tensors(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(tensors(7, 1000))
    assert contents.tensors(tmp_path / "m.safetensors", "m.safetensors") == {"a7", "b7"}


@pytest.mark.parametrize(
    "data",
    [
        weights({"a": tensor(), "b": tensor(4, 4, (0, 5))}, bytes(4)),
        weights({"a": tensor(0, 3, (5,), "X9")}, bytes(3)),
        weights({"a": tensor(0, 1, (2,), "F4")}, bytes(1)),
        weights({"a": tensor(0, 2, (), "BF16")}, bytes(2)),
        weights({}),
        weights(b"{}      "),
    ],
)
def test_what_the_format_allows_is_allowed(tmp_path, data):
    (tmp_path / "m.safetensors").write_bytes(data)
    contents.check(tmp_path / "m.safetensors", "m.safetensors")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "header of 0"),
        (b"\x02\x00", "header of 2"),
        (weights({}, length=0), "header of 0"),
        (weights({}, length=10), "header of 10"),
        (weights({}, length=2**63), "header of 9,223"),
        (weights({}, length=contents.MAX_HEADER_BYTES + 1), "header of 100,000,001"),
        (weights(b"[]"), "no JSON object"),
        (weights(b"\x80\x04K\x01."), "no JSON object"),
        (weights(b"{x}"), "no JSON, or"),
        (weights(b'{"\xff": 1}'), "no JSON, or"),
        (weights(b'{"a": {}, "a": {}}'), "twice"),
        (weights(b'{"a":' * 50_000), "no JSON, or"),
        (weights({"__metadata__": {"a": 1}}), "__metadata__"),
        (weights({"__metadata__": []}), "__metadata__"),
        (weights({"a": 1}), "not described"),
        (weights({"a": tensor() | {"shape": [True]}}, bytes(4)), "has no dtype"),
        (weights({"a": tensor() | {"shape": [-1]}}, bytes(4)), "has no dtype"),
        (weights({"a": tensor() | {"dtype": 3}}, bytes(4)), "has no dtype"),
        (weights({"a": tensor() | {"data_offsets": [0, 4, 8]}}, bytes(4)), "has no dtype"),
        (weights({"a": tensor(0, 8, (2,))}, bytes(4)), "outside the file"),
        (weights({"a": tensor(4, 0)}, bytes(4)), "outside the file"),
        (weights({"a": tensor(0, 4, (2,))}, bytes(4)), "another size"),
        (weights({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)), "overlap"),
        (weights({"a": tensor(0, 4), "b": tensor(6, 10)}, bytes(10)), "hole"),
        (weights({"a": tensor(0, 4)}, bytes(5)), "after the last tensor"),
    ],
)
def test_an_unsound_header_is_refused_with_the_fault(tmp_path, data, what):
    assert what in refused(tmp_path, data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_header_gets_more_than_a_refusal(tmp_path, data):
    sound = bytearray(tensors(1, 40))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(sound) - 1))
        sound[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.safetensors"
    path.write_bytes(bytes(sound[: data.draw(st.integers(0, len(sound)))]))
    with contextlib.suppress(Refused):
        contents.check(path, path.name)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("config.json", b"{", "no JSON"),
        ("config.json", b"\x80\x04K\x01.", "no JSON"),
        ("config.json", b"[" * 100_000, "no JSON"),
        ("merges.txt", b"\xff\xfe", "no UTF-8"),
    ],
)
def test_a_text_that_is_none_is_refused(tmp_path, name, data, what):
    assert what in refused(tmp_path, data, name)


def test_a_text_of_absurd_size_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MAX_TEXT_BYTES", 10)
    assert "far more than a text" in refused(tmp_path, b" " * 11 + b"{}", "config.json")


class TestIndex:
    def check(self, tmp_path, **changes):
        files = checkpoint() | changes
        present = {name: data for name, data in files.items() if data is not None}
        contents.check_index(write(tmp_path, present), present)

    def test_a_complete_checkpoint_passes(self, tmp_path):
        self.check(tmp_path)

    def test_a_shard_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(Refused, match=r"names 'model-00002-of-00002.safetensors'"):
            self.check(tmp_path, **{"model-00002-of-00002.safetensors": None})

    def test_a_tensor_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(Refused, match=r"lacks 2 tensors .* such as a1"):
            self.check(tmp_path, **{"model-00002-of-00002.safetensors": tensors(9, 100)})

    @pytest.mark.parametrize("index", [b"[]", b"{}", b'{"weight_map": []}'])
    def test_an_index_without_a_map_is_refused(self, tmp_path, index):
        with pytest.raises(Refused, match="no weight_map"):
            self.check(tmp_path, **{"model.safetensors.index.json": index})
