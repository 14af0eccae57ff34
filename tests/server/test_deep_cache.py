"""cache_interval through the ensemble: pictures, alone and with others, and who refuses."""

import base64

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.server.calls import SMALL, pixels, request, texts
from triptych.picture.metadata import read_settings
from triptych.pipeline import Pipeline

INTERVALS = (None, 1, 2, 3, 5)
SIX = {**SMALL, "num_inference_steps": 6}


def asked(interval, **more):
    own = {} if interval is None else {"cache_interval": interval}
    return request(**{**SIX, **own, **more})


def test_pictures_of_every_interval_are_the_pipelines_alone_and_with_each_other(calls, repository):
    alone = {interval: calls.pictures(asked(interval))[0] for interval in INTERVALS}
    pipeline = Pipeline(repository)
    for interval, file in alone.items():
        assert read_settings(file).cache_interval == interval
        expected = pipeline.pixels(asked(interval).decode())
        assert np.abs(pixels(file).astype(int) - expected).max() <= 1
    assert pixels(alone[None]).tolist() == pixels(alone[1]).tolist()
    assert len({pixels(file).tobytes() for file in alone.values()}) == 4
    inputs = [{"INPUT_0": texts(asked(interval))} for interval in 2 * INTERVALS]
    started = [calls.start("sd_ensemble", one) for one in inputs]
    together = [base64.b64decode(one.wait().result.as_numpy("OUTPUT_0").item()) for one in started]
    for interval, file in zip(2 * INTERVALS, together):
        assert np.abs(pixels(file).astype(int) - pixels(alone[interval])).max() <= 1


def test_guidance_may_begin_and_end_on_the_way(calls, repository):
    part = {"guidance_scale": 5, "guidance_start": 0.2, "guidance_stop": 0.7}
    (file,) = calls.pictures(asked(3, **part))
    expected = Pipeline(repository).pixels(asked(3, **part).decode())
    assert np.abs(pixels(file).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cache_interval": 0}, "tokenizer: cache_interval: got 0; allowed: an integer from 1"),
        ({"cache_interval": 2, "scheduler": "heun"}, "cache_interval: got 2; allowed: 1 with heun"),
    ],
)
def test_what_cannot_be_is_refused(calls, more, said):
    with pytest.raises(InferenceServerException, match=said) as caught:
        calls.pictures(request(**{**SIX, **more}))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
