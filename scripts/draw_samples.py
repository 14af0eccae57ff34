"""Draw the gateway's sample pictures and README's rows of pictures with the demo model.

    python scripts/draw_samples.py

reads triptych/gateway/web/samples.json, and writes the WebP files that it names beside it,
docs/demo.png, and docs/outlines.png, two prompts with the LoRA `outlines` at three scales. Run it
again when the demo model or its LoRA changes.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from scripts.own_server import with_server
from scripts.sheet import sheet
from triptych.client import Client
from triptych.server.running import RunningServer

ROW = (
    ("a yellow sun over green hills at sunset", 5),
    ("a red circle on a blue background", 7),
    ("the moon over a sea at night", 11),
    ("an orange crescent on a purple background", 3),
    ("a yellow square left of a cyan triangle on a black background", 2),
)
OUTLINED = (
    ("a large blue circle on an orange background", 1),
    ("a large purple hexagon on a yellow background", 1),
)
SCALES = (0, 0.5, 1)
FOLDER = CHECKOUT / "triptych" / "gateway" / "web"


def main() -> int:
    """Write the pictures; 1 if the server cannot start."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    samples = json.loads((FOLDER / "samples.json").read_text())
    return with_server(lambda server: _draw(server, samples))


def _draw(server: RunningServer, samples: list[dict[str, str]]) -> int:
    with Client(server.grpc) as client:
        for sample in samples:
            picture = client.generate(sample["prompt"], seed=int(sample["seed"]))
            file = io.BytesIO()
            picture.image.save(file, "WEBP", quality=82, method=6)
            (FOLDER / sample["file"]).write_bytes(file.getvalue())
            print(f"{sample['file']}: {len(file.getvalue())} bytes", flush=True)
        _row(client, "demo.png", [{"prompt": prompt, "seed": seed} for prompt, seed in ROW])
        outlined = [
            {"prompt": prompt, "seed": seed, "loras": [{"name": "outlines", "scale": scale}]}
            for prompt, seed in OUTLINED
            for scale in SCALES
        ]
        _row(client, "outlines.png", outlined)
    return 0


def _row(client: Client, name: str, requests: list[dict[str, Any]]) -> None:
    """Write docs/NAME: a picture for each request, side by side."""
    row = [client.generate(**request).image for request in requests]
    sheet([row]).save(CHECKOUT / "docs" / name, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
