"""Ctrl-C in a command, with commands of a few lines."""

import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import sys, time
from triptych import interrupts

def dawdle():
    # In short naps: a signal just before one is seen after it.
    for _ in range(600):
        time.sleep(0.1)

interrupts.end_at_once(code=int(sys.argv[2]))
print("importing", flush=True)
if sys.argv[1] == "importing":
    dawdle()

def tidy():
    print("tidying", flush=True)
    if sys.argv[1] in ("tidying", "tidying twice"):
        dawdle()

def work():
    try:
        print("working", flush=True)
        dawdle()
    finally:
        try:
            tidy()
        finally:
            print("tidy", flush=True)
            if sys.argv[1] == "tidying twice":
                dawdle()
            if sys.argv[1] == "another error":
                raise OSError("the connection is closed")

interrupts.run(work, code=int(sys.argv[2]))
"""


LOST = """
import signal, time
from triptych import interrupts

class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)

def work():
    Dying()
    for _ in range(600):
        time.sleep(0.1)

interrupts.run(work)
"""


def test_ctrl_c_where_nothing_can_be_raised_comes_a_moment_later():
    command = [sys.executable, "-c", LOST]
    run = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("code", [130, 0])
@pytest.mark.parametrize(
    ("how", "interrupted_at"),
    [
        ("importing", ["importing"]),
        ("working", ["working"]),
        ("another error", ["working"]),
        ("tidying", ["working", "tidying"]),
        ("tidying twice", ["working", "tidying", "tidy"]),
    ],
)
def test_ctrl_c_gives_one_line_and_the_exit_code_whenever_it_comes(how, interrupted_at, code):
    command = [sys.executable, "-c", COMMAND, how, str(code)]
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = ""
        for where in interrupted_at:
            while not said.endswith(f"{where}\n"):
                said += process.stdout.readline()
            process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert errors == "interrupted\n"
    assert process.returncode == code
    assert ("tidy\n" in said + rest) == (how != "importing")
    assert time.monotonic() - begun < 30


def test_what_is_not_interrupted_is_left_as_it_is():
    command = """
import signal, sys
from triptych import interrupts
before = signal.getsignal(signal.SIGINT)
assert interrupts.run(lambda: 7) == 7
assert signal.getsignal(signal.SIGINT) is before
interrupts.run(lambda: 1 / 0)
"""
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert "ZeroDivisionError" in run.stderr
    assert run.returncode == 1
