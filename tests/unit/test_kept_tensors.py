import numpy as np
import pytest

from triptych.errors import InvalidRequest
from triptych.fastdeploy.kept_tensors import KeptTensors


def sent(value, rows=2):
    return {"rows": np.full((rows, 3), value, np.float32), "number": np.arange(rows)}


def test_what_is_kept_is_the_same_object_in_every_call():
    kept, first = KeptTensors(), sent(1)
    (one, other, again) = (
        kept.complete(first, {"keep_rows": "a"}),
        kept.complete(sent(2), {"keep_rows": "b"}),
        kept.complete({**sent(9), "number": np.zeros(2)}, {"kept_rows": "a"}),
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
    kept.complete(sent(1), {"keep_rows": "a"})
    for parameter in ("kept_rows", "kept_number"):
        with pytest.raises(InvalidRequest, match=f"{parameter}: got .b.; allowed: "):
            kept.complete(sent(1), {parameter: "b"})
    with pytest.raises(InvalidRequest):
        kept.complete(sent(1), {"kept_number": "a"})


def test_what_was_not_used_for_longest_goes(monkeypatch):
    monkeypatch.setattr(KeptTensors, "BYTES", 2 * sent(0)["rows"].nbytes)
    kept = KeptTensors()
    for name in "ab":
        kept.complete(sent(1), {"keep_rows": name})
    kept.complete(sent(1), {"kept_rows": "a"})
    kept.complete(sent(1), {"keep_rows": "c"})
    kept.complete(sent(1), {"kept_rows": "a"})
    with pytest.raises(InvalidRequest):
        kept.complete(sent(1), {"kept_rows": "b"})
    large = kept.complete(sent(1, rows=100), {"keep_rows": "d"})
    assert kept.complete(sent(1), {"kept_rows": "d"})["rows"] is large["rows"]
