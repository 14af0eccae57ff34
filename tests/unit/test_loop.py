import itertools
import threading
import time
from concurrent.futures import Future, wait

import numpy as np
import pytest

from triptych.denoise.call import CallKey
from triptych.denoise.conditioning import Conditioning
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer
from triptych.errors import Cancelled, Expired, LoopClosed

LATENTS, EMBEDS = (4, 8, 8), (7, 16)


class FakeImage:
    """An image whose model input, conditioning and result tell which image and call they are.

    `more` are shapes of conditioning tensors beside the embeddings.
    """

    numbers = itertools.count(1)

    def __init__(self, calls, rows=2, latents=LATENTS, embeds=EMBEDS, adapters=(), **more):
        self.number = next(self.numbers)
        self.adapters = adapters
        self.calls = calls
        self.made = 0
        self.shapes = {"encoder_hidden_states": embeds, **more}
        self.rows = rows
        self.paint(latents)

    def paint(self, latents):
        self.latents = np.full(latents, self.number, np.float32)
        tensors = {name: np.full(shape, self.number) for name, shape in self.shapes.items()}
        self.conditioning = tuple(Conditioning(**tensors) for _ in range(self.rows))

    @property
    def call_key(self):
        return CallKey(self.latents.shape, self.conditioning[0].shapes, self.adapters)

    @property
    def finished(self):
        return self.made == self.calls

    @property
    def timestep(self):
        return np.float32(1000 * self.number + self.made)

    def check_deadline(self):
        pass

    def model_input(self):
        return self.latents

    def advance(self, output):
        assert output.shape == (self.rows, *self.latents.shape)
        self.latents = self.latents + output.mean(axis=0)
        self.made += 1

    def following(self):
        return None

    def result(self):
        return self.latents


class Unet:
    """A `predict_noise` that works each row by itself and notes who was in which call."""

    def __init__(self, fail=None, gate=None):
        self.calls = []
        self.given = []
        self.sets = []
        self.fail = fail
        self.gate = gate

    def __call__(self, sample, timestep, conditioning, adapters=()):
        if self.gate is not None:
            self.gate()
        self.sets.append(adapters)
        numbers = (timestep // 1000).astype(int).tolist()
        stacked = {name: np.array(rows) for name, rows in conditioning.items()}
        for tensor in (sample, timestep, *stacked.values()):
            assert tensor.dtype == np.float32
            assert len(tensor) == len(numbers)
        for tensor in stacked.values():
            first = tensor.reshape(len(numbers), -1)[:, 0]
            assert np.array_equal(first, np.array(numbers, np.float32))
        embeds = stacked["encoder_hidden_states"]
        self.calls.append(numbers)
        self.given.append(conditioning)
        if self.fail is not None:
            self.fail(numbers)
        return np.sin(sample) * timestep[:, None, None, None] + embeds[:, :1, :1, None]

    def served(self):
        """The images in each call, without their second rows."""
        return [list(dict.fromkeys(numbers)) for numbers in self.calls]


class StepGate:
    """Lets a test run the loop call by call."""

    def __init__(self):
        self.waiting = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self):
        self.waiting.release()
        assert self.go.acquire(timeout=10)

    def arrived(self):
        assert self.waiting.acquire(timeout=10)

    def open(self):
        for _ in range(1000):
            self.go.release()


class Counting(Observer):
    def __init__(self):
        self.waits, self.rows, self.steps, self.images, self.flying = [], [], 0, 0, []

    def queued(self, seconds):
        self.waits.append(seconds)

    def called(self, rows):
        self.rows.append(rows)

    def stepped(self, images, rows, begun):
        self.steps += len(images)

    def finished(self):
        self.images += 1

    def in_flight(self, images):
        self.flying.append(images)


@pytest.fixture
def start():
    """Makes loops that are closed when the test ends."""
    loops = []

    def make(*arguments, **named):
        loops.append(DenoisingLoop(*arguments, **named))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


def submit(loop, image, cancelled=lambda: False):
    """A future of what `done` gets."""
    future = Future()
    loop.submit(image, future.set_result, cancelled)
    return future


