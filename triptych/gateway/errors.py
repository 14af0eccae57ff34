"""Errors of the gateway: HTTP status, text and the field at fault."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.exceptions import HTTPException

from triptych.client import ClientError, NotReady, NotThere, Overloaded, Refused, TimedOut
from triptych.errors import invalid_of, shorten
from triptych.gateway.keys import NotAllowed, OverLimit

RETRY_AFTER = {429: "2", 503: "5"}
"""Seconds after which asking again makes sense, by status."""

AWAY = "no server is ready; try later"
"""All that a caller is told of a server that is away: the reason is in the log."""

_STATUS = {
    NotAllowed: 403,
    Refused: 400,
    Overloaded: 429,
    NotThere: 503,
    NotReady: 503,
    TimedOut: 504,
}

_TEXTS = {
    400: "The request cannot be served",
    401: "No key, or a wrong one",
    403: "The key does not allow this model",
    404: "There is no such thing",
    405: "No such method",
    408: "The rest of the request did not come",
    413: "The request is too long",
    429: "Too much to do now; Retry-After says when to ask again",
    500: "The server failed",
    503: "The server is not there or not ready",
    504: "It took too long",
}


class Problem(HTTPException):
    """An error answer; `field` names the setting that is at fault, None if none is."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        headers = {}
        if status in RETRY_AFTER:
            headers["Retry-After"] = RETRY_AFTER[status]
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.field = field


def problem(error: ClientError) -> Problem:
    """The Problem for an error of `triptych.client`; status 500 for a failure of the server."""
    status = next((_STATUS[kind] for kind in type(error).mro() if kind in _STATUS), 500)
    invalid = invalid_of(str(error))
    text = AWAY if isinstance(error, (NotThere, NotReady)) else str(error)
    told = Problem(status, text, invalid[0] if invalid and status == 400 else None)
    if isinstance(error, OverLimit):
        told.headers["Retry-After"] = error.retry_after
    return told


def renamed(problem: Problem, names: Mapping[str, str]) -> Problem:
    """The problem said of an API's own field, which `names` has by the server's name of it."""
    name = names.get(problem.field or "")
    if name is None:
        return problem
    text = f"{name}{str(problem.detail).removeprefix(str(problem.field))}"
    return Problem(problem.status_code, text, name)


def body_problem(errors: list[dict], content_type: str) -> Problem | None:
    """What is wrong with the whole of a body by FastAPI's validation errors, None for nothing."""
    first = errors[0]
    if first["type"] == "json_invalid":
        where = f"at character {first['loc'][-1] + 1}" if len(first["loc"]) > 1 else "in it"
        return Problem(400, f"body: not JSON: {first['ctx']['error']} {where}")
    if first["loc"] != ("body",):
        return None
    if not content_type.lower().startswith("application/json"):
        got = shorten(content_type) if content_type else "none"
        return Problem(400, f"Content-Type: got {got}; allowed: application/json", "Content-Type")
    got = "nothing" if first["type"] == "missing" else shorten(first["input"])
    return Problem(400, f"body: got {got}; allowed: a JSON object")


def invalid(errors: list[dict]) -> Problem:
    """The first of FastAPI's validation errors, said as the server says its own."""
    first = errors[0]
    path = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    return Problem(400, f"{path}: {said(first).removeprefix(f'{path}: ')}", path)


_ALLOWED = {
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_attributes_type": "an object",
    "extra_forbidden": "no field of this name",
}
"""What is allowed, by the type of a validation error; names in braces are of its `ctx`."""


def said(error: dict) -> str:
    """One of FastAPI's validation errors in the words of `triptych.errors.InvalidRequest`."""
    allowed = _ALLOWED.get(error["type"])
    if allowed is None:
        return error["msg"].removeprefix("Value error, ")
    return f"got {shorten(error['input'])}; allowed: {allowed.format(**error.get('ctx', {}))}"


def responses(error: type[BaseModel]) -> dict[int | str, dict]:
    """For the OpenAPI of an API that says all its problems in one shape."""
    return {status: {"model": error, "description": text} for status, text in _TEXTS.items()}
