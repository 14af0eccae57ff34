"""What LoRAs add to a graph's tensors, as factors and as whole tensors: the same."""

import math

import numpy as np
import pytest

from triptych.fastdeploy.changing_weights import DeviceWeights
from triptych.lora.files import Layer
from triptych.lora.merging import Place, factors, merged

RANDOM = np.random.RandomState(0)


def layer(out, read, *window, rank=3, mid=False):
    down = RANDOM.standard_normal((rank, read, *([1] * len(window) if mid else window)))
    up = RANDOM.standard_normal((out, rank, *([1] * len(window))))
    between = RANDOM.standard_normal((rank, rank, *window)).astype("f") if mid else None
    return Layer(down.astype("f"), up.astype("f"), 0.7, between)


def check(places, shapes, *changes):
    originals = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    expected = merged(places, changes, originals.__getitem__)
    found = factors(places, changes)
    assert found.keys() == expected.keys()
    for name, blocks in found.items():
        got = np.zeros((shapes[name][0], math.prod(shapes[name][1:])), np.float32)
        for axis, start, left, right in blocks:
            part = np.s_[:, start:] if axis else np.s_[start:]
            got[part][: len(left), : right.shape[1]] += left @ right
        got = got.reshape(shapes[name])
        np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=1e-5)
        assert np.abs(got).max() > 0.5
    originals["other"] = np.zeros((2, 2), np.float32)
    places = {**places, "other": Place((2, 2), "other", (0, 1))}
    device = DeviceWeights(originals, places, ("cpu", 0))
    held, nbytes = device.hold(changes)
    other, _ = device.hold([({"other": layer(2, 2)}, 1.0)])
    for _ in range(2):
        values = device.switch(held)
        for name, wanted in expected.items():
            np.testing.assert_allclose(values[name].numpy(), wanted, rtol=1e-4, atol=1e-5)
        assert not values["other"].numpy().any()
        values = device.switch(other)
        assert values["other"].numpy().any()
        assert not any(values[name].numpy().any() for name in expected)
    return nbytes


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_a_matrix_and_two_loras(axes):
    place = Place((6, 4), "weight", axes)
    shape = tuple(place.shape[axis] for axis in axes)
    check({"a": place}, {"weight": shape}, ({"a": layer(6, 4)}, 1.5), ({"a": layer(6, 4)}, -0.5))


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)])
@pytest.mark.parametrize("mid", [False, True])
def test_a_convolution_with_its_channels_first_or_last(axes, mid):
    place = Place((6, 4, 3, 2), "weight", axes)
    shape = tuple(place.shape[axis] for axis in axes)
    check({"a": place}, {"weight": shape}, ({"a": layer(6, 4, 3, 2, mid=mid)}, 1.5))


def test_a_linear_layer_of_a_file_is_a_convolution_of_one_pixel():
    place = Place((6, 4, 1, 1), "weight", (0, 2, 3, 1))
    check({"a": place}, {"weight": (6, 1, 1, 4)}, ({"a": layer(6, 4)}, 1.0))


@pytest.mark.parametrize(("axes", "axis"), [((1, 0), 1), ((0, 1), 0), ((1, 0), 0), ((0, 1), 1)])
def test_layers_that_are_in_one_tensor(axes, axis):
    """Queries, keys and values of three layers, one after another."""
    places = {name: Place((5, 5), "qkv", axes, axis, 5 * at) for at, name in enumerate("qkv")}
    shape = (15, 5) if axis == 0 else (5, 15)
    one, other = {"q": layer(5, 5), "v": layer(5, 5)}, {"v": layer(5, 5, rank=2)}
    nbytes = check(places, {"qkv": shape}, (one, 1.0), (other, 2.0))
    own = sum(of.up.nbytes + of.down.nbytes for of in (*one.values(), *other.values()))
    nothing = 4 * (5 + 5)
    assert nbytes == own + nothing


def test_layers_of_other_widths_with_gaps_between():
    starts, sizes = {"a": 2, "b": 9}, {"a": 3, "b": 6}
    for axis in (0, 1):
        axes = (0, 1) if axis == 0 else (1, 0)
        places = {n: Place((sizes[n], 4), "all", axes, axis, starts[n]) for n in sizes}
        shape = (17, 4) if axis == 0 else (4, 17)
        check(places, {"all": shape}, ({n: layer(sizes[n], 4) for n in sizes}, 1.0))
