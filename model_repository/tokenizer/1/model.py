"""INPUT_0 to tokens and settings."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout, if not installed

from triptych import triton
from triptych.admission import Admission
from triptych.pipeline import Pipeline
from triptych.settings import Limits, parse
from triptych.tokenizer import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        self.model = triton.Model(args)
        self.admission = Admission(self.model.activity)
        with self.model.loading():
            self.limits = Limits.from_parameters(self.model.parameters)
            self.defaults = Pipeline.load(self.model.folder).defaults()
            self.tokenizer = Tokenizer(self.model.folder)
            self.tokenizer.check_fits(self.model.beside("text_encoder"))

    def execute(self, requests):
        return self.model.answer(requests, self.tokenize)

    def tokenize(self, inputs):
        self.model.activity.check_serving()
        texts = inputs["INPUT_0"][:, 0]
        images = [parse(text, self.defaults, self.limits) for text in texts]
        self.admission.check(len(images))
        input_ids, negative_input_ids, settings = self.tokenizer.encode_settings(images)
        self.model.activity.images(went=len(images))
        return {
            "input_ids": input_ids,
            "negative_input_ids": negative_input_ids,
            "settings": triton.strings([one.to_json() for one in settings]),
        }
