from __future__ import annotations

import re

import pytest

from serving import profile


@pytest.fixture
def folder(tmp_path):
    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return tmp_path

    return write


def test_the_promised_profiles_are_there():
    several = {f"{name}-x{count}" for name in ("a100-40", "a100-80", "h100") for count in (2, 4)}
    assert set(profile.names()) == {"a10", "a100-40", "a100-80", "cpu", "h100", "l4", "l40s", "t4", *several}


@pytest.mark.parametrize("name", profile.names())
def test_every_profile_closes_what_must_never_be_open(name):
    loaded = profile.load(name)
    assert loaded.flags["allowed-media-domains"] == "media.invalid"
    assert loaded.flags["disable-fastapi-docs"] is True
    assert loaded.flags["limit-mm-per-prompt"] == {"image": 4, "video": 0}
    assert loaded.flags["shutdown-timeout"] > 0
    assert loaded.flags["max-model-len"] <= 131072
    assert loaded.env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert loaded.env["VLLM_NO_USAGE_STATS"] == loaded.env["DO_NOT_TRACK"] == loaded.env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("file", sorted(profile.PROFILES_DIR.glob("*.toml")), ids=lambda file: file.stem)
def test_every_value_has_its_reason_beside_or_above_it(file):
    lines = file.read_text().splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if re.match(r"[\w-]+ = ", line) and not line.startswith(("title", "extends")):
            assert re.search(r"\s# \S", line) or above.startswith("# "), f"{file.name}: no reason for {line!r}"


def test_the_smallest_gpu_has_no_checkpoint_that_would_not_fit():
    assert profile.load("t4").model is None
    assert profile.load("t4").flags["dtype"] == "half"


def test_own_values_win_over_extended_ones(folder):
    directory = folder(
        _base='[flags]\nseed = 1\nswap = true\n[env]\nA = "1"',
        x='extends = ["_base"]\ntitle = "x"\n[flags]\nseed = 2\n[env]\nB = "2"',
    )
    loaded = profile.load("x", directory)
    assert dict(loaded.flags) == {"seed": 2, "swap": True}
    assert dict(loaded.env) == {"A": "1", "B": "2"}
    assert loaded.model is None


def test_a_base_cannot_be_run(folder):
    with pytest.raises(profile.ProfileError, match="no profile '_base': choose one of x"):
        profile.load("_base", folder(_base="", x='title = "x"'))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "x.toml is no TOML"),
        ("[flags]", "x.toml has no title"),
        ('title = "x"\nflag = 1', "'flag' is no key of a profile"),
        ("title = 1", "'title' must be a str, not 1"),
        ('title = "x"\nflags = "a"', "'flags' must be a dict"),
        ('title = "x"\n[flags]\nmodel = "m"', "flag 'model' does not belong into a profile: use the key `model`"),
        ('title = "x"\n[flags]\napi-key = "k"', "use the variable VLLM_API_KEY"),
        ('title = "x"\n[flags]\n--seed = 1', "lower case, dashes, none in front"),
        ('title = "x"\n[env]\nlower = "1"', "'lower' is no name of an environment variable"),
        ('title = "x"\n[env]\nA = 1', "A must be in quotes"),
        ('title = "x"\nextends = ["_gone"]', "x.toml extends '_gone', and there is no _gone.toml beside it"),
        ('title = "x"\nextends = ["x"]', "x -> x: a profile extends itself"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(folder, text, said):
    with pytest.raises(profile.ProfileError, match=re.escape(said)):
        profile.load("x", folder(x=text))


def test_all_faults_of_a_file_are_said_at_once(folder):
    with pytest.raises(profile.ProfileError) as caught:
        profile.load("x", folder(x='title = "x"\n[flags]\nPort = 1\nport = 2\n[env]\nA = 3'))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("name", [name for name in profile.names() if "-x" in name])
def test_several_gpus_share_one_engine_and_encode_whole_pictures(name):
    flags, single = profile.load(name).flags, profile.load(name.rpartition("-x")[0])
    assert flags["tensor-parallel-size"] == int(name.rpartition("-x")[2])
    assert flags["mm-encoder-tp-mode"] == "data"
    assert profile.load(name).model == single.model
    for flag in ("max-model-len", "max-num-seqs", "max-num-batched-tokens"):
        assert flags[flag] >= single.flags[flag]
