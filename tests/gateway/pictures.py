"""Pictures for the gateway's tests."""

import base64
import io

import numpy as np
from PIL import Image


def file_of(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def flat(size=(64, 64), color="teal", kind="PNG"):
    """The file of a picture of one colour."""
    return file_of(Image.new("RGB", size, color), kind)


def transparent(size=(64, 64), part=(0, 0, 32, 64)):
    """A PNG that is transparent in `part`."""
    picture = Image.new("RGBA", size, (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), part)
    return file_of(picture)


def grain(megabytes):
    """A PNG of about that many megabytes: nothing makes it smaller."""
    side = int((megabytes * 1e6 / 3) ** 0.5)
    pixels = np.random.RandomState(0).randint(0, 256, (side, side, 3), np.uint8)
    return file_of(Image.fromarray(pixels), compress_level=0)


def text(file):
    """The base64 of a file."""
    return base64.b64encode(file).decode()


def decoded(text):
    """The picture in base64."""
    return Image.open(io.BytesIO(base64.b64decode(text)))
