"""ONNX graphs without their weights, small enough to go anywhere, and random weights for them.

    python benchmarks/weightless.py REPOSITORY GRAPHS

copies an exported model repository to GRAPHS and leaves the weights out: of each network the graph
that CUDA runs, the fused one where there is one, and of the UNet its last layer.
Speed does not depend on them, as long as they are drawn so that no number overflows: the graph says
of each weight the mean and the deviation that it had.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from triptych.fastdeploy.places import PLACES

KEY = "mean and deviation of the weights left out"
SMALL = 2048
"""Bytes of a tensor that stays as it is."""
_HALF_OR_SINGLE = (TensorProto.FLOAT16, TensorProto.FLOAT)


def strip(source: Path, target: Path) -> None:
    """Write the graph in `source` to `target` without its larger weights."""
    model = onnx.load(str(source))
    drawn, end = {}, 0
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.nbytes <= SMALL or weight.data_type not in _HALF_OR_SINGLE:
            continue
        exact = values.astype(np.float64)
        drawn[weight.name] = float(exact.mean()), float(exact.std())
        weight.ClearField("raw_data")
        weight.ClearField("float_data")
        weight.ClearField("int32_data")
        weight.data_location = TensorProto.EXTERNAL
        place = {"location": f"{target.name}.data", "offset": end, "length": values.nbytes}
        for key, value in place.items():
            weight.external_data.add(key=key, value=str(value))
        end += -(-values.nbytes // 4096) * 4096
    # Where the weights are stays, for LoRAs.
    kept = {one.key: one.value for one in model.metadata_props if one.key in ("config", PLACES)}
    del model.metadata_props[:]
    helper.set_model_props(model, {**kept, KEY: json.dumps(drawn)})
    target.write_bytes(model.SerializeToString())


def fill(graph: Path) -> int:
    """Write random weights beside a graph that has none, always the same; how many numbers."""
    model = onnx.load(str(graph), load_external_data=False)
    texts = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if not texts:
        return 0
    drawn = json.loads(texts[0])
    weights = [weight for weight in model.graph.initializer if weight.name in drawn]
    with open(graph.with_name(f"{graph.name}.data"), "wb") as file, ThreadPoolExecutor() as pool:
        made = pool.map(_draw, weights, [drawn[one.name] for one in weights], range(len(weights)))
        for weight, values in zip(weights, made):
            info = external_data_helper.ExternalDataInfo(weight)
            file.seek(info.offset)
            file.write(values.tobytes())
    return sum(int(np.prod(weight.dims)) for weight in weights)


def _draw(weight: onnx.TensorProto, how: tuple[float, float], seed: int) -> np.ndarray:
    mean, deviation = how
    values = np.random.default_rng(seed).standard_normal(tuple(weight.dims), np.float32)
    values *= deviation
    values += mean
    return values.astype(helper.tensor_dtype_to_np_dtype(weight.data_type))


def copy_repository(source: Path, target: Path) -> None:
    """A repository without weights, for CUDA alone."""
    networks = shutil.ignore_patterns("*.onnx", "*.data", "__pycache__")
    shutil.copytree(source, target, ignore=networks)
    for plain in source.glob("*/1/model.onnx"):
        fused = plain.with_name("model.cuda.onnx")
        graph = fused if fused.exists() else plain
        for one in (graph, graph.with_name(graph.name.replace("model", "shallow", 1))):
            if one.exists():
                strip(one, target / one.relative_to(source))


def fill_repository(repository: Path) -> int:
    """`fill` every graph of a repository; how many numbers."""
    return sum(map(fill, repository.glob("*/1/*.onnx")))


def link(source: str, target: str) -> None:
    """As a copy_function of shutil.copytree: a network's files are shared, not copied."""
    if source.endswith((".onnx", ".data")):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("graphs", type=Path)
    options = parser.parse_args()
    copy_repository(options.repository, options.graphs)
