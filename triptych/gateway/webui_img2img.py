"""The WebUI's image to image, as requests to the server: what its pictures become there."""

from __future__ import annotations

from typing import Annotated, Any

from PIL import Image, ImageChops
from pydantic import AfterValidator, Field

from triptych.gateway.fields import MaskBlur, PaddingMaskCrop, Strength, only
from triptych.gateway.pictures import HALF, LIMITS, filled, fitting, opened
from triptych.gateway.webui_request import Asked, or_else
from triptych.picture import crop
from triptych.picture.reading import file_of

USUAL_STRENGTH = 0.75
USUAL_BLUR = 4.0
"""The WebUI's own, which a served model has no say in."""

CROP_AND_RESIZE, RESIZE_AND_FILL = 1, 2
_RESIZED = {CROP_AND_RESIZE: crop.cover, RESIZE_AND_FILL: crop.fill}
FILL, ORIGINAL = 0, 1


def _one(images: list[str]) -> list[str]:
    if len(images) != 1:
        raise ValueError(f"got {len(images)} pictures; allowed: one")
    return images


class ImageToImage(Asked):
    """A request for a picture to be changed."""

    init_images: Annotated[
        list[str], AfterValidator(_one), Field(description="One picture, base64 or a data: address")
    ]
    denoising_strength: Annotated[Strength, or_else(USUAL_STRENGTH)] = USUAL_STRENGTH
    resize_mode: Annotated[only(0, 1, 2), or_else(0)] = Field(
        0, description="0: just resize, 1: crop and resize, 2: resize and fill"
    )
    mask: str | None = Field(None, description="White is painted anew")
    mask_blur: Annotated[MaskBlur, or_else(USUAL_BLUR)] = USUAL_BLUR
    mask_blur_x: only(None, 4) = None
    mask_blur_y: only(None, 4) = None
    inpainting_fill: Annotated[only(0, 1), or_else(0)] = Field(
        0, description="What is painted anew starts from: 0: the colours around, 1: the picture"
    )
    inpaint_full_res: Annotated[bool, or_else(True)] = Field(
        True, description="Draw the masked part alone at the full size"
    )
    inpaint_full_res_padding: Annotated[PaddingMaskCrop, or_else(0)] = 0
    inpainting_mask_invert: Annotated[only(0, 1), or_else(0)] = Field(
        0, description="1: black is painted anew"
    )
    mask_round: only(None, True) = None
    latent_mask: only(None, "") = None
    initial_noise_multiplier: only(None, 1) = None
    include_init_images: bool | None = Field(False, description="Send them back in parameters")


def brought(asked: ImageToImage) -> dict[str, Any]:
    """What the pictures of a request add to what the server is asked; slow.

    A picture that the server can take as it is goes along as it came. Raises InvalidRequest.
    """
    image = file_of("init_images", asked.init_images[0], LIMITS)
    more = {"image": image, "strength": asked.denoising_strength}
    if not asked.mask and not asked.resize_mode:
        return more
    picture, changed = opened("init_images", image).convert("RGB"), False
    mask = _mask(asked, picture.size) if asked.mask else None
    crops = mask is not None and asked.inpaint_full_res
    if asked.resize_mode and not crops:
        resized = _RESIZED[asked.resize_mode]
        width, height = (max(8, side - side % 8) for side in picture.size)
        size = asked.width or width, asked.height or height
        picture, changed = resized(picture, size), True
        mask = resized(mask, size) if mask else None
    if mask is not None:
        more.update(mask_image=fitting(mask), mask_blur=asked.mask_blur)
        if crops:
            more["padding_mask_crop"] = asked.inpaint_full_res_padding
        if asked.inpainting_fill == FILL and asked.denoising_strength < 1:
            picture, changed = filled(picture, mask), True
    return {**more, "image": fitting(picture)} if changed else more


def _mask(asked: ImageToImage, size: tuple[int, int]) -> Image.Image:
    """Black and white, in the size of the picture; transparency comes before colour, as there."""
    mask = opened("mask", file_of("mask", asked.mask, LIMITS))
    alpha = mask.getchannel("A") if mask.mode == "RGBA" else None
    gray = alpha if alpha and alpha.getextrema()[0] < 255 else mask.convert("L")
    white = gray.point([0] * HALF + [255] * HALF)
    if asked.inpainting_mask_invert:
        white = ImageChops.invert(white)
    return white.resize(size, Image.NEAREST) if white.size != size else white
