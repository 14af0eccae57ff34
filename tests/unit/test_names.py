"""The names of models and of their stages."""

import pytest

from triptych.errors import InvalidRequest
from triptych.names import STAGES, Names, check_name, chosen, models


def test_the_default_model_has_the_plain_names():
    names = Names()
    assert [names.stage(stage) for stage in STAGES] == list(STAGES)
    assert (names.model, names.stream) == ("sd_ensemble", "sd_ensemble_stream")


def test_another_models_stages_carry_its_name():
    names = Names("sd1.5")
    assert names.stage("unet") == "sd1.5.unet"
    assert names.stream == "sd1.5_stream"


@pytest.mark.parametrize("model", ["sd_ensemble", "ink", "sd1.5", "a_stream.b"])
def test_every_name_leads_back_to_its_model(model):
    assert {Names.of(served).model for served in Names(model).all} == {model}


@pytest.mark.parametrize("name", ["ink", "sd1.5", "sd_ensemble", "A-b_c", "7", "x" * 64])
def test_a_name_that_can_be_taken(name):
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("unet", "tokenizer", "ink.unet", "ink_stream"),
        *("", "a b", "../x", "a/b", ".x", "x.", "-x", "x" * 65, "é", "a*", "a\n"),
    ],
)
def test_a_name_that_would_be_another_models_or_no_folders(name):
    with pytest.raises(InvalidRequest, match=r"^name: got .*; allowed: "):
        check_name(name)


def test_models_are_those_with_an_ensemble_and_a_tokenizer():
    ink, half = Names("ink"), Names("half")
    served = [*ink.all, *Names().all, half.model, half.stream, "other", "x.tokenizer"]
    assert models(served) == ["sd_ensemble", "ink"]
    assert models([]) == []


def test_one_of_them_is_chosen():
    assert chosen(None, ["ink", "sd_ensemble"]) == "sd_ensemble"
    assert chosen(None, ["ink", "oil"]) == "ink"
    assert chosen(None, []) == "sd_ensemble"
    assert chosen("oil", ["ink", "oil"]) == "oil"
    with pytest.raises(InvalidRequest, match=r"^model: got 'inc'; allowed: ink, oil$"):
        chosen("inc", ["ink", "oil"])
