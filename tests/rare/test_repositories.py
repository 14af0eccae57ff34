"""Repositories that lack what others have: no vae_encoder, older configurations, no LoRAs."""

import pytest
from tritonclient.utils import InferenceServerException

from tests import lora_files
from tests.gateway.pictures import flat
from tests.server import repositories
from tests.server.calls import SMALL, Calls, request
from triptych.client import Client, Refused
from triptych.server.running import RunningServer


def test_a_repository_without_an_encoder_refuses_pictures_and_draws_all_else(repository, tmp_path):
    models = repositories.linked(tmp_path / "models", repository)
    (models / "vae_encoder").unlink()
    with RunningServer(models, tmp_path / "server.log") as server, Client(server.grpc) as client:
        with pytest.raises(Refused, match=r"image: got .* this model has no vae_encoder"):
            client.generate("x", 60, image=flat())
        assert client.generate("x", 60, **SMALL).image.size == (128, 128)


def test_configurations_from_before_pictures_serve_all_else(repository, tmp_path):
    """Those of a repository that was exported earlier; it has no tensor for pictures."""
    models = repositories.linked(tmp_path / "models", repository)
    tensor = ',\n  { name: "pictures" data_type: TYPE_STRING dims: [ 2 ] }'
    for model in ("tokenizer", "unet_loop", "image_encoder"):
        repositories.change(repositories.own(models, model) / "config.pbtxt", tensor, "")
    ensemble = repositories.own(models, "sd_ensemble") / "config.pbtxt"
    for kind in ("input", "output"):
        line = f'      {kind}_map {{ key: "pictures" value: "pictures" }}\n'
        repositories.change(ensemble, line, "")
    with RunningServer(models, tmp_path / "server.log") as server, Client(server.grpc) as client:
        assert client.generate("x", 60, **SMALL).image.size == (128, 128)
        with pytest.raises(Refused, match=r"(image|pictures): got "):
            client.generate("x", 60, image=flat())


def test_a_unet_that_knows_no_loras_is_never_drawn_with(repository, tmp_path):
    """One that overlooks a call's parameters, as FastDeploy's own backend does."""
    models = repositories.with_unet(repositories.linked(tmp_path / "models", repository))
    lora_files.write(models / "unet" / "loras", "ink", lora_files.changes(1))
    with RunningServer(models, tmp_path / "server.log") as server:
        calls = Calls(server.grpc)
        (plain,) = calls.pictures(request(**SMALL))
        for _ in range(2):
            with pytest.raises(InferenceServerException, match="a backend that cannot add LoRAs"):
                calls.pictures(request(**SMALL, loras=[{"name": "ink", "scale": 1.0}]))
        unchanged = request(**SMALL, loras=[{"name": "ink", "scale": 0.0}])
        assert calls.pictures(unchanged, request(**SMALL))[1] == plain
        calls.close()
