"""What is known before a server starts: its flags, and what would make it fail."""

import os
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from triptych import launcher
from triptych.ipc import shared_memory
from triptych.server import Unfit, embedded, flags, installed, preflight, python


def test_flags_in_both_spellings_the_last_one_counts():
    given = ["--http-port=1", "--log-verbose", "2", "--http-port", "3", "--http-portal=4"]
    assert flags.values(given, "--http-port") == ["1", "3"]
    assert flags.value(given, "--http-port") == "3"
    assert flags.value(given, "--grpc-port", "8001") == "8001"
    assert flags.without(given, "--http-port") == ["--log-verbose", "2", "--http-portal=4"]


def test_defaults_give_way_to_what_is_given():
    assert flags.with_defaults(["--grpc-port", "1"], grpc_port="2", http_address="a") == [
        *("--grpc-port", "1", "--http-address=a"),
    ]


@pytest.fixture
def triton(tmp_path):
    """A folder like the one in nvidia-pytriton."""
    for version in {"3.8", "3.13", python.name()}:
        stub = tmp_path / "python_backend_stubs" / version / "triton_python_backend_stub"
        stub.parent.mkdir(parents=True)
        stub.touch()
    return tmp_path


def test_this_python_will_do(triton):
    embedded.check(triton)
    python.check()


def test_a_python_without_a_stub(triton):
    (triton / "python_backend_stubs" / python.name() / "triton_python_backend_stub").unlink()
    (triton / "python_backend_stubs" / python.name()).rmdir()
    with pytest.raises(Unfit, match=r"has no Triton stub: use Python 3\.8 to 3\.13"):
        embedded.check(triton)


def test_numpy_2(triton, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda package: "2.1.3")
    with pytest.raises(Unfit, match=r"NumPy 2\.1\.3 .*: pip install 'numpy<2'"):
        embedded.check(triton)


def test_no_libpython(monkeypatch, tmp_path):
    def nowhere(library):
        raise OSError(library)

    monkeypatch.setattr(python.sysconfig, "get_config_vars", lambda *names: [str(tmp_path)] * 3)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(python.ctypes, "CDLL", nowhere)
    with pytest.raises(Unfit, match=r"has no libpython3.*: apt-get install libpython3") as caught:
        python.shared_library()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["lib", "usr/lib/x86_64-linux-gnu"])
def test_libpython_where_pythons_have_it(monkeypatch, tmp_path, folder):
    library = tmp_path / folder / f"libpython{python.name()}.so.1.0"
    library.parent.mkdir(parents=True)
    library.touch()
    libdir = str(tmp_path / "usr/lib")
    found = [libdir, "x86_64-linux-gnu", None]
    monkeypatch.setattr(python.sysconfig, "get_config_vars", lambda *names: found)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    assert python.shared_library() == library


@pytest.mark.parametrize(
    ("version", "libc", "modules", "says"),
    [
        ((3, 10), ("glibc", "2.36"), True, "Python 3.11 or 3.12 is needed"),
        ((3, 11), ("glibc", "2.31"), True, "glibc 2.31: Triton needs glibc 2.35"),
        ((3, 12), ("", ""), True, "no glibc : Triton needs glibc 2.35"),
        ((3, 12), ("glibc", "2.36"), False, "makes no environments: apt-get install python3"),
    ],
)
def test_pythons_unfit_for_setup(monkeypatch, version, libc, modules, says):
    version_info = type("Version", (tuple,), {"major": 3, "minor": version[1]})(version)
    monkeypatch.setattr(python, "sys", SimpleNamespace(version_info=version_info))
    monkeypatch.setattr(python.platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(python.util, "find_spec", lambda name: modules or None)
    with pytest.raises(Unfit, match=says):
        python.check()


def test_too_little_shared_memory(monkeypatch):
    monkeypatch.setattr(
        preflight.shutil, "disk_usage", lambda folder: SimpleNamespace(free=8 * 2**20)
    )
    with pytest.raises(Unfit, match=r"/dev/shm has 8 MiB free of the \d+ needed: .*--shm-size"):
        preflight.check_shared_memory([])


def test_ports_that_are_no_ports():
    with pytest.raises(Unfit, match="--http-port=many: allowed: 0 to 65535"):
        preflight.check_ports(["--http-port=many"], "127.0.0.1")
    with pytest.raises(Unfit, match="--http-port=²: allowed: 0 to 65535"):
        preflight.check_ports(["--http-port=²"], "127.0.0.1")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--metrics-port=8000"], "--http-port and --metrics-port are both 8000: give each"),
        (["--grpc-port", "8000"], "--http-port and --grpc-port are both 8000: give each"),
        (["--grpc-port=9", "--metrics-port=009"], "--grpc-port and --metrics-port are both 9"),
    ],
)
def test_two_ports_of_one_number(given, says):
    with pytest.raises(Unfit, match=says):
        preflight.check_ports(given, "127.0.0.1")
    preflight.check_ports_differ([*given, "--allow-metrics=false", "--grpc-port=8001"])


