"""unet_loop with requests that bring pictures, on stand-ins for Triton's releases."""

import importlib
import json
import re
import threading
import time

import numpy as np
import pb_utils_fake as fake
import pytest
from pb_utils_fake import answer
from test_start import png
from test_unet_loop import MODEL_FILES, SCHEDULER, error, request

from triptych.ipc.progress import Record

MOMENTS = np.random.RandomState(3).standard_normal((1, 8, 8, 8)).astype(np.float32)
PNG, MASK = png((64, 64)), png((64, 64), colour=0)
THREADS = []


def encode(sample):
    THREADS.append(threading.current_thread().name)
    return MOMENTS + sample.mean()


def held(may_go):
    """A vae_encoder that answers once the event is set."""

    def encoder(sample):
        THREADS.append("called")
        assert may_go.wait(10)
        return MOMENTS

    return encoder


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """`stage(release)`: unet_loop beside a vae_encoder; what answers for that can be given."""
    made = []
    THREADS.clear()

    def make(release="24.10", encoder=encode, unet=fake.no_noise):
        version = tmp_path / "unet_loop" / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
        (version / "pipeline.json").write_text(json.dumps(MODEL_FILES))
        if encoder is not None:
            (tmp_path / "vae_encoder").mkdir(exist_ok=True)
            (tmp_path / "vae_encoder" / "config.pbtxt").write_text('name: "vae_encoder"')
        fake.install(monkeypatch, fake.module(release, unet, vae_encoder=encoder))
        triton = importlib.import_module("triptych.stages.triton")
        loop_stage = importlib.import_module("triptych.stages.unet_loop")
        arguments = fake.initialize_args(version.parent, max_rows="8", max_queue="3")
        made.append(loop_stage.LoopStage(triton.Model(arguments)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def bringing(*files, kind=fake.Request, **image):
    """A request for one image for each pair of files."""
    image = {"strength": 0.5, **image}
    images = [image if pair[0] else {} for pair in files]
    sent = request(*images, kind=kind)
    sent.inputs().append(fake.Tensor("pictures", np.array(files, dtype=object)))
    return sent


def test_pictures_are_read_beside_the_loops_thread_and_only_where_brought(stage):
    loop = stage()
    plain = [request({}, {}), bringing((b"", b""))]
    assert loop.execute(plain) == [None, None]
    for sent in plain:
        assert not answer(sent).has_error()
    assert THREADS == []
    sent = [bringing((PNG, b"")), bringing((PNG, MASK), (b"", b""))]
    assert loop.execute(sent) == [None, None]
    first, second = (answer(one).tensors["latents"] for one in sent)
    assert first.shape == (1, 4, 8, 8) and second.shape == (2, 4, 8, 8)
    assert len(THREADS) == 2 and all(name.startswith("pictures") for name in THREADS)
    np.testing.assert_array_equal(second[1], answer(plain[0]).tensors["latents"][1])
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize(
    ("release", "kind"), [("21.10", fake.OldRequest), ("23.10", fake.DecoupledOnlyRequest)]
)
def test_it_gives_the_same_where_triton_wants_the_answers_at_once(stage, release, kind):
    pairs = (PNG, b""), (PNG, MASK)
    later = [bringing(pair) for pair in pairs]
    stage().execute(later)
    responses = stage(release).execute([bringing(pair, kind=kind) for pair in pairs])
    for response, sent in zip(responses, later):
        np.testing.assert_array_equal(response.tensors["latents"], answer(sent).tensors["latents"])


@pytest.mark.parametrize(
    "files, image, message",
    [
        ((PNG[:200], b""), {}, "image: got .*; allowed: a PNG, JPEG or WebP file that is w"),
        ((PNG, MASK[:90]), {}, "mask_image: got .*; allowed: a PNG"),
        ((PNG, b""), {"strength": None}, "pictures: got .*; allowed: an image with strength"),
        (None, {"strength": 0.5}, "pictures: got b''; allowed: an image with strength"),
        ((b"", MASK), {}, "pictures: got .*; allowed: an image with strength"),
        ((PNG, b""), {"deadline": 1.0}, "timeout: the request's time was over before"),
    ],
)
def test_what_cannot_be_used_is_refused(stage, files, image, message):
    sent = bringing(files, **image) if files else request(image)
    stage().execute([sent])
    assert re.match(f"unet_loop: {message}", error(answer(sent)))


@pytest.mark.parametrize(
    ("limit", "message"),
    [("max_picture_bytes", "at most 100 bytes"), ("max_picture_pixels", "at most 100 pixels")],
)
@pytest.mark.parametrize("field", ["image", "mask_image"])
def test_files_are_held_to_the_tokenizers_limits(stage, tmp_path, field, limit, message):
    (tmp_path / "tokenizer").mkdir()
    value = f'key: "{limit}" value {{ string_value: "100" }}'
    (tmp_path / "tokenizer" / "config.pbtxt").write_text(f"parameters {{ {value} }}")
    small = png((8, 8), colour=0)
    assert len(small) < 100 < len(PNG)
    files = {"image": small, "mask_image": small, field: PNG}
    sent = bringing(tuple(files.values()))
    stage().execute([sent])
    said = error(answer(sent))
    assert re.match(f"unet_loop: {field}: got .*; allowed: {message}", said), said
    assert THREADS == []


def test_a_model_without_an_encoder_refuses_pictures(stage):
    sent = bringing((PNG, b""))
    stage(encoder=None).execute([sent])
    assert "this model has no vae_encoder" in error(answer(sent))


def test_what_fails_in_the_encoder_fails_that_request_alone(stage):
    def encoder(sample):
        raise RuntimeError("vae_encoder: out of memory")

    sent = [bringing((PNG, b"")), request({})]
    stage(encoder=encoder).execute(sent)
    assert "vae_encoder: out of memory" in error(answer(sent[0]))
    assert not answer(sent[1]).has_error()


def test_images_whose_pictures_are_read_count_and_hold_nobody_up(stage):
    may_go = threading.Event()
    loop = stage(encoder=held(may_go))
    slow = [bringing((PNG, b"")), bringing((PNG, b""))]
    quick, over = request({}), request({}, {})
    loop.execute([*slow, quick])
    assert not answer(quick).has_error()
    loop.execute([over])
    assert "the queue is full: 2 of 3 images" in error(answer(over))
    may_go.set()
    assert not any(answer(one).has_error() for one in slow)
    again = request({}, {}, {})
    loop.execute([again])
    assert not answer(again).has_error()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_given_up_is_not_read(stage, streamed):
    may_go = threading.Event()
    loop = stage(encoder=held(may_go))
    loop._max_queue = 100
    busy = [bringing((PNG, b"")) for _ in range(8)]
    waiting = bringing((PNG, b""))
    record = Record("sd_ensemble_stream", preview_every=0)
    if streamed:
        waiting.id = record.token
    loop.execute([*busy, waiting])
    if streamed:  # an ensemble's stages are not told of its cancel: the stream tells of it
        record.stop()
    else:
        waiting.sender.given_up = True
        deadline = time.monotonic() + 10
        while not loop._cancellations._given_up and time.monotonic() < deadline:
            time.sleep(0.01)
    may_go.set()
    assert "cancelled before the image was finished" in error(answer(waiting))
    for one in busy:
        answer(one)
    assert THREADS.count("called") == 8
    record.close()


def test_at_its_end_it_reads_no_more_and_answers_all(stage):
    may_go = threading.Event()
    loop = stage(encoder=held(may_go))
    loop._max_queue = 100
    sent = [bringing((PNG, b"")) for _ in range(12)]
    loop.execute(sent)
    threading.Timer(0.3, may_go.set).start()
    loop.close()
    assert all("the denoising loop" in error(answer(one)) for one in sent[8:])
    assert THREADS.count("called") <= 8
    for one in sent:
        answer(one)
