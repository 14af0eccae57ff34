"""The gateway against its own OpenAPI: schemathesis makes requests, right and wrong, and checks."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.gateway.fake_triton import FakeTriton
from tests.gateway.running import Gateway
from triptych.gateway.app import create_app

KEY = "sesame"
SCHEMA = schemathesis.openapi.from_dict(create_app("nowhere").openapi())
# Schemas cannot say the server's own limits: multiples of 8, the area, a text that is not blank.
BEYOND_SCHEMAS = [schemathesis.checks.positive_data_acceptance]
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def url():
    with FakeTriton() as triton, Gateway(triton.url, api_key=KEY) as gateway:
        yield gateway.url


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label, operation in OPERATIONS.items()
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or operation.body
    ],
)
def test_every_answer_is_one_that_is_described(url, label, mode):
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        headers = {"Authorization": f"Bearer {KEY}"}
        case.call_and_validate(base_url=url, headers=headers, excluded_checks=BEYOND_SCHEMAS)

    check()
