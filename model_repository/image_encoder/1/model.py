"""A decoded picture and its settings to OUTPUT_0."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout, if not installed

from triptych import image, triton
from triptych.errors import Expired
from triptych.settings import Settings


class TritonPythonModel:
    def initialize(self, args):
        self.model = triton.Model(args)

    def execute(self, requests):
        return self.model.answer(requests, self.encode)

    def encode(self, inputs):
        self.model.activity.images(came=len(inputs["settings"]))
        settings = [Settings.from_json(text) for text in inputs["settings"][:, 0]]
        if any(one.expired for one in settings):
            raise Expired("timeout: the request's time was over when the picture was decoded")
        pictures = map(image.encode_base64, inputs["sample"], settings)
        return {"OUTPUT_0": triton.strings(list(pictures))}
