from __future__ import annotations

import pytest

from gateway import reference
from gateway.settings import Settings, SettingsError, load
from tests.support.command import gateway_command

GOOD = {"GATEWAY_KEYS_FILE": "/k.json"}


def test_lists_are_comma_separated_and_blanks_do_not_count():
    settings = load(GOOD | {"GATEWAY_ENGINES": "http://a:8000/, http://b:8000,", "GATEWAY_TRUSTED_PROXIES": " "})
    assert settings.engines == ("http://a:8000", "http://b:8000")
    assert settings.trusted_proxies == ()


def test_names_in_lower_case_count_too():
    assert load({"gateway_keys_file": "/k.json", "gateway_port": "81"}).port == 81


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load(GOOD).port = 1


def test_secrets_do_not_show():
    settings = load(GOOD | {"GATEWAY_REDIS_URL": "redis://:hunter2@r:6379", "GATEWAY_ENGINE_API_KEY": "hunter2"})
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "GATEWAY_KEYS_FILE is not set: create a key with `python -m gateway keys create"),
        (GOOD | {"GATEWAY_PORT": "0"}, "GATEWAY_PORT: "),
        (GOOD | {"GATEWAY_PROT": "1"}, "GATEWAY_PROT is no setting; did you mean GATEWAY_PORT?"),
        (GOOD | {"GATEWAY_QQQQQQQ": "1"}, "GATEWAY_QQQQQQQ is no setting"),
        (GOOD | {"GATEWAY_PORT_8080_TCP_ADDR": "1"}, "enableServiceLinks: false"),
        (GOOD | {"GATEWAY_ENGINES": ","}, "GATEWAY_ENGINES: names no engine"),
        (GOOD | {"GATEWAY_ENGINES": "localhost:8000"}, "is no http(s) URL"),
        (GOOD | {"GATEWAY_ENGINES": "http://e:8000/v1"}, "without it"),
        (GOOD | {"GATEWAY_ENGINES": "dns+http://e"}, "must be dns+http://name:port"),
        (GOOD | {"GATEWAY_ENGINES": "dns+https://e:8000"}, "must be dns+http://name:port"),
        (GOOD | {"GATEWAY_ENGINE_CHOICE": "random"}, "GATEWAY_ENGINE_CHOICE"),
        (GOOD | {"GATEWAY_ENGINE_LOAD_FACTOR": "0.9"}, "GATEWAY_ENGINE_LOAD_FACTOR"),
        (GOOD | {"GATEWAY_ENGINES": "http://u:hunter2@e:8000"}, "GATEWAY_ENGINE_API_KEY"),
        (GOOD | {"GATEWAY_ALLOWED_CIDRS": ","}, "GATEWAY_ALLOWED_CIDRS: is empty, so nobody could call"),
        (GOOD | {"GATEWAY_ALLOWED_CIDRS": "10.0.0.0/33"}, "10.0.0.0/33"),
        (GOOD | {"GATEWAY_TRUSTED_PROXIES": "proxy"}, "proxy"),
        (GOOD | {"GATEWAY_CACHE_POLICY": "sometimes"}, "GATEWAY_CACHE_POLICY"),
    ],
)
def test_a_fault_names_the_variable_and_the_next_step(environ, message):
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_all_faults_are_reported_at_once():
    with pytest.raises(SettingsError) as caught:
        load({"GATEWAY_PORT": "x", "GATEWAY_WORKERS": "0", "GATEWAY_HOTS": "a"})
    assert len(str(caught.value).splitlines()) == 4


class TestReference:
    def test_every_setting_is_in_both_tables(self):
        assert reference.CHINESE.keys() == Settings.model_fields.keys()
        for chinese in (False, True):
            table = reference.table(chinese=chinese)
            assert all(f"`GATEWAY_{name.upper()}`" in table for name in Settings.model_fields)

    def test_write_then_check_agree_and_an_edit_is_noticed(self, tmp_path):
        page = tmp_path / "README.md"
        page.write_text(f"before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n")
        assert settings_command("--check", page).returncode == 1
        assert settings_command("--write", page).returncode == 0
        assert settings_command("--check", page).returncode == 0
        assert page.read_text().startswith("before\n")
        assert page.read_text().endswith("after\n")
        page.write_text(page.read_text().replace("8080", "8081"))
        assert "make generate" in settings_command("--check", page).stderr

    def test_a_page_without_markers_is_a_fault(self, tmp_path):
        page = tmp_path / "README.zh.md"
        page.write_text("nothing")
        assert settings_command("--write", page).returncode == 1

    def test_without_options_it_prints(self):
        assert settings_command().stdout == reference.table()


def settings_command(*args):
    return gateway_command("settings", *args)
