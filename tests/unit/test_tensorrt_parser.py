import onnx
import pytest
from onnx import TensorProto, helper
from tensorrt_parser import refusals

from triptych_export.cli import CHECKOUT


def test_tensorrt_8_5_takes_every_graph_of_the_repository():
    graphs = sorted((CHECKOUT / "model_repository").glob("*/1/model.onnx"))
    assert len(graphs) == 4
    assert {path.parts[-3]: refusals(path) for path in graphs} == {
        "text_encoder": [],
        "unet": [],
        "vae_decoder": [],
        "vae_encoder": [],
    }


@pytest.mark.parametrize(
    ("opset", "ir", "expected"),
    [
        (17, 8, ["LayerNormalization"]),
        (18, 9, ["LayerNormalization", "opset :18", "IR 9"]),
    ],
)
def test_what_it_does_not_take_is_found(tmp_path, opset, ir, expected):
    """Inside of another operator too."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in ("x", "y"))
    norm = helper.make_node("LayerNormalization", ["x", "scale"], ["y"])
    branch = helper.make_graph([norm], "branch", [], [y])
    choice = helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [4], [1.0] * 4)
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    graph = helper.make_graph([choice], "graph", [x, which], [y], [scale])
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir), tmp_path / "a.onnx")
    assert refusals(tmp_path / "a.onnx") == expected
