"""One graph by TensorRT's own parser and builder, as FastDeploy uses them.

    .venv-tensorrt/bin/python benchmarks/trt_engine.py FILE.onnx "sample=2 4 64 64" ...
        [--min "sample=1 4 8 8" ...] [--max "sample=8 4 96 96" ...] [--fp16] [--workspace BYTES]

A line of JSON after each step: seconds to parse and to build, the engine's bytes and those that it
takes on the device, seconds of runs at the shapes first named, and how far the outputs are from
ONNX Runtime's on the CPU, norm over norm. TensorRT's own log goes to --log.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.append(str(Path(__file__).resolve().parents[1]))

from triptych.fastdeploy import libraries

libraries.load()
import tensorrt

CUDA = ctypes.CDLL("libcudart.so.11.0")


class Log(tensorrt.ILogger):
    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._file = path.open("w") if path else sys.stderr
        self._all = path is not None

    def log(self, severity: tensorrt.ILogger.Severity, message: str) -> None:
        if self._all or severity <= tensorrt.ILogger.Severity.WARNING:
            print(f"{time.monotonic():.1f} {severity.name} {message}", file=self._file, flush=True)


def build(options: argparse.Namespace, log: Log) -> bytes:
    """The serialized engine; prints what it took."""
    builder = tensorrt.Builder(log)
    flags = 1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(flags)
    parser = tensorrt.OnnxParser(network, log)
    begun = time.monotonic()
    parsed = parser.parse_from_file(str(options.file))
    errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
    say(parsed=parsed, errors=errors, parse=time.monotonic() - begun, layers=network.num_layers)
    if not parsed:
        raise SystemExit(1)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.fp16:
        config.set_flag(tensorrt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    usual = dict(options.shapes)
    least, most = ({**usual, **dict(shapes)} for shapes in (options.min, options.max))
    for name, shape in usual.items():
        profile.set_shape(name, least[name], shape, most[name])
    config.add_optimization_profile(profile)
    begun = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        say(built=False, build=time.monotonic() - begun)
        raise SystemExit(1)
    say(built=True, build=time.monotonic() - begun, engine_bytes=engine.nbytes)
    return bytes(engine)


def run(engine: tensorrt.ICudaEngine, feeds: dict[str, np.ndarray], runs: int) -> np.ndarray:
    """The output, after saying what runs on the device take."""
    context = engine.create_execution_context()
    for name, array in feeds.items():
        context.set_binding_shape(engine.get_binding_index(name), array.shape)
    pointers, result = [], None
    for index in range(engine.num_bindings):
        name, shape = engine.get_binding_name(index), tuple(context.get_binding_shape(index))
        array = feeds[name] if engine.binding_is_input(index) else np.empty(shape, np.float32)
        pointer = ctypes.c_void_p()
        check(CUDA.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(array.nbytes)))
        if engine.binding_is_input(index):
            check(CUDA.cudaMemcpy(pointer, _data(array), ctypes.c_size_t(array.nbytes), 1))
        else:
            result, there = array, pointer
        pointers.append(pointer.value)
    taken = []
    for _ in range(runs + 3):
        begun = time.perf_counter()
        if not context.execute_v2(pointers):
            raise RuntimeError("the engine does not run")
        check(CUDA.cudaDeviceSynchronize())
        taken.append(time.perf_counter() - begun)
    say(run=float(np.median(taken[3:])), runs=runs)
    check(CUDA.cudaMemcpy(_data(result), there, ctypes.c_size_t(result.nbytes), 2))
    return result


def check(code: int) -> None:
    if code:
        raise RuntimeError(f"CUDA error {code}")


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> int:
    options = _options()
    log = Log(options.log)
    random = np.random.RandomState(0)
    engine = tensorrt.Runtime(log).deserialize_cuda_engine(build(options, log))
    say(device_bytes=engine.device_memory_size)
    session = onnxruntime.InferenceSession(str(options.file), providers=["CPUExecutionProvider"])
    feeds = {}
    for tensor in session.get_inputs():
        shape = dict(options.shapes)[tensor.name]
        if tensor.type == "tensor(float)":
            feeds[tensor.name] = random.standard_normal(shape).astype(np.float32)
        else:
            feeds[tensor.name] = random.randint(0, 100, shape).astype(np.int32)
    feeds = {
        name: np.full_like(array, 500) if name == "timestep" else array
        for name, array in feeds.items()
    }
    result = run(engine, feeds, options.runs)
    (expected,) = session.run(None, feeds)
    apart = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    say(finite=bool(np.isfinite(result).all()), difference=float(apart))
    return 0


def _data(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.partition("=")
    return name, tuple(map(int, sizes.split()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("file", type=Path)
    add("shapes", type=_shape, nargs="+", help="of each input, batch first")
    add("--min", type=_shape, nargs="+", default=[], help="the least, where it is another")
    add("--max", type=_shape, nargs="+", default=[], help="the most, where it is another")
    add("--fp16", action="store_true")
    add("--workspace", type=int, default=2**30, help="bytes (%(default)s)")
    add("--runs", type=int, default=30)
    add("--log", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
