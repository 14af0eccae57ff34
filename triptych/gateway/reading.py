"""The settings in a picture's file, by whatever program it was made."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from triptych import schedulers
from triptych.errors import InvalidRequest
from triptych.gateway.errors import Problem
from triptych.gateway.fields import told
from triptych.gateway.samplers import scheduler_of
from triptych.limits import MAX_CLIP_SKIP
from triptych.picture.infotext import infotext
from triptych.picture.metadata import read_settings

_EXIF_FOLDER, _USER_COMMENT = 0x8769, 0x9286
_OTHER_NAMES = {"euler_a": "euler_ancestral", "dpmpp_2m_k": "dpmpp_2m_karras", "uni_pc": "unipc"}
"""Names of samplers in InvokeAI and ComfyUI that are not the WebUI's or ours."""


@dataclass(frozen=True)
class Found:
    """`settings` under our names, as far as there are any; `text` is the WebUI's text of them."""

    settings: dict[str, Any]
    text: str = ""


def read(file: bytes) -> Found:
    """The settings in a PNG, JPEG or WebP by Triptych, the WebUI, ComfyUI or InvokeAI.

    Raises Problem 400 for a file that is no picture, or does not say how it was made.
    """
    try:
        settings = read_settings(file)
        found = told(settings)
        if settings.strength is not None:
            began = "this picture began from another one, which its file does not hold"
            found["warnings"] = [*found["warnings"], f"strength: {began}"]
        return Found(found, infotext(settings))
    except InvalidRequest:
        texts = _texts(file)
    text = texts.get("parameters", "")
    found = [_of_webui(text), _of_invokeai(texts), _of_comfyui(texts)]
    settings = next((one for one in found if one), None)
    if settings is None:
        raise Problem(400, "image: the file does not say how the picture was made", "image")
    warnings = _not_taken(settings, text if settings is found[0] else "")
    return Found({**settings, "warnings": warnings} if warnings else settings, text)


def _texts(file: bytes) -> dict[str, str]:
    """The texts in a picture's file by name; `parameters` may be EXIF's comment."""
    try:
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")) as picture:
            texts = {str(name): one for name, one in picture.info.items() if isinstance(one, str)}
            # Pillow decodes a PNG to look for EXIF behind its pixels.
            may_comment = picture.format != "PNG" or "exif" in picture.info
            exif = picture.getexif().get_ifd(_EXIF_FOLDER) if may_comment else {}
            comment = exif.get(_USER_COMMENT)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise Problem(400, "image: this is no PNG, JPEG or WebP", "image") from error
    if isinstance(comment, bytes) and comment[:8] == b"UNICODE\0":
        order = "le" if comment[9:10] == b"\0" else "be"
        comment = comment[8:].decode(f"utf-16-{order}", "replace")
    if isinstance(comment, bytes):
        comment = comment.removeprefix(b"ASCII\0\0\0").decode("utf-8", "replace")
    return {"parameters": comment, **texts} if comment else texts


_VALUE = re.compile(r'(?:^|,)\s*([A-Z][\w \-/]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?=,|$)')
"""Begins at a comma alone: a file of a megabyte, whatever is in it, is read in a moment."""


def _of_webui(text: str) -> dict[str, Any]:
    """The settings in the text that the WebUI writes: see `picture.infotext`."""
    above, _, last = text.strip().rpartition("\n")
    values = dict(_VALUE.findall(last))
    if "Steps" not in values:
        return {}
    prompt, _, negative = f"\n{above}".partition("\nNegative prompt:")
    width, _, height = values.get("Size", "").partition("x")
    found = _scheduler(values.get("Sampler"), values.get("Schedule type"))
    last_layer = values.get("Clip skip", "")
    words = {"prompt_syntax": "webui"}
    if last_layer.isdecimal() and 1 < int(last_layer) <= MAX_CLIP_SKIP + 1:
        words["clip_skip"] = int(last_layer) - 1
    return {
        "prompt": prompt.strip(),
        "negative_prompt": negative.strip(),
        **_numbers(values["Steps"], values.get("CFG scale"), values.get("Seed"), width, height),
        **found,
        **(_real("eta", values.get("Eta DDIM")) if found.get("scheduler") == "ddim" else {}),
        **words,
    }


