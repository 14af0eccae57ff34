"""Call each stage in turn for one prompt, show what goes in and out, and save the picture.

Asks the server at --url. With --trace it starts a server of its own, since Triton must be told of a
trace when it starts, and writes a Chrome trace of one request: open it at chrome://tracing or
https://ui.perfetto.dev.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from triptych import sdxl
from triptych.client import Client, ClientError
from triptych.commands import trace
from triptych.commands.settings import add_settings, given, tell_warnings
from triptych.names import MODEL, Names
from triptych.server import Unfit
from triptych.server.running import RunningServer
from triptych.settings import Settings

EXAMPLES = """\
example:
  triptych stages "a red circle on a blue background" --seed 7 -o stages.png
  triptych stages "a red circle on a blue background" --trace trace.json

exit codes:
  0 done, 1 a stage failed or the stages drew another picture than the ensemble, 2 the request or an
  argument is wrong, 3 no server there, 4 the server is not ready, 5 it is overloaded, 6 the timeout
  is over, 130 interrupted
"""

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", nargs="?", default="a red circle on a blue background", help="what to draw")
    add("-o", "--output", type=Path, default=Path("stages.png"), metavar="FILE", help="a PNG")
    add("--url", default="localhost:8001", help="the server's gRPC (default: %(default)s)")
    add("--model", default=MODEL, metavar="NAME", help="(default: %(default)s)")
    add("--timeout", type=float, default=300, metavar="SECONDS", help="for a stage (%(default)s)")
    add("--trace", type=Path, metavar="FILE", help="write a Chrome trace; starts a server")
    add("--model-repository", type=Path, default=REPOSITORY, metavar="FOLDER", help="for --trace")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Walk through the stages; the exit code."""
    for path in (options.output, options.trace):
        if path is not None and not path.parent.is_dir():
            print(f"triptych stages: there is no folder {path.parent}", file=sys.stderr)
            return 2
    request = json.dumps(given(options)).encode()
    try:
        if options.trace:
            return _traced(options, request)
        with Client(options.url) as client:
            return _Tour(client, options.model, options.timeout).walk(request, options.output)
    except ClientError as error:
        print(f"triptych stages: {error}", file=sys.stderr)
        return error.exit_code
    except (Unfit, OSError, ValueError) as error:
        print(f"triptych stages: {error}", file=sys.stderr)
        return 1


def _traced(options: argparse.Namespace, request: bytes) -> int:
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "trace.json"
        flags = ("level=TIMESTAMPS", "rate=1", f"triton,file={written}")
        server = RunningServer(
            options.model_repository,
            Path(folder) / "server.log",
            *(f"--trace-config={flag}" for flag in flags),
        )
        with server, Client(server.grpc) as client:
            tour = _Tour(client, options.model, options.timeout)
            code = tour.walk(request, options.output)
        # Triton writes what it has kept when it ends.
        found = trace.chrome(json.loads(written.read_text()), options.model)
    options.trace.write_text(json.dumps(found))
    print(f"{options.trace}: the last request of {options.model}")
    return code


