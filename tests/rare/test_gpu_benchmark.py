"""benchmarks/gpu.py, here on the processor with the demo model and little of everything."""

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_it_measures_every_part_and_says_what_came_of_it(tmp_path, repository):
    output = tmp_path / "measured.json"
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(
        [
            *(sys.executable, CHECKOUT / "benchmarks" / "gpu.py", "--graphs", repository),
            *("--device", "cpu", "--tiny", "--parts", "engine,serve", "--variants", "channel"),
            *("--output", output, "--scratch", "scratch"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(output.read_text())["rows"]
    rows = {row["what"]: row["seconds"] for row in measured}
    for what in (
        *("unet, batch 2, no graph, on the device", "unet, batch 4, no graph, on the device"),
        *("text_encoder, batch 2, no graph, on the device", "served, channel, 1 client"),
        *("served, channel, 1 client: a step", "served, channel, 2 clients while others decode"),
        "served, channel: vae_decoder beside it",
        "served, channel, 1 client: image_encoder, a picture",
    ):
        assert rows[what] and min(rows[what]) > 0, what
    assert len(rows["served, channel, 1 client: a step"]) == 8, (
        "two between three calls, 4 pictures"
    )
    (decoder,) = rows["served, channel, 1 client: vae_decoder, a picture"]
    assert decoder < min(rows["served, channel, 1 client"]), "one of the stages"
    differences = [row["difference"] for row in measured if "difference" in row]
    assert len(differences) == 3 * 2 and max(differences) < 1e-5
    assert "channel: a step / the UNet alone, 1 client: nan" not in done.stdout
    assert "channel: a step / the UNet alone, 1 client: " in done.stdout


def test_a_part_that_fails_leaves_the_others(tmp_path, repository):
    graphs = tmp_path / "graphs"
    (graphs / "unet_loop" / "1").mkdir(parents=True)
    done = subprocess.run(
        [
            *(sys.executable, CHECKOUT / "benchmarks" / "gpu.py", "--graphs", graphs),
            *("--device", "cpu", "--tiny", "--scratch", tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "FAILED: engine, serve" in done.stdout
    assert "--- diffusers" in done.stdout


def test_few_steps_on_every_gpu(tmp_path, repository):
    output = tmp_path / "measured.json"
    done = subprocess.run(
        [
            *(sys.executable, CHECKOUT / "benchmarks" / "gpu.py", "--graphs", repository),
            *("--device", "cpu", "--few-steps", "--gpus", "--parts", "serve"),
            *("--clients", "2", "--pictures", "2"),
            *("--output", output, "--scratch", tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["what"]: row for row in json.loads(output.read_text())["rows"]}
    for variant in ("channel", "channel, every GPU"):
        assert len(rows[f"served, {variant}, 2 clients"]["seconds"]) == 2
        called = rows[f"served, {variant}, 1 client: for each call of the UNet"]
        assert (called["calls"], called["rows"]) == (4 * 4, 1), "4 pictures of 4 steps, no guidance"
