"""The settings that a picture was made with, inside its file: PNG text chunks, else EXIF."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triptych.errors import InvalidRequest
from triptych.picture.infotext import infotext
from triptych.settings import OPTIONAL_KEYS, PICTURE_KEYS, TEXT_KEYS, Settings

_IMAGE_DESCRIPTION = 0x010E  # the EXIF tag
_EXIF_BYTES = 60_000  # JPEG has room for 65,533, all tags together
_TEXT_CHUNKS = (*PICTURE_KEYS, "warnings", "model")
_MAX_FILE_BYTES = 64 * 1024 * 1024


def read_settings(file: bytes) -> Settings:
    """The settings that a picture was made with, out of the picture's file.

    Reads no pixels, and no more than Pillow's bounds allow of compressed text. Raises
    InvalidRequest if `file` is no picture, is none of Triptych's, or has been changed.
    """
    allowed = f"a picture by Triptych of at most {_MAX_FILE_BYTES} bytes"
    if len(file) > _MAX_FILE_BYTES:
        raise InvalidRequest("image", file, allowed)
    try:
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")) as picture:
            text = _settings_json(picture)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InvalidRequest("image", file, allowed) from error
    return Settings.from_json(text)


def _settings_json(picture: Image.Image) -> str:
    if picture.format != "PNG":
        return picture.getexif()[_IMAGE_DESCRIPTION]
    texts = {
        name: picture.info[name]
        for name in _TEXT_CHUNKS
        if name in picture.info or name not in (*OPTIONAL_KEYS, "model")
    }
    return json.dumps({name: _from_text(name, text) for name, text in texts.items()})


def text_chunks(settings: Settings) -> PngInfo:
    """One text chunk a setting, under its name; iTXt where Latin-1 does not do.

    A chunk `parameters` has them in the WebUI's form, for the programs that read that.
    """
    chunks = PngInfo()
    values = {name: settings.json_value(name) for name in _TEXT_CHUNKS}
    for name, value in {**values, "parameters": infotext(settings)}.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            chunks.add_itxt(name, text)
        else:
            chunks.add_text(name, text)
    return chunks


def _from_text(name: str, text: str) -> Any:
    """The value of a text chunk: those of text settings stand as they are."""
    return text if name in TEXT_KEYS else json.loads(text)


def exif(settings: Settings) -> Image.Exif:
    """EXIF tags with the settings as JSON in ASCII, for JPEG and WebP."""
    tags = Image.Exif()
    tags[_IMAGE_DESCRIPTION] = _description(settings)
    return tags


def _description(settings: Settings) -> str:
    """The settings as JSON in ASCII; where EXIF has no room for the prompts, with those cut."""
    settings = dataclasses.replace(settings, deadline=None, text_inputs=None)
    text = settings.to_json()
    if len(text) <= _EXIF_BYTES:
        return text
    most = 2000  # 12 bytes each at the most
    warning = (
        f"the prompts are longer than this file can carry, and stand here cut to {most} letters"
    )
    return dataclasses.replace(
        settings,
        **{name: text[:most] for name, text in settings.prompts().items()},
        warnings=(*settings.warnings, warning),
    ).to_json()
