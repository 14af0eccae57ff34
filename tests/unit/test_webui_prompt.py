"""The WebUI's prompt syntax."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidRequest
from triptych.webui_prompt import parse


def weights(prompt):
    """One part's texts with their weights, rounded."""
    (part,) = parse("prompt", prompt)
    return [(text.strip(), round(weight, 6)) for text, weight in part if text.strip()]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("a fox", [("a fox", 1)]),
        ("a (red) fox", [("a", 1), ("red", 1.1), ("fox", 1)]),
        ("((red))", [("red", 1.21)]),
        ("[red]", [("red", round(1 / 1.1, 6))]),
        ("[[red]] [(fox)]", [("red", round(1 / 1.21, 6)), ("fox", 1)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(red : 0.5 ) fox", [("red", 0.5), ("fox", 1)]),
        ("(red:-1)", [("red", -1)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(a (red:1.5) fox:2)", [("a", 2), ("red", 3), ("fox", 2)]),
        ("((red:1.3))", [("red", 1.43)]),
        (r"\(red\) \[x\] \\", [(r"(red) [x] \ ".strip(), 1)]),
        (r"(\(red\):1.2)", [("(red)", 1.2)]),
        ("(red fox", [("red fox", 1.1)]),
        ("a [red", [("a", 1), ("red", round(1 / 1.1, 6))]),
        ("red) fox]", [("red) fox]", 1)]),
        ("at 10:30) x", [("at 10:30) x", 1)]),
        ("a: b, c:d", [("a: b, c:d", 1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("[a:b]", [("a:b", round(1 / 1.1, 6))]),
        (r"[a\|b]", [(r"a\|b", round(1 / 1.1, 6))]),
        ("a | b AND", None),
        ("hand and BREAKfast", [("hand and BREAKfast", 1)]),
    ],
)
def test_weights(prompt, expected):
    if expected is None:
        with pytest.raises(InvalidRequest):
            parse("prompt", prompt)
    else:
        assert weights(prompt) == expected


def test_break_parts_the_prompt_inside_brackets_too():
    parts = parse("prompt", "a BREAK (b BREAK c:2) BREAK")
    shown = [[(text.strip(), weight) for text, weight in p if text.strip()] for p in parts]
    assert shown == [[("a", 1)], [("b", 2)], [("c", 2)], []]


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        ("a [cat:dog:0.4]", "a change at a step"),
        ("[cat::5]", "a change at a step"),
        ("[:dog: 0.5 ]", "a change at a step"),
        ("[cat:12]", "a change at a step"),
        ("[(a:1.2):b:3]", "a change at a step"),
        ("([cat|dog]:1.2)", "alternation"),
        ("[a|]", "alternation"),
        ("a cat AND a dog", "AND"),
        ("x <lora:ink:0.7>", "a network"),
        ("<hypernet:x:1>", "a network"),
        ("(a:1000)", "weights from -100 to 100"),
        ("(" * 80 + "a", "at most 64 brackets"),
    ],
)
def test_what_is_not_served_is_refused_by_its_name(prompt, what):
    with pytest.raises(InvalidRequest, match=r"^negative_prompt: got .*; allowed: .*" + what):
        parse("negative_prompt", prompt)


def test_the_text_that_is_refused_is_quoted_once():
    with pytest.raises(InvalidRequest, match=r"^prompt: got '\[cat:dog:0\.4\]'; allowed: "):
        parse("prompt", "a [cat:dog:0.4]")


@given(st.text(alphabet="ab (([[])):1.2|\\,BREAK", max_size=60))
def test_any_text_is_read_or_refused(prompt):
    try:
        parts = parse("prompt", prompt)
    except InvalidRequest:
        return
    assert len(parts) == 1 + sum(1 for _ in __import__("re").finditer(r"\bBREAK\b", prompt))
    assert all(text for part in parts for text, _ in part)
