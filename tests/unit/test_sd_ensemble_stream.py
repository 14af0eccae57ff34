"""The stream as a served model, on stand-ins for Triton and for sd_ensemble."""

import base64
import importlib
import io
import sys
import threading
import time
import uuid

import numpy as np
import pb_utils_fake as fake
import pytest
from pb_utils_fake import answer
from PIL import Image

from triptych.ipc import progress

ANSWER = np.array([[b"the picture"]], dtype=object)
PREVIEW = np.random.RandomState(0).randint(0, 256, (8, 8, 3), np.uint8)


class Ensemble:
    """sd_ensemble with a loop of 6 calls, each of which waits for `go`."""

    calls_before, calls_in_all = 0, 6
    timestep = 1.0

    def __init__(self):
        self.go = threading.Event()
        self.begun = threading.Event()
        self.asked = []
        self.traces = []
        self.call = 0

    def model_input(self):
        return None

    def pixels(self, model_input, timestep, model_output):
        return PREVIEW

    def __call__(self, request_id, inputs):
        self.asked.append((request_id, inputs))
        if inputs["INPUT_0"][0, 0] == b"bad":
            words = "in ensemble 'sd_ensemble', tokenizer: prompt: got 'bad'; allowed: others"
            raise RuntimeError(words)
        watcher = progress.writer("sd_ensemble_stream", request_id, self)
        for call in range(self.calls_in_all):
            self.call = call
            self.begun.set()
            while not self.go.is_set():
                time.sleep(0.002)
                if watcher and watcher.stopped():
                    watcher.close()
                    words = "cancelled before the image was finished"
                    raise RuntimeError(f"in ensemble 'sd_ensemble', unet_loop: {words}")
            if watcher:
                watcher(self, None)
            time.sleep(0.05)
        if watcher:
            watcher.close()
        return ANSWER


@pytest.fixture
def ensemble():
    return Ensemble()


@pytest.fixture
def stage(tmp_path, monkeypatch, ensemble):
    """`stage(release, **parameters)`: the model sd_ensemble_stream."""
    prefix = f"triptych_{uuid.uuid4()}_"
    monkeypatch.setenv(progress.PREFIX_VARIABLE, prefix)
    made = []

    def make(release="24.10", **parameters):
        module = fake.module(release, None)
        module.InferenceRequest = inference_request(module, ensemble)
        fake.install(monkeypatch, module)
        triton = importlib.import_module("triptych.stages.triton")
        stream_stage = importlib.import_module("triptych.stages.sd_ensemble_stream")
        names = ("INPUT_0",)
        arguments = fake.initialize_args(tmp_path, "sd_ensemble_stream", names, **parameters)
        made.append(stream_stage.StreamStage(triton.Model(arguments)))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert list(progress.FOLDER.glob(f"{prefix}*")) == []


def inference_request(module, ensemble):
    class InferenceRequest:
        def __init__(
            self,
            model_name,
            requested_output_names,
            inputs,
            request_id="",
            parameters=None,
            preferred_memory=None,
            trace=None,
        ):
            ensemble.traces.append(trace)
            assert (model_name, requested_output_names) == ("sd_ensemble", ["OUTPUT_0"])
            ensemble.parameters = parameters or {}
            assert all(isinstance(one, (bool, int, str)) for one in ensemble.parameters.values())
            self._id = request_id
            self._inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}

        def exec(self):
            try:
                answer = ensemble(self._id, self._inputs)
            except RuntimeError as error:
                return fake.InferenceResponse([], module.TritonError(str(error)))
            return fake.InferenceResponse([fake.Tensor("OUTPUT_0", answer)])

    return InferenceRequest


def request(text=b"a prompt", kind=fake.Request, **parameters):
    made = kind(INPUT_0=np.array([[text]], dtype=object))
    made.own_parameters = parameters
    return made


def steps(sent):
    return [(p.tensors["step"].item(), p.tensors["total"].item()) for p in sent.sender.parts]


