"""What the benchmark on a processor asks for: requests that are all different."""

from __future__ import annotations

import base64
import io
import itertools
import json

from PIL import Image, ImageDraw

from triptych.settings import Defaults

STRENGTH = 0.8
"""diffusers' own."""

SIZES = (1.0, 0.75, 0.5)
"""Of a crowd's pictures, in sides of the model's own."""


class Requests:
    """INPUT_0 by INPUT_0: no prompt twice, and every setting said, for diffusers to take."""

    def __init__(self, usual: Defaults) -> None:
        names = ("num_inference_steps", "guidance_scale", "height", "width")
        self._usual = {name: getattr(usual, name) for name in names}
        self._numbers = itertools.count(1)

    def take(self, count: int, steps: tuple[int, ...] = (), side: float = 1.0) -> list[str]:
        """So many requests; with `steps`, of these step counts in turn. `side`: of SIZES."""
        made = [self._settings(side) for _ in range(count)]
        for position, settings in enumerate(made if steps else ()):
            settings["num_inference_steps"] = steps[position % len(steps)]
        return list(map(json.dumps, made))

    def from_pictures(self, count: int, side: float = 1.0) -> list[str]:
        """So many requests that start from a picture of their own size."""
        made = [self._settings(side) for _ in range(count)]
        for settings in made:
            settings.update(image=_picture(**settings), strength=STRENGTH)
        return list(map(json.dumps, made))

    def crowd(self, count: int) -> list[str]:
        """So many requests, by turns without and with a picture, each two of another size."""
        kinds = (self.take, self.from_pictures)
        return [kinds[i % 2](1, side=SIZES[i // 2 % len(SIZES)])[0] for i in range(count)]

    def _settings(self, side: float) -> dict:
        number = next(self._numbers)
        sizes = {name: int(self._usual[name] * side) // 8 * 8 for name in ("height", "width")}
        prompt = f"a red circle left of a green star, number {number}"
        return {"prompt": prompt, **self._usual, **sizes, "seed": number}


def _picture(width: int, height: int, seed: int, **_: object) -> str:
    """The base64 of a PNG: a disc that is another one for each seed."""
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    x = seed * 37 % (width // 2)
    ImageDraw.Draw(picture).ellipse((x, height // 4, x + width // 2, height * 3 // 4), "red")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
