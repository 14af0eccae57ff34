"""What becomes of a network that was found right."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from triptych_export import check, onnx_files
from triptych_export.check import Wanted
from triptych_export.errors import ExportError
from triptych_export.progress import Progress
from triptych_export.stages import Stage

STAGE = Stage("unet", {"x": ("n", 100)}, "y", ("n", 100))
WEIGHTS = np.random.RandomState(0).standard_normal((100, 100)).astype(np.float32)


@pytest.fixture
def finish(tmp_path, monkeypatch):
    """Finish a network of 40 kB, where one file holds `largest` bytes of weights; its files."""

    def finish(largest, wanted, expected=None):
        monkeypatch.setattr(onnx_files, "LARGEST_SINGLE_FILE", largest)
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 100]) for n in ("x", "y"))
        weights = [numpy_helper.from_array(WEIGHTS, "w")]
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], weights
        )
        opsets = [helper.make_opsetid("", onnx_files.OPSET)]
        onnx_files.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path)
        feeds = [{"x": np.ones((2, 100), np.float32)}]
        result = [feeds[0]["x"] @ WEIGHTS] if expected is None else [expected]
        check.finish_stage(STAGE, tmp_path, feeds, result, wanted, Progress(1))
        return sorted(path.name for path in tmp_path.iterdir())

    return finish


def stored(folder):
    return onnx.load(str(folder / "model.onnx")).graph.initializer[0].data_type


@pytest.mark.parametrize(
    ("largest", "half_storage", "kind"),
    [
        (50_000, None, TensorProto.FLOAT),
        (50_000, True, TensorProto.FLOAT16),
        (50_000, False, TensorProto.FLOAT),
        (30_000, None, TensorProto.FLOAT16),
        (30_000, True, TensorProto.FLOAT16),
    ],
)
def test_it_is_one_file(finish, tmp_path, largest, half_storage, kind):
    assert finish(largest, Wanted(half_storage)) == ["model.onnx"]
    assert stored(tmp_path) == kind


@pytest.mark.parametrize(
    ("largest", "half_storage"), [(30_000, False), (10_000, None), (10_000, True)]
)
def test_what_one_file_does_not_hold_is_refused_unless_two_are_wanted(
    finish, largest, half_storage
):
    advice = r"unet: its weights.* FastDeploy.*--external-weights"
    with pytest.raises(ExportError, match=advice) as refusal:
        finish(largest, Wanted(half_storage))
    assert ("--precision fp16-storage" in str(refusal.value)) == (half_storage is False)
    two = finish(largest, Wanted(half_storage, external_weights=True))
    assert two == ["model.onnx", "model.onnx.data"]


def test_other_numbers_are_refused(finish):
    with pytest.raises(ExportError, match="differs from the framework"):
        finish(50_000, Wanted(), np.ones((2, 100), np.float32))