def test_parameters_go_on_to_the_ensemble(stage, ensemble):
    ensemble.go.set()
    sent = request(preview_every=2, seed=7, guidance_scale=2.5)
    stage().execute([sent])
    assert answer(sent).tensors == {"OUTPUT_0": ANSWER}
    assert ensemble.parameters == {"seed": 7, "guidance_scale": "2.5"}


def test_every_step_comes_then_the_answer_of_the_ensemble(stage, ensemble):
    ensemble.go.set()
    sent = request(preview_every=2)
    assert stage().execute([sent]) is None
    assert answer(sent).tensors == {"OUTPUT_0": ANSWER}
    assert steps(sent) == [(step, 6) for step in range(1, 7)]
    shown = [p.tensors["step"].item() for p in sent.sender.parts if "preview" in p.tensors]
    assert shown == [2, 4]
    file = base64.b64decode(sent.sender.parts[1].tensors["preview"][0, 0])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), PREVIEW)
    ((token, inputs),) = ensemble.asked
    assert len(token) == 32
    assert inputs["INPUT_0"] == b"a prompt"


def test_the_id_of_a_request_goes_on_to_the_ensemble(stage, ensemble):
    ensemble.go.set()
    sent = request()
    sent.id = "order:7"
    stage().execute([sent])
    assert answer(sent).tensors == {"OUTPUT_0": ANSWER}
    assert steps(sent)[-1] == (6, 6)
    ((asked_as, _),) = ensemble.asked
    assert asked_as.startswith("order:7:")


def test_a_traced_requests_call_is_in_its_trace_which_lives_until_a_stage_has_it(stage, ensemble):
    """Triton frees the trace when `execute` is over."""
    sent = request()
    sent.context = fake.context()
    executing = threading.Thread(target=stage().execute, args=([sent],))
    executing.start()
    assert ensemble.begun.wait(10)
    assert ensemble.traces == [sent.trace()]
    executing.join(0.2)
    assert executing.is_alive()
    progress.tell_begun("sd_ensemble_stream", ensemble.asked[0][0])
    executing.join(10)
    assert not executing.is_alive()
    ensemble.go.set()
    assert answer(sent).tensors == {"OUTPUT_0": ANSWER}


def test_a_traced_request_that_no_stage_gets_ends_too(stage, ensemble):
    sent = request(b"bad")
    sent.context = fake.context()
    stage().execute([sent])
    assert answer(sent).has_error()


def test_a_request_that_is_not_traced_waits_for_nothing(stage, ensemble):
    sent = request()
    stage().execute([sent])
    ensemble.go.set()
    answer(sent)
    assert ensemble.traces == [None]


@pytest.mark.parametrize(("given", "shown"), [({}, [3]), ({"preview_every": 0}, [])])
def test_the_model_says_how_often_where_the_request_does_not(stage, ensemble, given, shown):
    ensemble.go.set()
    sent = request(**given)
    stage(preview_every="3").execute([sent])
    answer(sent)
    assert [p.tensors["step"].item() for p in sent.sender.parts if "preview" in p.tensors] == shown


@pytest.mark.parametrize("value", [-1, 1001, 1.5, True, "x", "-1", "9" * 5000])
def test_a_preview_every_that_is_none_is_refused_by_name(stage, value):
    sent = request(preview_every=value)
    stage().execute([sent])
    error = answer(sent).error()
    assert error.message().startswith("sd_ensemble_stream: preview_every: got ")
    assert error.code() == fake.Error.INVALID_ARG


def test_what_the_ensemble_refuses_is_the_clients_error(stage):
    sent = request(b"bad")
    stage().execute([sent])
    error = answer(sent).error()
    assert "tokenizer: prompt: got 'bad'; allowed: " in error.message()
    assert error.code() == fake.Error.INVALID_ARG


