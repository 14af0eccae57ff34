"""`make run`, `make serve` and `make web`: what they refuse, and how they end at Ctrl-C."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gateway.running import wait_for
from tests.server.processes import command_line, descendants
from tests.server.terminal import (
    CHECKOUT,
    CODES,
    WEB,
    Terminal,
    command,
    make,
    nothing_left,
    quick,
)
from triptych.server.running import free_ports

__all__ = ["quick"]


@pytest.mark.parametrize(
    ("typed", "flag", "told"),
    [
        ((sys.executable, *WEB), "--port", "make web: port {} (page)"),
        ((sys.executable, *WEB), "--grpc-port", "make web: port {} (grpc)"),
        (make("web"), "--port", "make web: port {} (page)"),
        (make("serve"), "--http-port", "fastdeployserver: port {} (http)"),
    ],
)
def test_a_taken_port_is_told_before_anything_starts(typed, flag, told, quick):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own = f"{flag}={port}"
        if "serve" in typed:
            grpc, metrics = free_ports(2)
            own += f" --grpc-port={grpc} --metrics-port={metrics} --http-address=127.0.0.1"
        by_make = typed[0].endswith("make")
        words = [*typed, f"FLAGS={own}"] if by_make else [*typed, own]
        run = subprocess.run(
            words, cwd=CHECKOUT, capture_output=True, text=True, timeout=20, check=False
        )
    assert run.returncode != 0
    pass_it = f'type make {typed[-1]} FLAGS="{flag}=N"' if by_make else f"pass {flag}=N"
    told = told.format(port) + f" is in use on 127.0.0.1: stop what uses it, or {pass_it} with a"
    shown = (run.stdout + run.stderr).replace("server: starting\n", "")  # make serve says so
    assert shown.startswith(told), shown
    assert [line for line in shown.splitlines()[1:] if not line.startswith("make: ")] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("web.py", "--prot", "1"), "unrecognized arguments: --prot 1"),
        (("web.py", "--port", "65536"), "65536 is not from 0 to 65535"),
        (("web.py", "--port=0", "--grpc-port=0", "--api-key-file=/none"), "/none"),
        (("run.py", "-o", "/nonexistent/x.png"), "there is no folder /nonexistent"),
        (("run.py", "-o", "FOLDER.png"), "FOLDER.png cannot be written"),
    ],
)
def test_what_cannot_work_is_told_before_the_server_starts(words, told, tmp_path):
    (tmp_path / "FOLDER.png").mkdir()
    command = [sys.executable, CHECKOUT / "scripts" / words[0], *words[1:]]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 20}
    run = subprocess.run(command, **options, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert told in run.stderr.splitlines()[-1]


def tritons(pid):
    """The stand-ins for Triton that a process has running as servers."""
    lines = {each: command_line(each) for each in descendants(pid)}
    return [
        each for each, line in lines.items() if "/bin/tritonserver" in line and "--help" not in line
    ]


def test_web_says_that_its_server_starts_again_and_ends_with_it(quick):
    with nothing_left():
        terminal = Terminal(sys.executable, *WEB)
        terminal.read_until("triptych gateway: the page")
        os.kill(tritons(terminal.pid)[0], signal.SIGKILL)
        terminal.read_until("fastdeployserver: starting it again")
        assert "fastdeployserver: the server died (SIGKILL)" in terminal.shown
        wait_for(lambda: tritons(terminal.pid))
        Path(f"{quick}.fails").touch()
        with contextlib.suppress(ProcessLookupError):  # it may have seen that
            os.kill(tritons(terminal.pid)[0], signal.SIGKILL)
        assert terminal.end() == 1, terminal.shown
    *_, why, end = terminal.shown.splitlines()
    assert why == "error: creating server: no models"
    log = Path(end.removeprefix("server: ended with code 1; its whole log: "))
    assert "starting it again" in log.read_text()
    shutil.rmtree(log.parent)


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
    (line,) = terminal.after_ctrl_c()
    assert re.match(r"(fastdeployserver|triptych gateway): ending, ", line)


def test_make_hands_flags_on_and_what_it_runs_ends_at_ctrl_c(tmp_path, quick):
    (_, _, _, _, *flags), working = command("serve", tmp_path)
    with nothing_left():
        terminal = Terminal(*make("serve", f"FLAGS={' '.join(flags)}"))
        terminal.read_until(working)
        terminal.ctrl_c()
        assert terminal.end() in (0, -signal.SIGINT)  # make ends by the signal itself
    lines = [line for line in terminal.after_ctrl_c() if not line.startswith("make: ")]
    assert len(lines) == 1 and lines[0].startswith("fastdeployserver: ending, "), terminal.shown


@pytest.mark.parametrize(
    "script",
    [
        path.relative_to(CHECKOUT)
        for folder in ("scripts", "benchmarks")
        for path in sorted((CHECKOUT / folder).glob("*.py"))
        if "ArgumentParser(" in path.read_text()
    ],
    ids=str,
)
def test_help_is_shown_and_nothing_is_done(script):
    command = [sys.executable, str(CHECKOUT / script), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "No module named" in shown.stderr:
        pytest.skip(shown.stderr.splitlines()[-1])
    assert shown.returncode == 0 and shown.stdout.startswith(f"usage: {script.name}"), shown