def alone(calls, rows=2, **shapes):
    """What an image with the number of the next one gets when nobody else is there."""
    image = FakeImage(calls, rows, **shapes)
    return image.number, DenoisingLoop(Unet(), 32).run_to_end([image])[0]


def renumbered(number, calls, rows=2, **shapes):
    image = FakeImage(calls, rows, **shapes)
    image.number = number
    image.paint(image.latents.shape)
    return image


def test_run_to_end_gives_each_image_its_result_in_order():
    images = [FakeImage(3), FakeImage(1, rows=1), FakeImage(5)]
    unet = Unet()
    results = DenoisingLoop(unet, 32).run_to_end(images)
    assert [image.made for image in images] == [3, 1, 5]
    for image, result in zip(images, results):
        assert result is image.latents
    assert len(unet.calls) == 5


def test_run_to_end_of_nothing():
    assert DenoisingLoop(Unet(), 2).run_to_end([]) == []


def test_an_image_joins_at_the_next_call_and_leaves_after_its_last(start):
    gate = StepGate()
    unet = Unet(gate=gate)
    loop = start(unet, 32)
    long, short = FakeImage(5), FakeImage(2, rows=1)
    first = submit(loop, long)
    gate.arrived()
    second = submit(loop, short)
    gate.open()
    wait([first, second], timeout=10)
    n, m = long.number, short.number
    assert unet.calls == [[n, n], [n, n, m], [n, n, m], [n, n], [n, n]]


def test_a_short_request_inside_a_long_one_is_back_before_it(start):
    gate = StepGate()
    loop = start(Unet(gate=gate), 32)
    order = []
    long_done = threading.Event()
    loop.submit(FakeImage(50), lambda _: (order.append("long"), long_done.set()))
    gate.arrived()
    loop.submit(FakeImage(3), lambda _: order.append("short"))
    gate.open()
    assert long_done.wait(10)
    assert order == ["short", "long"]


def test_requests_finish_in_the_order_of_their_work_not_of_their_arrival():
    lengths = [40, 7, 25, 3, 31, 12, 50, 20]
    order = []
    loop = DenoisingLoop(Unet(), 32)
    finished = threading.Semaphore(0)
    hold = threading.Event()
    first = FakeImage(1)
    loop.submit(first, lambda _: hold.wait(10))  # the others arrive while this one is answered
    for length in lengths:
        loop.submit(FakeImage(length), lambda _, n=length: (order.append(n), finished.release()))
    hold.set()
    for _ in lengths:
        assert finished.acquire(timeout=10)
    loop.close()
    assert order == sorted(lengths)


@pytest.mark.parametrize("rows", [1, 2])
def test_company_changes_no_bit_of_a_result(rows):
    number, expected = alone(9, rows)
    company = [FakeImage(calls, rows=1 + calls % 2) for calls in (1, 4, 9, 12)]
    other_shape = FakeImage(6, latents=(4, 16, 8))
    image = renumbered(number, 9, rows)
    crowd = [*company[:2], image, other_shape, *company[2:]]
    result = DenoisingLoop(Unet(), 5).run_to_end(crowd)[2]
    assert np.array_equal(result, expected)
    assert not np.array_equal(result, np.full(LATENTS, number, np.float32))


@pytest.mark.parametrize("max_rows", [2, 3, 7])
def test_no_call_has_more_rows_than_allowed_and_every_image_gets_all_its_calls(max_rows):
    unet = Unet()
    images = [FakeImage(calls, rows=1 + calls % 2) for calls in range(1, 9)]
    DenoisingLoop(unet, max_rows).run_to_end(images)
    assert max(map(len, unet.calls)) == max_rows
    for image in images:
        assert sum(numbers.count(image.number) for numbers in unet.calls) == (
            image.calls * image.rows
        )


def test_a_call_holds_one_shape_and_the_shapes_take_turns():
    square, wide = FakeImage(3), FakeImage(3, latents=(4, 8, 16))
    other = FakeImage(3, embeds=(9, 16))
    more = FakeImage(3)
    unet = Unet()
    DenoisingLoop(unet, 32).run_to_end([square, wide, more, other])
    turn = [[square.number, more.number], [wide.number], [other.number]]
    assert unet.served() == turn * 3


