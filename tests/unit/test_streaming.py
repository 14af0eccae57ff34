"""The client's stream against a server of a few lines that speaks Triton's protocol."""

import base64
import contextlib
import json
import os
import socket
import threading

import grpc
import numpy as np
import pytest
from grpc_fake import serving
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.client import (
    Client,
    ClientError,
    GivenUp,
    NotReady,
    Overloaded,
    Picture,
    Refused,
    TimedOut,
)
from triptych.picture.encode import encode
from triptych.settings import Defaults, Limits, parse
from triptych.streaming import SETTLES, UNANSWERED, Step


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers a stream with three steps, the second with a preview, and a gray picture."""

    def __init__(self):
        self.requests = []
        self.metadata = []
        self.ids = []
        self.stream_is_ready = True
        self.knocks = 0
        self.room = False
        self.between = lambda step, context: None
        self.at_end = lambda: None

    def ModelInfer(self, request, context):
        """The tokenizer, asked whether a request would be taken."""
        assert request.model_name == "tokenizer"
        self.knocks += 1
        if not self.room:
            context.abort(grpc.StatusCode.UNAVAILABLE, "tokenizer: the queue is full; try later")
        (raw,) = request.raw_input_contents
        settings = parse(raw[4:], Defaults(64, 64, 3, 5.0, "pndm"), Limits()).to_json().encode()
        answer = service_pb2.ModelInferResponse()
        answer.outputs.add(name="settings", datatype="BYTES", shape=[1, 1])
        answer.raw_output_contents.append(len(settings).to_bytes(4, "little") + settings)
        return answer

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):
        ready = request.name == "sd_ensemble" or self.stream_is_ready
        return service_pb2.ModelReadyResponse(ready=ready)

    def ModelStreamInfer(self, requests, context):
        for request in requests:
            assert request.model_name == "sd_ensemble_stream"
            (raw,) = request.raw_input_contents
            assert int.from_bytes(raw[:4], "little") == len(raw) - 4
            self.requests.append((json.loads(raw[4:]), dict(request.parameters)))
            self.metadata.append(dict(context.invocation_metadata()))
            self.ids.append(request.id)
            for step in (1, 2, 3):
                text = self.between(step, context)
                if text:
                    yield service_pb2.ModelStreamInferResponse(error_message=text)
                    self.at_end()
                    return
                preview = {"preview": b64(b"small PNG")} if step == 2 else {}
                yield response(step=step, total=3, **preview)
            settings = parse(raw[4:], Defaults(64, 64, 3, 5.0, "pndm"), Limits())
            gray = np.zeros((3, 64, 64), np.float32)
            yield response(OUTPUT_0=b64(encode(gray, settings)))
            self.at_end()


def b64(data):
    return base64.b64encode(data)


def response(**tensors):
    made = service_pb2.ModelStreamInferResponse()
    for name, value in tensors.items():
        kind = "BYTES" if isinstance(value, bytes) else "INT32"
        made.infer_response.outputs.add(name=name, datatype=kind, shape=[1, 1])
        raw = value if kind == "BYTES" else b""
        length = len(raw) if kind == "BYTES" else value
        made.infer_response.raw_output_contents.append(length.to_bytes(4, "little") + raw)
    return made


@pytest.fixture
def fake():
    with serving(FakeTriton(), 4) as fake:
        yield fake


@pytest.fixture
def client(fake):
    with Client(fake.url) as client:
        yield client


def test_steps_then_the_picture(fake, client):
    *steps, picture = client.stream("a prompt", timeout=9, preview_every=2, seed=4)
    assert steps == [Step(1, 3, None), Step(2, 3, b"small PNG"), Step(3, 3, None)]
    assert isinstance(picture, Picture)
    assert (picture.settings.seed, picture.image.size) == (4, (64, 64))
    assert 0 < picture.seconds < 9
    ((asked, parameters),) = fake.requests
    assert asked == {"prompt": "a prompt", "seed": 4, "timeout": 9}
    assert parameters["preview_every"].int64_param == 2
    assert "triton_grpc_error" not in fake.metadata[0]


def test_a_request_has_the_id_and_the_metadata_that_the_caller_gives(fake, client):
    list(client.stream("x", request_id="order-7", headers={"traceparent": "00-1"}))
    list(client.stream("x"))
    assert fake.ids == ["order-7", ""]
    assert [one.get("traceparent") for one in fake.metadata] == ["00-1", None]
    assert fake.requests[0][0] == {"prompt": "x"}


def test_the_server_says_how_often_where_the_caller_does_not(fake, client):
    list(client.stream("x"))
    assert fake.requests == [({"prompt": "x"}, {})]


def test_cancelling_reaches_the_server_and_ends_the_iteration(fake, client):
    left = threading.Event()

    def wait(step, context):
        if step == 2:
            context.add_callback(left.set)
            left.wait(10)

    fake.between = wait
    stream = client.stream("x")
    told = iter(stream)
    assert next(told).step == 1
    threading.Timer(0.1, stream.cancel).start()
    with pytest.raises(GivenUp):
        next(told)
    assert left.wait(5)


def test_the_picture_comes_after_the_streams_end(fake, client):
    ended = []
    fake.at_end = lambda: ended.append(threading.Event().wait(0.2))
    assert any(isinstance(told, Picture) and ended for told in client.stream("x"))


def test_the_timeout_ends_the_iteration(fake, client):
    fake.between = lambda step, context: threading.Event().wait(1)
    with pytest.raises(TimedOut, match=r"within 0\.3 s"):
        list(client.stream("x", timeout=0.3))


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.INVALID_ARGUMENT, Refused), (grpc.StatusCode.INTERNAL, ClientError)],
)
def test_an_error_by_status(fake, client, code, kind):
    fake.between = lambda step, context: context.abort(code, "the words of it")
    with pytest.raises(ClientError, match="the words of it") as caught:
        list(client.stream("x"))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("seed: got -1; allowed: more", Refused),
        ("31 images are streamed already; try later", Overloaded),
        ("unet_loop: the denoising loop was closed before its end", Overloaded),
        ("Exceeds maximum queue size", Overloaded),
        ("tokenizer: the server is ending and takes no more requests", Overloaded),
        ("unet_loop: timeout: the request's time was over after 3 of 9 calls", TimedOut),
        ("it broke", ClientError),
    ],
)
def test_an_error_by_its_text_alone(fake, client, text, kind):
    passed_on = f"sd_ensemble_stream: in ensemble 'sd_ensemble', tokenizer: {text}"
    fake.between = lambda step, context: passed_on
    ended = []
    fake.at_end = lambda: ended.append(threading.Event().wait(0.2))
    with pytest.raises(ClientError) as caught:
        list(client.stream("x", timeout=5))
    assert len(fake.requests) == 1
    assert fake.knocks == (kind is Overloaded)
    assert ended, "told before the stream's end"
    assert type(caught.value) is kind
    assert text in str(caught.value) or kind is TimedOut
    assert "sd_ensemble" not in str(caught.value)


def ending(step, *ends):
    """The `between` of streams that end so before that step, one after another."""
    left = list(ends)
    return lambda at, context: left.pop(0)(context) if at == step and left else None


def broken(context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def reset(context):
    context.abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")


def died(context):
    return "sd_ensemble_stream: the process of unet died; the server starts again, try later"


def full(context):
    return "sd_ensemble_stream: in ensemble 'sd_ensemble', tokenizer: the queue is full; try later"


@pytest.mark.parametrize("ends", [broken, reset, died])
def test_a_picture_that_was_begun_and_lost_is_asked_for_once_more(fake, client, ends):
    fake.between = ending(2, ends)
    told = list(client.stream("x", timeout=20, seed=4))
    assert [one.step for one in told[:-1]] == [1, 1, 2, 3]
    assert told[-1].settings.seed == 4
    (first, _), (second, _) = fake.requests
    assert first.pop("timeout") == 20 and second.pop("timeout") < 20 - SETTLES
    assert first == second


def test_a_picture_that_is_lost_twice_is_not_asked_for_again(fake, client):
    fake.between = ending(2, broken, broken, broken)
    with pytest.raises(ClientError):
        list(client.stream("x"))
    assert len(fake.requests) == 2


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_picture_that_one_server_refuses_is_asked_for_while_there_is_room(fake, client, refusals):
    fake.room = True
    fake.between = ending(1, *[full] * refusals)
    assert isinstance(list(client.stream("x", seed=4))[-1], Picture)
    assert (len(fake.requests), fake.knocks) == (refusals + 1, refusals)


def test_a_picture_of_a_server_that_has_unloaded_the_model_is_asked_for_again(fake, client):
    fake.room = True
    unloaded = "Request for unknown model: 'sd_ensemble_stream' has no available versions"
    fake.between = ending(1, lambda context: unloaded)
    assert isinstance(list(client.stream("x", seed=4))[-1], Picture)
    assert (len(fake.requests), fake.knocks) == (2, 1)


def test_a_refusal_is_told_after_the_last_try(fake, client):
    fake.room = True
    fake.between = lambda step, context: full(context)
    with pytest.raises(Overloaded, match="the queue is full"):
        list(client.stream("x"))
    assert len(fake.requests) == 3


def test_a_failure_is_not_asked_for_again(fake, client):
    fake.between = ending(2, lambda context: "sd_ensemble_stream: latents are not finite")
    with pytest.raises(ClientError, match="latents are not finite"):
        list(client.stream("x"))
    assert len(fake.requests) == 1


def test_a_picture_that_is_cancelled_as_it_is_lost_is_not_asked_for_again(fake, client):
    fake.between = ending(2, broken)
    stream = client.stream("x")
    told = iter(stream)
    next(told)
    stream.cancel()
    with pytest.raises(ClientError):
        list(told)
    assert len(fake.requests) == 1


def test_a_server_without_the_model_is_not_ready(fake, client):
    fake.stream_is_ready = False
    fake.between = lambda step, context: "Request for unknown model: it is not found"
    with pytest.raises(NotReady, match="sd_ensemble_stream is not loaded"):
        list(client.stream("x"))


def test_a_stream_that_ends_without_a_picture_is_an_error(client, monkeypatch):
    monkeypatch.setattr(client._streams, "start", lambda *_: [Step(1, 3, None)])
    with pytest.raises(ClientError, match="the stream ended"):
        list(client.stream("x"))


def test_a_machine_that_vanishes_is_given_up_soon(client, fake):
    """Of both connections, for calls and for streams."""
    client.check()
    list(client.stream("x"))
    assert unanswered(int(fake.url.rpartition(":")[2])) == [1000 * UNANSWERED] * 2


def unanswered(port):
    """TCP_USER_TIMEOUT, in milliseconds, of each of this process's connections to a port."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.getpeername()[1] == port:
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found