def test_an_address_and_a_port_that_cannot_be_listened_on_name_what_gives_them():
    with pytest.raises(Unfit, match=r"^--http-address=192.0.2.1, port 8000: Cannot assign"):
        preflight.check_ports(["--http-address=192.0.2.1"], "127.0.0.1")
    with pytest.raises(Unfit, match=r"^--grpc-port=8001: Cannot assign"):
        preflight.check_port("grpc", "192.0.2.1", 8001, "--grpc-port")


def test_ports_that_will_not_be_used_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(preflight.socket, "socket", None)
    preflight.check_ports([f"--allow-{name}=false" for name in preflight.PORTS], "127.0.0.1")


def test_own_console_script_is_not_fastdeploy(monkeypatch, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, text in ((ours, "from triptych.launcher import main"), (theirs, "\x7fELF")):
        folder.mkdir()
        (folder / "fastdeployserver").write_text(text)
        (folder / "fastdeployserver").chmod(0o755)
    monkeypatch.setenv("PATH", f"{ours}{os.pathsep}{theirs}")
    assert installed.find("fastdeployserver") == theirs / "fastdeployserver"
    monkeypatch.setenv("PATH", str(ours))
    assert installed.find("fastdeployserver") is None


@pytest.mark.parametrize(("version", "apart"), [("2.39.0", False), ("2.51.0", True), ("3.0", True)])
def test_tritons_that_keep_names_of_shared_memory_apart(tmp_path, version, apart):
    server = tmp_path / "bin" / "tritonserver"
    assert not installed.keeps_names_apart(server)
    (tmp_path / "TRITON_VERSION").write_text(f"{version}\n")
    assert installed.keeps_names_apart(server) == apart


def test_no_triton_at_all(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "folder", lambda: None)
    repository = Path(__file__).resolve().parents[2] / "model_repository"
    assert launcher.main([f"--model-repository={repository}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fastdeployserver: no Triton: ")
    assert "pip install 'triptych[serve]'" in said


def test_what_dead_runs_left_is_removed_and_nobody_elses(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    living = shared_memory.Run(tmp_path)
    (tmp_path / f"{living.prefix}region").touch()
    for name in ("lock", "region-1", "region-2"):
        (tmp_path / f"triptych_00112233_{name}").touch()
    (tmp_path / "triptych-00112233").mkdir()
    others = {"other", "triptych_*_lock", "triptych_?_lock", "triptych__lock"}
    others |= {"triptych_4455667_lock", "triptych_4455667g_lock", "triptych_44556677_x_lock"}
    for name in others:
        (tmp_path / name).touch()
    shared_memory.remove_dead(tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    own = {f"{living.prefix}lock", f"{living.prefix}region", living.folder.name}
    assert kept == {*own, *others}
    living.remove()
    assert {path.name for path in tmp_path.iterdir()} == others


def test_what_cannot_be_removed_is_left_and_all_else_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    (tmp_path / "triptych_a_folder").mkdir()
    for name in ("triptych_a_1", "triptych_a_[1]", "triptych_b_1"):
        (tmp_path / name).touch()
    shared_memory.remove("triptych_a_")
    assert {path.name for path in tmp_path.iterdir()} == {"triptych_a_folder", "triptych_b_1"}


SERVER = """#!/bin/sh
echo "a wrapper, $$"
case "$*" in
    *--no-such*) echo "$0: unrecognized option '--no-such=1'" >&2;;
    *--log-verbose=much*) printf 'Bad option: "--log-verbose".\\n Got much\\n' >&2;;
esac
printf 'Usage: [options]\\n  --help\\n' >&2
exit 1
"""


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--no-such=1", "unrecognized option '--no-such=1'"),
        ("--log-verbose=much", 'Bad option: "--log-verbose". Got much'),
        ("--log-verbose=1", None),
    ],
)
def test_a_flag_that_the_server_refuses_is_told_in_its_words(tmp_path, flag, says):
    server = tmp_path / "tritonserver"
    server.write_text(SERVER)
    server.chmod(0o755)
    if says is None:
        installed.check_flags([str(server), flag], dict(os.environ))
        return
    with pytest.raises(Unfit) as caught:
        installed.check_flags([str(server), flag], dict(os.environ))
    assert str(caught.value).endswith(says) and "\n" not in str(caught.value)