def test_images_that_do_not_fit_take_turns():
    images = [FakeImage(2) for _ in range(5)]
    unet = Unet()
    DenoisingLoop(unet, 4).run_to_end(images)
    a, b, c, d, e = (image.number for image in images)
    assert unet.served() == [[a, b], [c, d], [e, a], [b, c], [d, e]]


def test_a_row_left_over_goes_to_a_later_image_and_the_one_passed_over_is_next():
    first, second, third = FakeImage(2), FakeImage(2), FakeImage(2, rows=1)
    unet = Unet()
    DenoisingLoop(unet, 3).run_to_end([first, second, third])
    a, b, c = first.number, second.number, third.number
    assert unet.served() == [[a, c], [b, c], [a], [b]]


def test_sets_of_loras_have_four_calls_each_in_turn():
    unet = Unet()
    images = [FakeImage(6, adapters=adapters) for adapters in (("ink",), (), ("chalk",))]
    DenoisingLoop(unet, 32).run_to_end(images)
    turns = [(one, len(list(calls))) for one, calls in itertools.groupby(unet.sets)]
    order = [("ink",), (), ("chalk",)]
    assert turns == [(one, 4) for one in order] + [(one, 2) for one in order]


def test_images_of_a_set_take_turns_within_its_own_and_do_not_prolong_it():
    shapes = (LATENTS, (4, 8, 16), (4, 16, 8))
    images = [FakeImage(4, latents=shape, adapters=("ink",)) for shape in shapes]
    other = FakeImage(8)
    unet = Unet()
    DenoisingLoop(unet, 32).run_to_end([*images, other])
    a, b, c = (image.number for image in images)
    ink = [[a], [b], [c], [a]], [[b], [c], [a], [b]], [[c], [a], [b], [c]]
    others = [[other.number]] * 4
    assert unet.served() == [*ink[0], *others, *ink[1], *others, *ink[2]]


def test_nobody_starves_under_a_stream_of_arrivals(start):
    """Arrivals that alone fill every call, of two shapes, until the first comer is done."""
    loop = start(Unet(), 4)
    patient = FakeImage(20)
    result = submit(loop, patient)

    def again(outcome):
        if not result.done():
            latents = (4, 8, 16) if len(arrivals) % 2 else LATENTS
            arrivals.append(FakeImage(1, latents=latents))
            loop.submit(arrivals[-1], again)

    arrivals = []
    for _ in range(6):
        again(None)
    assert result.result(timeout=10) is patient.latents
    # At most 7 others stand before it each time, and a call serves two of one shape.
    assert len(arrivals) <= 20 * 8


def test_a_failing_call_fails_its_images_and_no_others():
    bad = FakeImage(4)

    def fail(numbers):
        if bad.number in numbers:
            raise MemoryError("no memory on the device")

    companion, elsewhere = FakeImage(4), FakeImage(4, latents=(4, 16, 16))
    loop = DenoisingLoop(Unet(fail=fail), 32)
    results = loop.run_to_end([bad, companion, elsewhere])
    assert isinstance(results[0], MemoryError)
    assert isinstance(results[1], MemoryError)
    assert results[2] is elsewhere.latents


def test_the_loop_lives_on_after_a_failing_call(start):
    failing = [True]

    def fail(numbers):
        if failing[0]:
            raise RuntimeError("lost")

    loop = start(Unet(fail=fail), 32)
    assert isinstance(submit(loop, FakeImage(3)).result(timeout=10), RuntimeError)
    failing[0] = False
    assert isinstance(submit(loop, FakeImage(3)).result(timeout=10), np.ndarray)


@pytest.mark.parametrize(
    "output",
    [
        np.zeros((2, 4, 8, 7), np.float32),
        np.zeros((3, 4, 8, 8), np.float32),
        np.zeros((4, 8, 8), np.float32),
        None,
    ],
)
def test_a_wrong_output_fails_the_call(output):
    (result,) = DenoisingLoop(lambda *_: output, 32).run_to_end([FakeImage(2)])
    assert isinstance(result, (RuntimeError, TypeError))
    if output is not None:
        assert str(result) == f"the UNet gave {list(output.shape)} for [2, 4, 8, 8]"


