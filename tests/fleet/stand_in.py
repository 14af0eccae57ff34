"""python -m tests.fleet.stand_in GRPC_PORT HTTP_PORT QUEUE STREAMS: a stand-in for a server.

It speaks as Triton and draws gray pictures. A step takes longer the more pictures are in work, as
on a GPU that is full. It refuses more than QUEUE at a time, more streams than STREAMS, and all
after SIGUSR1, as a server that is ending does. After SIGUSR2 it has no models and no HTTP, as one
that has almost ended.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.names import STAGES
from triptych.picture.encode import encode
from triptych.settings import Defaults, Limits, parse

UNLOADED = "Request for unknown model: '{}' has no available versions"
STEP = 0.02
"""Seconds of a step for each picture in work."""


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The stages that a client asks: sd_ensemble_stream and, for its refusals, tokenizer."""

    def __init__(self, queue: int, streams: int) -> None:
        self.ending = self.unloaded = False
        self._queue, self._streams = queue, streams
        self._drawing = 0
        self._lock = threading.Lock()

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelStatistics(self, request, context):
        served = [service_pb2.ModelStatistics(name=name) for name in ("sd_ensemble", *STAGES)]
        return service_pb2.ModelStatisticsResponse(model_stats=served)

    def ModelInfer(self, request, context):
        if self.unloaded:
            context.abort(grpc.StatusCode.NOT_FOUND, UNLOADED.format(request.model_name))
        refusal = self._refusal()
        if refusal:
            context.abort(grpc.StatusCode.UNAVAILABLE, refusal)
        return infer_response(settings=settings_of(request).to_json().encode())

    def ModelStreamInfer(self, requests, context):
        for request in requests:
            if self.unloaded:
                text = UNLOADED.format(request.model_name)
                yield service_pb2.ModelStreamInferResponse(error_message=text)
                return
            with self._lock:
                refusal = self._refusal()
                if self._drawing >= self._streams:
                    refusal = f"{self._streams} images are streamed already; try later"
                self._drawing += not refusal
            if refusal:
                text = f"sd_ensemble_stream: in ensemble 'sd_ensemble', {refusal}"
                yield service_pb2.ModelStreamInferResponse(error_message=text)
                return
            settings = settings_of(request)
            for step in range(1, settings.num_inference_steps + 1):
                time.sleep(STEP * self._drawing)
                told = infer_response(step=step, total=settings.num_inference_steps)
                yield service_pb2.ModelStreamInferResponse(infer_response=told)
            gray = np.zeros((3, 64, 64), np.float32)
            picture = base64.b64encode(encode(gray, settings))
            with self._lock:
                self._drawing -= 1
            told = infer_response(OUTPUT_0=picture)
            yield service_pb2.ModelStreamInferResponse(infer_response=told)

    def _refusal(self) -> str:
        if self.ending:
            return "tokenizer: the server is ending and takes no more requests"
        if self._drawing >= self._queue:
            return (
                f"tokenizer: the queue is full: {self._drawing} of {self._queue} images; try later"
            )
        return ""


class Health(BaseHTTPRequestHandler):
    """/v2/health/ready: always 200, as Triton says until it has ended.

    gRPC's own health service is not here, as Triton 21.10 has none.
    """

    def do_GET(self):
        self.send_response(200 if self.path == "/v2/health/ready" else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def settings_of(request):
    (raw,) = request.raw_input_contents
    asked = json.dumps({**json.loads(raw[4:]), "height": 64, "width": 64}).encode()
    return parse(asked, Defaults(64, 64, 5, 1.0, "ddim"), Limits())


def infer_response(**tensors):
    made = service_pb2.ModelInferResponse()
    for name, value in tensors.items():
        is_text = isinstance(value, bytes)
        made.outputs.add(name=name, datatype="BYTES" if is_text else "INT32", shape=[1, 1])
        head = (len(value) if is_text else value).to_bytes(4, "little")
        made.raw_output_contents.append(head + (value if is_text else b""))
    return made


def main() -> None:
    port, http_port, *most = map(int, sys.argv[1:])
    stand_in = StandIn(*most)
    signal.signal(signal.SIGUSR1, lambda *_: setattr(stand_in, "ending", True))
    health = ThreadingHTTPServer(("127.0.0.1", http_port), Health)

    def unload(*_):
        stand_in.unloaded = True
        threading.Thread(target=health.shutdown).start()

    signal.signal(signal.SIGUSR2, unload)
    server = grpc.server(ThreadPoolExecutor(50), options=[("grpc.http2.max_ping_strikes", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stand_in, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    health.serve_forever()
    health.server_close()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
