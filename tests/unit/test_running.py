import pytest
from http_fake import serving

from triptych.server.running import RunningServer, free_ports


@pytest.mark.parametrize(
    ("health", "metrics", "ready"),
    [(None, None, False), (400, 200, False), (200, None, False), (200, 200, True)],
)
def test_a_server_is_ready_when_its_models_and_its_metrics_are(tmp_path, health, metrics, ready):
    running = RunningServer(tmp_path, tmp_path / "log")
    with serving({"/v2/health/ready": health}) as first, serving({"/metrics": metrics}) as second:
        nobody = f"127.0.0.1:{free_ports(1)[0]}"
        running.http = first if health else nobody
        running.metrics = second if metrics else nobody
        assert running.is_ready() == ready