@pytest.mark.parametrize("where", ["model_input", "advance", "result"])
def test_an_image_that_fails_by_itself_leaves_its_company_alone(where):
    broken, well = FakeImage(2), FakeImage(3)

    def fail(*_):
        raise ZeroDivisionError(where)

    setattr(broken, where, fail)
    results = DenoisingLoop(Unet(), 32).run_to_end([broken, well])
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1] is well.latents


def test_a_cancelled_image_is_in_no_further_call(start):
    gate = StepGate()
    unet = Unet(gate=gate)
    loop = start(unet, 32)
    cancel = threading.Event()
    given_up, stays = FakeImage(100), FakeImage(4)
    gone = submit(loop, given_up, cancel.is_set)
    gate.arrived()
    kept = submit(loop, stays)
    cancel.set()
    gate.open()
    assert isinstance(gone.result(timeout=10), Cancelled)
    assert kept.result(timeout=10) is stays.latents
    assert unet.served() == [[given_up.number]] + [[stays.number]] * 4


def test_an_image_past_its_deadline_is_in_no_further_call():
    late, in_time, unet = FakeImage(50), FakeImage(5), Unet()

    def check_deadline():
        if late.made == 2:
            raise Expired("2 calls were made")

    late.check_deadline = check_deadline
    results = DenoisingLoop(unet, 32).run_to_end([late, in_time])
    assert str(results[0]) == "2 calls were made"
    assert isinstance(results[1], np.ndarray)
    assert [late.number in numbers for numbers in unet.served()] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_an_image_cancelled_before_its_first_call_is_in_none(start):
    unet = Unet()
    loop = start(unet, 32)
    outcome = submit(loop, FakeImage(5), lambda: True).result(timeout=10)
    assert isinstance(outcome, Cancelled)
    assert unet.calls == []


def test_a_cancel_question_that_fails_fails_its_image(start):
    loop = start(Unet(), 32)
    assert isinstance(submit(loop, FakeImage(5), lambda: 1 / 0).result(10), ZeroDivisionError)
    assert isinstance(submit(loop, FakeImage(5)).result(10), np.ndarray)


def test_close_fails_what_is_left(start):
    gate = StepGate()
    loop = start(Unet(gate=gate), 2)
    running, waiting = submit(loop, FakeImage(100)), submit(loop, FakeImage(100))
    gate.arrived()
    arriving = submit(loop, FakeImage(1))
    closer = threading.Thread(target=loop.close)
    closer.start()
    gate.open()
    closer.join(10)
    assert not closer.is_alive()
    for future in (running, waiting, arriving):
        outcome = future.result(timeout=0)
        assert isinstance(outcome, LoopClosed)
        assert "closed" in str(outcome)
    with pytest.raises(LoopClosed):
        submit(loop, FakeImage(1))
    loop.close()


def test_close_of_a_loop_that_never_ran():
    DenoisingLoop(Unet(), 2).close()


def test_done_may_submit_and_close(start):
    loop = start(Unet(), 32)
    second = Future()
    loop.submit(FakeImage(1), lambda _: loop.submit(FakeImage(1), second.set_result))
    assert isinstance(second.result(timeout=10), np.ndarray)
    closed = Future()
    loop.submit(FakeImage(1), lambda _: closed.set_result(loop.close()))
    assert closed.result(timeout=10) is None


def test_a_done_that_raises_does_not_stop_the_loop(start, caplog):
    loop = start(Unet(), 32)
    loop.submit(FakeImage(1), lambda _: 1 / 0)
    assert isinstance(submit(loop, FakeImage(3)).result(timeout=10), np.ndarray)
    assert "ZeroDivisionError" in caplog.text