_TAKEN = ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Clip skip", "Eta DDIM")
_NOT_OF_A_REQUEST = ("Model", "VAE", "Version", "Lora hashes", "TI hashes", "RNG")
"""How the names begin that the WebUI's text has for what no request says."""


def _not_taken(settings: Mapping[str, Any], text: str) -> list[str]:
    """What made the picture and is not in `settings`, for people; `text` is the WebUI's, if any."""
    warnings = []
    if "scheduler" not in settings:
        warnings.append("scheduler: the picture's sampler is not one of those here")
    values = dict(_VALUE.findall(text.strip().rpartition("\n")[2]))
    more = [
        f"{name} {value}"
        for name, value in values.items()
        if name not in _TAKEN and not name.startswith(_NOT_OF_A_REQUEST)
    ]
    if more:
        warnings.append(f"not taken from the picture: {', '.join(more)}")
    return warnings


def _of_invokeai(texts: Mapping[str, str]) -> dict[str, Any]:
    """The settings in `invokeai_metadata`."""
    told = _object(texts.get("invokeai_metadata", ""))
    if not isinstance(told.get("positive_prompt"), str):
        return {}
    numbers = (told.get(name) for name in ("steps", "cfg_scale", "seed", "width", "height"))
    return {
        "prompt": told["positive_prompt"],
        "negative_prompt": str(told.get("negative_prompt") or ""),
        **_numbers(*numbers),
        **_scheduler(told.get("scheduler"), None),
    }


def _of_comfyui(texts: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the first sampler in ComfyUI's graph, which stands in the chunk `prompt`."""
    graph = {key: node for key, node in _object(texts.get("prompt", "")).items() if _is_node(node)}
    for node in graph.values():
        inputs = node["inputs"]
        if "positive" in inputs and "steps" in inputs:
            size = _linked(graph, inputs.get("latent_image"))
            seed = inputs.get("seed", inputs.get("noise_seed"))
            numbers = (
                inputs["steps"],
                inputs.get("cfg"),
                seed,
                size.get("width"),
                size.get("height"),
            )
            return {
                "prompt": _words(graph, inputs["positive"]),
                "negative_prompt": _words(graph, inputs.get("negative")),
                **_numbers(*numbers),
                **_scheduler(inputs.get("sampler_name"), inputs.get("scheduler")),
            }
    return {}


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _linked(graph: Mapping[str, Any], link: Any) -> dict[str, Any]:
    """The inputs of the node that an input comes from; a link is [node, number of the output]."""
    node = graph.get(str(link[0])) if isinstance(link, list) and link else None
    return node["inputs"] if node else {}


def _words(graph: Mapping[str, Any], link: Any) -> str:
    """The text of a node that encodes one, through up to 8 nodes that pass a conditioning on."""
    for _ in range(8):
        if isinstance(link, str):
            return link
        inputs = _linked(graph, link)
        link = inputs.get("text") or inputs.get("string") or inputs.get("conditioning")
    return ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(steps: Any, guidance: Any, seed: Any, width: Any, height: Any) -> dict[str, Any]:
    """The numbers that are some, under our names."""
    found: dict[str, Any] = {}
    names = {"num_inference_steps": steps, "seed": seed, "width": width, "height": height}
    for name, value in names.items():
        if re.fullmatch(r"[0-9]{1,20}", str(value)):
            found[name] = int(value)
    return {**found, **_real("guidance_scale", guidance)}


def _real(name: str, value: Any) -> dict[str, float]:
    return {name: float(value)} if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,8})?", str(value)) else {}


def _scheduler(sampler: Any, schedule: Any) -> dict[str, str]:
    """Our scheduler for another program's, nothing where there is none."""
    if not isinstance(sampler, str):
        return {}
    try:
        schedule = schedule if isinstance(schedule, str) else None
        found = scheduler_of(_OTHER_NAMES.get(sampler, sampler), schedule)[0]
        return {"scheduler": schedulers.resolve(found)}
    except Problem:
        return {}
