"""Requests as forms, `multipart/form-data`: fields in texts, and files beside them."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from triptych.errors import shorten
from triptych.gateway.access import check_origin
from triptych.gateway.errors import Problem

MEDIA_TYPE = "multipart/form-data"


class Form(NamedTuple):
    """`fields`: of the model that was asked for. `files`: their bytes by name."""

    fields: Any
    files: dict[str, bytes]


async def read_form(request: Request, model: type[BaseModel], files: Sequence[str]) -> Form:
    """The request's form, its fields checked as `model`; `files` are the names that files may have.

    Where a field is no text, what is JSON is read as such. A list is JSON, or as many times its
    name with `[]` at the end, as clients write lists; a file's name may end so too. Raises Problem
    400 for what is not allowed, RequestValidationError for fields that the model refuses.
    """
    check_origin(request)
    got = request.headers.get("content-type", "")
    if not got.lower().startswith(MEDIA_TYPE):
        told = f"Content-Type: got {shorten(got) if got else 'none'}; allowed: {MEDIA_TYPE}"
        raise Problem(400, told, "Content-Type")
    texts: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {}
    found: dict[str, bytes] = {}
    async with request.form() as form:
        for key, value in form.multi_items():
            name = key.removesuffix("[]")
            is_file = isinstance(value, UploadFile)
            is_item = key.endswith("[]") and not is_file and name in _of_type(model, "array")
            if name in texts or name in found or (name in lists and not is_item):
                count = sum(one.removesuffix("[]") == name for one, _ in form.multi_items())
                raise _refused(name, f"{count} of them", "one")
            if is_file != (name in files):
                raise _refused(name, *(("a file", "a text") if is_file else (value, "a file")))
            if is_file:
                found[name] = await value.read()
            elif is_item:
                lists.setdefault(name, []).append(_value(model, name, value))
            else:
                texts[name] = _value(model, name, value)
    try:
        return Form(model.model_validate({**texts, **lists}), found)
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors) from error


def described(model: type[BaseModel], files: Sequence[str], required: Sequence[str]) -> dict:
    """The `requestBody` of an OpenAPI operation that takes such a form."""
    schema = model.model_json_schema()
    schema["required"] = [*schema.get("required", ()), *required]
    for name in files:
        schema["properties"][name] = {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": schema}}}}


def _refused(name: str, got: str, allowed: str) -> Problem:
    name = name if name.isidentifier() else shorten(name)
    return Problem(400, f"{name}: got {shorten(got)}; allowed: {allowed}", name)


def _value(model: type[BaseModel], name: str, text: str) -> Any:
    """What `text` says as JSON where the field is no text and JSON has it so."""
    if name not in _of_type(model, "string"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


@functools.cache
def _of_type(model: type[BaseModel], kind: str) -> frozenset[str]:
    """The names of the fields that may be of a type of JSON Schema's."""
    fields = model.model_json_schema()["properties"].items()
    return frozenset(
        name
        for name, field in fields
        if any(one.get("type") == kind for one in (field, *field.get("anyOf", ())))
    )
