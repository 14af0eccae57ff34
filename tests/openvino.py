"""Whether OpenVINO runs on the machine of the tests: ONNX Runtime's plugin takes Intel's alone."""

from __future__ import annotations

import onnxruntime
import pytest

VENDORS = {device.device.vendor for device in onnxruntime.get_ep_devices()}
IS_INTEL = any("intel" in vendor.lower() for vendor in VENDORS)

on_intel = pytest.mark.skipif(
    not IS_INTEL, reason=f"OpenVINO takes Intel's processors, this one is of {VENDORS}"
)
