"""The examples in docs/stages.md, run in their order against the server."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_stages_examples_run_and_end_in_the_ensembles_picture(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "stages.md").read_text(), re.DOTALL)
    assert len(blocks) == 8
    names: dict = {}
    for block in blocks:
        exec(compile(block.replace("localhost:8001", server.grpc), "docs/stages.md", "exec"), names)
    assert (tmp_path / "stages.png").stat().st_size > 1000
