"""The launcher's watch over a server, with processes of a few lines in place of Triton."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych.ipc.activity import SETTLED, VARIABLE, Activity, Stages
from triptych.server import Unfit, embedded, flags, restricted
from triptych.server.model_processes import ModelProcesses

SERVER = """
import subprocess, sys, time
command = ["/b/triton_python_backend_stub", "REPOSITORY/unet_loop/1/model.py"]
model = subprocess.Popen(command, executable=sys.executable)
if sys.argv[1] == "die":
    import os, signal
    os.kill(os.getpid(), signal.SIGSEGV)
print("serving", flush=True)
time.sleep(60)
"""

LAUNCHER = """
import os, sys
from pathlib import Path
from triptych.ipc.activity import Stages
from triptych.server.supervise import Supervisor
supervisor = Supervisor(exit_timeout=float(sys.argv[2]))
stages = Stages(Path(sys.argv[1], "activity"))
ended = supervisor.run([sys.executable, *sys.argv[3:]], dict(os.environ), 0, stages)
print(ended, flush=True)
"""


@pytest.fixture
def model_py(tmp_path):
    path = tmp_path / "unet_loop" / "1" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text("import time\ntime.sleep(60)\n")
    return path


@pytest.fixture
def launched(tmp_path, model_py):
    """`launched(how)`: a launcher over a server that goes on, or dies."""
    server = tmp_path / "server.py"
    server.write_text(SERVER.replace("REPOSITORY", str(tmp_path)))
    started = []

    def start(how="live", exit_timeout=60, stderr=subprocess.STDOUT):
        command = [
            sys.executable,
            "-c",
            LAUNCHER,
            str(tmp_path),
            str(exit_timeout),
            str(server),
            how,
        ]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def descend(launcher):
    """The server and its model's process, when they are there."""
    assert launcher.stdout.readline() == "serving\n"
    (server,) = children(launcher.pid)
    (model,) = children(server)
    return server, model


def test_a_model_process_that_dies_ends_the_server_and_is_named(launched):
    launcher = launched()
    server, model = descend(launcher)
    time.sleep(0.7)  # the launcher has seen it live
    os.kill(model, signal.SIGKILL)
    output = launcher.communicate(timeout=20)[0]
    assert "fastdeployserver: the process of unet_loop (SIGKILL) died" in output
    assert "Ended(code=143, fault=True)" in output
    assert not Path("/proc", str(server)).exists()


def test_a_server_that_dies_takes_its_models_along(launched):
    output = launched("die").communicate(timeout=20)[0]
    assert "fastdeployserver: the server died (SIGSEGV)" in output
    assert f"Ended(code={128 + signal.SIGSEGV}, fault=True)" in output


def test_a_signal_waits_for_the_work_and_no_longer_than_the_exit_timeout(launched, tmp_path):
    # With no work it does not wait for the exit timeout, or the launcher would not end in time.
    for at_work, exit_timeout, least in ((0, 60, 0), (1, 2, 1.9)):
        launcher = launched(exit_timeout=exit_timeout)
        _, model = descend(launcher)
        os.environ[VARIABLE] = str(tmp_path / "activity")
        try:
            work = Activity("unet_loop")
        finally:
            del os.environ[VARIABLE]
        if at_work:
            work.set(at_work)
        begun = time.monotonic()
        launcher.send_signal(signal.SIGTERM)
        output = launcher.communicate(timeout=20)[0]
        assert time.monotonic() - begun >= least
        assert "Ended(code=0, fault=False)" in output and "Ctrl-C" not in output
        assert work.server_is_ending
        assert not Path("/proc", str(model)).exists()
        for path in (tmp_path / "activity").iterdir():
            path.unlink()
        (tmp_path / "activity").rmdir()


def test_ctrl_c_waits_for_the_work_also_where_nobody_reads_what_it_says(launched, tmp_path):
    """As in `make serve 2>&1 | tee log`, where Ctrl-C ends tee too."""
    reads, writes = os.pipe()
    os.close(reads)
    launcher = launched(exit_timeout=2, stderr=writes)
    os.close(writes)
    descend(launcher)
    os.environ[VARIABLE] = str(tmp_path / "activity")
    try:
        work = Activity("unet_loop")
    finally:
        del os.environ[VARIABLE]
    work.set(1)
    begun = time.monotonic()
    launcher.send_signal(signal.SIGINT)
    output = launcher.communicate(timeout=20)[0]
    assert "Ended(code=0, fault=False)" in output
    assert time.monotonic() - begun >= 1.9 and work.server_is_ending


RESTARTS = """
import os, shutil, sys
from pathlib import Path
from triptych.ipc.activity import Stages
from triptych.server.supervise import Supervisor
supervisor = Supervisor(exit_timeout=2)
folder = Path(sys.argv[1], "activity")
crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
print(supervisor.run([sys.executable, "-c", crash], dict(os.environ), 0, Stages(folder)))
shutil.rmtree(folder)
print("pausing", flush=True)
print(supervisor.pause(60))
print(supervisor.run([sys.executable, "-c", ""], dict(os.environ), 0, Stages(folder)))
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_between_two_restarts_ends_it_in_order(tmp_path, signals):
    command = [sys.executable, "-c", RESTARTS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        while launcher.stdout.readline() != "pausing\n":
            assert launcher.poll() is None
        for _ in range(signals):
            launcher.send_signal(signal.SIGTERM)
        assert launcher.communicate(timeout=20)[0] == "False\nEnded(code=0, fault=False)\n"
    assert launcher.returncode == 0


@pytest.fixture
def one_model(model_py):
    """The models' processes of this one, and the only one of them."""
    models = ModelProcesses(os.getpid())
    command = ["/b/triton_python_backend_stub", str(model_py)]
    with subprocess.Popen(command, executable=sys.executable) as process:
        time.sleep(0.1)
        assert models.dead() is None
        process.kill()
        deadline = time.monotonic() + 5
        while "\nState:\tZ" not in Path(f"/proc/{process.pid}/status").read_text():
            assert time.monotonic() < deadline
        yield models, process


