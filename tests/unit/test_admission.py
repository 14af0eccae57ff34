"""The tokenizer's gate: images are counted from there to the end, also where no stage sees them."""

import os

import pytest

from triptych.errors import InvalidRequest, Unavailable
from triptych.ipc.activity import NEWEST, VARIABLE, Activity, Instances, Seen, Stages
from triptych.names import Names
from triptych.stages import admission
from triptych.stages.admission import Admission, Between


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(admission, "time", made)
    return made


IDLE, BUSY = Seen(), Seen(count=1)


def images(count):
    """The settings of so many; of as many again, the same."""
    return [b"%d" % number for number in range(count)]


def test_what_went_and_has_not_come_is_between(clock):
    between = Between()
    assert between.count([1, 2, 3, 4, 5], [], [BUSY]) == 5
    assert between.count([6, 7], [1, 3, 2, 5], [BUSY]) == 3
    assert between.count([], [4, 6, 7], [BUSY]) == 0


def test_equal_images_are_counted_each(clock):
    between = Between()
    assert between.count([1, 1, 2], [], [BUSY]) == 3
    assert between.count([], [1], [BUSY]) == 2
    assert between.count([], [1, 1], [BUSY]) == 1


def test_what_never_comes_is_forgotten_when_the_stages_between_have_no_work(clock):
    between = Between()
    assert between.count([1, 2, 3, 4, 5], [], [IDLE, IDLE]) == 5
    clock.now += 1
    assert between.count([6], [], [IDLE, BUSY]) == 6
    assert between.count([], [], [IDLE, Seen(ended=clock.now - 0.01)]) == 6
    assert between.count([], [], [IDLE, IDLE]) == 1
    clock.now += 1
    assert between.count([], [], [IDLE, IDLE]) == 0


def test_what_never_comes_is_forgotten_when_later_images_come(clock):
    """The stages between may be at work for hours without a rest."""
    between = Between()
    assert between.count([1, 2, 3], [], [BUSY]) == 3
    clock.now += Between.OVERTAKEN / 2
    assert between.count([4], [], [BUSY]) == 4
    clock.now += 2 * Between.OVERTAKEN
    assert between.count([5, 6], [3], [BUSY]) == 5
    assert between.count([], [4], [BUSY]) == 4, "they went a moment before it"
    assert between.count([], [5], [BUSY]) == 1, "1 and 2 never come"
    assert between.count([], [6], [BUSY]) == 0


def test_what_never_went_does_not_count(clock):
    between = Between()
    assert between.count([1], [8, 9], [BUSY]) == 1
    assert between.count([], [1, 9], [BUSY]) == 0


@pytest.fixture
def stages(tmp_path, monkeypatch):
    folder = Stages(tmp_path / "activity").folder
    monkeypatch.setenv(VARIABLE, str(folder))
    names = ("tokenizer", "unet_loop", "image_encoder", "vae_decoder", "text_encoder")
    made = {name: Activity(name) for name in names}
    made["unet_loop"].limit(10)
    return made


def test_another_models_images_do_not_count(stages, clock):
    gate = Admission(stages["tokenizer"], Names())
    for other in ("ink.unet_loop", "unet_loop-2.tokenizer"):
        Activity(other).images(came=images(100))
    gate.check(10)


def test_images_of_all_stages_count(stages, clock):
    gate = Admission(stages["tokenizer"], Names())
    stages["tokenizer"].images(went=images(8))
    gate.check(2)
    stages["unet_loop"].images(came=images(6))
    gate.check(2)
    stages["unet_loop"].images(went=images(3), failed=1)
    gate.check(3)
    with pytest.raises(Unavailable, match=r"^the queue is full: 7 of 10 images; try later$"):
        gate.check(4)
    stages["image_encoder"].images(came=images(3))
    gate.check(6)
    with pytest.raises(Unavailable, match="4 of 10"):
        gate.check(7)


