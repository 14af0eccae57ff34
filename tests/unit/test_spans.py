"""The loop's spans of a traced request, as they are posted to a collector."""

import dataclasses
import importlib
import json
import sys
import threading

import numpy as np
import pb_utils_fake as fake
import pytest
from pb_utils_fake import PARENT, TRACE, answer

from tests import otlp
from tests.gateway.receiver import Receiver
from triptych.second_pass import SecondPass
from triptych.settings import Settings

SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}
USUAL = Settings("a prompt", "", 4, 5.0, 1, 64, 64, "ddim", "png")
OTHER = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """`stage(unet)`: the model unet_loop; to close it again does nothing."""
    made = []

    def make(unet=fake.no_noise):
        version = tmp_path / "unet_loop" / "1"
        version.mkdir(parents=True)
        (version / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
        (version / "pipeline.json").write_text(json.dumps({"height": 64, "width": 64}))
        fake.install(monkeypatch, fake.module("24.10", unet))
        triton = importlib.import_module("triptych.stages.triton")
        loop_stage = importlib.import_module("triptych.stages.unet_loop")
        arguments = fake.initialize_args(version.parent, max_rows="8")
        made.append(loop_stage.LoopStage(triton.Model(arguments)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def collected(monkeypatch):
    """`collected(loop)`: what a collector has got once the stage is closed, spans by trace."""
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.host}")

        def collected(loop):
            loop.close()
            assert {path for path, *_ in receiver.came} <= {"/v1/traces"}
            found = {}
            for span in otlp.spans(receiver):
                found.setdefault(span.trace, []).append(span)
            return found

        yield collected


def request(*images, trace=None, flags="01"):
    """A request for a batch of images, each given by what differs from the usual settings."""
    settings = [[dataclasses.replace(USUAL, **image).to_json().encode()] for image in images]
    shape = (len(images), 7, 16)
    made = fake.Request(
        prompt_embeds=np.random.RandomState(1).standard_normal(shape).astype(np.float32),
        negative_prompt_embeds=np.zeros(shape, np.float32),
        settings=np.array(settings, dtype=object),
    )
    made.context = trace and fake.context(trace, flags)
    return made


def test_an_image_and_its_calls_are_in_the_trace_of_its_request(stage, collected):
    plain, sent = request({}), request({}, trace=TRACE)
    loop = stage()
    for one in (plain, sent):
        loop.execute([one])
        answer(one)
    np.testing.assert_array_equal(*(answer(one).tensors["latents"] for one in (plain, sent)))
    (found,) = collected(loop).values()
    (image,) = (span for span in found if span.name == "denoising")
    assert (image.trace, image.parent) == (TRACE, PARENT)
    assert image.attributes["triptych.calls"] == 4
    calls = sorted((span for span in found if span.name == "unet"), key=lambda span: span.begun)
    assert len(found) == 5 and [call.parent for call in calls] == [image.id] * 4
    assert [call.attributes["triptych.call"] for call in calls] == [1, 2, 3, 4]
    assert all(call.attributes["triptych.rows"] == 2 for call in calls)
    times = [image.begun, *(time for call in calls for time in (call.begun, call.ended))]
    assert [*times, image.ended] == sorted([*times, image.ended])


def test_a_shared_call_is_in_the_trace_of_each_and_leads_to_the_others(stage, collected):
    """Of three images one is not traced, and the first is alone in its first call."""
    called, go = threading.Event(), threading.Event()

    def unet(**inputs):
        called.set()
        assert go.wait(10)
        return fake.no_noise(**inputs)

    sent = request({}, trace=TRACE), request({"seed": 2}, trace=OTHER), request({"seed": 3})
    loop = stage(unet)
    loop.execute(sent[:1])
    assert called.wait(10)
    for one in sent[1:]:
        loop.execute([one])
    go.set()
    for one in sent:
        answer(one)
    found = collected(loop)
    assert found.keys() == {TRACE, OTHER}
    images, calls = {}, {}
    for trace, spans in found.items():
        (images[trace],) = (span for span in spans if span.name == "denoising")
        calls[trace] = sorted(
            (span for span in spans if span.name == "unet"), key=lambda span: span.begun
        )
    shared = calls[TRACE][-1], calls[OTHER][0]
    assert [call.links for call in shared] == [(images[OTHER].id,), (images[TRACE].id,)]
    for call in shared:
        assert (call.attributes["triptych.images"], call.attributes["triptych.rows"]) == (3, 6)


def test_an_image_that_fails_says_so_without_paths(stage, collected):
    def unet(**inputs):
        raise RuntimeError("/srv/models/unet: cannot map triptych_0a1b2c3d_region")

    sent = request({}, trace=TRACE)
    loop = stage(unet)
    loop.execute([sent])
    assert answer(sent).has_error()
    ((image,),) = collected(loop).values()
    assert (image.name, image.error) == ("denoising", "...: cannot map ...")


def test_the_calls_of_a_second_pass_follow_those_of_the_first(stage, collected):
    second = SecondPass(128, 128, 0.5, 4, "bilinear")
    sent, loop = request({"second_pass": second}, trace=TRACE), stage()
    loop.execute([sent])
    answer(sent)
    (found,) = collected(loop).values()
    (image,) = (span for span in found if span.name == "denoising")
    numbers = sorted(span.attributes["triptych.call"] for span in found if span.name == "unet")
    assert numbers == [*range(1, image.attributes["triptych.calls"] + 1)] and len(numbers) == 6


def test_a_trace_that_its_sender_does_not_sample_gets_no_spans(stage, collected):
    sent, loop = request({}, trace=TRACE, flags="00"), stage()
    loop.execute([sent])
    answer(sent)
    assert collected(loop) == {}


def test_without_a_traced_request_opentelemetry_is_not_even_imported(stage):
    plain = request({})
    stage().execute([plain])
    answer(plain)
    assert "triptych.stages.spans" not in sys.modules


def test_without_opentelemetry_the_log_says_what_is_missing(stage, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    sent = request({}, trace=TRACE)
    stage().execute([sent])
    assert not answer(sent).has_error()
    assert "pip install 'triptych[tracing]'" in capsys.readouterr().out


def test_an_image_that_cannot_be_traced_is_drawn_and_the_log_says_why(stage, monkeypatch, capsys):
    one = stage()
    spans = importlib.import_module("triptych.stages.spans")

    def refuse(*_):
        raise ValueError("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a number")

    monkeypatch.setattr(spans, "ImageSpan", refuse)
    sent = request({}, trace=TRACE)
    one.execute([sent])
    assert not answer(sent).has_error()
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be" in capsys.readouterr().out
