"""benchmarks/side_by_side.py, here on the processor with the demo model."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def side_by_side(*options: str) -> subprocess.CompletedProcess:
    script = ROOT / "benchmarks" / "side_by_side.py"
    command = [sys.executable, str(script), str(ROOT / "model_repository"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_network_that_fails_is_an_error_and_no_rate():
    run = side_by_side("--rows", "0", "1", "1", "--seconds", "0.1")
    assert run.returncode == 1
    assert "unet: graph_batches: got ['0']; allowed: whole numbers from 1" in run.stderr
    assert "runs/s" not in run.stdout


def test_every_way_has_its_rates():
    run = side_by_side("--rows", "1", "1", "1", "--every", "0", "0", "0.05", "--seconds", "1")
    assert run.returncode == 0, run.stderr
    rows = [re.split(r" *\| *", line.strip("| ")) for line in run.stdout.splitlines()[4:]]
    alone, *together = rows
    usual = dict(zip(("unet", "vae_decoder", "text_encoder"), map(float, alone[1:])))
    assert [row[0] for row in together] == [
        "two processes",
        "two processes in turns",
        "three processes",
        "three processes in turns",
        "one process",
    ]
    for name, unet, decoder, *encoder, share in together:
        found = [float(unet) / usual["unet"], float(decoder) / usual["vae_decoder"]]
        if name.startswith("three"):
            found.append(float(encoder[0]) / usual["text_encoder"])
            assert float(encoder[0]) <= 21, "once in 0.05 s at most"
        assert any(found) and abs(sum(found) - float(share)) < 0.02