def test_what_was_before_the_gate_is_not_its_own(stages, clock):
    stages["tokenizer"].images(went=images(8))
    gate = Admission(stages["tokenizer"], Names())
    gate.check(10)
    stages["unet_loop"].images(came=images(8), went=images(8))
    stages["image_encoder"].images(came=images(8))
    gate.check(10)


def test_of_very_many_the_newest_are_known(stages, clock):
    stages["unet_loop"].limit(2 * NEWEST)
    gate = Admission(stages["tokenizer"], Names())
    stages["tokenizer"].images(went=images(NEWEST + 50))
    with pytest.raises(Unavailable, match=f"{NEWEST} of"):
        gate.check(2 * NEWEST)
    stages["tokenizer"].images(went=images(3))
    stages["unet_loop"].images(came=images(NEWEST + 50)[50:], failed=NEWEST)
    gate.check(2 * NEWEST - 3)
    with pytest.raises(Unavailable, match="3 of"):
        gate.check(2 * NEWEST - 2)


def test_another_models_channel_is_no_process_of_a_stage(stages):
    folder = stages["unet_loop"].folder
    (folder / "unet_loop-2.unet.123.channel").touch()
    assert Instances(folder, "unet_loop").living() == 1


def test_the_limit_is_that_of_the_loop_which_is_there_now(stages, clock):
    (path,) = stages["unet_loop"].folder.glob("unet_loop-*")
    path.rename(path.with_name("unet_loop-4194305"))  # more than any process has
    Activity("unet_loop").limit(4)
    gate = Admission(stages["tokenizer"], Names())
    gate.check(4)
    with pytest.raises(InvalidRequest, match="a batch of at most 4"):
        gate.check(5)


def test_a_batch_that_never_fits_is_refused_for_good(stages, clock):
    gate = Admission(stages["tokenizer"], Names())
    gate.check(10)
    told = r"^INPUT_0: got \[11, 1\]; allowed: a batch of at most 10, the max_queue of unet_loop$"
    for went in (0, 8):
        stages["tokenizer"].images(went=images(went))
        with pytest.raises(InvalidRequest, match=told):
            gate.check(11)


def test_it_is_open_without_a_launcher_or_a_loop(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    Admission(Activity("tokenizer"), Names()).check(10**6)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    Admission(Activity("tokenizer"), Names()).check(10**6)


def process(monkeypatch, name, pid):
    """The activity of a further process of that stage."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        return Activity(name)


def test_all_instances_of_a_stage_count(stages, clock, monkeypatch):
    tokenizers = [stages["tokenizer"], process(monkeypatch, "tokenizer", 1)]
    ends = [stages["image_encoder"], process(monkeypatch, "image_encoder", 2)]
    gates = [Admission(one, Names()) for one in tokenizers]
    for _ in range(20):
        for at in range(2):
            gates[at].check(6)
            tokenizers[at].images(went=images(4))
            stages["unet_loop"].images(came=images(4))
            for gate in gates:
                gate.check(6)
                with pytest.raises(Unavailable, match="4 of 10"):
                    gate.check(7)
            stages["unet_loop"].images(went=images(4))
            ends[1 - at].images(came=images(4))
            for gate in gates:
                gate.check(10)


def test_a_stage_that_was_loaded_again_goes_on_counting(stages, clock, monkeypatch):
    gate = Admission(stages["tokenizer"], Names())
    stages["tokenizer"].images(went=images(8))
    stages["unet_loop"].images(came=images(8), went=images(5), failed=3)
    stages["image_encoder"].images(came=images(5))
    gate.check(10)
    again = process(monkeypatch, "unet_loop", 1)
    again.limit(10)
    clock.now += Instances.LOOK + 1
    stages["tokenizer"].images(went=images(6))
    again.images(came=images(6))
    gate.check(4)
    with pytest.raises(Unavailable, match="6 of 10"):
        gate.check(5)
