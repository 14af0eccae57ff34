"""Warnings about what a request says in vain."""

import dataclasses

import pytest

from triptych.settings import Settings
from triptych.unread import warnings_of

PLAIN = Settings("a fox", "", 20, 5.0, 7, 64, 64, "ddim", "png")


def warned(takes_negative=True, known=(), **changed):
    return warnings_of(dataclasses.replace(PLAIN, **changed), takes_negative, known.__contains__)


@pytest.mark.parametrize("syntax", [None, "webui"])
def test_words_alone_are_no_reason_to_warn(syntax):
    prompt = r"a (red:1.2) fox, [blue], at \(10:30\), <3, a_b, {x}, BREAK ((x))"
    assert warned(prompt=prompt if syntax else "a [blue] fox, {x}", prompt_syntax=syntax) == []


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a (red fox", "'(red fox' is never closed and weighs all that follows"),
        ("a [red (fox)", "'[red (fox)' is never closed and weighs all that follows"),
        ("a red) fox", "the bracket after 'a red' is read as a character"),
        (r"a \( red) fox", r"the bracket after 'a \\( red' is read as a character"),
        ("embedding:ink.pt x", "'embedding:ink.pt' is read as words"),
        ("a {red|blue} fox", "'{red|blue}' is read as words"),
        ("a __colour__ fox", "'__colour__' is read as words"),
        ("a (red:1,3) fox", "':1,3' is read as words"),
        ("<toy> and <cat-toy>", "'<toy>' is read as words"),
    ],
)
def test_what_the_webuis_syntax_does_not_have(prompt, told):
    known = ("<cat-toy>",)
    assert warned(prompt=prompt, prompt_syntax="webui", known=known) == [f"prompt: {told}"]
    negative = warned(negative_prompt=prompt, prompt_syntax="webui", known=known)
    assert negative == [f"negative_prompt: {told}"]


def test_plain_words_that_are_the_webuis_syntax():
    told = "prompt: '<lora:x:1>', '(red:1.3)' is read as words: no LoRA, no weights"
    assert warned(prompt="<lora:x:1> (red:1.3)") == [told]


def test_a_few_of_many_are_shown():
    (told,) = warned(prompt="{a|b} " * 9, prompt_syntax="webui")
    assert told.count("{a|b}") == 3


def test_what_guidance_alone_uses():
    asked = {"negative_prompt": "blue", "guidance_rescale": 0.7}
    assert warned(**asked) == []
    assert warned(**asked, guidance_scale=1) == [
        "negative_prompt is not used at guidance_scale 1",
        "guidance_rescale is not used at guidance_scale 1",
    ]
    window = {"guidance_start": 0.2, "guidance_stop": 0.5}
    assert warned(**window) == []
    assert warned(**window, guidance_scale=1) == [
        "guidance_start is not used at guidance_scale 1",
        "guidance_stop is not used at guidance_scale 1",
    ]
    assert warned(False, guidance_start=0, guidance_stop=1) == []
    (none,) = warned(negative_prompt="blue", guidance_stop=0.1, num_inference_steps=9)
    assert none.startswith("negative_prompt is not used where no step is between")
    assert warned(negative_prompt="blue", guidance_stop=0.1, num_inference_steps=10) == []
    told = "negative_prompt is not used by this model"
    assert warned(False, negative_prompt="blue") == [told]
    assert warned(False) == warned(guidance_scale=1) == []
