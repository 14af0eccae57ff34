"""What `make` runs, on a terminal of its own, and a Triton of a few lines that starts at once."""

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.server.processes import SHARED_MEMORY
from triptych.server.running import free_ports

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "scripts"
WEB = (SCRIPTS / "web.py", "--port", "0", "--grpc-port", "0")


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

    def after_ctrl_c(self):
        """The lines that are shown then."""
        shown = self.shown.partition("^C")[2].replace("^C", "")
        return [line for line in shown.splitlines() if line]


PORTS = ("http", "grpc", "metrics")


def command(name, tmp_path):
    """What make runs, on ports of its own, and what it shows once it works."""
    if name == "run":
        arguments = ("a red circle", "--steps", "200", "-o", tmp_path / "out.png")
        return (sys.executable, SCRIPTS / "run.py", *arguments), "/200 ["
    if name == "web":
        return (sys.executable, *WEB), "triptych gateway: the page"
    flags = [f"--{one}-port={port}" for one, port in zip(PORTS, free_ports(3))]
    repository = f"--model-repository={CHECKOUT / 'model_repository'}"
    server = (sys.executable, "-m", "triptych.launcher", repository, *flags)
    return server, "Started Metrics Service"


CODES = {"run": 130, "web": 0, "serve": 0}


def make(*words):
    """The command that runs make as it is typed, with this environment in the place of .venv."""
    return ("/usr/bin/make", f"--assume-old={sys.prefix}/.set-up", f"VENV={sys.prefix}", *words)


@contextlib.contextmanager
def nothing_left():
    """No shared memory is left of the servers that are started here, so no process holds it."""

    def there():  # the runs, by what their names begin with
        return {path.name[: len("triptych_01234567")] for path in SHARED_MEMORY.glob("triptych_*")}

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
if os.path.exists(f"{__file__}.fails"):
    sys.exit("error: creating server: no models")
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
