"""The benchmark of OpenVINO: what it concludes, and that a peer draws the same."""

import base64
import io

import pytest
from PIL import Image

from benchmarks import cpu_openvino
from benchmarks.load import Run
from benchmarks.table import Table


def output(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue())


def test_a_peer_with_another_picture_is_no_peer():
    cpu_openvino.check_same(output((100, 100, 100)), output((104, 100, 97)))
    with pytest.raises(RuntimeError, match="optimum-intel draws another picture: mean square"):
        cpu_openvino.check_same(output("black"), output((40, 0, 0)))


def test_conclusions():
    table = Table()
    for name, seconds in (
        ("served, OpenVINO", 2),
        ("served, ONNX Runtime", 5),
        ("optimum-intel", 4),
    ):
        table.add(f"{name}, 1 client", Run([seconds], seconds))
        table.add(f"{name}, 8 clients", Run([8 * seconds] * 8, 8 * seconds))
    lines = cpu_openvino.conclusions(table, has_peer=True)
    assert [line.split(": ")[1].split()[0] for line in lines] == ["2.500", "0.500", "2.000"]
    assert len(cpu_openvino.conclusions(table, has_peer=False)) == 1
