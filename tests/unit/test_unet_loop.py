"""The loop as a served model, on stand-ins for Triton's releases."""

import dataclasses
import gc
import glob
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pb_utils_fake as fake
import pytest
from pb_utils_fake import answer

from triptych.fastdeploy.deep_cache import gone
from triptych.ipc import activity
from triptych.ipc.activity import VARIABLE
from triptych.ipc.progress import Record
from triptych.second_pass import SecondPass
from triptych.settings import Settings

SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}
MODEL_FILES = {"height": 64, "width": 64}
USUAL = Settings("a prompt", "", 4, 5.0, 1, 64, 64, "ddim", "png")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """`stage(release)`: the model unet_loop on that release; its UNet can be given."""
    made = []

    def make(release="24.10", unet=fake.no_noise, model_files=MODEL_FILES, **parameters):
        version = tmp_path / "unet_loop" / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
        (version / "pipeline.json").write_text(json.dumps(model_files))
        fake.install(monkeypatch, fake.module(release, unet))
        triton = importlib.import_module("triptych.stages.triton")
        loop_stage = importlib.import_module("triptych.stages.unet_loop")
        arguments = fake.initialize_args(version.parent, max_rows="8", max_queue="6", **parameters)
        made.append(loop_stage.LoopStage(triton.Model(arguments)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def request(*images, kind=fake.Request, length=7):
    """A request for a batch of images, each given by what differs from the usual settings."""
    settings = []
    for image in images:
        settings.append([dataclasses.replace(USUAL, **image).to_json().encode()])
    shape = (len(images), length, 16)
    return kind(
        prompt_embeds=np.random.RandomState(1).standard_normal(shape).astype(np.float32),
        negative_prompt_embeds=np.zeros(shape, np.float32),
        settings=np.array(settings, dtype=object),
    )


def error(response):
    return response.error().message()


def test_it_answers_later_where_triton_has_senders(stage):
    requests = [request({}, {"seed": 2}), request({"num_inference_steps": 2})]
    assert stage().execute(requests) == [None, None]
    first, second = map(answer, requests)
    assert first.tensors["latents"].shape == (2, 4, 8, 8)
    assert second.tensors["latents"].shape == (1, 4, 8, 8)
    assert first.tensors["latents"].dtype == np.float32


@pytest.mark.parametrize(
    ("release", "kind"), [("21.10", fake.OldRequest), ("23.10", fake.DecoupledOnlyRequest)]
)
def test_it_answers_at_once_where_triton_has_none_and_gives_the_same(stage, release, kind):
    images = ({}, {"seed": 2}), ({"num_inference_steps": 2, "guidance_scale": 1},)
    later = [request(*one) for one in images]
    stage().execute(later)
    blocking = stage(release)
    responses = blocking.execute([request(*one, kind=kind) for one in images])
    for response, sent in zip(responses, later):
        np.testing.assert_array_equal(response.tensors["latents"], answer(sent).tensors["latents"])


@pytest.mark.parametrize("kind", [fake.OldRequest, fake.Request])
def test_a_bad_request_fails_alone_and_names_the_stage(stage, kind):
    release = "21.10" if kind is fake.OldRequest else "24.10"
    requests = [request({}, kind=kind), request({"height": 65}, kind=kind)]
    responses = stage(release).execute(requests)
    if kind is fake.Request:
        responses = [answer(one) for one in requests]
    assert not responses[0].has_error()
    assert error(responses[1]).startswith("unet_loop: height: got 65; allowed: ")
    if kind is fake.Request:
        assert responses[1].error().code() == fake.Error.INVALID_ARG


def test_images_of_a_request_have_one_size(stage):
    sent = request({}, {"height": 128})
    stage().execute([sent])
    assert "one height and width a batch" in error(answer(sent))


def test_images_of_a_request_end_in_one_size_too(stage):
    second = SecondPass(96, 64, 0.5, 4, "bilinear")
    refused, drawn = request({}, {"second_pass": second}), request(*2 * [{"second_pass": second}])
    stage().execute([refused, drawn])
    said = error(answer(refused))
    assert said.startswith("unet_loop: settings: got '[(64, 64), (96, 64)]'; allowed: one height")
    assert answer(drawn).tensors["latents"].shape == (2, 4, 12, 8)


@pytest.mark.parametrize(("release", "kind"), [("21.10", fake.OldRequest), ("24.10", fake.Request)])
def test_images_that_failed_are_counted_as_such(stage, monkeypatch, tmp_path, release, kind):
    folder = activity.Stages(tmp_path / "activity").folder
    monkeypatch.setenv(VARIABLE, str(folder))

    def failing(**inputs):
        if len(inputs["sample"]) == 1:  # the last image, once the other of its request is done
            raise fake.TritonModelException("no memory")
        return fake.no_noise(**inputs)

    half = {"num_inference_steps": 2}
    sent = [
        request({}, {"seed": 2}, kind=kind),
        request(half, {"guidance_scale": 1}, kind=kind),
    ]
    one = stage(release, failing)
    responses = [one.execute([request])[0] or answer(request) for request in sent]
    assert [response.has_error() for response in responses] == [False, True]
    seen = activity.Instances(folder, "unet_loop").news().seen
    assert (seen.came, seen.went, seen.failed) == (4, 2, 2)


def test_a_failing_unet_fails_the_request_with_a_public_reason(stage):
    def unet(**inputs):
        raise RuntimeError("/srv/models/unet/1: cannot map triptych_0a1b2c3d_region\nTraceback: x")

    sent = request({}, {"seed": 2})
    stage(unet=unet).execute([sent])
    response = answer(sent)
    assert error(response) == "unet_loop: ...: cannot map ..."
    assert response.error().code() == fake.Error.INTERNAL


def test_what_the_unet_refuses_is_the_clients_error(stage):
    def unet(**inputs):
        raise RuntimeError("unet: encoder_hidden_states: got [2, 7, 16]; allowed: [-1, -1, 8]")

    sent = request({})
    stage(unet=unet).execute([sent])
    response = answer(sent)
    assert error(response).startswith("unet_loop: unet: encoder_hidden_states: got [2, 7, 16]")
    assert response.error().code() == fake.Error.INVALID_ARG


def test_a_request_given_up_leaves_and_is_not_asked_about_again(stage):
    started = threading.Event()

    def slow(**inputs):
        started.set()
        time.sleep(0.01)
        return fake.no_noise(**inputs)

    sent = request({"num_inference_steps": 200}, {"num_inference_steps": 200})
    stage(unet=slow).execute([sent])
    assert started.wait(5)
    sent.sender.given_up = True
    response = answer(sent)
    assert response.error().code() == fake.Error.CANCELLED
    time.sleep(0.1)
    assert len(sent.sender.sent) == 1


@pytest.mark.parametrize("whose", ["settings", "Triton"])
def test_a_request_past_its_deadline_leaves_and_says_how_far_it_came(stage, whose):
    calls = []

    def slow(**inputs):
        calls.append(time.monotonic())
        time.sleep(0.01)
        return fake.no_noise(**inputs)

    earliest = time.monotonic() + 0.2
    own = {"deadline": earliest} if whose == "settings" else {}
    sent = request({"num_inference_steps": 200, **own})
    sent.microseconds = 200_000 if whose == "Triton" else 60_000_000
    unet_loop = stage(unet=slow)
    unet_loop.execute([sent])
    latest = time.monotonic() + 0.2
    assert re.fullmatch(
        r"unet_loop: timeout: the request's time was over after \d+ of 200 calls of the UNet",
        error(answer(sent)),
    )
    assert time.monotonic() >= earliest
    assert sum(call > latest for call in calls) <= 1
    assert answer(sent).error().code() == fake.Error.CANCELLED


def test_a_deadline_holds_where_triton_wants_the_answer_at_once(stage):
    sent = request({"deadline": time.monotonic()}, kind=fake.OldRequest)
    (response,) = stage("21.10").execute([sent])
    assert "timeout: the request's time was over after 0 of 4 calls" in error(response)


def test_beyond_the_queue_requests_are_refused_at_once_and_served_later(stage):
    go = threading.Event()

    def waiting(**inputs):
        assert go.wait(10)
        return fake.no_noise(**inputs)

    one = stage(unet=waiting)
    accepted = [request({}, {}, {}), request({}, {})]
    one.execute(accepted)
    refused = request({}, {})
    one.execute([refused])
    response = refused.sender.sent[0]
    assert error(response) == "unet_loop: the queue is full: 5 of 6 images; try later"
    assert response.error().code() == fake.Error.UNAVAILABLE
    accepted.append(request({}))
    one.execute(accepted[-1:])
    go.set()
    assert not any(answer(sent).has_error() for sent in accepted)
    again = request(*[{}] * 6)
    one.execute([again])
    assert not answer(again).has_error()


def test_a_batch_larger_than_the_queue_is_refused_for_good(stage):
    refused = request(*[{}] * 7)
    stage().execute([refused])
    response = refused.sender.sent[0]
    said = "unet_loop: settings: got [7, 1]; allowed: a batch of at most 6"
    assert error(response).startswith(said)
    assert response.error().code() == fake.Error.INVALID_ARG


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_a_queue_that_is_no_number_is_a_load_error_that_names_it(stage, tmp_path, value):
    stage()
    names = ("triptych.stages.unet_loop", "triptych.stages.triton")
    loop_stage, triton = (sys.modules[name] for name in names)
    with pytest.raises(ValueError, match=r"parameter max_queue: got .*; allowed: a whole number"):
        loop_stage.LoopStage(
            triton.Model(fake.initialize_args(tmp_path / "unet_loop", max_queue=value))
        )


def test_closing_answers_what_is_in_flight(stage):
    def slow(**inputs):
        time.sleep(0.01)
        return fake.no_noise(**inputs)

    one, sent = stage(unet=slow), request({"num_inference_steps": 200})
    one.execute([sent])
    time.sleep(0.05)
    one.close()
    assert answer(sent).error().code() == fake.Error.UNAVAILABLE


def test_a_request_that_comes_while_the_loop_closes_is_answered_once(stage):
    def slow(**inputs):
        time.sleep(0.01)
        return fake.no_noise(**inputs)

    one, sent = stage(unet=slow), request({}, {"seed": 2}, {"seed": 3})
    submit, submitted = one._loop.submit, []

    def submit_one_and_close(*arguments):
        if submitted:
            one._loop.close()
        submitted.append(arguments)
        submit(*arguments)

    one._loop.submit = submit_one_and_close
    assert one.execute([sent]) == [None]
    assert answer(sent).error().code() == fake.Error.UNAVAILABLE
    assert len(submitted) == 3
    time.sleep(0.1)
    assert len(sent.sender.sent) == 1


def test_metrics(stage):
    fake.MetricFamily.made.clear()
    requests = [request({}, {"seed": 2}), request({"num_inference_steps": 2, "guidance_scale": 1})]
    all_there = threading.Event()

    def waiting(**inputs):
        assert all_there.wait(10)
        return fake.no_noise(**inputs)

    stage(unet=waiting).execute(requests)
    all_there.set()
    for one in requests:
        assert not answer(one).has_error()
    labels = (("model", "unet_loop"),)
    counter, gauge = fake.MetricFamily.COUNTER, fake.MetricFamily.GAUGE

    def value(name, kind=counter):
        return fake.MetricFamily.made[f"triptych_{name}", kind, labels].value

    deadline = time.monotonic() + 10
    while value("images_total") < 3 and time.monotonic() < deadline:
        time.sleep(0.005)  # they are told after the answer
    assert value("images_total") == 3
    assert value("steps_total") == 10
    assert value("unet_rows_total") == 18
    assert 4 <= value("unet_calls_total") <= 5
    assert value("queue_seconds_total") > 0
    assert value("images_in_flight", gauge) == 0


def test_the_unet_does_not_wait_for_triton_to_take_an_answer_or_a_number(stage, monkeypatch):
    go_on, calls = threading.Event(), []

    def waiting(*_, **__):
        assert go_on.wait(10)

    def counting(**inputs):
        calls.append(inputs)
        return fake.no_noise(**inputs)

    first, second = request({"num_inference_steps": 2}), request({"num_inference_steps": 9})
    monkeypatch.setattr(fake.Metric, "increment", waiting)
    monkeypatch.setattr(first.sender, "send", waiting)
    stage(unet=counting).execute([first, second])
    deadline = time.monotonic() + 5
    while len(calls) < 9 and time.monotonic() < deadline:
        time.sleep(0.005)
    made, early = len(calls), list(second.sender.sent)
    go_on.set()
    assert not answer(second).has_error()
    assert made >= 9
    assert not early


def test_it_is_at_work_until_the_last_answer(stage, monkeypatch, tmp_path):
    folder = activity.Stages(tmp_path / "activity").folder
    monkeypatch.setenv(VARIABLE, str(folder))
    go_on, taken = threading.Event(), threading.Event()

    def waiting(*_, **__):
        taken.set()
        assert go_on.wait(10)

    first, second = request({"num_inference_steps": 1}), request({"num_inference_steps": 3})
    monkeypatch.setattr(first.sender, "send", waiting)
    one = stage()
    loop = activity.Instances(folder, "unet_loop")
    one.execute([first, second])
    assert taken.wait(10)
    while one._loop._first[0].held_rows:
        time.sleep(0.005)
    assert loop.news().seen.count == 1  # the second's answer waits for its turn
    go_on.set()
    assert not answer(second).has_error()
    assert loop.news().seen.count == 0


@pytest.mark.parametrize(("release", "kind"), [("21.10", fake.OldRequest), ("24.10", fake.Request)])
def test_it_is_at_work_while_the_unet_is(stage, monkeypatch, tmp_path, release, kind):
    folder = activity.Stages(tmp_path / "activity").folder
    monkeypatch.setenv(VARIABLE, str(folder))
    loop, seen = activity.Instances(folder, "unet_loop"), []

    def looking(**inputs):
        seen.append(loop.news().seen.count)
        return fake.no_noise(**inputs)

    sent = request({"num_inference_steps": 2}, kind=kind)
    responses = stage(release, unet=looking).execute([sent])
    assert not (responses[0] or answer(sent)).has_error()
    assert seen == [1, 1]
    assert loop.news().seen.count == 0


def test_a_number_that_triton_does_not_take_is_told_later(stage, monkeypatch):
    fake.MetricFamily.made.clear()
    usual, failures = fake.Metric.increment, ["no shared memory"]

    def increment(metric, amount):
        if failures:
            raise fake.TritonModelException(failures.pop())
        usual(metric, amount)

    monkeypatch.setattr(fake.Metric, "increment", increment)
    one = stage()
    for seed in range(2):
        sent = request({"seed": seed})
        one.execute([sent])
        assert not answer(sent).has_error()
    one.close()
    assert not failures
    made = {key[0]: metric.value for key, metric in fake.MetricFamily.made.items()}
    assert made["triptych_images_total"] == 2
    assert made["triptych_images_in_flight"] == 0


def test_a_number_that_triton_does_not_take_is_told_without_other_news(stage, monkeypatch):
    fake.MetricFamily.made.clear()
    usual, told = fake.Metric.set, []

    def refuse_the_first_0(metric, value):
        told.append(value)
        if told.count(0) == 1 and value == 0:
            raise fake.TritonModelException("no shared memory")
        usual(metric, value)

    monkeypatch.setattr(fake.Metric, "set", refuse_the_first_0)
    sent = request({})
    stage().execute([sent])
    assert not answer(sent).has_error()
    key = ("triptych_images_in_flight", fake.MetricFamily.GAUGE, (("model", "unet_loop"),))
    deadline = time.monotonic() + 10
    while told.count(0) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert fake.MetricFamily.made[key].value == 0
    assert told.count(0) >= 2


@pytest.fixture
def record():
    made = Record("sd_ensemble_stream", preview_every=2)
    yield made
    made.close()


@pytest.mark.parametrize("release", ["21.10", "24.10"])
def test_a_streamed_image_tells_how_far_it_is_and_is_the_same(stage, record, release):
    kind = fake.OldRequest if release == "21.10" else fake.Request
    watched, usual = request({}, kind=kind), request({}, kind=kind)
    watched.id = record.token
    responses = stage(release).execute([watched, usual])
    if kind is fake.Request:
        responses = [answer(watched), answer(usual)]
    told = record.read()
    assert (told.step, told.total) == (4, 4)
    np.testing.assert_array_equal(*(response.tensors["latents"] for response in responses))


def test_previews_come_where_the_model_has_colours(stage, record):
    numbers = {**MODEL_FILES, "latent_rgb": [[0.1, 0, 0]] * 5}
    one, watched = stage(model_files=numbers), request({})
    watched.id = record.token
    one.execute([watched])
    answer(watched)
    assert record.read().preview.shape == (8, 8, 3)


def test_a_streamed_image_that_is_stopped_leaves_the_loop(stage, record):
    started = threading.Event()

    def slow(**inputs):
        started.set()
        time.sleep(0.01)
        return fake.no_noise(**inputs)

    watched = request({"num_inference_steps": 200})
    watched.id = record.token
    stage(unet=slow).execute([watched])
    assert started.wait(5)
    record.stop()
    response = answer(watched)
    assert response.error().code() == fake.Error.CANCELLED
    assert record.read().step < 100


def test_a_stopped_image_leaves_the_loop_where_triton_wants_the_answer_at_once(stage, record):
    calls = []

    def stopping(**inputs):
        calls.append(inputs)
        if len(calls) == 3:
            record.stop()
        return fake.no_noise(**inputs)

    watched = request({"num_inference_steps": 9}, kind=fake.OldRequest)
    watched.id = record.token
    (response,) = stage("21.10", unet=stopping).execute([watched])
    assert error(response).startswith("unet_loop: cancelled before")
    assert len(calls) == 3


def test_no_file_stays_open(stage, record):
    def links():
        return [os.readlink(path) for path in glob.glob("/proc/self/fd/*") if os.path.islink(path)]

    one = stage()
    for images in (({},), ({}, {"seed": 2}), ({"height": 65},)):
        watched = request(*images)
        watched.id = record.token
        one.execute([watched])
        answer(watched)
    one.close()
    assert sum(record.token in link for link in links()) == 1


class Sent:
    """Of each call of the UNet "keep" where rows are new, else "kept" or "none", and the shape of
    the text embeddings sent.
    """

    def __init__(self, monkeypatch):
        self.calls = []
        module = sys.modules["triton_python_backend_utils"]
        usual = module.InferenceRequest

        class InferenceRequest(usual):
            def __init__(request, parameters=None, **arguments):
                super().__init__(parameters=parameters, **arguments)
                verbs = sorted(key.split("_", 1)[0] for key in parameters or {"none_": ""})
                self.calls.append((verbs[0], request._inputs["encoder_hidden_states"].shape))

        monkeypatch.setattr(module, "InferenceRequest", InferenceRequest)
        self.kept = module.kept


def test_text_embeddings_are_sent_once(stage, monkeypatch):
    one = stage()
    sent = Sent(monkeypatch)
    images = {"num_inference_steps": 200}, {"seed": 2, "guidance_scale": 1}
    waiting = request(*images)
    one.execute([waiting])
    latents = answer(waiting).tensors["latents"]
    full = [shape for verb, shape in sent.calls if verb == "keep"]
    assert sent.calls[0][0] == "kept", "a probe first"
    assert full[0][1:] == (7, 16)
    assert len(full) <= 2, "each image once, whoever shares its calls"
    assert sent.calls[-1] == ("kept", (2, 1, 1)), "one image left alone"
    blocking = stage("21.10")
    (response,) = blocking.execute([request(*images, kind=fake.OldRequest)])
    np.testing.assert_array_equal(latents, response.tensors["latents"])


def test_what_the_unet_has_forgotten_is_sent_again(stage, monkeypatch):
    one = stage()
    pb_utils = sys.modules["triton_python_backend_utils"]
    monkeypatch.setattr(pb_utils.kept, "keep", lambda tensors, parameters: None)
    sent = Sent(monkeypatch)
    waiting = request({"num_inference_steps": 3})
    one.execute([waiting])
    assert not answer(waiting).has_error()
    verbs = [verb for verb, _ in sent.calls]
    assert verbs == ["kept", "keep", "kept", "kept", "keep", "kept", "kept", "keep"]


def test_a_unet_that_keeps_nothing_gets_all_in_every_call(stage, monkeypatch):
    def plain(sample, timestep, encoder_hidden_states):
        if encoder_hidden_states.shape[1:] != (7, 16):
            raise RuntimeError("unexpected shape for input encoder_hidden_states")
        return fake.no_noise(sample, timestep, encoder_hidden_states)

    one = stage(unet=plain)
    pb_utils = sys.modules["triton_python_backend_utils"]
    monkeypatch.setattr(pb_utils.kept, "complete", lambda inputs, parameters: inputs)
    sent = Sent(monkeypatch)
    waiting = request({"num_inference_steps": 5})
    one.execute([waiting])
    assert not answer(waiting).has_error()
    assert [verb for verb, _ in sent.calls] == ["kept", "none", "none", "none", "none"]
    assert {shape for _, shape in sent.calls} == {(2, 7, 16)}


def test_a_failed_call_turns_keeping_off_for_nobody(stage, monkeypatch):
    failures = ["out of memory"]

    def once_out_of_memory(**inputs):
        if len(sent.calls) > 4 and failures:
            raise RuntimeError(failures.pop())
        return fake.no_noise(**inputs)

    one = stage(unet=once_out_of_memory)
    sent = Sent(monkeypatch)
    broken, well = request({"num_inference_steps": 8}), request({"num_inference_steps": 8})
    one.execute([broken])
    assert "out of memory" in error(answer(broken))
    del sent.calls[:]
    one.execute([well])
    assert not answer(well).has_error()
    assert [verb for verb, _ in sent.calls] == ["kept", "keep"] + ["kept"] * 7


@pytest.mark.parametrize(("release", "kind"), [("24.10", fake.Request), ("21.10", fake.OldRequest)])
def test_a_unet_that_keeps_no_deep_features_is_not_asked_to(stage, release, kind):
    calls = []

    def plain(**inputs):
        calls.append(len(inputs["sample"]))
        return fake.no_noise(**inputs)

    one, sent = stage(release, plain), request({"cache_interval": 2}, kind=kind)
    if kind is fake.OldRequest:
        (response,) = one.execute([sent])
    else:
        one.execute([sent])
        response = answer(sent)
    assert "cache_interval: got 'over 1'; allowed: 1: unet is run by a backend" in error(response)
    assert len(calls) <= 1, "the probe"


def see_deep_caches(monkeypatch, see):
    """Have `see` called with what every call of the UNet says of deep features."""
    deep_cache = importlib.import_module("triptych.stages.deep_cache")
    kept = sys.modules["triton_python_backend_utils"].kept
    usual = kept.complete

    def complete(inputs, parameters):
        if "deep_cache" in parameters:
            see(deep_cache.asked(parameters))
        return usual(inputs, parameters)

    monkeypatch.setattr(kept, "complete", complete)


def test_a_unet_that_keeps_deep_features_is_told_the_images_and_that_they_left(stage, monkeypatch):
    one, told = stage(), []
    see_deep_caches(monkeypatch, told.append)
    for _ in range(2):
        sent = request({"num_inference_steps": 4, "cache_interval": 3})
        one.execute([sent])
        assert not answer(sent).has_error()
    assert [[image.due for image in cache.images] for cache in told] == [[1], [0], [0], [1]] * 2
    assert [cache.images[0].rows for cache in told] == [2] * 8
    first, second = told[0].images[0].name, told[4].images[0].name
    assert [cache.gone for cache in told] == [()] * 4 + [(first,)] + [()] * 3
    assert first != second


def test_an_image_is_unavailable_whose_deep_features_the_unet_has_no_more(stage, monkeypatch):
    one, lost = stage(), []

    def see(cache):
        lost[:] = lost or [image.name for image in cache.images if image.rows == 1]
        if any(image.name in lost and not image.due for image in cache.images):
            raise gone(*lost)

    see_deep_caches(monkeypatch, see)
    asked = {"num_inference_steps": 9, "cache_interval": 3}
    requests = [request({**asked, "guidance_scale": scale}) for scale in (5.0, 1.0)]
    one.execute(requests)
    well, failed = map(answer, requests)
    assert not well.has_error()
    said = f"unet_loop: cache_interval: the deep features of image {lost[0]} are gone"
    assert error(failed).startswith(said)
    assert failed.error().code() == fake.Error.UNAVAILABLE


def test_no_memory_is_held_for_a_size_that_nobody_draws_any_more(stage, monkeypatch):
    one = stage()
    module = sys.modules["triptych.stages.served_unet"]
    made = []
    usual = module.ServedUNet._remember
    monkeypatch.setattr(
        module.ServedUNet,
        "_remember",
        lambda self, name, row, known_as: (
            made.append(weakref.ref(row)),
            usual(self, name, row, known_as),
        ),
    )
    unet = one._loop._first[0]._predict_noise
    for side in range(64, 128, 8):
        sent = request({"height": side, "num_inference_steps": 2})
        one.execute([sent])
        assert not answer(sent).has_error()
    last = request({"num_inference_steps": 2})
    one.execute([last])
    answer(last)
    gc.collect()
    assert len(made) == 2 * 9
    assert sum(row() is not None for row in made) <= 2
    assert len(unet._kept) <= 2


def test_cohorts_give_the_same_and_are_counted_together(stage):
    fake.MetricFamily.made.clear()
    images = [{"seed": seed, "num_inference_steps": 3 + seed} for seed in range(3)]
    alone, shared = request(*images), request(*images)
    stage().execute([alone])
    expected = answer(alone).tensors["latents"]
    fake.MetricFamily.made.clear()
    two = stage(cohorts="2")
    two.execute([shared])
    np.testing.assert_array_equal(answer(shared).tensors["latents"], expected)
    two.close()
    made = {key[0]: metric.value for key, metric in fake.MetricFamily.made.items()}
    assert made["triptych_images_total"] == 3
    assert made["triptych_steps_total"] == 3 + 4 + 5
    assert made["triptych_images_in_flight"] == 0
    late = request({})
    two.execute([late])
    assert answer(late).error().code() == fake.Error.UNAVAILABLE


def test_the_unet_is_called_on_its_channel_where_it_listens(stage, monkeypatch, tmp_path):
    from triptych.fastdeploy.kept_tensors import KeptTensors
    from triptych.ipc import channel

    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    kept, calls, usual = KeptTensors(), [], fake.no_noise

    def work(tensors, parameters):
        calls.append(list(parameters))
        tensors = kept.complete(tensors, parameters)
        output = fake.no_noise(**{**tensors, "timestep": tensors["timestep"][:, None]})
        kept.keep(tensors, parameters)
        return output

    def never(**inputs):
        raise RuntimeError("called through Triton")

    listener = channel.Listener(folder / "unet.1.channel", work, lambda error: f"unet: {error}")
    by_channel, by_triton, wrong = request({}), request({}), request({}, length=7)
    stage(unet=never).execute([by_channel])
    latents = answer(by_channel).tensors["latents"]
    take = ["kept_encoder_hidden_states"]
    assert calls == [take, [*take, "keep_encoder_hidden_states"], take, take, take]
    monkeypatch.setattr(fake, "no_noise", lambda **inputs: 1 / 0)
    stage(unet=never).execute([wrong])
    assert error(answer(wrong)) == "unet_loop: unet: division by zero"
    listener.close()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(fake, "no_noise", usual)
    stage().execute([by_triton])
    np.testing.assert_array_equal(answer(by_triton).tensors["latents"], latents)


def test_cohorts_call_several_instances_of_the_unet(stage, monkeypatch, tmp_path):
    from triptych.ipc import channel

    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    called = set()

    def instance(number):
        def work(tensors, parameters):
            called.add(number)
            return tensors["sample"] * np.float32(0.1)

        return channel.Listener(folder / f"unet.{number}.channel", work, str)

    listeners = [instance(number) for number in range(2)]
    sent = request({}, {"seed": 2})
    stage(cohorts="2").execute([sent])
    assert not answer(sent).has_error()
    assert called == {0, 1}
    for listener in listeners:
        listener.close()


def test_as_many_cohorts_as_the_unet_has_processes_also_when_they_change(
    stage, monkeypatch, tmp_path
):
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setattr(activity.Instances, "LOOK", 0.0)
    begun, most = [], []

    def unet(**inputs):
        begun.append(threading.current_thread())
        time.sleep(0.05)
        most.append(len(set(begun)))
        return fake.no_noise(**inputs)

    def together():
        begun.clear()
        most.clear()
        sent = request({}, {"seed": 2}, {"seed": 3})
        loop.execute([sent])
        assert not answer(sent).has_error()
        return max(most)

    def process():
        child = subprocess.Popen(["sleep", "60"])
        (folder / f"unet-{child.pid}").write_bytes(bytes(activity._SIZE))
        return child

    loop = stage(unet=unet)
    assert together() == 1
    children = [process(), process()]
    assert together() == 2
    for child in children:
        child.kill()
        child.wait()
    assert together() == 1


def test_a_unet_that_is_loaded_again_is_called_over_its_new_channel(stage, monkeypatch, tmp_path):
    from triptych.ipc import channel

    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    called = []

    def instance(number):
        def work(tensors, parameters):
            called.append(number)
            if called == [1]:  # loaded again while it answers, as Triton does it
                listeners.append(instance(2))
                threading.Thread(target=listeners[0].close).start()
                while (folder / "unet.1.channel").exists():
                    time.sleep(0.001)
            return tensors["sample"] * np.float32(0.1)

        return channel.Listener(folder / f"unet.{number}.channel", work, str)

    def never(**inputs):
        raise RuntimeError("called through Triton")

    listeners = [instance(1)]
    sent = request({"num_inference_steps": 100})
    stage(unet=never).execute([sent])
    assert not answer(sent).has_error()
    assert called == sorted(called) and set(called) == {1, 2} and len(called) == 100
    listeners[1].close()


def test_it_holds_to_the_limits_of_the_tokenizer_and_of_the_unet_beside_it(stage, tmp_path):
    limit = 'parameters { key: "max_num_inference_steps" value { string_value: "60" } }'
    shape = '{ name: "max_shape" parameters { key: "sample" value: "32 4 16 12" } }'
    engines = f"execution_accelerators {{ gpu_execution_accelerator: [ {shape} ] }}"
    for name, config in (("tokenizer", limit), ("unet", f"optimization {{ {engines} }}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(config)
    one = stage()
    sent = [
        request(image)
        for image in (
            {"num_inference_steps": 5, "height": 128, "width": 96},
            {"num_inference_steps": 61},
            {"height": 136},
            {"width": 104},
        )
    ]
    one.execute(sent)
    good, *bad = map(answer, sent)
    assert good.tensors["latents"].shape == (1, 4, 16, 12)
    assert [error(response) for response in bad] == [
        "unet_loop: num_inference_steps: got 61; allowed: an integer from 1 to 60",
        "unet_loop: height: got 136; allowed: a whole number from 1 to 128",
        "unet_loop: width: got 104; allowed: a whole number from 1 to 96",
    ]


def test_a_sender_that_fails_takes_nobody_with_it(stage, monkeypatch):
    def broken(*_, **__):
        raise fake.TritonModelException("Triton does not take it")

    one, bad, good = stage(), request({}), request({"seed": 2})
    late = request({"num_inference_steps": 200})
    for name in ("send", "is_cancelled"):
        monkeypatch.setattr(bad.sender, name, broken)
    one.execute([bad, good])
    assert not answer(good).has_error()
    late.sender.given_up = True
    one.execute([late])
    assert answer(late).error().code() == fake.Error.CANCELLED, "the thread that asks is alive"

    def loop_is_empty():
        made = {key[0]: metric.value for key, metric in fake.MetricFamily.made.items()}
        return made["triptych_images_in_flight"] == 0

    deadline = time.monotonic() + 5
    while not loop_is_empty() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loop_is_empty()
