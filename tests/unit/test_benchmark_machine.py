"""What benchmarks/machine.py says of GPUs, with stand-ins for NVIDIA's programs."""

import os

import pytest

from benchmarks import machine

TWO = "NVIDIA H200, 580.159.04, 143771\nNVIDIA H200, 580.159.04, 143771"


@pytest.mark.parametrize(
    ("daemon", "more"), [("exit 0", ", MPS"), ("echo 'Cannot find MPS control daemon'; exit 1", "")]
)
def test_gpus_are_told_with_the_service_that_shares_them(tmp_path, monkeypatch, daemon, more):
    programs = {"nvidia-smi": f"echo '{TWO}'", "nvidia-cuda-mps-control": daemon}
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.gpu().splitlines() == [line + more for line in TWO.splitlines()]
    assert machine.gpus() == 2


def test_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (machine.gpu(), machine.gpus()) == ("no GPU", 1)
