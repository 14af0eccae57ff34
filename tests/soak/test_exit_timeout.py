"""More work than can be done within the exit timeout: the server ends all the same."""

import signal
import time

from tests.rare.test_ending import SLOW
from tests.server import repositories
from tests.server.calls import Calls, request, texts
from triptych.server.running import RunningServer


def test_work_ends_with_the_exit_timeout(repository, tmp_path):
    models = repositories.with_unet(repositories.linked(tmp_path / "models", repository))
    with RunningServer(models, tmp_path / "log", "--exit-timeout-secs=1") as server:
        calls = Calls(server.grpc)
        inputs = {"INPUT_0": texts(request(**{**SLOW, "num_inference_steps": 200}))}
        started = [calls.start("sd_ensemble", inputs) for _ in range(16 * 8)]
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        server.process.wait(30)
        assert time.monotonic() - begun < 10
        for one in started:
            one.wait(10)
        calls.close()
