"""What `make serve` shows of Triton's log."""

import io

import pytest

from scripts import server_log
from triptych.server import runs_on

START = """\
W1127 08:30:08.801781 8395 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, \
pinned memory pool will not be available: CUDA driver version is insufficient"
I1127 08:30:08.806026 8395 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1127 08:30:08.806235 8395 server.cc:241] "CudaDriverHelper has not been initialized."
I1127 08:30:08.812986 8395 model_lifecycle.cc:472] "loading: image_encoder:1"
W1127 08:30:09.000000 8395 model_lifecycle.cc:111] "ignore version directory 'loras' which fails \
to convert to integral number"
W1127 08:30:09.000000 8395 model_lifecycle.cc:111] "ignore version directory 'new' which fails \
to convert to integral number"
W1127 08:30:09.000000 8395 triton.py:239] "unet: something to know"
I1127 08:30:12.000000 8395 triton.py:239] "unet: runs on CPUExecutionProvider in single precision \
(no CUDA: no GPU)"
I1127 08:30:12.000000 8395 triton.py:239] "text_encoder: runs on CPUExecutionProvider in single \
precision (no Tensorrt: this ONNX Runtime is built without it; no CUDA: no GPU)"
I1127 08:30:13.000000 8395 triton.py:239] "ink.unet: runs on OpenVINOExecutionProvider in single \
precision: this processor has no bfloat16 (no CUDA: no GPU)"
I1127 08:30:39.707060 8395 server.cc:604]\x20
+------------------+------+
| Repository Agent | Path |
+------------------+------+

Error: Failed to initialize NVML
W1127 08:30:39.708612 8395 metrics.cc:798] "DCGM unable to start: DCGM initialization error"
I1127 08:30:39.711105 8395 grpc_server.cc:2558] "Started GRPCInferenceService at 127.0.0.1:8001"
I1127 08:30:39.711506 8395 http_server.cc:4713] "Started HTTPService at 127.0.0.1:8000"
I1127 08:30:39.756063 8395 http_server.cc:362] "Started Metrics Service at 127.0.0.1:8002"
"""
LOG = f"""\
{START}\
I1127 08:31:12.000000 8395 triton.py:239] "unet: runs on CPUExecutionProvider (paddle is odd)"
fastdeployserver: the process of unet died
Signal (15) received.
fastdeployserver: starting it again
{START}\
fastdeployserver: ending
Signal (15) received.
"""
SHOWN = """\
W1127 08:30:09.000000 8395 model_lifecycle.cc:111] "ignore version directory 'new' which fails \
to convert to integral number"
W1127 08:30:09.000000 8395 triton.py:239] "unet: something to know"
server: {engines}
server: ready after 0.0 s
server: gRPC at 127.0.0.1:8001
server: HTTP at http://127.0.0.1:8000/
server: metrics at http://127.0.0.1:8002/metrics
"""
QUIET = f"""\
server: starting
{SHOWN}\
server: unet runs on CPU (paddle is odd)
fastdeployserver: the process of unet died
fastdeployserver: starting it again
{SHOWN}\
fastdeployserver: ending
"""
ENGINES = {
    False: "text_encoder, unet run on CPU in single precision; ink.unet runs on OpenVINO in single "
    "precision: this processor has no bfloat16",
    True: "unet runs on CPU in single precision (no CUDA: no GPU); text_encoder runs on CPU in "
    "single precision (no Tensorrt: this ONNX Runtime is built without it; no CUDA: no GPU); "
    "ink.unet runs on OpenVINO in single precision: this processor has no bfloat16 (no CUDA: no "
    "GPU)",
}


@pytest.mark.parametrize("has_gpu", [False, True])
def test_what_is_left_of_the_log(has_gpu, monkeypatch, capsys, tmp_path):
    drivers = (tmp_path / "none", tmp_path if has_gpu else tmp_path / "no other")
    monkeypatch.setattr(runs_on, "DRIVERS", drivers)
    monkeypatch.setattr(server_log.sys, "stdin", io.StringIO(LOG))
    before = server_log.signal.getsignal(server_log.signal.SIGTERM)
    assert server_log.main() == 0
    assert server_log.signal.getsignal(server_log.signal.SIGTERM) is before
    lines = capsys.readouterr().out.splitlines(keepends=True)
    quiet = QUIET.format(engines=ENGINES[has_gpu])
    about_cuda = [line for line in lines if line not in quiet.splitlines(keepends=True)]
    assert "".join(line for line in lines if line not in about_cuda) == quiet
    assert len(about_cuda) == (10 if has_gpu else 0)
    assert all(
        any(word in one for word in ("CUDA", "Cuda", "NVML", "DCGM", "draws with GPU=1"))
        for one in about_cuda
    )


def test_networks_of_one_engine_are_told_together_and_each_once():
    found = [
        ("unet", "CUDAExecutionProvider; no CUDA graphs: why"),
        ("unet", "CPU"),
        ("vae", "CPU"),
    ]
    told = "unet runs on CUDA; no CUDA graphs: why; unet, vae run on CPU"
    assert runs_on.summary([*found, *found]) == told
    assert runs_on.summary([]) == "the log does not say what runs the networks"
