from __future__ import annotations

from serving.engine import preflight


def test_this_machine_has_what_python_itself_links():
    assert preflight.loads("libc.so.6")
    assert not preflight.loads("libnowhere.so.9")


def test_missing_libraries_become_one_line_with_the_command():
    missing = {"libnuma.so.1", "libgcc_s.so.1"}
    (line,) = preflight.missing_libraries(lambda library: library not in missing)
    assert line == (
        "the engine needs libnuma.so.1, libgcc_s.so.1: apt-get install libnuma1 libgcc-s1 (on Debian and Ubuntu, as root)"
    )
    assert preflight.missing_libraries(lambda _: True) == []


def test_an_old_cpu_is_told_before_the_engine_dies_of_it():
    assert preflight.cpu_faults("x86_64", preflight.cpu_flags("processor\t: 0\nflags\t\t: fpu sse4_2\n"))
    assert preflight.cpu_faults("x86_64", preflight.cpu_flags("flags : fpu avx2\nflags : fpu\n")) == []
    assert preflight.cpu_faults("aarch64", preflight.cpu_flags("Features : asimd\n")) == []


def test_all_faults_of_the_machine_are_said(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : fpu\n")
    monkeypatch.setattr(preflight.platform, "machine", lambda: "x86_64")
    assert any("AVX2" in line for line in preflight.faults(tmp_path / "cpuinfo"))
