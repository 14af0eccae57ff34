"""What is run once more: a test that failed as Triton died, and no other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest

RUNS = {}

def fails_at_first(name, tmp_path, says):
    RUNS[name] = RUNS.get(name, 0) + 1
    print(f"run {RUNS[name]} of {name}")
    (tmp_path / "server.log").write_text(f"I1126 ready\\n{says}\\n")
    assert RUNS[name] > 1, f"{name} failed"

def test_other(tmp_path):
    fails_at_first("other", tmp_path, "")

def test_killed(tmp_path):
    fails_at_first("killed", tmp_path, "fastdeployserver: the server died (SIGKILL)")

@pytest.fixture
def broken(tmp_path):
    fails_at_first("broken", tmp_path, "fastdeployserver: the server died (SIGABRT)")

def test_setup(broken):
    pass

def test_died(tmp_path):
    fails_at_first("died", tmp_path, "fastdeployserver: the server died (SIGSEGV)")

def test_twice(tmp_path):
    (tmp_path / "server.log").write_text("fastdeployserver: the server died (SIGSEGV)\\n")
    assert False, "for good"

def test_later():
    assert False, "the death of an earlier test's server is no excuse"
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_test_that_failed_as_triton_died_is_run_once_more_and_told(tmp_path, workers):
    (tmp_path / "test_x.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.server.again", *workers]
    command += ["-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told, _, summary = run.stdout.partition("failed at first, as Triton died, and run once more")
    assert "4 failed, 2 passed" in run.stdout, run.stdout
    for name in ("other", "killed", "twice", "later"):
        assert re.search(rf"FAILED \S+::test_{name}\b", summary)
    assert "::test_died: SIGSEGV" in summary and "died failed" in summary
    assert "::test_setup: SIGABRT" in summary and "broken failed" in summary
    for name in ("killed", "other", "later"):
        assert f"::test_{name}: SIG" not in summary
    assert "run 2 of other" not in told
