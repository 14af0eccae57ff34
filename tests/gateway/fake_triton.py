"""A server of a few lines that speaks Triton's gRPC: it draws gray pictures, or does as told."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych import sdxl
from triptych.errors import InvalidRequest
from triptych.model_files import ModelFiles
from triptych.names import MODEL, Names
from triptych.picture.encode import encode
from triptych.picture.request import read_request
from triptych.settings import Defaults, Limits

_file = io.BytesIO()
Image.new("RGB", (8, 8), "teal").save(_file, "PNG")
PREVIEW = _file.getvalue()
TOTAL = 4


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """`requests`: what came. `hold`: streams wait while it is clear, before step `held_from`.

    `abort`, `abort_after`: (code, text) to say before the first step, or after the last one.
    `full`: whether its queue is, so that no request is taken; `knocks`: how many came then.
    `left`: how many streams were given up by whoever asked. `scheduler`: the model's own.
    `parameters`: those of config.pbtxt, by model. `takes_pictures`: whether it has a vae_encoder.
    `is_sdxl`: whether it has a second text encoder.
    `loras`: those of each model. `models`: what it draws with; `asked_of` has the model of each of
    `requests`, `ids` its id and its traceparent. `max_latents`: unet's largest shape, as its
    config.pbtxt says it.
    """

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.forget()

    def forget(self) -> None:
        """Be as at first, for another test."""
        self.hold.set()
        self.requests: list[dict] = []
        self.held_from = 1
        self.abort: tuple | None = None
        self.abort_after: tuple | None = None
        self.full = False
        self.knocks = 0
        self.ready = True
        self.starting = False
        self.left = 0
        self.warnings: tuple[str, ...] = ()
        self.scheduler = "pndm"
        self.takes_pictures = True
        self.is_sdxl = False
        self.parameters: dict[str, dict[str, str]] = {}
        self.models = [MODEL]
        self.loras: list[str] = []
        self.max_latents = ""
        self.asked_of: list[str] = []
        self.ids: list[tuple[str, str | None]] = []

    def __enter__(self) -> FakeTriton:
        any_length = [("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(40), options=any_length)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.stop(None).wait()

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=self.ready)

    def ModelStatistics(self, request, context):
        if self.starting:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Server not ready")
        answer = service_pb2.ModelStatisticsResponse()
        for name in (name for model in self.models for name in Names(model).all):
            answer.model_stats.add(name=name, version="1")
        return answer

    def ModelConfig(self, request, context):
        answer = service_pb2.ModelConfigResponse()
        for name, value in self.parameters.get(request.name, {}).items():
            answer.config.parameters[name].string_value = value
        if request.name == Names(MODEL).stage("unet") and self.max_latents:
            optimization = answer.config.optimization.execution_accelerators
            accelerator = optimization.gpu_execution_accelerator.add(name="max_shape")
            accelerator.parameters["sample"] = self.max_latents
        return answer

    def ModelInfer(self, request, context):
        assert request.model_name in [Names(model).stage("tokenizer") for model in self.models]
        wanted = request.parameters["list"].string_param
        assert wanted in ("loras", "settings")
        if wanted == "loras":
            return _response(settings=json.dumps(self.loras).encode())
        return _response(settings=self._settings(request, context).to_json().encode())

    def ModelStreamInfer(self, requests, context):
        (request,) = requests
        self.asked_of.append(Names.of(request.model_name).model)
        assert request.model_name == Names(self.asked_of[-1]).stream
        traceparent = dict(context.invocation_metadata()).get("traceparent")
        self.ids.append((request.id, traceparent))
        settings = self._settings(request, context)
        self.requests.append(json.loads(request.raw_input_contents[0][4:]))
        if self.abort:
            context.abort(*self.abort)
        every = request.parameters["preview_every"].int64_param
        for step in range(1, TOTAL + 1):
            while step >= self.held_from and not self.hold.wait(0.01):
                if not context.is_active():
                    self.left += 1
                    return
            preview = every and step % every == 0 and step < TOTAL
            shown = {"preview": base64.b64encode(PREVIEW)} if preview else {}
            yield _streamed(step=step, total=TOTAL, **shown)
        if self.abort_after:
            context.abort(*self.abort_after)
        gray = np.zeros((3, settings.height, settings.width), np.float32)
        own = Names.of(request.model_name).told
        settings = dataclasses.replace(settings, warnings=self.warnings, model=own)
        yield _streamed(OUTPUT_0=base64.b64encode(encode(gray, settings)))

    def _settings(self, request, context):
        try:
            raw = request.raw_input_contents[0][4:]
            defaults = Defaults(64, 64, 20, 5.0, self.scheduler)
            settings = read_request(
                raw, defaults, Limits(), takes_pictures=self.takes_pictures
            ).settings
            sdxl.refuse(
                settings, ModelFiles(64, 64, {}, pad_token_id_2=0 if self.is_sdxl else None)
            )
        except InvalidRequest as error:
            text = f"sd_ensemble_stream: in ensemble 'sd_ensemble', tokenizer: {error}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if self.full:
            self.knocks += 1
            text = "the queue is full: 3 of 3 images; try later"
            context.abort(grpc.StatusCode.UNAVAILABLE, text)
        return settings


def _response(**tensors) -> service_pb2.ModelInferResponse:
    made = service_pb2.ModelInferResponse(model_name="x")
    for name, value in tensors.items():
        is_text = isinstance(value, bytes)
        made.outputs.add(name=name, datatype="BYTES" if is_text else "INT32", shape=[1, 1])
        raw = len(value).to_bytes(4, "little") + value if is_text else value.to_bytes(4, "little")
        made.raw_output_contents.append(raw)
    return made


def _streamed(**tensors) -> service_pb2.ModelStreamInferResponse:
    return service_pb2.ModelStreamInferResponse(infer_response=_response(**tensors))
