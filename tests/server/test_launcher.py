"""Starting and ending: what is said when it cannot start, and what is left when it ends."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.server.processes import SHARED_MEMORY, command_line
from triptych.server.running import RunningServer, free_ports


@pytest.fixture(scope="module")
def small_repository(tmp_path_factory):
    """A repository with one model, for servers that only start and end."""
    folder = tmp_path_factory.mktemp("repository")
    model = Path(__file__).resolve().parents[2] / "model_repository" / "image_encoder"
    shutil.copytree(model, folder / "image_encoder", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def fastdeployserver(*flags, env=None):
    """The command, run until it ends by itself."""
    command = [sys.executable, "-m", "triptych.launcher", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def one_line(run):
    """What a server that cannot start says."""
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    return run.stderr


def processes_of(server):
    """The server's processes, by what they were started with."""
    marks = (f"--http-port={server.http.split(':')[1]}", f"triptych-{server.token}/")
    lines = {pid: command_line(pid) for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))}
    return [pid for pid, line in lines.items() if any(mark in line for mark in marks)]


def regions(token):
    return sorted(path.name for path in SHARED_MEMORY.glob(f"triptych_{token}*"))


@pytest.fixture
def started(small_repository, tmp_path):
    with started_from(small_repository, tmp_path / "server.log") as server:
        yield server


@contextlib.contextmanager
def started_from(repository, log, *flags):
    """A server that knows its token."""
    server = RunningServer(repository, log, *flags)
    with server:
        opened = (path.resolve() for path in Path(f"/proc/{server.process.pid}/fd").iterdir())
        (lock,) = (path for path in opened if path.parent == SHARED_MEMORY)
        server.token = lock.name.split("_")[1]
        assert len(regions(server.token)) > 1
        assert len(processes_of(server)) >= 3
        yield server


def assert_nothing_left(server):
    deadline = time.monotonic() + 15
    while processes_of(server) or regions(server.token):
        assert time.monotonic() < deadline, (processes_of(server), regions(server.token))
        time.sleep(0.05)
    assert not Path(tempfile.gettempdir(), f"triptych-{server.token}").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_code_0_and_nothing_left(started, signum):
    started.process.send_signal(signum)
    assert started.process.wait(timeout=30) == 0
    assert_nothing_left(started)


def test_a_second_signal_ends_it_at_once(small_repository, tmp_path):
    """A server whose model takes a minute to end."""
    repository = tmp_path / "repository"
    shutil.copytree(small_repository, repository)
    with (repository / "image_encoder" / "1" / "model.py").open("a") as code:
        code.write("\nimport time\nTritonPythonModel.finalize = lambda self: time.sleep(60)\n")
    with started_from(repository, tmp_path / "server.log", "--exit-timeout-secs=300") as server:
        server.process.send_signal(signal.SIGINT)
        time.sleep(3)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=30) == 0
        assert_nothing_left(server)


def test_a_killed_launcher_takes_the_server_along_and_the_next_start_cleans_up(
    started, small_repository, tmp_path
):
    started.process.kill()
    started.process.wait()
    deadline = time.monotonic() + 20
    while processes_of(started):
        assert time.monotonic() < deadline, processes_of(started)
        time.sleep(0.1)
    assert regions(started.token) == [f"triptych_{started.token}_lock"]
    with RunningServer(small_repository, tmp_path / "next.log"):
        assert_nothing_left(started)


