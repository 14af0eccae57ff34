"""Draw the gateway's sample pictures and README's row of pictures with the demo model.

    python scripts/draw_samples.py

reads triptych/gateway/web/samples.json, and writes the WebP files that it names beside it, and
docs/demo.png. Run it again when the demo model changes.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from PIL import Image

from scripts.own_server import with_server
from triptych.client import Client
from triptych.server.running import RunningServer

ROW = (
    ("a yellow sun over green hills at sunset", 5),
    ("a red circle on a blue background", 7),
    ("the moon over a sea at night", 11),
    ("an orange crescent on a purple background", 3),
    ("a yellow square left of a cyan triangle on a black background", 2),
)
SIDE, GAP = 200, 8
FOLDER = CHECKOUT / "triptych" / "gateway" / "web"


def main() -> int:
    """Write the pictures; 1 if the server cannot start."""
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
        row = Image.new("RGB", (len(ROW) * (SIDE + GAP) - GAP, SIDE), "white")
        for number, (prompt, seed) in enumerate(ROW):
            picture = client.generate(prompt, seed=seed)
            small = picture.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            row.paste(small, (number * (SIDE + GAP), 0))
        row.save(CHECKOUT / "docs" / "demo.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
