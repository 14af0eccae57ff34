"""`make run`, `make serve` and `make web`: what they do, and how they end at Ctrl-C."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from triptych.server.running import free_ports

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "scripts"


def test_run_draws_a_picture(tmp_path):
    command = [sys.executable, CHECKOUT / "scripts" / "run.py", "a red circle", "-o", "out.png"]
    run = subprocess.run(
        [*command, "--steps", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert re.match(r"server: ready after [\d.]+ s\nout\.png: \d+x\d+, seed \d+, ", run.stdout)
    assert Image.open(tmp_path / "out.png").format == "PNG"


def test_web_serves_the_page_until_it_is_told_to_end():
    command = [sys.executable, CHECKOUT / "scripts" / "web.py", "--port", "0"]
    env = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as web:
        assert web.stdout.readline().startswith("server: ready after ")
        url = web.stdout.readline().split()[-1]
        assert httpx.get(f"{url}healthz").status_code == 200
        asked = {"prompt": "x", "num_inference_steps": 1, "size": "64x64"}
        assert httpx.post(f"{url}v1/images/generations", json=asked, timeout=60).status_code == 200
        web.send_signal(signal.SIGTERM)
        assert web.wait(60) == 0


class Terminal:
    """A command on a terminal of its own, where Ctrl-C reaches all of its processes."""

    def __init__(self, *command, cwd=None):
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(cwd or CHECKOUT)
            os.environ.pop("DISPLAY", None)
            os.execv(command[0], [str(word) for word in command])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        self.shown = ""

    def read_until(self, text, seconds=60):
        """Read what is shown until `text` is, or to the command's end with None."""
        deadline = time.monotonic() + seconds
        while text is None or text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            try:
                self.shown += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:  # its end
                assert text is None, self.shown
                return

    def ctrl_c(self):
        os.write(self._terminal, b"\x03")

    def end(self):
        """The exit code, when it has ended; -N if signal N killed it."""
        self.read_until(None)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


PORTS = ("http", "grpc", "metrics")


def command(name, tmp_path):
    """What make runs, on ports of its own, and what it shows once it works."""
    if name == "run":
        arguments = ("a red circle", "--steps", "200", "-o", tmp_path / "out.png")
        return (sys.executable, SCRIPTS / "run.py", *arguments), "/200 ["
    if name == "web":
        return (sys.executable, SCRIPTS / "web.py", "--port", "0"), "triptych gateway: http"
    flags = [f"--{one}-port={port}" for one, port in zip(PORTS, free_ports(3))]
    repository = f"--model-repository={CHECKOUT / 'model_repository'}"
    server = (sys.executable, "-m", "triptych.launcher", repository, *flags)
    return server, "Started Metrics Service"


CODES = {"run": 130, "web": 0, "serve": 0}


@contextlib.contextmanager
def nothing_left():
    """No folder of a run, no shared memory and no process are left of what is started here."""

    def there():
        folders = Path("/dev/shm").glob("triptych_*_lock")
        return {path.name for path in folders}

    before = there()
    yield
    deadline = time.monotonic() + 20
    while there() - before:
        assert time.monotonic() < deadline, there() - before
        time.sleep(0.1)


TRITON = """#!PYTHON
import os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if sys.argv[-1] == "--help":
    sys.exit(1)
if os.path.exists(f"{__file__}.dies"):
    os.kill(os.getpid(), signal.SIGSEGV)
flags = dict(flag.split("=", 1) for flag in sys.argv[1:])
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
time.sleep(1)

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

for name in ("--http-port", "--metrics-port"):
    server = ThreadingHTTPServer(("127.0.0.1", int(flags[name])), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("Started Metrics Service", flush=True)
while not ended.wait(0.1):
    pass
"""
"""A server of a few lines that is found on PATH, starts within a second and ends at SIGTERM."""


@pytest.fixture
def quick(tmp_path, monkeypatch):
    (tmp_path / "backends").mkdir()
    path = tmp_path / "bin" / "tritonserver"
    path.parent.mkdir()
    path.write_text(TRITON.replace("PYTHON", sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


@pytest.mark.parametrize("name", CODES)
def test_ctrl_c_at_work(name, tmp_path):
    words, working = command(name, tmp_path)
    with nothing_left():
        terminal = Terminal(*words)
        terminal.read_until(working)
        terminal.ctrl_c()
        assert terminal.end() == CODES[name], terminal.shown
    assert "Traceback" not in terminal.shown
    assert terminal.shown.count("interrupted") == (name == "run")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ["web", "serve"])
def test_ctrl_c_once_and_twice(name, times, tmp_path, quick):
    words, working = command(name, tmp_path)
    with nothing_left():
        terminal = Terminal(*words)
        terminal.read_until(working)
        for _ in range(times):
            terminal.ctrl_c()
            time.sleep(0.1)
        assert terminal.end() == CODES[name], terminal.shown
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("seconds", [0.7, 1.1, 1.5])
@pytest.mark.parametrize("name", CODES)
def test_ctrl_c_on_the_way_there(name, seconds, times, tmp_path, quick):
    """It takes a part of a second to import what is needed, then one to start the server."""
    words, _ = command(name, tmp_path)
    with nothing_left():
        terminal = Terminal(*words)
        time.sleep(seconds)
        for _ in range(times):
            terminal.ctrl_c()
            time.sleep(0.05)
        assert terminal.end() == CODES[name], terminal.shown
    assert "Traceback" not in terminal.shown, terminal.shown
    assert terminal.shown.count("interrupted") <= 1


@pytest.mark.parametrize("seconds", [0, 0.5, 1.5, 3])
def test_ctrl_c_while_the_server_dies_again_and_again(seconds, tmp_path, quick):
    Path(f"{quick}.dies").touch()
    words, _ = command("serve", tmp_path)
    with nothing_left():
        terminal = Terminal(*words)
        terminal.read_until("the server died (SIGSEGV)")
        time.sleep(seconds)
        terminal.ctrl_c()
        assert terminal.end() == 0, terminal.shown
    assert "Traceback" not in terminal.shown


def test_make_hands_flags_on_and_what_it_runs_ends_at_ctrl_c(tmp_path, quick):
    (_, _, _, _, *flags), working = command("serve", tmp_path)
    assume = ("--assume-old=.venv/.set-up", f"VENV={sys.prefix}")
    with nothing_left():
        terminal = Terminal("/usr/bin/make", *assume, "serve", f"FLAGS={' '.join(flags)}")
        terminal.read_until(working)
        terminal.ctrl_c()
        assert terminal.end() in (0, -signal.SIGINT)  # make ends by the signal itself
    assert "***" not in terminal.shown
    assert "Traceback" not in terminal.shown
