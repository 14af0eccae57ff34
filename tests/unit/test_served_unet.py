"""How the loop calls the served model `unet`."""

import importlib

import numpy as np
import pb_utils_fake as fake

from triptych.errors import InvalidRequest
from triptych.fastdeploy.kept_tensors import KeptTensors


def test_the_loop_sends_what_unet_has_kept_as_small_as_its_config_allows(monkeypatch):
    """Its config.pbtxt has numbers for channels and sizes, which Triton checks in every call."""
    fake.install(monkeypatch, fake.module("24.10", None))
    served_unet = importlib.import_module("triptych.stages.served_unet")
    sent = []

    def call(model, inputs, output, parameters):
        sent.append({name: array.shape for name, array in inputs.items()})
        if len(sent) == 1:
            raise served_unet.triton.StageFailed("unet: kept_mask: got 'x'; allowed: ...")
        return inputs["sample"]

    monkeypatch.setattr(served_unet.triton, "call", call)
    kept = {"encoder_hidden_states": (2, 77, 48), "time_ids": (2, 6), "masked": (2, 4, 8, 8)}
    conditioning = {name: [*np.ones(shape, np.float32)] for name, shape in kept.items()}
    unet = served_unet.ServedUNet()
    for _ in range(2):
        unet(np.ones((2, 4, 8, 8), np.float32), np.ones(2, np.float32), conditioning)
    first, second = sent[1:]
    assert {name: first[name] for name in kept} == kept
    small = {"encoder_hidden_states": (2, 1, 1), "time_ids": (2, 6), "masked": (2, 4, 1, 1)}
    assert {name: second[name] for name in kept} == small


def answering(kept, inputs, parameters):
    """What `unet` makes of a call's inputs, which keeps as `kept` does."""
    try:
        tensors = kept.complete(inputs, parameters)
    except InvalidRequest as error:
        failed = importlib.import_module("triptych.stages.triton").StageFailed
        raise failed(f"unet: {error}") from None
    kept.keep(tensors, parameters)
    return tensors


def test_a_row_is_sent_once_whatever_rows_share_its_calls(monkeypatch):
    fake.install(monkeypatch, fake.module("24.10", None))
    served_unet = importlib.import_module("triptych.stages.served_unet")
    kept, given, sent = KeptTensors(), [], []

    def call(model, inputs, output, parameters):
        assert {len(array) for array in inputs.values()} == {len(inputs["sample"])}
        tensors = answering(kept, inputs, parameters)
        sent.append(parameters.get("keep_embeds", "").split())
        given.append(tensors["embeds"][:, 0, 0].tolist())
        return inputs["sample"]

    monkeypatch.setattr(served_unet.triton, "call", call)
    rows = [np.full((7, 16), number, np.float32) for number in range(4)]
    unet = served_unet.ServedUNet()
    for chosen in ([0, 1], [1, 2, 0], [2, 1], [3, 3, 0, 2], [0, 1]):
        one_each = np.ones((len(chosen), 4, 8, 8), np.float32)
        embeds = {"embeds": [rows[number] for number in chosen]}
        unet(one_each, np.ones(len(chosen), np.float32), embeds)
    assert given == [[0, 1], [1, 2, 0], [2, 1], [3, 3, 0, 2], [0, 1]]
    assert [*map(len, sent)] == [2, 1, 0, 1, 0]
    assert len({name for names in sent for name in names}) == 4


def test_a_row_that_the_loop_has_no_longer_is_dropped_with_the_next_call(monkeypatch):
    fake.install(monkeypatch, fake.module("24.10", None))
    served_unet = importlib.import_module("triptych.stages.served_unet")
    kept, names, dropped = KeptTensors(), [], []

    def call(model, inputs, output, parameters):
        answering(kept, inputs, parameters)
        names.extend(parameters.get("keep_embeds", "").split())
        dropped.append(parameters.get("drop_embeds", "").split())
        return inputs["sample"]

    monkeypatch.setattr(served_unet.triton, "call", call)
    rows = [np.full((7, 16), number, np.float32) for number in range(3)]
    unet = served_unet.ServedUNet()

    def draw():
        one_each = np.ones((len(rows), 4, 8, 8), np.float32)
        unet(one_each, np.ones(len(rows), np.float32), {"embeds": list(rows)})

    draw()
    del rows[1:]
    draw()
    draw()
    assert [*map(sorted, dropped)] == [[], sorted(names[1:]), []]
