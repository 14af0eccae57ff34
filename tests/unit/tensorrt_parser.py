"""What the ONNX parser of TensorRT 8.5 takes, so that graphs can be held against it without it.

fixtures/tensorrt_8_5_operators.txt has the operators that onnx-tensorrt's branch release/8.5-GA
marks as supported in docs/operators.md, one a line.
"""

from __future__ import annotations

from pathlib import Path

import onnx

OPERATORS = frozenset(
    Path(__file__).parents[1].joinpath("fixtures/tensorrt_8_5_operators.txt").read_text().split()
)
NEWEST_OPSET, NEWEST_IR = 17, 8


def refusals(path: Path) -> list[str]:
    """Why the parser refuses the graph in `path`: operators by name, the opset, the IR version."""
    model = onnx.load(str(path), load_external_data=False)
    found = sorted(_operators(model.graph) - OPERATORS)
    found += [
        f"opset {one.domain}:{one.version}"
        for one in model.opset_import
        if one.domain or one.version > NEWEST_OPSET
    ]
    return found + ([f"IR {model.ir_version}"] if model.ir_version > NEWEST_IR else [])


def _operators(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= _operators(inner)
    return found
