"""A request's pictures as what the networks take, as diffusers' VaeImageProcessor makes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from triptych.picture import crop
from triptych.picture.reading import decode
from triptych.settings import Settings


class Prepared(NamedTuple):
    """What an image starts from, in the size of the settings.

    sample: what vae_encoder takes, float32 [3, height, width] from -1 to 1. mask: float32 [1, h, w]
    in the size of the latents, 1 where the picture is painted anew, 0 where it stays; None without
    a mask. masked_sample: `sample` with 0 where it is painted anew; None without a mask.
    """

    sample: np.ndarray
    mask: np.ndarray | None = None
    masked_sample: np.ndarray | None = None


def prepare(settings: Settings, image: bytes, mask_image: bytes, factor: int) -> Prepared:
    """The files of a request, decoded, blurred, cut out and scaled.

    `mask_image` is empty where there is none. factor: pixels to one latent, along one side. Raises
    InvalidRequest for a damaged file, and for padding_mask_crop with a mask that is all black.
    """
    picture = decode("image", image)
    size = settings.width, settings.height
    if not mask_image:
        return Prepared(_sample(picture.resize(size, Image.LANCZOS)))
    mask = _whole_mask(settings, mask_image, picture.size)
    if settings.padding_mask_crop is None:
        picture, mask = picture.resize(size, Image.LANCZOS), mask.resize(size, Image.LANCZOS)
    else:
        box = crop.region(mask, size, settings.padding_mask_crop)
        picture, mask = (crop.fill(one.crop(box), size) for one in (picture, mask))
    sample = _sample(picture)
    anew = np.asarray(mask.convert("L"), np.float32)[np.newaxis] / np.float32(255) >= 0.5
    latent_mask = anew[:, ::factor, ::factor].astype(np.float32)
    return Prepared(sample, latent_mask, np.where(anew, np.float32(0), sample))


def put_back(pixels: np.ndarray, settings: Settings, image: bytes, mask_image: bytes) -> np.ndarray:
    """The whole picture, uint8 [height, width, 3], with `pixels` drawn of its masked part.

    For settings with padding_mask_crop; the files are those that were prepared.
    """
    picture = decode("image", image)
    mask = _whole_mask(settings, mask_image, picture.size)
    box = crop.region(mask, (settings.width, settings.height), settings.padding_mask_crop)
    return np.asarray(crop.put_back(Image.fromarray(pixels), picture, mask, box))


def _whole_mask(settings: Settings, mask_image: bytes, size: tuple[int, int]) -> Image.Image:
    """The mask in RGB, blurred by the settings' mask_blur.

    With padding_mask_crop it is first fitted to the picture's size, since it is laid over it.
    """
    mask = decode("mask_image", mask_image)
    if settings.padding_mask_crop is not None and mask.size != size:
        mask = mask.resize(size, Image.LANCZOS)
    return mask.filter(ImageFilter.GaussianBlur(settings.mask_blur)) if settings.mask_blur else mask


def _sample(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255)
    return np.ascontiguousarray(np.float32(2) * pixels - np.float32(1))
