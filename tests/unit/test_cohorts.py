"""Which of several loops an image goes to."""

import threading
import time

import numpy as np
import pytest
from test_loop import FakeImage

from triptych.denoise.cohorts import Cohorts
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer
from triptych.errors import LoopClosed
from triptych.lora.folder import Adapter

ROWS = 4


class Processes:
    """The UNet's processes, whose calls wait until the test lets them go on."""

    def __init__(self, count=1):
        self.count = count
        self.loops = 0
        self.waiting = []
        self.go_on = threading.Event()
        self.cohorts = Cohorts(lambda: self.count, self.make, Observer())

    def make(self, number, observer):
        self.loops += 1

        def predict_noise(sample, timestep, conditioning, adapters=()):
            self.waiting.append((number, len(sample)))
            assert self.go_on.wait(10)
            return np.zeros_like(sample)

        return DenoisingLoop(predict_noise, ROWS, observer)

    def check(self, *expected, **more):
        """An image for each of `expected`: the process and the rows of the call that begins with
        it, while the calls before wait for answers; None if it waits for the next call.
        """
        for call in expected:
            before = len(self.waiting)
            self.cohorts.submit(FakeImage(3, **more), lambda result: None)
            deadline = time.monotonic() + (10 if call else 0.1)
            while len(self.waiting) == before and time.monotonic() < deadline:
                time.sleep(0.005)
            assert self.waiting[before:] == ([call] if call else [])

    def end(self):
        self.go_on.set()
        self.cohorts.close()


@pytest.fixture
def processes():
    made = []

    def make(count=1):
        made.append(Processes(count))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_images_that_fit_in_one_call_have_one_loop(processes):
    processes().check((0, 2), None)


def test_a_call_waits_in_line_where_more_images_are_held_than_fit_in_one(processes):
    processes().check((0, 2), None, (0, 2), None)


def test_a_process_more_comes_before_a_second_loop(processes):
    two = processes(2)
    two.check((0, 2), (1, 2), None, None, (0, 2))
    two.count = 3
    two.check((2, 2))


def test_images_with_loras_have_one_loop(processes):
    adapters = (Adapter("ink", 1.0, "1"),)
    processes().check((0, 2), None, None, None, adapters=adapters)


def test_nothing_is_taken_after_the_end(processes):
    one = processes()
    one.check((0, 2), None)
    one.end()
    with pytest.raises(LoopClosed):
        one.cohorts.submit(FakeImage(3), lambda result: None)
    assert one.loops == 1
