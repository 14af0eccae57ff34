"""What somebody without the secret can try, and what a server says when it is opened."""

import json
import re
import socket
import urllib.error
import urllib.request

import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.server.calls import SMALL, post, request
from triptych.server import restricted

CLOSED = (
    ("GET", "v2/systemsharedmemory/status"),
    ("POST", "v2/systemsharedmemory/region/mine/register"),
    ("POST", "v2/cudasharedmemory/region/mine/register"),
    ("POST", "v2/systemsharedmemory/unregister"),
    ("POST", "v2/repository/index"),
    ("POST", "v2/repository/models/unet/unload"),
    ("POST", "v2/repository/models/unet/load"),
    ("POST", "v2/trace/setting"),
    ("GET", "v2/trace/setting"),
    ("POST", "v2/logging"),
    ("GET", "v2/logging"),
)
REGION = {"key": "/triptych_region", "offset": 0, "byte_size": 64}


@pytest.mark.parametrize("secret", [None, "guessed", ""])
@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_apis_for_operators_are_closed_over_http(server, method, path, secret):
    headers = {} if secret is None else {restricted.HEADER: secret}
    data = json.dumps(REGION).encode() if method == "POST" else None
    call = urllib.request.Request(f"http://{server.http}/{path}", data, headers, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(call, timeout=10)
    assert caught.value.code == 403
    assert restricted.HEADER in caught.value.read().decode()


@pytest.mark.parametrize(
    "order",
    [
        lambda client: client.register_system_shared_memory("mine", "/triptych_region", 64),
        lambda client: client.register_cuda_shared_memory("mine", b"aGFuZGxl", 0, 64),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.unload_model("unet"),
        lambda client: client.load_model("unet"),
        lambda client: client.get_model_repository_index(),
        lambda client: client.update_trace_settings(settings={"trace_file": "/tmp/trace"}),
        lambda client: client.update_log_settings({"log_file": "/tmp/log"}),
    ],
)
def test_apis_for_operators_are_closed_over_grpc(server, order):
    client = grpcclient.InferenceServerClient(server.grpc)
    with pytest.raises(InferenceServerException) as caught:
        order(client)
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert "restricted" in caught.value.message()
    assert client.is_model_ready("unet")
    client.close()


def test_a_body_of_3_mb_in_chunks_of_a_byte_kills_nobody(calls, server):
    """CVE-2025-23310: each chunk takes 16 bytes of the stack of the thread that reads them."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /v2/models/sd_ensemble/infer HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(300):
            connection.sendall(b"1\r\nx\r\n" * 10_000)
        connection.sendall(b"0\r\n\r\n")
        status = connection.recv(4096).split(b"\r\n")[0]
    assert re.match(rb"HTTP/1.1 [45]\d\d", status), status
    calls.pictures(request(**SMALL))
    assert "starting it again" not in server.log.read_text()


def test_tensors_in_shared_memory_are_not_found(server):
    """A request may name a region that it did not register, the Python models' own for instance."""
    log = server.log.read_text()
    named = re.search(r"shm-region-prefix-name=(triptych_\w+)", log)
    for region in ("mine", named.group(1) if named else "triptych_0"):
        tensor = {
            "name": "INPUT_0",
            "shape": [1, 1],
            "datatype": "BYTES",
            "parameters": {"shared_memory_region": region, "shared_memory_byte_size": 64},
        }
        status, reply = post(f"{server.http}/v2/models/sd_ensemble/infer", {"inputs": [tensor]})
        assert status in (400, 404)
        assert "Unable to find" in reply["error"]


@pytest.mark.parametrize(
    "path",
    [
        "v2/models/..%2f..%2fetc%2fpasswd",
        "v2/models/sd_ensemble/versions/..%2f1",
        "v2/models/no_such_model",
        "v2/models/sd_ensemble/versions/99",
        "../../etc/passwd",
        "v2/%00",
    ],
)
def test_odd_paths_tell_nothing_of_the_machine(server, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.http}/{path}", timeout=10)
    said = caught.value.read().decode()
    assert caught.value.code in (400, 404)
    assert not re.search(r"/work/|/home/|/tmp/|model_repository|Traceback|triptych_[0-9a-f]", said)


def test_what_is_open_to_all_names_no_path(server):
    """Metadata, configuration, statistics and metrics."""
    for path in ("v2", "v2/models/unet/config", "v2/models/unet", "v2/models/stats"):
        said = urllib.request.urlopen(f"http://{server.http}/{path}", timeout=10).read().decode()
        assert not re.search(r"/dev/shm|/tmp/|/home/|Traceback|triptych_[0-9a-f]{8}", said), said