def test_a_client_that_leaves_stops_its_image(stage, ensemble):
    sent = request()
    stage().execute([sent])
    assert ensemble.begun.wait(5)
    sent.sender.given_up = True
    assert answer(sent).error().code() == fake.Error.CANCELLED
    assert steps(sent) == []


def test_streams_beyond_the_bound_are_refused_at_once_and_the_others_go_on(stage, ensemble):
    requests = [request() for _ in range(4)]
    stage(max_streams="3").execute(requests)
    error = answer(requests[3]).error()
    assert error.message() == "sd_ensemble_stream: 3 images are streamed already; try later"
    assert error.code() == fake.Error.UNAVAILABLE
    ensemble.go.set()
    for sent in requests[:3]:
        assert not answer(sent).has_error()


def test_closing_answers_what_is_streamed(stage, ensemble):
    one, sent = stage(), request()
    one.execute([sent])
    assert ensemble.begun.wait(5)
    one.close()
    assert answer(sent).has_error()


def test_shared_memory_without_room_fails_the_request_with_a_reason(stage, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    one, sent = stage(), request()
    monkeypatch.setattr(progress.os, "posix_fallocate", full)
    one.execute([sent])
    assert "No space left on device" in answer(sent).error().message()


def test_a_triton_that_sends_one_response_only_gets_the_picture(stage, ensemble):
    ensemble.go.set()
    (response,) = stage("21.10").execute([request(kind=fake.OldRequest)])
    assert response.tensors == {"OUTPUT_0": ANSWER}


@pytest.mark.parametrize("value", ["-1", "x", "1001"])
def test_a_model_parameter_that_is_none_is_a_load_error(stage, value):
    with pytest.raises(ValueError, match="preview_every: got "):
        stage(preview_every=value)


def test_progress_that_cannot_be_told_ends_neither_its_image_nor_the_others(
    stage, ensemble, monkeypatch
):
    one = stage()
    module = sys.modules["triptych.stages.sd_ensemble_stream"]
    usual, broken = module._tensors, []

    def tensors(new):
        if not broken or threading.current_thread() in broken:
            broken.append(threading.current_thread())
            raise ValueError("it cannot be drawn")
        return usual(new)

    first = request()
    one.execute([first])
    monkeypatch.setattr(module, "_tensors", tensors)
    ensemble.go.set()
    while not broken:
        time.sleep(0.005)
    monkeypatch.setattr(module, "_tensors", usual)
    second, third = request(), request()
    one.execute([second, third])
    third.sender.given_up = True
    assert answer(first).tensors == {"OUTPUT_0": ANSWER}
    assert answer(second).tensors == {"OUTPUT_0": ANSWER}
    assert steps(second) == [(step, 6) for step in range(1, 7)]
    assert answer(third) is not None
    assert list(progress.FOLDER.glob(progress._prefix("sd_ensemble_stream") + "*")) == []


def test_the_end_is_told_even_if_progress_is_not(stage, ensemble, monkeypatch):
    def tensors(new):
        raise ValueError("it cannot be drawn")

    one, sent = stage(), request()
    monkeypatch.setattr(sys.modules["triptych.stages.sd_ensemble_stream"], "_tensors", tensors)
    ensemble.go.set()
    one.execute([sent])
    assert answer(sent).tensors == {"OUTPUT_0": ANSWER}
    assert sent.sender.parts == []
    assert list(progress.FOLDER.glob(progress._prefix("sd_ensemble_stream") + "*")) == []


def test_an_answer_that_triton_does_not_take_is_replaced_by_the_error(stage, ensemble, monkeypatch):
    def full(response, flags=0):
        if not response.has_error():
            raise fake.TritonModelException("Failed to increase the shared memory pool size")
        usual(response, flags)

    one, sent, other = stage(), request(), request()
    usual = sent.sender.send
    monkeypatch.setattr(sent.sender, "send", full)
    ensemble.go.set()
    one.execute([sent, other])
    assert "shared memory pool" in answer(sent).error().message()
    assert answer(other).tensors == {"OUTPUT_0": ANSWER}
