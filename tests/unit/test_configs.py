"""The config.pbtxt files: Triton reads them, and they agree with each other."""

import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2

from triptych.fastdeploy import accelerators
from triptych.settings import Limits

CHECKOUT = Path(__file__).resolve().parents[2]
MODELS = (
    *("tokenizer", "text_encoder", "unet", "unet_loop"),
    *("vae_decoder", "image_encoder", "sd_ensemble", "sd_ensemble_stream", "vae_encoder"),
)
# What Triton 21.10 reads: fields of each message in its model_config.proto.
FIELDS_OF_21_10 = json.loads(
    (CHECKOUT / "tests" / "fixtures" / "triton_21_10_fields.json").read_text()
)


def config(model):
    path = CHECKOUT / "model_repository" / model / "config.pbtxt"
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_every_model_is_there():
    folders = sorted(path.name for path in (CHECKOUT / "model_repository").iterdir())
    assert folders == sorted(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_fields_are_those_of_triton_21_10(model):
    assert newer_fields(config(model)) == []


def newer_fields(message):
    """The fields set in `message` that Triton 21.10 does not know."""
    known = FIELDS_OF_21_10[message.DESCRIPTOR.full_name[len("inference.") :]]
    found = []
    for field, value in message.ListFields():
        if field.name not in known:
            found.append(f"{message.DESCRIPTOR.name}.{field.name}")
        elif field.message_type is not None:
            is_map = field.message_type.GetOptions().map_entry
            within = value.values() if is_map else [value] if isinstance(value, Message) else value
            found += [
                name for one in within if isinstance(one, Message) for name in newer_fields(one)
            ]
    return found


def test_a_newer_field_is_found():
    message = config("tokenizer")
    message.input[0].optional = True
    assert newer_fields(message) == ["ModelInput.optional"]


@pytest.mark.parametrize("model", MODELS)
def test_they_load_without_a_gpu_and_take_batches(model):
    own = config(model)
    assert own.name == model
    assert own.max_batch_size > 0
    kinds = {group.kind for group in own.instance_group}
    assert model_config_pb2.ModelInstanceGroup.KIND_GPU not in kinds


def tensors(entries):
    return {entry.name: (entry.data_type, list(entry.dims)) for entry in entries}


def test_the_ensemble_is_wired_with_like_to_like():
    ensemble = config("sd_ensemble")
    known = tensors(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        stage = config(step.model_name)
        assert ensemble.max_batch_size <= stage.max_batch_size
        inputs, outputs = tensors(stage.input), tensors(stage.output)
        assert set(step.input_map) == set(inputs)
        for name, tensor in step.input_map.items():
            assert known[tensor] == inputs[name], (step.model_name, name)
        assert set(step.output_map) == set(outputs)
        known.update({tensor: outputs[name] for name, tensor in step.output_map.items()})
    for name, tensor in tensors(ensemble.output).items():
        assert known[name] == tensor


def test_interface_of_the_service():
    ensemble = config("sd_ensemble")
    text = (model_config_pb2.TYPE_STRING, [1])
    assert tensors(ensemble.input) == {"INPUT_0": text}
    assert tensors(ensemble.output) == {"OUTPUT_0": text}


def test_only_the_stream_is_decoupled_and_takes_what_the_ensemble_takes():
    decoupled = [name for name in MODELS if config(name).model_transaction_policy.decoupled]
    assert decoupled == ["sd_ensemble_stream"]
    stream, ensemble = tensors(config(*decoupled).output), tensors(config("sd_ensemble").output)
    assert tensors(config(*decoupled).input) == tensors(config("sd_ensemble").input)
    assert stream["OUTPUT_0"] == ensemble["OUTPUT_0"]


def test_the_loop_fills_the_unets_batch():
    max_rows = int(config("unet_loop").parameters["max_rows"].string_value)
    assert max_rows == config("unet").max_batch_size


@pytest.mark.parametrize("model", MODELS)
def test_no_model_uses_what_goes_wrong_in_triton_24_10(model):
    """A response cache keeps errors; with a queue policy some requests wait for half a second."""
    own = config(model)
    assert not own.response_cache.enable
    assert not own.dynamic_batching.HasField("default_queue_policy")


@pytest.mark.parametrize("model", [m for m in MODELS if config(m).backend == "fastdeploy"])
def test_accelerators_are_what_the_backend_knows(model):
    own = config(model)
    parsed = accelerators.parse(as_triton_gives_it(own))
    # TensorRT 8.5 is wrong at some sizes of the VAE, and has not built the UNet.
    assert parsed.gpu == ("tensorrt" if model == "text_encoder" else "onnxruntime")
    assert parsed.gpu_fp16
    for profile in accelerators.PROFILES:
        assert set(parsed.shapes[profile]) == {entry.name for entry in own.input}
    for entry in own.input:
        most = parsed.shapes["max_shape"][entry.name]
        assert most[0] == own.max_batch_size
        dims = list(entry.reshape.shape if entry.HasField("reshape") else entry.dims)
        assert len(most) == 1 + len(dims)
        assert all(dim in (-1, size) for dim, size in zip(dims, most[1:]))


def as_triton_gives_it(message):
    """The part of the configuration that the backend reads, as Triton's JSON has it."""
    asked = message.optimization.execution_accelerators
    kinds = ("cpu_execution_accelerator", "gpu_execution_accelerator")
    return {
        "optimization": {
            "execution_accelerators": {
                kind: [
                    {"name": entry.name, "parameters": dict(entry.parameters)}
                    for entry in getattr(asked, kind)
                ]
                for kind in kinds
            }
        }
    }


def test_parameters_of_the_tokenizer_are_limits():
    own = config("tokenizer")
    Limits.from_parameters({key: value.string_value for key, value in own.parameters.items()})