def test_a_thread_that_dies_fails_what_is_left(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def die(numbers):
        raise SystemExit

    loop = DenoisingLoop(Unet(fail=die), 32)
    outcome = submit(loop, FakeImage(3)).result(timeout=10)
    assert isinstance(outcome, LoopClosed)
    with pytest.raises(LoopClosed):
        submit(loop, FakeImage(3))


def test_two_threads_submitting_get_every_result_once(start):
    loop = start(Unet(), 8)
    counts = [0] * 400
    images = [FakeImage(1 + at % 7, rows=1 + at % 2) for at in range(len(counts))]
    all_done = threading.Semaphore(0)

    def submit_every_other(start):
        for at in range(start, len(images), 2):
            loop.submit(images[at], lambda result, at=at: count(at, result))

    def count(at, result):
        assert result is images[at].latents
        counts[at] += 1
        all_done.release()

    threads = [threading.Thread(target=submit_every_other, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for _ in counts:
        assert all_done.acquire(timeout=20)
    for thread in threads:
        thread.join()
    loop.close()
    assert counts == [1] * len(counts)
    assert all(image.finished for image in images)


def test_the_thread_sleeps_without_a_timeout_when_there_is_nothing_to_do(start, monkeypatch):
    loop = start(Unet(), 4)
    sleeps = []
    sleep = loop._condition.wait
    monkeypatch.setattr(
        loop._condition, "wait", lambda *timeout: (sleeps.append(timeout), sleep(*timeout))
    )
    for _ in range(3):
        submit(loop, FakeImage(1)).result(timeout=10)
    time.sleep(0.05)
    assert 1 <= len(sleeps) <= 4
    assert set(sleeps) == {()}


def test_the_observer_is_told_everything():
    observer = Counting()
    lengths = (1, 2, 5)
    DenoisingLoop(Unet(), 4, observer).run_to_end([FakeImage(n) for n in lengths])
    assert observer.steps == sum(lengths)
    assert sum(observer.rows) == 2 * sum(lengths)
    assert observer.rows == [4, 4, 2, 2, 2, 2]
    assert observer.images == 3
    assert observer.flying == [1, 2, 3, 2, 1, 0]
    assert len(observer.waits) == 3
    assert min(observer.waits) >= 0


def test_the_observer_sees_no_image_finished_that_failed():
    def fail(numbers):
        raise RuntimeError

    observer = Counting()
    DenoisingLoop(Unet(fail=fail), 4, observer).run_to_end([FakeImage(2)])
    assert (observer.images, observer.steps, observer.flying) == (0, 0, [1, 0])


def test_an_observer_that_raises_does_not_stop_the_loop():
    class Broken(Observer):
        def called(self, rows):
            raise OSError("metrics are gone")

    image = FakeImage(2)
    assert DenoisingLoop(Unet(), 4, Broken()).run_to_end([image])[0] is image.latents


def test_an_images_rows_of_conditioning_are_the_same_objects_in_all_its_calls():
    unet = Unet()
    short, long = FakeImage(2, text_embeds=(5,)), FakeImage(5, text_embeds=(5,))
    DenoisingLoop(unet, 32).run_to_end([short, long])
    for name in ("encoder_hidden_states", "text_embeds"):
        both, again, *alone = ([*map(id, given[name])] for given in unet.given)
        of_short, of_long = ([id(row[name]) for row in one.conditioning] for one in (short, long))
        assert both == of_short + of_long
        assert sorted(again) == sorted(both)
        assert alone == [of_long] * 3


def test_a_conditioning_tensor_of_any_name_reaches_the_unet_and_parts_calls():
    unet = Unet()
    images = [FakeImage(2), FakeImage(2, made_up=(3, 4)), FakeImage(2, made_up=(3, 4))]
    DenoisingLoop(unet, 32).run_to_end(images)
    plain, first, second = (image.number for image in images)
    assert unet.served() == [[plain], [first, second]] * 2
    assert [sorted(given) for given in unet.given] == [
        ["encoder_hidden_states"],
        ["encoder_hidden_states", "made_up"],
    ] * 2
    assert [row.shape for row in unet.given[1]["made_up"]] == [(3, 4)] * 4


def test_a_loop_that_could_not_serve_guidance_is_refused():
    with pytest.raises(ValueError, match="max_rows: got 1"):
        DenoisingLoop(Unet(), 1)


def test_a_thread_that_cannot_be_started_costs_one_image(monkeypatch):
    usual, failures = threading.Thread.start, ["can't start new thread"]

    def start(thread):
        if failures:
            raise RuntimeError(failures.pop())
        usual(thread)

    loop, lost, image = DenoisingLoop(Unet(), 32), FakeImage(2), FakeImage(2)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        submit(loop, lost)
    assert loop.held_rows == 0
    assert submit(loop, image).result(5) is image.latents
    assert lost.made == 0
    loop.close()
