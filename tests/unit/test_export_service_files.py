"""What the stages read beside the networks, written before any network is exported."""

import json
import shutil
from pathlib import Path

import clip_tokenizer
import pytest
from test_export_source import write_source

from triptych.lora.folder import LoraFolder
from triptych.model_files import ModelFiles
from triptych.tokenizer import Tokenizer
from triptych_export.cli import CHECKOUT
from triptych_export.errors import ExportError
from triptych_export.held import held
from triptych_export.repository import replacement
from triptych_export.service_files import fit_configs, write_service_files
from triptych_export.source import open_source, pipeline_numbers

TOKENS = len(clip_tokenizer.vocabulary())


@pytest.fixture
def write(tmp_path):
    """Write the files of a model, changed as its arguments say, and commit them."""

    def write(index=None, tokens=TOKENS, **changes):
        folder = tmp_path / "source"
        folder.mkdir()
        changes.setdefault("text_encoder", {})["vocab_size"] = tokens
        write_source(folder, index, **changes)
        clip_tokenizer.write(folder / "tokenizer")
        source = open_source(folder)
        output, template = tmp_path / "served", CHECKOUT / "model_repository"
        with held(output), replacement(output, template) as new:
            write_service_files(source, pipeline_numbers(source), new)
            fit_configs(source, new)
            new.commit()
        return output

    return write


def test_the_server_can_load_what_was_written(write):
    served = write()
    model_files = ModelFiles.load(served / "unet_loop" / "1")
    assert (model_files.height, model_files.vocab_size) == (512, TOKENS)
    Tokenizer(served / "tokenizer" / "1").check_fits(model_files)


def test_the_lora_of_the_model_before_is_not_offered_and_stays_where_it_is(write, tmp_path):
    demo = Path(shutil.copytree(CHECKOUT / "model_repository/unet", tmp_path / "served/unet"))
    assert LoraFolder.of(demo).offered() == ["outlines"]
    served = write()
    assert LoraFolder.of(served / "unet").offered() == []
    assert (served / "unet/loras/outlines.safetensors").is_file()


def test_the_class_of_the_scheduler_is_the_one_that_diffusers_takes(write):
    served = write({"scheduler": ["diffusers", "EulerDiscreteScheduler"]})
    for stage in ("tokenizer", "unet_loop"):
        path = served / stage / "1" / "scheduler_config.json"
        assert json.loads(path.read_text())["_class_name"] == "EulerDiscreteScheduler"
    assert ModelFiles.load(served / "unet_loop" / "1").defaults().scheduler == "euler"


def test_a_model_that_draws_more_than_the_usual_limit_is_served(write):
    served = write(unet={"sample_size": 128})
    assert ModelFiles.load(served / "tokenizer" / "1").height == 1024


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"index": {"scheduler": ["diffusers", "UnheardOfScheduler"]}}, "UnheardOfScheduler"),
        ({"scheduler": {"prediction_type": "unheard of"}}, "prediction_type"),
        ({"tokens": TOKENS - 1}, f"has {TOKENS} tokens, the text encoder {TOKENS - 1}"),
        ({"unet": {"sample_size": 1024}}, "this model cannot be served: .*height"),
    ],
)
def test_what_no_server_could_serve_is_refused_and_nothing_is_left(write, tmp_path, arguments, why):
    with pytest.raises(ExportError, match=why):
        write(**arguments)
    assert not (tmp_path / "served").exists()


def test_a_repository_of_an_earlier_version_is_refused_before_anything_is_traced(write, tmp_path):
    served = write()
    config = served / "tokenizer" / "config.pbtxt"
    config.write_text(config.read_text().replace('"prompt_weights"', '"other"'))
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(ExportError, match="remove the folders tokenizer and sd_ensemble"):
        write()


def test_guidance_as_an_embedding_is_an_input_of_unet_as_long_as_the_model_has_it(write):
    served = write(unet={"time_cond_proj_dim": 256})
    assert 'name: "timestep_cond"' in (served / "unet" / "config.pbtxt").read_text()
    assert ModelFiles.load(served / "unet_loop" / "1").time_cond_proj_dim == 256
