"""What an image starts from in place of noise alone: a picture, as the VAE's encoder sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from triptych.errors import NotFinite
from triptych.model_files import ModelFiles
from triptych.picture.prepare import prepare
from triptych.settings import Settings


class Start(NamedTuple):
    """A picture to start from; see `encoded`.

    moments: float32 [2 * channels, h, w], means and then logarithms of variances of its latents;
    None where it is not looked at. mask: float32 [1, h, w], 1 where it is painted anew, 0 where it
    stays; None without a mask. masked_moments: those of the picture without what is painted anew,
    where the UNet takes them; None elsewhere. latents: in place of all that, the latents
    themselves, float32 [channels, h, w], as diffusers' pipelines take them for a picture.
    """

    moments: np.ndarray | None
    mask: np.ndarray | None = None
    masked_moments: np.ndarray | None = None
    latents: np.ndarray | None = None


def encoded(
    settings: Settings,
    image: bytes,
    mask_image: bytes,
    model_files: ModelFiles,
    vae_encoder: Callable[[np.ndarray], np.ndarray],
) -> Start:
    """The start that a request's files make, by as few calls of `vae_encoder` as can be.

    vae_encoder: [1, 3, height, width] from -1 to 1 to [1, 2 * channels, h, w]. `mask_image` is
    empty where there is none. Raises InvalidRequest for files that cannot be used and NotFinite
    where the encoder gives NaN or infinity.
    """
    prepared = prepare(settings, image, mask_image, model_files.vae_scale_factor)
    channels, *sides = model_files.latent_shape(settings.height, settings.width)
    shape = (2 * channels, *sides)

    def moments(sample: np.ndarray) -> np.ndarray:
        (found,) = vae_encoder(sample[np.newaxis])
        if found.shape != shape:
            raise RuntimeError(f"vae_encoder gave {list(found.shape)}, not {list(shape)}")
        if not np.isfinite(found).all():
            raise NotFinite("vae_encoder gave NaN or infinity: its precision overflowed")
        return found

    if prepared.mask is None:
        return Start(moments(prepared.sample))
    if not model_files.paints_in:
        return Start(moments(prepared.sample), prepared.mask)
    whole = moments(prepared.sample) if settings.strength < 1 else None
    return Start(whole, prepared.mask, moments(prepared.masked_sample))


def latents(moments: np.ndarray, noise: np.ndarray, model_files: ModelFiles) -> np.ndarray:
    """Latents of the distribution that `moments` describe, drawn by normal `noise` of their shape.

    The bounds of the logarithms are those of diffusers' DiagonalGaussianDistribution.
    """
    mean, log_variance = np.split(moments, 2)
    deviation = np.exp(np.float32(0.5) * np.clip(log_variance, -30, 20))
    drawn = mean + deviation * noise
    return (drawn - np.float32(model_files.shift_factor)) * np.float32(model_files.scaling_factor)
