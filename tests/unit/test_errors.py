"""Every error that is raised is known again by its text, which is all that Triton passes on."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

import triptych
from triptych import errors
from triptych.errors import KINDS, InvalidRequest, code_of, invalid_of, kind_of, plain

CODE = [Path(triptych.__file__).parent, Path(triptych.__file__).parents[1] / "model_repository"]
ERRORS = {kind.error.__name__: kind.error for kind in KINDS if kind.error}
AWKWARD = "a: b, 'c' (d)"
"""Stands in a test for whatever a text has in it."""


def texts_of(call: ast.Call) -> list[str]:
    """The texts among a call's arguments, AWKWARD in place of what is known at run time alone."""
    texts = []
    for argument in call.args:
        parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
        known = [str(part.value) if isinstance(part, ast.Constant) else AWKWARD for part in parts]
        texts.append("".join(known))
    return texts


def is_error(name: str) -> bool:
    found = getattr(errors, name, getattr(builtins, name, None))
    return isinstance(found, type) and issubclass(found, Exception)


def raised():
    """(where, name of the exception, its texts) of every exception made in the project."""
    for path in sorted(path for folder in CODE for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if is_error(name):
                    yield f"{path.parent.name}/{path.name}:{node.lineno}", name, texts_of(node)


RAISED = list(raised())


def test_the_search_finds_them():
    assert {name for _, name, _ in RAISED} >= {*ERRORS, "NotFinite", "ValueError", "ModelFileError"}


@pytest.mark.parametrize(("where", "name", "texts"), RAISED, ids=[one[0] for one in RAISED])
def test_a_text_is_known_again(where, name, texts):
    if name == "InvalidRequest":
        if len(texts) == 3:
            error = InvalidRequest(texts[0], AWKWARD, texts[2])
            field, text = invalid_of(f"in ensemble 'sd_ensemble', tokenizer: {error}")
            assert (field, text) == (error.field, str(error))
            assert kind_of(f"tokenizer: {error}").error is InvalidRequest
    elif name in ERRORS:
        kind = kind_of(f"sd_ensemble_stream: in ensemble 'sd_ensemble', unet_loop: {texts[0]}")
        assert kind is not None, f"{where}: no words of KINDS are in {texts[0]!r}"
        assert kind.error is ERRORS[name]
        assert kind.code == code_of(ERRORS[name](texts[0]))
    else:
        kind = kind_of(" ".join(texts))
        # What is wrong with a model's files or parameters is told at load, in the same form.
        of_a_file = name == "ValueError" and kind is not None and kind.error is InvalidRequest
        assert kind is None or of_a_file, f"{where}: taken for {kind}"


@pytest.mark.parametrize(
    "field", ["seed", "INPUT_0", "a b", "x: got ", "it's", "both ' and \"", "x" * 99, "line\nbreak"]
)
@pytest.mark.parametrize("value", ["x: seed: got 1; allowed: y", "try later", "a\nb", 3, None])
def test_a_field_is_told_from_what_stands_around_it(field, value):
    error = InvalidRequest(field, value, "1 to 3; try later")
    passed_on = f"sd_ensemble_stream: in ensemble 'sd_ensemble', tokenizer: {error}"
    assert invalid_of(passed_on) == (error.field, str(error))
    assert plain(passed_on) == str(error)
    assert kind_of(passed_on).code == "INVALID_ARG"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Exceeds maximum queue size", "UNAVAILABLE"),
        ("Request for unknown model: 'x' is not found", "NOT_FOUND"),
    ],
)
def test_what_triton_says_itself(text, code):
    assert kind_of(text).code == code


def test_a_failure_keeps_the_name_of_its_stage():
    text = "sd_ensemble_stream: in ensemble 'sd_ensemble', unet: out of memory"
    assert kind_of(text) is None
    assert plain(text) == "unet: out of memory"
    assert code_of(RuntimeError(text)) == "INTERNAL"
