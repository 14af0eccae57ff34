import numpy as np
import pytest

from triptych.errors import InvalidRequest
from triptych.fastdeploy.kept_tensors import KeptTensors


def call(kept, tensors, parameters):
    """What a network gets in a call that succeeds."""
    completed = kept.complete(tensors, parameters)
    kept.keep(completed, parameters)
    return completed


def sent(value, rows=2):
    return {"rows": np.full((rows, 3), value, np.float32), "number": np.arange(rows)}


def test_what_is_kept_is_the_same_object_in_every_call():
    kept, first = KeptTensors(), sent(1)
    (one, other, again) = (
        call(kept, first, {"keep_rows": "a"}),
        call(kept, sent(2), {"keep_rows": "b"}),
        call(kept, {**sent(9), "number": np.zeros(2)}, {"kept_rows": "a"}),
    )
    first["rows"][:] = 7
    assert again["rows"] is one["rows"]
    np.testing.assert_array_equal(again["rows"], np.full((2, 3), 1))
    np.testing.assert_array_equal(other["rows"], np.full((2, 3), 2))
    np.testing.assert_array_equal(again["number"], [0, 0])
    assert one["rows"].flags.owndata and not one["rows"].flags.writeable


def test_other_parameters_and_none():
    request = sent(1)
    assert KeptTensors().complete(request, {}) is request
    assert KeptTensors().complete(request, {"priority": 3, "keep_nothing": "a"}) is request


def test_a_name_that_is_not_known():
    kept = KeptTensors()
    call(kept, sent(1), {"keep_rows": "a"})
    for parameter in ("kept_rows", "kept_number"):
        with pytest.raises(InvalidRequest, match=f"{parameter}: got .b.; allowed: "):
            call(kept, sent(1), {parameter: "b"})
    with pytest.raises(InvalidRequest):
        call(kept, sent(1), {"kept_number": "a"})


def test_what_was_not_used_for_longest_goes(monkeypatch):
    size = sent(0)["rows"].nbytes
    monkeypatch.setattr(KeptTensors, "LEAST", size)
    monkeypatch.setattr(KeptTensors, "BYTES", 2 * size)
    kept = KeptTensors()
    for name in "ab":
        call(kept, sent(1), {"keep_rows": name})
    call(kept, sent(1), {"kept_rows": "a"})
    call(kept, sent(1), {"keep_rows": "c"})
    call(kept, sent(1), {"kept_rows": "a"})
    with pytest.raises(InvalidRequest):
        call(kept, sent(1), {"kept_rows": "b"})
    large = call(kept, sent(1, rows=100), {"keep_rows": "d"})
    assert call(kept, sent(1), {"kept_rows": "d"})["rows"] is large["rows"]


def test_the_name_is_bounded():
    kept = KeptTensors()
    for name in ("", 65 * "n", 10**6 * "n"):
        with pytest.raises(InvalidRequest, match=r"^keep_rows: got .*; allowed: a name of 1 to 64"):
            kept.complete(sent(1), {"keep_rows": name})
    call(kept, sent(1), {"keep_rows": 64 * "n"})
    assert call(kept, sent(9), {"kept_rows": 64 * "n"})["rows"][0, 0] == 1


def test_small_tensors_are_counted_too(monkeypatch):
    monkeypatch.setattr(KeptTensors, "BYTES", 10 * KeptTensors.LEAST)
    kept = KeptTensors()
    for number in range(100):
        call(kept, sent(number), {"keep_rows": number})
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
    kept.complete(sent(1), {"keep_rows": "a"})
    with pytest.raises(InvalidRequest):
        kept.complete(sent(1), {"kept_rows": "a"})
