"""The client against a server of a few lines that speaks Triton's protocol."""

import base64
import ctypes
import dataclasses
import importlib.util
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import http_fake
import numpy as np
import pytest
from grpc_fake import serving
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.client import (
    Client,
    ClientError,
    NotReady,
    NotThere,
    Overloaded,
    Refused,
    TimedOut,
)
from triptych.picture.encode import encode
from triptych.picture.metadata import read_settings
from triptych.picture.request import read_request
from triptych.settings import Defaults, Limits
from triptych.streaming import SETTLES

START = "start one with `make web` or `make serve`, outside of the checkout with `fastdeployserver "
COMMAND = Path(__file__).parents[2] / "client" / "client.py"


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every request with a gray picture, or as a test tells it."""

    def __init__(self):
        self.requests = []
        self.model_is_ready = True
        self.behave = lambda context: None
        self.spoil = lambda file: file

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=self.model_is_ready)

    def ModelInfer(self, request, context):
        assert request.model_name == "sd_ensemble"
        (tensor,) = request.inputs
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("INPUT_0", "BYTES", [1, 1])
        raw = request.raw_input_contents[0][4:]
        self.requests.append(json.loads(raw))
        self.behave(context)
        settings = read_request(raw, Defaults(64, 128, 20, 5.0, "pndm"), Limits()).settings
        settings = dataclasses.replace(settings, warnings=("a warning",))
        sample = np.zeros((3, settings.height, settings.width), np.float32)
        text = self.spoil(base64.b64encode(encode(sample, settings)))
        response = service_pb2.ModelInferResponse(model_name="sd_ensemble")
        response.outputs.add(name="OUTPUT_0", datatype="BYTES", shape=[1, 1])
        response.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
        return response


@pytest.fixture
def fake():
    with serving(FakeTriton(), 12) as fake:
        yield fake


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command's module; what it writes without a name goes to `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("client_command", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refuse(code, text):
    return lambda context: context.abort(code, text)


def test_a_picture_comes_with_its_settings_and_its_time(fake, tmp_path):
    with Client(fake.url) as client:
        picture = client.generate("a red circle", seed=3, width=64, guidance_scale=1.5)
    assert fake.requests == [
        {"prompt": "a red circle", "seed": 3, "width": 64, "guidance_scale": 1.5}
    ]
    assert picture.image.size == (64, 64)
    assert picture.settings.seed == 3
    assert picture.settings.scheduler == "pndm"
    assert 0 < picture.seconds < 10
    picture.save(tmp_path / "a.png")
    assert read_settings((tmp_path / "a.png").read_bytes()) == picture.settings


def test_pictures_go_as_base64(fake, command, tmp_path, capsys):
    png = io.BytesIO()
    Image.new("RGB", (80, 64)).save(png, "PNG")
    text = base64.b64encode(png.getvalue()).decode()
    with Client(fake.url) as client:
        for image in (png.getvalue(), text):
            picture = client.generate("x", image=image, mask_image=image, strength=0.5)
    assert (
        fake.requests == [{"prompt": "x", "image": text, "mask_image": text, "strength": 0.5}] * 2
    )
    assert (picture.image.size, picture.settings.strength) == ((80, 64), 0.5)
    file = tmp_path / "start.png"
    file.write_bytes(png.getvalue())
    arguments = ["--url", fake.url, "-o", str(tmp_path / "a.png"), "--image", str(file)]
    masked = ["--mask", str(file), "--strength", "0.7", "--mask-blur", "2"]
    assert command.main([*arguments, *masked, "--padding-mask-crop", "8", "x"]) == 0
    asked = {"strength": 0.7, "mask_blur": 2.0, "padding_mask_crop": 8, "output_format": "png"}
    sent = {name: fake.requests[-1][name] for name in ("image", "mask_image", *asked)}
    assert sent == {"image": text, "mask_image": text, **asked}
    with pytest.raises(SystemExit):
        command.main(["--url", fake.url, "--image", str(tmp_path / "none.png")])
    assert "argument --image: [Errno 2] No such file" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ['{"seed": 1}', "{", "狐 🦊", " x ", "\x01"])
def test_every_prompt_arrives_as_it_is(fake, prompt):
    with Client(fake.url) as client:
        assert client.generate(prompt).settings.prompt == prompt


@pytest.mark.parametrize(
    "url", ["http://localhost:8001", "localhost", "localhost:", "grpc://h:1", "localhost:8001/", ""]
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(
    command, url, tmp_path, capsys
):
    says = f"url: got {url!r}; allowed: host:port of the server's gRPC, as localhost:8001"
    with pytest.raises(Refused, match=re.escape(says)):
        Client(url)
    assert command.main(["--url", url, "-o", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == f"error: {says}\n"


@pytest.mark.parametrize("url", ["localhost:8001", "[::1]:8001", "dns:///a.b:1", "unix:/tmp/x"])
def test_grpcs_own_names_for_addresses_are_taken(url):
    Client(url).close()


def test_a_port_that_speaks_http_is_told_from_nobody():
    with http_fake.serving({}) as url, Client(url) as client, pytest.raises(
        NotThere, match=rf"^{url} is no gRPC port, it speaks HTTP: give the server's gRPC port"
    ):
        client.generate("x", timeout=10)


def test_a_server_that_is_not_there_is_said_at_once(nobody):
    started = time.monotonic()
    with pytest.raises(NotThere, match=f"no server at {nobody}: {START}"):
        Client(nobody).generate("x", timeout=60)
    assert time.monotonic() - started < 20


def test_a_name_that_is_no_address_is_said_too():
    with pytest.raises(NotThere):
        Client("no-such-host.invalid:8001").generate("x", timeout=60)


def test_a_model_that_is_not_loaded_is_told_from_a_full_queue(fake):
    fake.behave = refuse(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with Client(fake.url) as client:
        with pytest.raises(Overloaded, match=r"no more requests now: Exceeds maximum queue size"):
            client.generate("x")
        fake.model_is_ready = False
        with pytest.raises(NotReady, match=r"sd_ensemble is not loaded"):
            client.generate("x")
        fake.behave = refuse(grpc.StatusCode.NOT_FOUND, "Request for unknown model")
        with pytest.raises(NotReady, match=r"sd_ensemble is not loaded"):
            client.generate("x")


def test_a_model_that_is_loaded_just_after_the_request_was_refused_is_no_full_queue(fake):
    unknown = "Request for unknown model: 'sd_ensemble' is not found"
    for status in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
        fake.behave = refuse(status, unknown)
        with Client(fake.url) as client, pytest.raises(NotReady, match="was not loaded then"):
            client.generate("x")


def test_a_request_that_is_lost_with_its_server_is_made_once_more(fake):
    def lose(context):
        if len(fake.requests) == 1:
            context.abort(
                grpc.StatusCode.UNAVAILABLE, "upstream connect error; connection termination"
            )

    fake.behave = lose
    with Client(fake.url) as client:
        begun = time.monotonic()
        assert client.generate("x", seed=4).settings.seed == 4
    assert time.monotonic() > begun + SETTLES
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    "words",
    ["upstream connect error; termination", "failed to connect to all addresses"],
)
def test_a_request_that_is_lost_twice_is_no_full_queue(fake, words):
    fake.behave = refuse(grpc.StatusCode.UNAVAILABLE, words)
    with Client(fake.url) as client, pytest.raises(NotThere, match="broke with the request on it"):
        client.generate("x")
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    "words", ["the queue is full: 64 of 64 images; try later", "Exceeds maximum queue size"]
)
def test_a_refusal_of_the_server_is_not_asked_again(fake, words):
    fake.behave = refuse(grpc.StatusCode.UNAVAILABLE, words)
    with Client(fake.url) as client, pytest.raises(Overloaded):
        client.generate("x")
    assert len(fake.requests) == 1


def test_an_invalid_argument_is_told_in_the_servers_words(fake):
    words = "seed: got -1; allowed: an integer from 0 to 18446744073709551615"
    passed_on = f"in ensemble 'sd_ensemble', tokenizer: {words}"
    fake.behave = refuse(grpc.StatusCode.INVALID_ARGUMENT, passed_on)
    with Client(fake.url) as client, pytest.raises(Refused) as caught:
        client.generate("x", seed=-1)
    assert str(caught.value) == words
    assert fake.requests == [{"prompt": "x", "seed": -1}]


def test_a_failure_of_the_server_is_told(fake):
    fake.behave = refuse(grpc.StatusCode.INTERNAL, "latents are not finite")
    with Client(fake.url) as client, pytest.raises(ClientError) as caught:
        client.generate("x")
    assert type(caught.value) is ClientError
    assert "latents are not finite" in str(caught.value)


def test_the_timeout_ends_the_call_at_both_ends(fake):
    left = threading.Event()

    def dawdle(context):
        context.add_callback(left.set)
        left.wait(10)

    fake.behave = dawdle
    started = time.monotonic()
    with Client(fake.url) as client, pytest.raises(TimedOut, match=r"within 0\.3 s"):
        client.generate("x", timeout=0.3)
    assert time.monotonic() - started < 5
    assert left.wait(5)
    assert fake.requests == [{"prompt": "x", "timeout": 0.3}]


def test_a_server_that_ends_the_work_by_its_own_clock_is_a_timeout_too(fake):
    words = "unet_loop: timeout: the request's time was over after 3 of 20 calls of the UNet"
    fake.behave = refuse(grpc.StatusCode.CANCELLED, words)
    with Client(fake.url) as client, pytest.raises(TimedOut, match="within 9 s"):
        client.generate("x", timeout=9)


def test_a_port_that_never_answers_ends_with_the_timeout():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises((TimedOut, NotThere)):
            Client(f"127.0.0.1:{deaf.getsockname()[1]}").generate("x", timeout=0.3)


@pytest.mark.parametrize(
    "text", [b"", b"not base64!", base64.b64encode(b"no picture"), b"\xff\xfe"]
)
def test_an_answer_that_is_no_picture_is_an_error(fake, text):
    fake.spoil = lambda _: text
    with Client(fake.url) as client, pytest.raises(ClientError, match=r"no picture of ours"):
        client.generate("x")


def test_threads_share_a_client(fake):
    with Client(fake.url) as client, ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda seed: client.generate("x", seed=seed), range(24)))
    assert [picture.settings.seed for picture in pictures] == list(range(24))


def test_the_command_needs_no_arguments_but_a_server(fake, command, tmp_path, capsys):
    assert command.main(["--url", fake.url]) == 0
    asked = {"prompt": command.PROMPT, "output_format": "png", "timeout": 300}
    assert fake.requests == [asked]
    printed = capsys.readouterr()
    seed = read_settings((tmp_path / "out.png").read_bytes()).seed
    assert re.fullmatch(rf"out\.png: 128x64, seed {seed}, \d+\.\d\d s\n", printed.out)
    assert printed.err == "warning: a warning\n"


def test_the_command_has_a_flag_for_every_setting(fake, command, tmp_path):
    flags = {
        "negative_prompt": "blurry",
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
        "seed": 11,
        "height": 64,
        "width": 72,
        "scheduler": "DDIMScheduler",
        "timestep_spacing": "trailing",
        "eta": 0.5,
        "prompt_syntax": "webui",
        "clip_skip": 1,
        "guidance_rescale": 0.5,
        "guidance_start": 0.25,
        "guidance_stop": 0.75,
        "cache_interval": 3,
        "output_format": "webp",
    }
    arguments = ["x", "--url", fake.url, "-o", str(tmp_path / "a.webp")]
    for name, value in flags.items():
        arguments += ["--" + name.replace("_", "-"), str(value)]
    assert command.main(arguments) == 0
    assert fake.requests == [{"prompt": "x", "timeout": 300, **flags}]
    assert (tmp_path / "a.webp").read_bytes()[8:12] == b"WEBP"


def test_the_command_asks_for_a_second_pass(fake, command, capsys):
    assert command.main(["x", "--url", fake.url, "--second-pass", "512x640"]) == 0
    assert fake.requests[0]["second_pass"] == {"width": 512, "height": 640}
    assert ": 512x640, seed " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["x", "--url", fake.url, "--second-pass", "512"])
    assert "'512' is not WIDTHxHEIGHT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "output_format"), [("a.JPG", "jpeg"), ("a.jpeg", "jpeg"), ("a.webp", "webp")]
)
def test_the_format_is_as_the_files_name_ends(fake, command, tmp_path, name, output_format):
    assert command.main(["--url", fake.url, "-o", str(tmp_path / name)]) == 0
    assert fake.requests[0]["output_format"] == output_format


def test_the_files_name_ends_as_the_format(fake, command, tmp_path):
    assert command.main(["--url", fake.url, "--output-format", "jpeg"]) == 0
    assert (tmp_path / "out.jpeg").read_bytes()[:2] == b"\xff\xd8"


def test_many_pictures_have_seeds_and_names_in_order(fake, command, tmp_path, capsys):
    arguments = ["--url", fake.url, "--count", "10", "--seed", "5", "-o", str(tmp_path / "a.png")]
    assert command.main(arguments) == 0
    for number in range(1, 11):
        file = (tmp_path / f"a-{number}.png").read_bytes()
        assert read_settings(file).seed == 4 + number
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_the_seed_after_the_highest_is_0(fake, command, tmp_path):
    arguments = ["--url", fake.url, "--count", "2", "--seed", str(2**64 - 1)]
    assert command.main([*arguments, "-o", str(tmp_path / "a.png")]) == 0
    files = [tmp_path / f"a-{number}.png" for number in (1, 2)]
    assert [read_settings(file.read_bytes()).seed for file in files] == [2**64 - 1, 0]


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.INTERNAL, 1),
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.UNAVAILABLE, 5),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 6),
    ],
)
def test_the_exit_code_says_what_was_wrong(fake, command, tmp_path, capsys, code, exit_code):
    fake.behave = refuse(code, "words of the server")
    file = tmp_path / "a.png"
    assert command.main(["--url", fake.url, "-o", str(file), "--count", "20"]) == exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_server_has_an_exit_code_of_its_own(nobody, command, tmp_path, capsys):
    assert command.main(["--url", nobody, "-o", str(tmp_path / "a.png")]) == 3
    assert f"error: no server at {nobody}: {START}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "a.gif"],
        ["-o", "a"],
        ["-o", "a.png", "--output-format", "jpeg"],
        ["-o", "no/such/folder/a.png"],
        ["--count", "0"],
        ["--count", "1000000000"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--seed", "x"],
        ["--output-format", "gif"],
        ["--no-such-flag"],
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_sent(nobody, command, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--url", nobody, *arguments])
    assert caught.value.code == 2
    assert "error: argument" in capsys.readouterr().err or arguments == ["--no-such-flag"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--seed", "x"],
            "--seed: got 'x'; allowed: a whole number from 0 to 18446744073709551615",
        ),
        (["--seed", "-1"], "--seed: got '-1'; allowed: a whole number from 0 to"),
        (["--seed", str(2**64)], f"--seed: got '{2**64}'; allowed: a whole number from 0 to"),
        (["--steps", "1.5"], "--num-inference-steps/--steps: '1.5' is no whole number"),
        (["--strength", "half"], "--strength: 'half' is no number"),
    ],
)
def test_a_wrong_number_is_told_in_two_lines(nobody, command, arguments, says, capsys):
    with pytest.raises(SystemExit):
        command.main(["--url", nobody, *arguments])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.endswith("--help lists them")
    assert f"error: argument {says}" in error


def test_a_file_that_cannot_be_written_is_told_before_anything_is_drawn(command, tmp_path, capsys):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(SystemExit):
        command.main(["-o", str(tmp_path / "a.png")])
    assert "a.png cannot be written" in capsys.readouterr().err


@pytest.fixture
def dawdling(fake):
    """The server takes its time until a call is cancelled: when it was asked, and when left."""
    asked, left = threading.Event(), threading.Event()

    def dawdle(context):
        context.add_callback(left.set)
        asked.set()
        left.wait(60)

    fake.behave = dawdle
    return asked, left


@pytest.mark.parametrize("count", ["1", "20"])
def test_ctrl_c_ends_the_command_with_one_line(fake, dawdling, tmp_path, count):
    asked, left = dawdling
    arguments = ["--url", fake.url, "--count", count, "-o", "a.png"]
    with subprocess.Popen(
        [sys.executable, str(COMMAND), *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert asked.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "interrupted\n"
    assert process.returncode == 130
    assert left.wait(10)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_that_does_not_wake_the_main_thread_ends_the_command_too(fake, dawdling, tmp_path):
    """One that comes just before the thread waits does not; nor one that another thread gets."""
    asked, _ = dawdling
    command = [sys.executable, str(COMMAND), "--url", fake.url, "-o", "a.png"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(30)
        time.sleep(0.5)  # the main thread waits
        others = {int(one.name) for one in Path(f"/proc/{process.pid}/task").iterdir()}
        other = max(others - {process.pid})
        assert not ctypes.CDLL(None).tgkill(process.pid, other, signal.SIGINT)
        assert process.communicate(timeout=15)[1] == "interrupted\n"
    assert process.returncode == 130


def test_ctrl_c_while_the_command_starts_leaves_no_traceback(fake, tmp_path):
    """It takes most of a second, with the modules that it imports."""
    command = [sys.executable, "-X", "importtime", str(COMMAND), "--url", fake.url]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.endswith("| triptych.interrupts\n"):
                break
        for line in process.stderr:
            if "numpy" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted\n" in rest
    assert "Traceback" not in rest


def test_help_is_shown_from_any_folder(tmp_path):
    result = subprocess.run(
        [sys.executable, str(COMMAND), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "example:" in result.stdout
    assert "exit codes:" in result.stdout
