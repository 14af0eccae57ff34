"""Triton looks for changes in the repository by itself, while requests run."""

from tritonclient.utils import InferenceServerException

from tests.rare.test_reload import answered, failures, start
from tests.server import repositories
from tests.server.calls import Calls, request, tensors, texts
from tests.server.faults import CLIENTS, Load, wait


def test_polling_takes_a_changed_config_while_requests_run(repository, tmp_path, monkeypatch):
    flags = "--model-control-mode=poll", "--repository-poll-secs=1"
    server = start(tmp_path, repository, monkeypatch, *flags)
    config = repositories.own(tmp_path / "models", "tokenizer") / "config.pbtxt"
    with server, Load(server.grpc, CLIENTS) as load:
        calls = Calls(server.grpc)
        asked = tensors({"INPUT_0": texts(request("x", num_inference_steps=100))})

        def read():
            calls.client.infer("tokenizer", asked, parameters={"list": "settings"})

        read()
        limit = 'parameters { key: "max_num_inference_steps" value { string_value: "60" } }\n'
        config.write_text(config.read_text() + limit)

        def refused():
            try:
                read()
            except InferenceServerException as error:
                return "num_inference_steps: got 100; allowed: an integer from 1 to 60" in str(
                    error
                )
            return False

        wait(refused)
        before = answered(load)
        wait(lambda: answered(load) > before + CLIENTS)
        calls.close()
    assert not failures(load)
