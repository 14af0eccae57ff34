"""Ctrl-C while `make run`, `make serve`, `make web` start and work, and while Triton dies."""

import signal
import time
from pathlib import Path

import pytest

from tests.server.terminal import CODES, Terminal, command, make, nothing_left, quick

__all__ = ["quick"]


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


@pytest.mark.parametrize("working", ["server: starting", "/20 ["])
def test_make_run_at_ctrl_c_has_one_line_and_does_not_succeed(working, tmp_path):
    with nothing_left():
        terminal = Terminal(*make("run", f"OUTPUT={tmp_path / 'out.png'}"))
        terminal.read_until(working)
        terminal.ctrl_c()
        assert terminal.end() == -signal.SIGINT, terminal.shown
    assert terminal.after_ctrl_c()[-1].strip().endswith("interrupted"), terminal.shown
    assert "make: " not in terminal.shown
