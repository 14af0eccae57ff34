import pytest

from triptych.fastdeploy import providers
from triptych.fastdeploy.accelerators import Accelerators

TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


def choose(reasons, device=0, **accelerators):
    return providers.choose(Accelerators(**accelerators), reasons, device)


def test_tensorrt_first_then_cuda_then_the_cpu():
    chosen, line = choose({})
    assert [name for name, _ in chosen] == [TENSORRT, CUDA, CPU]
    assert line == TENSORRT
    chosen, line = choose({TENSORRT: "no library"})
    assert [name for name, _ in chosen] == [CUDA, CPU]
    assert line == f"{CUDA} (no Tensorrt: no library)"
    chosen, line = choose({TENSORRT: "no GPU", CUDA: "no GPU"})
    assert chosen == [(CPU, {})]
    assert line == f"{CPU} in single precision (no Tensorrt: no GPU; no CUDA: no GPU)"


def test_onnxruntime_on_a_gpu_is_cuda():
    chosen, line = choose({}, gpu="onnxruntime", device=1)
    assert chosen == [(CUDA, {"device_id": 1}), (CPU, {})]
    assert line == CUDA


def test_an_engine_that_is_fastdeploys_alone_is_told():
    chosen, line = choose({}, gpu="paddle", cpu="paddle")
    assert [name for name, _ in chosen] == [CUDA, CPU]
    assert line == f"{CUDA} (paddle is FastDeploy's alone)"
    _, line = choose({CUDA: "no GPU"}, gpu="paddle", cpu="paddle")
    assert line == f"{CPU} in single precision (no CUDA: no GPU; paddle is FastDeploy's alone)"
    _, line = choose({CUDA: "no GPU"}, gpu="paddle")
    assert line == f"{CPU} in single precision (no CUDA: no GPU)"


def test_options_of_tensorrt():
    (_, options), *_ = choose(
        {},
        device=2,
        gpu_fp16=True,
        workspace_size=123,
        cache_file="/var/cache/unet.trt",
        shapes={
            "min_shape": {"sample": (1, 4, 8, 8), "timestep": (1,)},
            "opt_shape": {"sample": (2, 4, 64, 64), "timestep": (2,)},
            "max_shape": {"sample": (32, 4, 96, 96), "timestep": (32,)},
        },
    )[0]
    assert options == {
        "device_id": 2,
        "trt_fp16_enable": True,
        "trt_max_workspace_size": 123,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": "/var/cache",
        "trt_engine_cache_prefix": "unet",
        "trt_profile_min_shapes": "sample:1x4x8x8,timestep:1",
        "trt_profile_opt_shapes": "sample:2x4x64x64,timestep:2",
        "trt_profile_max_shapes": "sample:32x4x96x96,timestep:32",
    }
    (_, plain), *_ = choose({})[0]
    assert plain == {"device_id": 0, "trt_fp16_enable": False}


def test_engines_that_cannot_be_kept_are_told(tmp_path):
    (tmp_path / "a_file").touch()
    for folder in (tmp_path / "a_file", tmp_path / "no" / "such"):
        _, line = choose({}, cache_file=str(folder / "unet.trt"))
        told = f"{folder} cannot be written, so that every start builds the engine again"
        assert line == f"{TENSORRT}; {told}"
        _, line = choose({TENSORRT: "no library"}, cache_file=str(folder / "unet.trt"))
        assert line == f"{CUDA} (no Tensorrt: no library)"
    for folder in (tmp_path, tmp_path / "new"):
        _, line = choose({}, cache_file=str(folder / "unet.trt"))
        assert line == TENSORRT


@pytest.fixture
def machine(monkeypatch):
    """Pretend what the machine has: `machine(gpu=..., libraries=...)`."""

    def pretend(gpu, libraries):
        monkeypatch.setattr(providers, "_no_gpu", lambda: "" if gpu else "no NVIDIA driver")
        monkeypatch.setattr(providers.libraries, "load", lambda: None)
        monkeypatch.setattr(providers.libraries, "loads", lambda library: library in libraries)

    return pretend


def test_what_cannot_be_used_and_why(machine):
    everything = [TENSORRT, CUDA, CPU]
    machine(gpu=True, libraries=["libnvinfer.so.10"])
    assert providers.unusable(everything) == {}
    machine(gpu=True, libraries=[])
    assert providers.unusable(everything) == {TENSORRT: "libnvinfer.so.10 does not load"}
    machine(gpu=False, libraries=[])
    assert set(providers.unusable(everything).values()) == {"no NVIDIA driver"}
    machine(gpu=True, libraries=["libnvinfer.so.10"])
    reason = "this ONNX Runtime is built without it"
    assert providers.unusable([CPU]) == {TENSORRT: reason, CUDA: reason}