def test_a_server_that_cannot_load_gives_its_own_code(small_repository, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(small_repository, repository)
    (repository / "image_encoder" / "1" / "model.py").write_text("raise RuntimeError('no')")
    run = fastdeployserver(f"--model-repository={repository}", *ports())
    assert run.returncode == 1
    assert "failed to load all models" in run.stderr
    token = re.search(r"/triptych-([0-9a-f]{8})/backends", run.stdout + run.stderr).group(1)
    assert not regions(token)


def ports():
    names = ("http", "grpc", "metrics")
    return [f"--{name}-port={port}" for name, port in zip(names, free_ports(3))]


def test_a_busy_port(small_repository):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        run = fastdeployserver(
            f"--model-repository={small_repository}", *ports(), f"--grpc-port={port}"
        )
    assert one_line(run) == (
        f"fastdeployserver: port {port} (grpc) is in use on 127.0.0.1:"
        " stop what uses it, or pass --grpc-port=N with a free port\n"
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--no-such-flag=1", "unrecognized option '--no-such-flag=1'"),
        ("--log-verbose=much", 'Bad option: "--log-verbose". Invalid option value. Got much'),
        ("--metrics-port=9000", "--http-port and --metrics-port are both 9000: give each its own"),
    ],
)
def test_flags_that_make_no_sense(small_repository, given, says):
    flags = [f"--model-repository={small_repository}", *ports(), "--http-port=9000", given]
    assert one_line(fastdeployserver(*flags)) == f"fastdeployserver: {says}\n"


def test_no_model_repository(tmp_path):
    assert "pass --model-repository=model_repository" in one_line(fastdeployserver())
    run = fastdeployserver(f"--model-repository={tmp_path}")
    assert f"{tmp_path} holds no MODEL/config.pbtxt" in one_line(run)


def test_it_listens_on_loopback_only_unless_told(small_repository, started, tmp_path):
    assert addresses(started) == {"127.0.0.1"}
    server = RunningServer(small_repository, tmp_path / "open.log", "--host=0.0.0.0")
    with server:
        assert addresses(server) == {"0.0.0.0"}
    said = server.log.read_text()
    assert "warning: listening on 0.0.0.0 with Triton 24.10" in said
    for hole in ("CVE-2025-23310", "-23311", "-23319", "-23320", "-23334"):
        assert hole in said


def addresses(server):
    """The addresses on which something listens at the server's ports."""
    wanted = {int(url.split(":")[1]) for url in (server.http, server.grpc, server.metrics)}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if line.split()[3] == "0A" and int(port, 16) in wanted:
            found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]))
    return found


def test_fastdeploys_own_server_comes_first(small_repository, tmp_path):
    own = tmp_path / "fastdeployserver"
    own.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    own.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = fastdeployserver(f"--model-repository={small_repository}", "--log-verbose", "1", env=env)
    assert run.returncode == 7
    assert run.stdout.startswith(f"--model-repository={small_repository} --log-verbose 1")
    odd = tmp_path / "my repo"
    odd.symlink_to(small_repository)
    everywhere = fastdeployserver(
        f"--model-repository={small_repository}", "--host=0.0.0.0", env=env
    )
    assert everywhere.returncode == 7
    assert everywhere.stdout == f"--model-repository={small_repository}\n"
    for given, says in (
        ("--host=127.0.0.1", "--host=127.0.0.1: FastDeploy's server listens on every address"),
        ("--grpc-port=8000", "--http-port and --grpc-port are both 8000"),
        (f"--model-repository={odd}", f"{odd}: allowed: a path in ASCII, without blanks"),
    ):
        run = fastdeployserver(f"--model-repository={small_repository}", given, env=env)
        assert says in one_line(run)


def test_tritonserver_on_path_gets_the_backend(small_repository, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "backends" / "python").mkdir(parents=True)
    own = tmp_path / "bin" / "tritonserver"
    own.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--help) echo Usage; exit 1;; esac\n'
        'for flag in "$@"; do case $flag in --backend-directory=*) ls ${flag#*=};; esac; done\n'
        'echo "$@"\n'
    )
    own.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    run = fastdeployserver(f"--model-repository={small_repository}", *ports(), env=env)
    assert run.returncode == 0
    assert run.stdout.split("\n")[:2] == ["fastdeploy", "python"]
    assert "shm-region-prefix-name" not in run.stdout
    (tmp_path / "TRITON_VERSION").write_text("2.60.0\n")
    run = fastdeployserver(f"--model-repository={small_repository}", *ports(), env=env)
    assert "shm-region-prefix-name=triptych_" in run.stdout