class _Tour:
    """The stages, called in their order and shown."""

    def __init__(self, client: Client, model: str, timeout: float) -> None:
        self._client = client
        self._names = Names(model)
        self._timeout = timeout

    def walk(self, request: bytes, output: Path) -> int:
        """Through all stages, then the same by the ensemble; writes the picture's file."""
        asked = np.array([[request]], dtype=object)
        tokens = self._stage("tokenizer", INPUT_0=asked)
        prompts = {**self._encode(tokens, ""), **self._encode(tokens, "negative_")}
        # With the seed that the tokenizer chose, if the request has none.
        settings, pictures = tokens["settings"], tokens["pictures"]
        latents = self._stage(
            "unet_loop",
            **prompts,
            settings=settings,
            pictures=pictures,
        )["latents"]
        self._stage(
            "unet",
            sample=np.random.RandomState(0).standard_normal(latents.shape).astype(np.float32),
            timestep=np.array([[999]], np.float32),
            **_conditions(prompts, Settings.from_json(settings.item())),
        )
        sample = self._stage("vae_decoder", latent_sample=latents)["sample"]
        answer = self._stage("image_encoder", sample=sample, settings=settings, pictures=pictures)
        image = answer["OUTPUT_0"].item()
        output.write_bytes(base64.b64decode(image))
        chosen = json.loads(settings.item())
        same = json.loads(request)
        same["seed"] = chosen["seed"]
        asked = np.array([[json.dumps(same).encode()]], dtype=object)
        model = self._names.model
        whole = self._ask(model, INPUT_0=asked)["OUTPUT_0"].item()
        print(f"{output}: {chosen['width']}x{chosen['height']}, seed {chosen['seed']}")
        tell_warnings(Settings.from_json(settings.item()))
        if whole == image:
            print(f"{model} gives the very same file")
            return 0
        print(f"triptych stages: {model} gives another file than its stages", file=sys.stderr)
        return 1

    def _encode(self, tokens: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
        """The embeddings of the prompt, or with the prefix `negative_` of the other one."""
        config = self._client.config(self._names.stage("text_encoder"))
        inputs = {tensor.name: tokens[prefix + tensor.name] for tensor in config.input}
        answer = self._stage("text_encoder", **inputs)
        found = {f"{prefix}prompt_embeds": answer["last_hidden_state"]}
        if "input_ids_2" in tokens:
            inputs.update(
                {name: tokens[f"{prefix}{name}_2"] for name in ("input_ids", "prompt_weights")}
            )
            answer = self._stage("text_encoder_2", **inputs)
            found[f"{prefix}prompt_embeds_2"] = answer["last_hidden_state"]
            found[f"{prefix}pooled_prompt_embeds"] = answer["text_embeds"]
        return found

    def _stage(self, stage: str, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        return self._ask(self._names.stage(stage), **tensors)

    def _ask(self, model: str, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        print(model, flush=True)
        for name, array in tensors.items():
            print(f"  > {_line(name, array)}")
        begun = time.monotonic()
        answer = self._client.ask(model, self._timeout, **tensors)
        milliseconds = 1000 * (time.monotonic() - begun)
        for name, array in answer.items():
            print(f"  < {_line(name, array)}")
        print(f"  = {milliseconds:.1f} ms", flush=True)
        return answer


def _conditions(prompts: dict[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    """What the UNet is conditioned on for the prompt, for one row."""
    embeds = prompts["prompt_embeds"]
    if "prompt_embeds_2" not in prompts:
        return {"encoder_hidden_states": embeds}
    return {
        "encoder_hidden_states": np.concatenate([embeds, prompts["prompt_embeds_2"]], -1),
        "text_embeds": prompts["pooled_prompt_embeds"],
        "time_ids": sdxl.time_ids(settings)[np.newaxis],
    }


def _line(name: str, array: np.ndarray) -> str:
    shape = ",".join(map(str, array.shape))
    kind = "text" if array.dtype == object else array.dtype.name
    return f"{name:22} {kind:8} [{shape}]".ljust(50) + f" {_range(array)}"


def _range(array: np.ndarray) -> str:
    """What is in a tensor: a text's beginning, or the least, the greatest, mean and deviation."""
    if array.dtype == object and array.size != 1:
        return " and ".join(f"{len(one)} bytes" for one in array.ravel())
    if array.dtype == object:
        text = array.item()
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        return text if len(text) <= 60 else f"{text[:57]}... ({len(text)} characters)"
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        return f"{bad} of {array.size} values are not finite"
    values = f"{array.min():.4g} to {array.max():.4g}"
    if array.dtype.kind == "f":
        values += f", mean {array.mean():.3g}, deviation {array.std():.3g}"
    return values
