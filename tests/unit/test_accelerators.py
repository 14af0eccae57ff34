import pytest

from triptych.fastdeploy.accelerators import Accelerators, ConfigError, parse


def config(gpu=(), cpu=()):
    entries = {"gpu_execution_accelerator": list(gpu), "cpu_execution_accelerator": list(cpu)}
    return {"optimization": {"execution_accelerators": entries}}


def entry(name, **parameters):
    return {"name": name, "parameters": parameters}


def shapes(least="1 4 8 8", usual="2 4 32 32", most="32 4 96 96"):
    return [
        entry("min_shape", sample=least, timestep="1"),
        entry("opt_shape", sample=usual, timestep="2"),
        entry("max_shape", sample=most, timestep="32"),
    ]


@pytest.mark.parametrize("empty", [{}, {"optimization": {}}, config()])
def test_nothing_asked_for(empty):
    assert parse(empty) == Accelerators()


def test_everything_that_fastdeploy_documents():
    tensorrt = entry(
        "tensorrt", precision="trt_fp16", workspace_size="1073741824", cache_file="/var/unet.trt"
    )
    parsed = parse(config([tensorrt, *shapes()], [entry("onnxruntime", cpu_threads="4")]))
    assert parsed == Accelerators(
        gpu="tensorrt",
        gpu_fp16=True,
        workspace_size=2**30,
        cache_file="/var/unet.trt",
        cpu_threads=4,
        shapes={
            "min_shape": {"sample": (1, 4, 8, 8), "timestep": (1,)},
            "opt_shape": {"sample": (2, 4, 32, 32), "timestep": (2,)},
            "max_shape": {"sample": (32, 4, 96, 96), "timestep": (32,)},
        },
    )


def test_every_engine_and_parameter_of_fastdeploys_is_taken():
    flags = {"is_clone": "false", "use_mkldnn": "1", "use_paddle_log": "True"}
    for name in ("onnxruntime", "openvino", "paddle"):
        asked = entry(name, cpu_threads="4", num_streams="2", **flags)
        assert parse(config(cpu=[asked])) == Accelerators(cpu=name, cpu_threads=4)
    for name in ("tensorrt", "onnxruntime", "paddle"):
        for precision in ("trt_fp16", "ort_fp16", "pd_fp16"):
            cache = {"cache_file": "/unet.trt", "workspace_size": "9", "cpu_threads": "4"}
            parsed = parse(config([entry(name, precision=precision, **cache, **flags)]))
            assert parsed == Accelerators(
                gpu=name, gpu_fp16=True, cache_file="/unet.trt", workspace_size=9
            )


def test_precisions():
    assert not parse(config([entry("tensorrt", precision="trt_fp32")])).gpu_fp16
    assert parse(config([entry("tensorrt", precision="TRT_FP16")])).gpu_fp16
    onnxruntime = parse(config([entry("onnxruntime", precision="ort_fp16")]))
    assert (onnxruntime.gpu, onnxruntime.gpu_fp16) == ("onnxruntime", True)


def test_precisions_of_openvino():
    def bf16(**parameters):
        return parse(config(cpu=[entry("openvino", **parameters)])).cpu_bf16

    assert bf16(precision="ov_bf16") and bf16(precision="OV_BF16")
    assert not bf16(precision="ov_fp32") and not bf16()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            config([entry("tensorrrt")]),
            "gpu_execution_accelerator 'tensorrrt': allowed: tensorrt, onnxruntime, paddle,",
        ),
        (
            config(cpu=[entry("openvin")]),
            "cpu_execution_accelerator 'openvin': allowed: onnxruntime, openvino, paddle",
        ),
        (config([entry("openvino")]), "gpu_execution_accelerator 'openvino': allowed: tensorrt,"),
        (config(cpu=[entry("poros")]), "'poros': a model for it is TorchScript; write onnxrunt"),
        (config([entry("poros")]), "gpu_execution_accelerator 'poros': a model for it is"),
        (
            config(cpu=[entry("paddle", use_mkldnn="yes")]),
            "cpu_execution_accelerator paddle: use_mkldnn: got 'yes'; allowed: true, 1, false, 0",
        ),
        (config(cpu=[entry("openvino", num_streams="0")]), "num_streams: got '0'; allowed: a who"),
        (config([entry("paddle", encryption_key="x")]), "paddle: parameter 'encryption_key': all"),
        (
            config([entry("tensorrt", precison="trt_fp16")]),
            "tensorrt: parameter 'precison': allowed: precision, workspace_size, cache_file",
        ),
        (
            config([entry("tensorrt", precision="fp16")]),
            "precision: got 'fp16'; allowed: trt_fp16, trt_fp32",
        ),
        (
            config(cpu=[entry("onnxruntime", cpu_threads="0")]),
            "cpu_threads: got '0'; allowed: a whole number from 1",
        ),
        (
            config(cpu=[entry("openvino", precision="bf16")]),
            "cpu_execution_accelerator openvino: precision: got 'bf16'; allowed: ov_bf16, ov_fp32",
        ),
        (
            config(cpu=[entry("onnxruntime", precision="ov_bf16")]),
            "cpu_execution_accelerator onnxruntime: parameter 'precision': allowed: cpu_threads,",
        ),
        (config(cpu=[entry("onnxruntime", cpu_threads="two")]), "got 'two'; allowed: a whole"),
        (
            config([entry("tensorrt", cache_file="unet.trt")]),
            "cache_file: got 'unet.trt'; allowed: an absolute path",
        ),
        (config(shapes(least="1,4,8,8")), "min_shape: sample: got '1,4,8,8'; allowed: whole"),
        (config(shapes(least="")), "min_shape: sample: got ''"),
        (config(shapes(least="1 4 64 64")), "sample: needs min_shape <= opt_shape <= max_shape"),
        (config(shapes(least="1 4 8")), "sample: needs min_shape <= opt_shape <= max_shape"),
        (config(shapes()[:2]), "max_shape: needed for the same inputs as in opt_shape"),
        (config(shapes()[::2]), "min_shape: needed for the same inputs as in opt_shape"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_allowed(asked, says):
    with pytest.raises(ConfigError) as caught:
        parse(asked)
    assert says in str(caught.value)
