"""A request followed from the gateway to the UNet's calls, by Triton's spans and the loop's."""

import json
import secrets
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import otlp
from tests.gateway.receiver import Receiver
from tests.gateway.running import Gateway, wait_for
from triptych.gateway.spans import Spans
from triptych.server.running import RunningServer

FLAGS = ("mode=opentelemetry", "level=TIMESTAMPS", "rate=0")
OTHER = "0af7651916cd43dd8448eb211c80319c"
CALLER = "00f067aa0ba902b7"
STEPS = 4
TRIES = 10
SMALL = {"size": "64x64", "num_inference_steps": STEPS, "scheduler": "ddim", "seed": 7}
STAGES = ("tokenizer", "text_encoder", "unet_loop", "vae_decoder", "image_encoder")
NAMES = {"InferRequest", "sd_ensemble", *STAGES, "denoising", "unet"}


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory, receiver):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.host}")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        flags = (f"--trace-config={flag}" for flag in FLAGS)
        log = tmp_path_factory.mktemp("traced") / "server.log"
        with RunningServer(repository, log, *flags) as running:
            yield running


@pytest.fixture
def web(server):
    with Gateway(server.grpc) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def draw(web, trace=None, **more):
    headers = {"traceparent": f"00-{trace}-{CALLER}-01"} if trace else {}
    asked = {"prompt": "a red circle", **SMALL, **more}
    return web.post("/v1/images/generations", json=asked, headers=headers).json()["data"]


def spans(receiver, trace, names, calls=STEPS):
    """Those of a trace, by their names, when all are there: so many calls of the UNet."""

    def found():
        named = {}
        for span in otlp.spans(receiver):
            if span.trace == trace:
                named.setdefault(span.name, []).append(span)
        return named

    def whole():
        named = found()
        return named.keys() >= names and len(named["unet"]) == calls

    try:
        wait_for(whole, 30)
    except AssertionError:
        came = {name: len(named) for name, named in found().items()}
        raise AssertionError(f"of {trace} came {came}, wanted {names}") from None
    return found()


def overlooked(receiver, trace):
    """Whether Triton took no notice of a trace that it was told of, as happens with its gRPC."""
    try:
        wait_for(lambda: any(span.trace == trace for span in of_triton(receiver)), 5)
    except AssertionError:
        return True
    return False


def of_triton(receiver):
    return [span for span in otlp.spans(receiver) if not span.name.startswith("POST ")]


def check_ways(found, outside):
    """Each span is below those of the request, `outside`, and what of them it is a part of."""
    by_id = {span.id: span for named in found.values() for span in named}

    def way(span):
        """The names from a span up to the caller's."""
        names = [span.name]
        while span.parent != CALLER:
            span = by_id[span.parent]
            names.append(span.name)
        return names

    whole = ["sd_ensemble", *outside]
    for stage in STAGES:
        assert all(way(span) == [stage, *whole] for span in found[stage])
    (image,) = found["denoising"]
    assert way(image) == ["denoising", "unet_loop", *whole]
    assert all(way(call) == ["unet", *way(image)] for call in found["unet"])
    numbers = [call.attributes["triptych.call"] for call in found["unet"]]
    assert sorted(numbers) == [*range(1, STEPS + 1)]


def test_from_the_gateway_to_the_unets_calls_in_one_trace(web, receiver):
    untraced, traces = draw(web), []
    while not traces or overlooked(receiver, traces[-1]):
        assert len(traces) < TRIES
        traces.append(secrets.token_hex(16))
        assert draw(web, traces[-1]) == untraced
    found = spans(receiver, traces[-1], {*NAMES, "sd_ensemble_stream"})
    check_ways(found, ["sd_ensemble_stream", "InferRequest"])
    assert {span.trace for span in otlp.spans(receiver)} == {traces[-1]}


def test_what_has_no_trace_begins_one_at_a_gateway_that_traces(server, receiver):
    def ours():
        return [span for span in otlp.spans(receiver) if span.name.startswith("POST ")]

    while not ours() or overlooked(receiver, ours()[-1].trace):
        assert len(ours()) < TRIES
        with Gateway(server.grpc, spans=Spans()) as gateway:
            asked = {"prompt": "a red circle", **SMALL}
            url = f"{gateway.url}/v1/images/generations"
            assert httpx.post(url, json=asked, timeout=60).status_code == 200
    root = ours()[-1]  # the gateway has sent it at its end
    found = spans(receiver, root.trace, {*NAMES, "sd_ensemble_stream"})
    (first,) = found["InferRequest"]
    assert (root.parent, first.parent) == ("", root.id)
    assert root.begun < first.begun and found["unet"][-1].ended < root.ended


def test_from_tritons_own_http_too(server, receiver):
    asked = {"INPUT_0": json.dumps({"prompt": "x", "num_inference_steps": STEPS})}
    url = f"http://{server.http}/v2/models/sd_ensemble/generate"
    headers = {"traceparent": f"00-{OTHER}-{CALLER}-01"}
    assert httpx.post(url, json=asked, headers=headers, timeout=60).status_code == 200
    check_ways(spans(receiver, OTHER, NAMES), ["InferRequest"])


def test_pictures_that_share_calls_lead_to_each_other(web, receiver):
    """Also more at once than begin in the same moment: none of them waits for another."""
    for _ in range(TRIES):
        traces = [secrets.token_hex(16) for _ in range(4)]
        with ThreadPoolExecutor() as pool:
            assert all(pool.map(lambda trace: draw(web, trace, num_inference_steps=50), traces))
        if not any(overlooked(receiver, trace) for trace in traces):
            break
    found = {trace: spans(receiver, trace, NAMES, 50) for trace in traces}
    images = {trace: named["denoising"][0].id for trace, named in found.items()}
    calls = {}
    for trace, named in found.items():
        for call in named["unet"]:
            calls.setdefault(call.begun, {})[images[trace]] = call
    for shared in calls.values():
        for image, call in shared.items():
            assert call.attributes["triptych.images"] == len(shared)
            assert set(call.links) == shared.keys() - {image}
    assert any(len(shared) > 1 for shared in calls.values())
