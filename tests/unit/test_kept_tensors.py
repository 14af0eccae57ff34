import numpy as np
import pytest

from triptych.errors import InvalidRequest
from triptych.fastdeploy.kept_tensors import KeptTensors


def call(kept, tensors, parameters):
    """What a network gets in a call that succeeds."""
    completed = kept.complete(tensors, parameters)
    kept.keep(completed, parameters)
    return completed


def sent(*values, rows=None):
    """A call of as many rows as there are values, or of so many."""
    own = np.repeat(np.array(values, np.float32)[:, None], 3, axis=1)
    return {"rows": own, "number": np.arange(rows or len(values))}


def keep(*names):
    """Parameters of a call whose rows are all new."""
    return {"keep_rows": " ".join(names), "kept_rows": " ".join(names)}


def test_rows_are_sent_once_and_then_named_in_any_order_and_company():
    kept, first = KeptTensors(), sent(1, 2)
    call(kept, first, keep("a", "b"))
    first["rows"][:] = 7
    new = call(kept, sent(3, rows=4), {"keep_rows": "c", "kept_rows": "b c a b"})
    np.testing.assert_array_equal(new["rows"][:, 0], [2, 3, 1, 2])
    np.testing.assert_array_equal(new["number"], np.arange(4))
    again = call(kept, sent(9, 9), {"kept_rows": "c b"})
    np.testing.assert_array_equal(again["rows"], [[3] * 3, [2] * 3])


def test_the_same_rows_are_the_same_object_in_every_call():
    kept = KeptTensors()
    one = call(kept, sent(1, 2), keep("a", "b"))
    other = call(kept, sent(0, 0), {"kept_rows": "b a"})
    assert call(kept, sent(9, 9), {"kept_rows": "a b"})["rows"] is one["rows"]
    assert call(kept, sent(9, 9), {"kept_rows": "b a"})["rows"] is other["rows"]
    assert one["rows"].flags.owndata and not one["rows"].flags.writeable


def test_rows_that_are_dropped_and_what_was_stacked_of_them():
    kept = KeptTensors()
    call(kept, sent(1, 2, 3), keep("a", "b", "c"))
    call(kept, sent(0, 0), {"kept_rows": "b c"})
    call(kept, sent(4), {**keep("d"), "drop_rows": "a gone", "drop_number": "b"})
    for names in ("a b c", "a"):
        with pytest.raises(InvalidRequest, match="kept_rows: got 'a';"):
            call(kept, sent(*names.encode()), {"kept_rows": names})
    again = call(kept, sent(0, 0), {"kept_rows": "c b"})
    np.testing.assert_array_equal(again["rows"][:, 0], [3, 2])
    call(kept, sent(4), {"drop_rows": "b c d"})
    assert kept._rows.bytes == kept._stacked.bytes == 0


def test_other_parameters_and_none():
    request = sent(1)
    assert KeptTensors().complete(request, {}) is request
    assert KeptTensors().complete(request, {"priority": 3, "keep_nothing": "a"}) is request


def test_a_name_that_is_not_known():
    kept = KeptTensors()
    call(kept, sent(1), keep("a"))
    for parameter, names in (("kept_rows", "b"), ("kept_number", "b"), ("kept_rows", "a b")):
        with pytest.raises(InvalidRequest, match=f"{parameter}: got .b.; allowed: what was kept"):
            call(kept, sent(1), {parameter: names})
    with pytest.raises(InvalidRequest):
        call(kept, sent(1), {"kept_number": "a"})


@pytest.mark.parametrize("names", ["a", "a a a", " ".join(["a"] * 10**5)])
def test_a_name_for_each_row(names):
    kept = KeptTensors()
    call(kept, sent(1), keep("a"))
    with pytest.raises(InvalidRequest, match=r"^kept_rows: got .* names.; allowed: 2, one a row"):
        call(kept, sent(1, 1), {"kept_rows": names})


@pytest.mark.parametrize(
    "parameters",
    [
        {"keep_rows": "b"},
        {"keep_rows": "b c", "kept_rows": "b c"},
        {"keep_rows": "b", "kept_rows": "a"},
    ],
)
def test_rows_that_are_new_are_sent_and_used(parameters):
    kept = KeptTensors()
    call(kept, sent(1), keep("a"))
    with pytest.raises(InvalidRequest, match=r"^keep_rows: got 'b"):
        call(kept, {"rows": sent(1)["rows"], "number": np.arange(2)}, parameters)


def test_rows_of_one_call_have_one_shape():
    kept = KeptTensors()
    call(kept, sent(1), keep("a"))
    wide = {"rows": np.ones((2, 4), np.float32)}
    with pytest.raises(InvalidRequest, match=r"^kept_rows: got .*; allowed: rows of one shape"):
        call(kept, wide, {"keep_rows": "b", "kept_rows": "a b"})


def test_what_was_not_used_for_longest_goes(monkeypatch):
    size = sent(0)["rows"].nbytes
    monkeypatch.setattr(KeptTensors, "LEAST", size)
    monkeypatch.setattr(KeptTensors, "BYTES", 2 * size)
    monkeypatch.setattr(KeptTensors, "STACKED_BYTES", size)
    kept = KeptTensors()
    for name in "ab":
        call(kept, sent(1), keep(name))
    call(kept, sent(1), {"kept_rows": "a"})
    call(kept, sent(1), keep("c"))
    call(kept, sent(1), {"kept_rows": "a"})
    with pytest.raises(InvalidRequest):
        call(kept, sent(1), {"kept_rows": "b"})


def test_the_name_is_bounded():
    kept = KeptTensors()
    for name in (65 * "n", 10**6 * "n"):
        with pytest.raises(InvalidRequest, match=r"^keep_rows: got .*; allowed: names of at most"):
            kept.complete(sent(1), keep(name))
    call(kept, sent(1), keep(64 * "n"))
    assert call(kept, sent(9), {"kept_rows": 64 * "n"})["rows"][0, 0] == 1


def test_small_rows_are_counted_too(monkeypatch):
    monkeypatch.setattr(KeptTensors, "BYTES", 10 * KeptTensors.LEAST)
    monkeypatch.setattr(KeptTensors, "STACKED_BYTES", 0)
    kept = KeptTensors()
    for number in range(100):
        call(kept, sent(number), keep(str(number)))
    for number in range(90):
        with pytest.raises(InvalidRequest):
            kept.complete(sent(1), {"kept_rows": number})
    assert call(kept, sent(1), {"kept_rows": 90})["rows"][0, 0] == 90


def test_features_of_small_images_are_counted_too():
    features = KeptTensors().features
    for name in "ab":
        features.put(name, object(), 1)
    assert features.bytes == 2 * KeptTensors.LEAST


def test_a_call_that_failed_has_kept_nothing():
    kept = KeptTensors()
    kept.complete(sent(1), keep("a"))
    with pytest.raises(InvalidRequest):
        kept.complete(sent(1), {"kept_rows": "a"})