def test_a_model_that_stays_dead_is_named_at_the_second_look(one_model):
    models, _ = one_model
    assert [models.dead(), models.dead()] == [None, "unet_loop (SIGKILL)"]


def test_a_model_that_the_server_ends_itself_is_no_death(one_model):
    models, process = one_model
    assert models.dead() is None
    process.wait()
    assert [models.dead(), models.dead()] == [None, None]


def test_a_model_is_found_and_its_death_seen_when_few_looks_search(model_py, monkeypatch):
    monkeypatch.setattr(ModelProcesses, "SEARCHES", 1)
    models = ModelProcesses(os.getpid())
    assert models.dead() is None
    command = ["/b/triton_python_backend_stub", str(model_py)]
    with subprocess.Popen(command, executable=sys.executable) as process:
        time.sleep(0.1)
        assert not any(models.dead() for _ in range(ModelProcesses.BETWEEN))
        process.kill()
        time.sleep(0.1)
        assert [models.dead(), models.dead()] == [None, "unet_loop (SIGKILL)"]


def test_no_other_process_than_a_models_counts():
    models = ModelProcesses(os.getpid())
    other = subprocess.Popen(["/bin/sleep", "60"])
    assert models.dead() is None
    other.kill()
    time.sleep(0.1)
    assert [models.dead(), models.dead(), models.dead()] == [None] * 3
    other.wait()


def test_stages_tell_of_their_work(tmp_path, monkeypatch):
    stages = Stages(tmp_path / "activity")
    assert stages.idle and not stages.worked
    monkeypatch.setenv(VARIABLE, str(stages.folder))
    first, second = Activity("tokenizer"), Activity("unet_loop")
    assert stages.idle and not stages.worked
    with first:
        assert not stages.idle
    second.set(3)
    time.sleep(SETTLED + 0.05)
    assert not stages.idle
    second.set(0)
    assert not stages.idle
    time.sleep(SETTLED + 0.05)
    assert stages.idle and stages.worked
    assert not first.server_is_ending
    stages.end()
    assert first.server_is_ending


def test_the_work_of_a_dead_process_is_none(tmp_path, monkeypatch):
    stages = Stages(tmp_path / "activity")
    monkeypatch.setenv(VARIABLE, str(stages.folder))
    with Activity("unet"):
        (path,) = stages.folder.iterdir()
        path.rename(path.with_name("unet-4194305"))  # more than any process has
        assert stages.idle and stages.worked


def test_a_channels_socket_beside_the_stages_files_is_no_stage(tmp_path, monkeypatch):
    stages = Stages(tmp_path / "activity")
    monkeypatch.setenv(VARIABLE, str(stages.folder))
    with socket.socket(socket.AF_UNIX) as channel, Activity("sd-turbo.unet"):
        channel.bind(str(stages.folder / "sd-turbo.unet.123.channel"))
        assert not stages.idle and stages.worked


def test_a_stage_without_a_launcher_tells_nobody(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with Activity("tokenizer") as nothing:
        assert nothing is None
    assert not Activity("tokenizer").server_is_ending


def test_apis_are_restricted_with_a_random_secret_or_the_given_one(monkeypatch):
    monkeypatch.delenv(restricted.VARIABLE, raising=False)
    one, other = (restricted.with_restrictions([], restricted.FLAGS) for _ in range(2))
    assert one != other
    assert [flag.split("=")[0] for flag in one] == list(restricted.FLAGS)
    monkeypatch.setenv(restricted.VARIABLE, "mine")
    apis = "shared-memory,model-repository,trace,logging:triptych-secret=mine"
    assert restricted.with_restrictions(["a"], restricted.FLAGS[:1]) == [
        *("a", f"--http-restricted-api={apis}"),
    ]


def test_restrictions_of_ones_own_stay():
    own = ["--http-restricted-api=health:a=b"]
    made = restricted.with_restrictions(own, restricted.FLAGS)
    assert made[:1] == own
    assert [flag.split("=")[0] for flag in made[1:]] == ["--grpc-restricted-protocol"]


def test_flags_that_are_true_or_false():
    assert flags.boolean([], "--restart", True)
    assert not flags.boolean(["--restart=False"], "--restart", True)
    assert flags.boolean(["--restart", "1"], "--restart", False)
    with pytest.raises(Unfit, match=r"^--restart=maybe: allowed: true, false$"):
        flags.boolean(["--restart=maybe"], "--restart", True)


def test_stacks_are_as_deep_as_the_system_lets_them(monkeypatch):
    set_to = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: set_to.append(limits))
    for hard, expected in ((resource.RLIM_INFINITY, embedded.STACK), (2**24, 2**24)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, hard=hard: (2**23, hard))
        embedded.deepen_stacks()
        assert set_to.pop() == (expected, hard)
