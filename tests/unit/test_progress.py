"""The file between the loop's process and the one that streams, both ends of it here."""

import errno
import os

import numpy as np
import pytest

from triptych.errors import NotFinite
from triptych.ipc import progress
from triptych.ipc.progress import Record, writer

STREAM = "sd_ensemble_stream"


@pytest.fixture(autouse=True)
def prefix(monkeypatch):
    """A name of its own for this test's files."""
    monkeypatch.setenv(progress.PREFIX_VARIABLE, f"triptych_test{os.getpid()}_")
    yield
    assert files() == []


def files():
    return list(progress.FOLDER.glob(f"triptych_test{os.getpid()}_*"))


class Image:
    """As much of an image as a watcher looks at."""

    calls_before, calls_in_all = 0, 21
    timestep = 500.0

    def __init__(self):
        self.call = 0

    def model_input(self):
        return None


class Draws:
    """A preview of the UNet's output itself."""

    def pixels(self, model_input, timestep, model_output):
        if model_output is None:
            raise NotFinite("no numbers")
        return model_output


@pytest.fixture
def record():
    made = Record(STREAM, preview_every=5)
    yield made
    made.close()


@pytest.fixture
def loop(record):
    made = writer(STREAM, record.token, Draws())
    yield made
    made.close()


def picture(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def test_each_step_is_told_once_and_a_preview_every_few(record, loop):
    image = Image()
    assert record.read() is None
    for call in range(image.calls_in_all):
        image.call = call
        loop(image, picture(8, 12, seed=call))
        step, total, preview = record.read()
        assert (step, total) == (call + 1, 21)
        if step % 5 == 0:
            np.testing.assert_array_equal(preview, picture(8, 12, seed=call))
        else:
            assert preview is None
        assert record.read() is None


def test_who_reads_seldom_gets_the_newest(record, loop):
    image = Image()
    for image.call in range(13):
        loop(image, picture(8, 8, seed=image.call))
    step, _, preview = record.read()
    assert step == 13
    np.testing.assert_array_equal(preview, picture(8, 8, seed=9))


def test_a_large_preview_is_thinned_out(record, loop):
    image, large = Image(), picture(96, 512)
    image.call = 4
    loop(image, large)
    np.testing.assert_array_equal(record.read().preview, large[::2, ::2])


def test_a_preview_that_is_half_written_is_not_shown(record, loop):
    image = Image()
    image.call = 4
    loop(image, picture(8, 8))
    os.pwrite(record._file, b"\7\0\0\0", progress._SIZE_AT)
    assert record.read() == (5, 21, None)


def test_numbers_that_make_no_picture_do_no_harm(record, loop):
    image = Image()
    image.call = 4
    loop(image, None)
    assert record.read() == (5, 21, None)


@pytest.mark.parametrize("draws", [None, Draws()])
def test_no_preview_where_none_is_asked_or_none_can_be(draws):
    record = Record(STREAM, preview_every=0 if draws else 5)
    loop = writer(STREAM, record.token, draws)
    image = Image()
    for image.call in range(6):
        loop(image, picture(8, 8))
    assert record.read() == (6, 21, None)
    loop.close()
    record.close()


def test_stopping_reaches_the_loop(record, loop):
    assert not loop.stopped()
    record.stop()
    assert loop.stopped()


def test_the_loop_may_outlast_the_one_who_asked():
    record = Record(STREAM, preview_every=1)
    loop = writer(STREAM, record.token, Draws())
    record.close()
    loop(Image(), picture(8, 8))
    assert not loop.stopped()
    loop.close()


@pytest.mark.parametrize("request_id", ["", "7", "../../etc/passwd", "0" * 32, "G" * 32])
def test_a_request_that_nobody_watches_has_no_writer(request_id):
    assert writer(STREAM, request_id, None) is None


def test_it_takes_no_links(tmp_path):
    token = "0123456789abcdef" * 2
    (tmp_path / "file").write_bytes(b"\0" * 100)
    link = progress._path(STREAM, token)
    link.symlink_to(tmp_path / "file")
    assert writer(STREAM, token, None) is None
    link.unlink()


def test_others_may_not_read_it(record):
    assert os.stat(progress._path(STREAM, record.token)).st_mode & 0o777 == 0o600


def test_full_shared_memory_is_said_and_leaves_nothing(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Record(STREAM, preview_every=5)


def test_what_a_killed_process_left_is_cleared():
    left = Record(STREAM, preview_every=5)
    os.close(left._file)
    progress.clear(STREAM)
    assert files() == []


def test_another_models_stream_that_is_loaded_leaves_these_records(record):
    progress.clear("ink_stream")
    progress.clear("sd")
    assert len(files()) == 1
    assert writer("ink_stream", record.token, None) is None
