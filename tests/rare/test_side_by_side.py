"""benchmarks/side_by_side.py, here on the processor with the demo model."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_way_has_its_rates():
    script = ROOT / "benchmarks" / "side_by_side.py"
    options = ["--rows", "1", "1", "1", "--every", "0", "0", "0.05", "--seconds", "1"]
    command = [sys.executable, str(script), str(ROOT / "model_repository"), *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
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
