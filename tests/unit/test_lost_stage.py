"""A stage's process that died, told to the living ones, which answer what they hold."""

import threading
import time

import numpy as np
import pb_utils_fake as fake
import pytest

from triptych.errors import Unavailable
from triptych.ipc.activity import VARIABLE, Activity, Stages

SAYS = "the process of unet died; the server starts again, try later"


@pytest.fixture
def stages(tmp_path, monkeypatch):
    made = Stages(tmp_path / "activity")
    monkeypatch.setenv(VARIABLE, str(made.folder))
    return made


def test_a_loss_ends_the_taking_of_requests(stages):
    activity = Activity("tokenizer")
    activity.check_serving()
    stages.lose("unet")
    for check in (activity.check_whole, activity.check_serving):
        with pytest.raises(Unavailable, match=f"^{SAYS}$"):
            check()
    assert stages.idle


def test_an_end_leaves_what_is_in_work(stages):
    activity = Activity("tokenizer")
    stages.end()
    activity.check_whole()
    with pytest.raises(Unavailable, match="the server is ending"):
        activity.check_serving()


def test_nobody_without_a_launcher_is_told(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    Activity("tokenizer").check_serving()


def test_held_replies_are_answered_though_a_call_has_no_end(stages, tmp_path, monkeypatch):
    fake.install(monkeypatch, fake.module("24.10", None))
    from triptych.stages import triton
    from triptych.stages import unet_loop as loop_stage
    from triptych.stages.reply import replies

    cancellations = loop_stage.Cancellations(triton.Model(fake.initialize_args(tmp_path)))
    sent = fake.Request(sample=np.zeros(1))
    (reply,) = replies([sent])
    cancellations.watch(reply)
    threading.Timer(0.05, stages.lose, ("unet",)).start()
    for _ in range(500):
        if reply.sent:
            break
        threading.Event().wait(0.01)
    cancellations.close()
    (response,) = sent.sender.sent
    assert response.error().message().endswith(SAYS)
    assert response.error().code() == fake.Error.UNAVAILABLE


def test_many_in_flight_are_asked_for_less_often(stages, tmp_path, monkeypatch):
    fake.install(monkeypatch, fake.module("24.10", None))
    from triptych.stages import triton
    from triptych.stages import unet_loop as loop_stage
    from triptych.stages.reply import replies

    asked = []

    def slowly():
        asked.append(time.sleep(0.002))
        return False

    cancellations = loop_stage.Cancellations(triton.Model(fake.initialize_args(tmp_path)))
    many = [fake.Request(sample=np.zeros(1)) for _ in range(30)]
    for request in many:
        monkeypatch.setattr(request.get_response_sender(), "is_cancelled", slowly)
    for reply in replies(many):
        cancellations.watch(reply)
    time.sleep(1)
    cancellations.close()
    assert 30 <= len(asked) <= 0.3 * 1 / 0.002
