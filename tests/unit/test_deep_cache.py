"""DeepCache: which calls run the UNet's deep part, what is kept of it, and who refuses."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from test_adapted import network
from test_denoising import MODEL_FILES, NEGATIVE, PROMPT, SETTINGS, denoise, image, predict

from tests.server.repositories import MODELS
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.deep_cache import Deep, DeepCache
from triptych.denoise.denoising import Denoising
from triptych.denoise.in_flight import MOST_GONE, TURN, WAITS, Flight, InFlight
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer
from triptych.denoise.start import Start
from triptych.errors import InvalidRequest, Unavailable
from triptych.fastdeploy.kept_tensors import KeptTensors
from triptych.fastdeploy.lru import Lru
from triptych.fastdeploy.onnx_nodes import with_output
from triptych.lora.folder import Adapter
from triptych_export import shallow

SHALLOW = MODELS / "unet" / "1" / "shallow.onnx"


def due_by_call(one):
    due: list[int] = []
    while not one.finished:
        assert one.deep.rows == len(one.conditioning)
        due.append(int(one.deep.due))
        assert one.deep.since == max(call for call, is_due in enumerate(due) if is_due)
        one.advance(np.zeros((one.deep.rows, *one.latents.shape), np.float32))
    return due


@pytest.mark.parametrize(
    ("asked", "due"),
    [
        ({"cache_interval": 2}, [1, 0, 1, 0, 1]),
        ({"cache_interval": 3}, [1, 0, 0, 1, 0]),
        ({"cache_interval": 20}, [1, 0, 0, 0, 0]),
        # Both calls of a step, at timesteps of their own.
        ({"cache_interval": 2, "scheduler": "dpm2"}, [1, 0, 1, 0, 1, 0, 1, 0, 1]),
        # Its calls 1 and 2 are at one timestep and count as the first of them.
        ({"cache_interval": 2, "scheduler": "pndm"}, [1, 0, 0, 0, 1, 0]),
        # Rows that were not there before have no features.
        ({"cache_interval": 3, "guidance_stop": 0.5}, [1, 0, 1, 1, 0]),
        ({"cache_interval": 4, "guidance_start": 0.2}, [1, 1, 0, 0, 1]),
    ],
)
def test_which_calls_run_the_deep_part(asked, due):
    assert due_by_call(image(**asked)) == due


def test_from_a_picture_the_first_call_that_is_made_runs_it():
    start = Start(np.zeros((8, 8, 12), np.float32))
    changes = {"num_inference_steps": 8, "strength": 0.4, "cache_interval": 2}
    settings = dataclasses.replace(SETTINGS, **changes)
    one = Denoising(settings, *of_prompts(PROMPT, NEGATIVE), MODEL_FILES, start)
    assert due_by_call(one) == [1, 0, 1]


@pytest.mark.parametrize("scheduler", ["heun", "heun_karras"])
def test_a_scheduler_that_calls_twice_at_a_timestep_is_refused(scheduler):
    with pytest.raises(InvalidRequest, match="cache_interval: got 2; allowed: 1 with heun"):
        image(cache_interval=2, scheduler=scheduler)
    image(cache_interval=1, scheduler=scheduler)


def test_loras_are_refused_with_it():
    settings = dataclasses.replace(SETTINGS, cache_interval=3)
    prompts, adapters = of_prompts(PROMPT, NEGATIVE), (Adapter("ink", 1.0, "1"),)
    with pytest.raises(InvalidRequest, match="cache_interval: got 3; allowed: 1 with LoRAs"):
        Denoising(settings, *prompts, MODEL_FILES, adapters=adapters)


def test_images_with_any_interval_share_calls_and_those_without_are_called_as_ever():
    calls = []

    def counting(sample, timestep, conditioning, **more):
        calls.append((len(sample), more.get("deep_cache")))
        return predict(sample, timestep, conditioning)

    kinds = [{"cache_interval": 2}, {"cache_interval": 3}, {}, {"cache_interval": 1}]
    images = [image(**asked) for asked in kinds]
    denoise(*images, predict_noise=counting)
    assert [asked is None for _, asked in calls[:10]] == [False, True] * 5, "each kind in turn"
    assert {rows for rows, asked in calls if asked is None} == {4}
    told = [asked for _, asked in calls if asked]
    assert [[one.due for one in asked.images] for asked in told[:4]] == [
        [True, True],
        [False, False],
        [False],
        [True, True],
    ]
    assert told[0].images[0].name != told[0].images[1].name


def test_images_of_every_kind_have_their_calls_in_turn():
    """With and without an interval and with LoRAs, one row at a time: nobody waits for an end."""
    settings = dataclasses.replace(SETTINGS, num_inference_steps=40)
    prompts, adapters = of_prompts(PROMPT, NEGATIVE), (Adapter("ink", 1.0, "1"),)
    kinds = ({"cache_interval": 2}, {"cache_interval": 5}, {}, {})
    images = [image(num_inference_steps=40, **asked) for asked in kinds]
    images.append(Denoising(settings, *prompts, MODEL_FILES, adapters=adapters))
    progress = []

    def counting(sample, timestep, conditioning, **more):
        progress.append([one.call for one in images])
        return predict(sample, timestep, conditioning)

    denoise(*images, max_rows=2, predict_noise=counting)
    waits = []
    for calls in zip(*progress):
        served = [at for at, (now, then) in enumerate(zip(calls, calls[1:])) if then > now]
        waits.append(max(then - now for now, then in zip([-1, *served], served)))
    of_all = TURN + 4
    assert waits[2:4] == [of_all] * 2, "the three others without LoRAs, and a turn of those with"
    assert of_all < max(waits[:2]) <= (WAITS + 1) * of_all, "those that wait to be due together"
    assert waits[4] == TURN + 1, "a turn of those without"


def test_an_image_whose_deep_features_are_gone_fails_alone_and_the_others_go_on():
    lost, other = image(cache_interval=3), image(cache_interval=2, seed=7)
    refusals = []

    def forgetful(sample, timestep, conditioning, deep_cache):
        if lost.deep_name in [one.name for one in deep_cache.images if not one.due]:
            refusals.append(Unavailable(f"features of {lost.deep_name}"))
            raise refusals[-1]
        return predict(sample, timestep, conditioning)

    failed, drawn = DenoisingLoop(forgetful, 32).run_to_end([lost, other])
    assert refusals == [failed]
    (expected,) = denoise(image(seed=7))
    np.testing.assert_array_equal(drawn, expected)


def test_the_names_of_images_that_left_are_told_until_a_call_has_succeeded():
    calls = []

    def failing(sample, timestep, conditioning, deep_cache):
        calls.append(deep_cache)
        if len(calls) in (2, 3, 5):
            raise RuntimeError("out of memory")
        return predict(sample, timestep, conditioning)

    short = image(cache_interval=2, num_inference_steps=2)
    failed = [image(cache_interval=2) for _ in range(3)]
    drawn, *others = DenoisingLoop(failing, 2).run_to_end([short, *failed])
    assert drawn.shape == short.latents.shape
    assert [type(other) for other in others] == [RuntimeError] * 3
    first, second, _ = (one.deep_name for one in failed)
    gone = [(), (), (first,), (first, second), (short.deep_name,)]
    assert [one.gone for one in calls] == gone


def test_images_that_come_one_by_one_are_soon_due_together():
    """A call runs the deep part for all or for none, and nobody waits for more than WAITS calls."""
    images, calls = [image(cache_interval=3, num_inference_steps=40) for _ in range(8)], []

    def counting(sample, timestep, conditioning, deep_cache):
        (due,) = {one.due for one in deep_cache.images}
        calls.append(([one.name for one in deep_cache.images], due))
        return predict(sample, timestep, conditioning)

    in_flight = InFlight(counting, 32, Observer())
    for one in images:
        in_flight.join(Flight(one, lambda result: None))
        in_flight.call()
    while in_flight.flights:
        in_flight.call()
    of_all = [due for names, due in calls if len(names) == len(images)]
    assert of_all[:9] == [True, False, False] * 3
    assert len(of_all) >= 32, "of 40 calls"
    for one in images:
        served = [at for at, (names, _) in enumerate(calls) if one.deep_name in names]
        assert max(then - now for now, then in zip(served, served[1:])) <= WAITS + 1


def test_names_of_images_that_left_are_not_heaped_up_while_every_call_fails():
    calls = []

    def failing(*_, deep_cache):
        calls.append(deep_cache)
        raise RuntimeError("out of memory")

    DenoisingLoop(failing, 2).run_to_end([image(cache_interval=2) for _ in range(MOST_GONE + 9)])
    assert [len(one.gone) for one in calls] == [*range(MOST_GONE), *[MOST_GONE] * 9]


@pytest.fixture(scope="module")
def feeds():
    random = np.random.RandomState(0)
    return {
        "sample": random.standard_normal((5, 4, 8, 8)).astype("f"),
        "timestep": np.float32([5, 900, 100, 7, 8]),
        "encoder_hidden_states": random.standard_normal((5, 77, 192)).astype("f"),
    }


@pytest.fixture(scope="module")
def deep(feeds):
    """The deep features of all rows, and the shallow graph as a function of them."""
    shallow = onnxruntime.InferenceSession(str(SHALLOW))
    name = shallow.get_inputs()[-1].name
    model = (SHALLOW.parent / "model.onnx").read_bytes()
    whole = onnxruntime.InferenceSession(with_output(model, name))

    def run(feeds, features):
        given = {one.name: feeds.get(one.name) for one in shallow.get_inputs()}
        return shallow.run(None, {**given, name: features})[0]

    return whole.run([name], feeds)[0], run


def part(feeds, *rows):
    return {name: values[list(rows)] for name, values in feeds.items()}


@pytest.mark.parametrize("bound", [False, True])
def test_what_is_kept_is_used_by_the_images_that_are_not_due(feeds, deep, bound):
    """On the host, and as on a GPU: features that stay on the device, copied there row by row."""
    features, shallow = deep
    unet, kept = network("unet", None), KeptTensors().features
    if bound:
        unet.bind((1, 2, 4, 8), ("cpu", 0))

    def run(rows, *images, gone=()):
        asked = DeepCache(tuple(Deep(*one) for one in images), gone)
        return unet.run_deep_cached(part(feeds, *rows), asked, kept)["out_sample"]

    (plain,) = unet.run([feeds])
    first = run(range(5), ("a", 2, 0, True), ("b", 1, 0, True), ("c", 2, 0, True))
    np.testing.assert_array_equal(first, plain["out_sample"])
    # Other rows in place of an image's own show whose features are taken.
    other = run([3, 4, 2, 0, 1], ("a", 2, 0, False), ("b", 1, 0, False), ("c", 2, 0, False))
    close = {"rtol": 1e-4, "atol": 1e-5}
    expected = shallow(part(feeds, 3, 4, 2, 0, 1), features)
    np.testing.assert_allclose(other, expected, **close)
    assert abs(other - plain["out_sample"][[3, 4, 2, 0, 1]]).max() > 0.1
    # Never another picture, and nothing is run: gone, unknown, of another call, of other rows.
    held = kept.find("b")
    for wanted, gone in (
        (("a", 2, 0, False), ("a",)),
        (("new", 2, 0, False), ()),
        (("c", 2, 1, False), ()),
        (("c", 1, 0, False), ()),
    ):
        rows = range(1 + wanted[1])
        with pytest.raises(Unavailable, match=f"image {wanted[0]} are gone: .*; try later"):
            run(rows, ("b", 1, 0, False), wanted, gone=gone)
    assert kept.find("b") is held


def test_features_are_freed_when_their_image_is_gone(feeds):
    unet, kept = network("unet", None), Lru(2**20)
    two = part(feeds, 0, 1)
    unet.run_deep_cached(two, DeepCache((Deep("a", 2, 0, True),)), kept)
    one = kept.bytes
    assert one == 2 * 64 * 8 * 8 * 4
    unet.run_deep_cached(two, DeepCache((Deep("b", 2, 0, True),), ("a",)), kept)
    assert kept.bytes == one


def test_images_that_are_not_the_calls_rows_are_refused(feeds):
    unet, kept = network("unet", None), KeptTensors().features
    due, not_due = Deep("a", 4, 0, True), Deep("b", 1, 0, False)
    for images in ((), (due,), (due, due), (due, not_due)):
        with pytest.raises(InvalidRequest, match="deep_cache: got"):
            unet.run_deep_cached(feeds, DeepCache(images), kept)
    assert not kept.bytes


def test_what_the_unet_cannot_take_is_refused_as_without(feeds):
    unet, kept = network("unet", None), KeptTensors().features
    odd = {**part(feeds, 0), "timestep": np.zeros((2,), "f")}
    (plain,) = unet.run([odd])
    assert isinstance(plain, InvalidRequest)
    with pytest.raises(InvalidRequest) as refused:
        unet.run_deep_cached(odd, DeepCache((Deep("a", 1, 0, True),)), kept)
    assert str(refused.value)[:80] == str(plain)[:80]


def test_a_model_without_the_shallow_graph_refuses(feeds, tmp_path, monkeypatch):
    folder = tmp_path / "unet" / "1"
    folder.mkdir(parents=True)
    shutil.copy(SHALLOW.parent / "model.onnx", folder)
    unet, kept = network("unet", None), KeptTensors().features
    monkeypatch.setattr(unet, "_folder", folder)
    with pytest.raises(InvalidRequest, match=r"allowed: 1: this model has no shallow\.onnx"):
        unet.run_deep_cached(feeds, DeepCache((Deep("a", 5, 0, True),)), kept)


def test_the_shallow_graph_is_what_the_export_makes(tmp_path):
    path = Path(shutil.copy(SHALLOW.with_name("model.onnx"), tmp_path))
    assert shallow.write(path)
    assert (tmp_path / "shallow.onnx").read_bytes() == SHALLOW.read_bytes()


def test_a_graph_whose_last_layer_takes_no_conv_in_has_none(tmp_path):
    path = Path(shutil.copy(MODELS / "vae_decoder" / "1" / "model.onnx", tmp_path))
    assert not shallow.write(path)
    assert not (tmp_path / "shallow.onnx").exists()
