"""Both roads on a model as large as Stable Diffusion 1.5, with random weights. `make test-export`.

Needs about 16 GiB of memory and 40 GB of disk; prints what each road took (run with `-s`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

SECONDS = 600
BYTES = 24 * 2**30


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "model"
    code = (
        f"import random_models; random_models.write_full_size(random_models.Path({str(folder)!r}))"
    )
    path = {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests' / 'full'}"}
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **path})
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("framework", ["diffusers", "paddle"])
def test_a_full_size_model_exports(model, framework, tmp_path):
    command = [
        sys.executable,
        CHECKOUT / "scripts" / "export_stages.py",
        model,
        "--output",
        tmp_path / "served",
        "--framework",
        framework,
    ]
    start = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        most = 0
        while process.poll() is None:
            most = max(most, resident_bytes(process.pid))
            time.sleep(0.5)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    seconds = time.monotonic() - start
    print(f"\n{framework}: {seconds:.0f} s, at most {most / 2**30:.1f} GiB")
    shutil.rmtree(tmp_path)
    assert process.returncode == 0
    assert seconds < SECONDS
    assert most < BYTES


def resident_bytes(session: int) -> int:
    """Memory that the processes of `session` hold now, what they share counted for each."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total
