"""A prompt in, a picture out: over gRPC and HTTP."""

import base64
import queue

import pytest
from tritonclient import grpc as grpcclient

from tests.server.calls import SMALL, get, metrics, metrics_when, pixels, post, request, texts
from triptych.picture.metadata import read_settings

STAGES = (
    *("tokenizer", "text_encoder", "unet", "unet_loop"),
    *("vae_decoder", "image_encoder", "sd_ensemble"),
)


def test_a_plain_prompt_gives_a_png_with_its_settings(calls):
    (file,) = calls.pictures(b"a red circle on a blue background")
    assert file.startswith(b"\x89PNG")
    settings = read_settings(file)
    assert settings.prompt == "a red circle on a blue background"
    assert pixels(file).shape == (settings.height, settings.width, 3)
    again = request(settings.prompt, seed=settings.seed)
    assert calls.pictures(again) == [file]


def test_interface_is_one_text_in_and_one_text_out(calls):
    metadata = calls.client.get_model_metadata("sd_ensemble")
    (given,), (made,) = metadata.inputs, metadata.outputs
    assert (given.name, given.datatype, list(given.shape)) == ("INPUT_0", "BYTES", [-1, 1])
    assert (made.name, made.datatype, list(made.shape)) == ("OUTPUT_0", "BYTES", [-1, 1])


def test_same_seed_same_bytes_other_seed_other_picture(calls):
    first, second = (calls.pictures(request(**SMALL))[0] for _ in range(2))
    other = calls.pictures(request(**{**SMALL, "seed": 8}))[0]
    assert first == second
    assert (pixels(first) != pixels(other)).any()


def test_a_batch_gives_each_prompt_its_picture(calls):
    prompts = ("a red circle", "a green star", "a yellow sun over green hills at sunset")
    raw = [request(prompt, **SMALL) for prompt in prompts]
    together = calls.pictures(*raw)
    assert [read_settings(file).prompt for file in together] == list(prompts)
    assert together == [calls.pictures(one)[0] for one in raw]


@pytest.mark.parametrize(
    ("output_format", "start"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")]
)
def test_output_formats_and_sizes(calls, output_format, start):
    raw = request(**{**SMALL, "width": 192}, output_format=output_format)
    (file,) = calls.pictures(raw)
    assert file.startswith(start)
    assert pixels(file).shape == (128, 192, 3)


def test_http_generate(calls, server):
    raw = request(**SMALL)
    status, reply = post(f"{server.http}/v2/models/sd_ensemble/generate", {"INPUT_0": raw.decode()})
    assert status == 200
    assert base64.b64decode(reply["OUTPUT_0"]) == calls.pictures(raw)[0]


def test_parameters_of_http_generate_are_settings(calls, server):
    url = f"{server.http}/v2/models/sd_ensemble/generate"
    own = {"seed": 7, "num_inference_steps": 2, "guidance_scale": 2.5, "scheduler": "euler"}
    status, reply = post(url, {"INPUT_0": "a red circle", **own})
    assert status == 200, reply
    assert base64.b64decode(reply["OUTPUT_0"]) == calls.pictures(request("a red circle", **own))[0]
    status, reply = post(url, {"INPUT_0": "a red circle", "sed": 7})
    assert status == 400
    assert "sed: got 7; allowed: only the parameters prompt, " in reply["error"]


@pytest.mark.parametrize("model", ["sd_ensemble", "sd_ensemble_stream"])
def test_parameters_of_infer_are_settings(calls, server, model):
    own = {"seed": 7, "num_inference_steps": 2, "negative_prompt": "blue"}
    own["guidance_scale"] = 2.5
    expected = calls.pictures(request("a red circle", **own))[0]
    answers = queue.Queue()
    tensor = grpcclient.InferInput("INPUT_0", [1, 1], "BYTES")
    tensor.set_data_from_numpy(texts(b"a red circle"))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(model, [tensor], parameters={**own, "guidance_scale": "2.5"})
        while True:
            result, error = answers.get(timeout=60)
            assert error is None, error
            if result.as_numpy("OUTPUT_0") is not None:
                break
    assert base64.b64decode(result.as_numpy("OUTPUT_0")[0, 0]) == expected


def test_both_prompts_of_a_picture_share_a_run_of_the_text_encoder(calls):
    def runs():
        (found,) = calls.client.get_inference_statistics("text_encoder").model_stats
        return found.execution_count

    calls.pictures(request(**SMALL))
    before = runs()
    for _ in range(10):
        calls.pictures(request(**SMALL))
    assert 10 <= runs() - before <= 11  # one, where the machine was away for longer than the delay


def test_metrics_of_every_stage(calls, server):
    before = metrics(server.metrics)
    calls.pictures(request(**SMALL))

    def missing(after):
        keys = [("nv_inference_request_success", stage) for stage in STAGES]
        return [key for key in keys if after[key] <= before.get(key, 0)]

    after = metrics_when(server.metrics, lambda found: not missing(found))
    assert not missing(after)

    def grown(name):
        return after[name, "unet_loop"] - before[name, "unet_loop"]

    assert grown("triptych_images_total") == 1
    assert grown("triptych_steps_total") == grown("triptych_unet_calls_total") == 3
    assert grown("triptych_unet_rows_total") == 6
    assert grown("triptych_queue_seconds_total") > 0
    assert after["triptych_images_in_flight", "unet_loop"] == 0
    assert "# HELP triptych_images_total" in get(f"{server.metrics}/metrics")
