"""How fast the server draws on a CUDA machine, beside its networks alone and diffusers.

    python benchmarks/gpu.py --graphs DIR [--parts engine,serve,diffusers] [--output FILE.json]

DIR: a model repository, whose graphs may have no weights (benchmarks/weightless.py); they get
random ones. Pictures of the model's own size, gRPC in and base64 of a PNG out, of 50 steps with
guidance 7.5; --few-steps: of 4 without guidance; --gpus: on one GPU and on all. Random weights draw
grain, which takes PNG longer than other pictures: see --output-format, which is diffusers' too.
Parts run one after the other, each until its time limit; what was measured is printed in any case.
Needs no network. --tiny --device cpu: the same with little of everything, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tritonclient.grpc as grpcclient

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import load, machine, stage_times, tick_log, weightless
from benchmarks.loop import CHANNEL
from triptych.model_files import ModelFiles
from triptych.server.running import RunningServer
from triptych.settings import OUTPUT_FORMATS

EVERY_GPU = "channel, every GPU"
VARIANTS = {"Triton": "", "channel": CHANNEL, EVERY_GPU: CHANNEL}
"""Ways from the loop to the UNet, on one GPU but for the last: what unet's config.pbtxt gets."""

PRESETS: dict[str, dict[str, Any]] = {
    "few-steps": {"steps": 4, "guidance_scale": 0.0, "clients": 60, "pictures": 20},
    "gpus": {"variants": f"channel;{EVERY_GPU}"},
    "tiny": {"steps": 3, "clients": 2, "pictures": 2},
}
"""Options that stand for others."""


class Preset(argparse.Action):
    """Sets the options that it stands for; what comes after it on the command line counts more."""

    def __init__(self, **more: Any) -> None:
        super().__init__(nargs=0, **more)

    def __call__(self, _parser: Any, options: Any, *_: Any) -> None:
        vars(options).update(PRESETS[self.dest.replace("_", "-")])


def rows(variant: str, clients: int, options: argparse.Namespace) -> int:
    """Rows of a call of the UNet when that many images are in flight."""
    gpus = machine.gpus() if variant == EVERY_GPU else 1
    return options.rows_an_image * -(-clients // gpus)


class Results:
    """Everything that was measured, in seconds, and the table of it."""

    def __init__(self, output: Path | None) -> None:
        self._output = output
        self.about: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []

    def add(self, part: str, what: str, seconds: Any, **more: Any) -> None:
        values = [float(value) for value in seconds]
        self.rows.append({"part": part, "what": what, "seconds": values, **more})
        shown = f"{1e3 * np.median(values):.3f} ms" if values else "nothing"
        print(f"{what}: {shown}", flush=True)
        self.write()

    def write(self) -> None:
        if self._output is not None:
            self._output.write_text(json.dumps({"about": self.about, "rows": self.rows}))

    def median(self, what: str) -> float:
        """Seconds; NaN where it was not measured."""
        found = [row["seconds"] for row in self.rows if row["what"] == what and row["seconds"]]
        return float(np.median(found[-1])) if found else float("nan")

    def more(self, what: str, name: str) -> float:
        found = [row[name] for row in self.rows if row["what"] == what and name in row]
        return found[-1] if found else float("nan")

    @staticmethod
    def line(row: dict[str, Any]) -> str:
        values = row["seconds"]
        if not values:
            return f"| {row['what']} | 0 | - | - | - | |"
        low, middle, high, most = (1e3 * load.percentile(values, p) for p in (25, 50, 75, 95))
        more = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
            if name not in ("part", "what", "seconds")
        )
        numbers = f"{middle:.3f} | {low:.3f} to {high:.3f} | {most:.3f}"
        return f"| {row['what']} | {len(values)} | {numbers} | {more} |"

    def __str__(self) -> str:
        head = ["| what | number | median, ms | quartiles | p95 | |", "| --- " * 6 + "|"]
        return "\n".join([*head, *map(self.line, self.rows)])


def main() -> int:
    options = _options()
    results = Results(options.output)
    results.about = {
        "hardware": machine.hardware(),
        "gpu": machine.gpu(),
        "versions": _versions(),
    }
    print(*results.about.values(), sep="\n", flush=True)
    failed = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        repository = Path(scratch) / "repository"
        with _timed("the repository, with random weights"):
            shutil.copytree(options.graphs, repository, symlinks=False)
            numbers = weightless.fill_repository(repository)
            print(f"{numbers / 1e6:.1f} M random weights")
        for part in options.parts:
            try:
                with _timed(part):
                    PARTS[part](repository, options, results)
            except Exception:
                failed.append(part)
                traceback.print_exc()
                sys.stderr.flush()
            results.write()
    print(*(f"{name}: {value}" for name, value in results.about.items()), results, sep="\n")
    print(*conclusions(results, options), sep="\n")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return bool(failed)


def engine(repository: Path, options: argparse.Namespace, results: Results) -> None:
    """Each network alone."""
    script = [CHECKOUT / "benchmarks" / "engine.py", repository, "--device", options.device]
    each = options.rows_an_image
    sizes = (
        {each, each * options.clients}
        if options.tiny
        else {each, options.clients, each * options.clients}
    )
    script += ["--rows", *sorted(sizes), *(["--seconds", 0, "--runs", 3] if options.tiny else [])]
    for line in _lines(script, options.limits["engine"]):
        if not line["finite"]:
            print(f"{line['network']} gives numbers that are not finite", flush=True)
        name = f"{line['network']}, batch {line['batch']}, {line['way']}"
        results.about[f"{line['network']}, {line['way']}"] = line["provider"]
        on_device = f"{name}, on the device"
        more = {} if line["difference"] is None else {"difference": line["difference"]}
        results.add("engine", on_device, line["engine"], loading=line["loading"], **more)
        results.add("engine", f"{name}, from and to the host", line["run"])
        results.add("engine", f"{name}, from and to the host, rested", line["rested"])


def serve(repository: Path, options: argparse.Namespace, results: Results) -> None:
    """The server, for each way from its loop to its UNet."""
    end = time.monotonic() + options.limits["serve"]
    for variant in options.variants:
        if time.monotonic() > end:
            raise TimeoutError(f"no time for {variant!r}")
        with _timed(f"served, {variant}"):
            Served(repository, options, results, variant).measure(end)


class Served:
    """The server, one variant."""

    def __init__(
        self, repository: Path, options: argparse.Namespace, results: Results, variant: str
    ) -> None:
        self._options, self._results, self._variant = options, results, variant
        self._scratch = Path(tempfile.mkdtemp(dir=repository.parent))
        self._repository = self._scratch / "repository"
        self._ticks = self._scratch / "ticks"
        shutil.copytree(repository, self._repository, copy_function=weightless.link)
        tick_log.install(self._repository, CHECKOUT, self._ticks)
        config = self._repository / "unet" / "config.pbtxt"
        config.write_text(config.read_text().replace(CHANNEL, "") + VARIANTS[variant])
        config = self._repository / "unet_loop" / "config.pbtxt"
        most = max(31, options.clients + 4)
        old, new = (f'max_queue" value {{ string_value: "{each}"' for each in (31, most))
        config.write_text(config.read_text().replace(old, new))
        model_files = ModelFiles.load(repository / "unet_loop" / "1")
        self._latents = model_files.latent_shape(model_files.height, model_files.width)
        self._number = 0

    def measure(self, end: float) -> None:
        begun = time.monotonic()
        running = RunningServer(self._repository, self._scratch / "log")
        first, *_ = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        one_gpu = {} if self._variant == EVERY_GPU else {"CUDA_VISIBLE_DEVICES": first}
        with mock.patch.dict(os.environ, one_gpu):
            running.start()
        try:
            running.wait_ready(max(1.0, end - begun))
            print(f"ready after {time.monotonic() - begun:.1f} s", flush=True)
            self._draw_all(running, end)
        finally:
            running.stop()
            lines = (self._scratch / "log").read_text(errors="replace").splitlines()
            for line in lines:
                if "runs on" in line or "rror" in line:
                    print(line[:400], flush=True)

    def _draw_all(self, running: RunningServer, end: float) -> None:
        many, scale = self._options.clients, self._options.pictures
        self._client = grpcclient.InferenceServerClient(running.grpc)
        load.closed(self._draw, self._requests(1), 1)
        load.closed(self._draw, self._requests(many), many)
        self._phase("1 client", 1, 2 * scale)
        if time.monotonic() < end:
            self._phase(f"{many} clients", many, scale * many // 2)
        if time.monotonic() < end:
            with self._decoding():
                self._phase(f"{many} clients while others decode", many, many)
        self._client.close()

    def _phase(self, what: str, clients: int, pictures: int) -> None:
        before, begun = stage_times.snapshot(self._client), time.monotonic()
        run = load.closed(self._draw, self._requests(pictures), clients)
        ended, after = time.monotonic(), stage_times.snapshot(self._client)
        add, name = self._results.add, f"served, {self._variant}, {what}"
        add("serve", name, run.latencies, per_second=run.per_second)
        called = rows(self._variant, clients, self._options)
        periods = tick_log.periods(self._ticks, begun, ended, called)
        add("serve", f"{name}: a step", periods, rows=called)
        calls = tick_log.called(self._ticks, begun, ended)
        seconds = [run.seconds / len(calls)] if len(calls) else []
        mean = float(np.mean(calls)) if len(calls) else float("nan")
        add("serve", f"{name}: for each call of the UNet", seconds, calls=len(calls), rows=mean)
        for stage, parts in stage_times.between(before, after, pictures).items():
            more = {f"{part}, ms": 1e3 * value for part, value in parts.items()}
            more["rows"] = stage_times.batch(before, after, stage)
            add("serve", f"{name}: {stage}, a picture", [sum(parts.values())], **more)

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Somebody decodes pictures one after the other all the time."""
        over = threading.Event()
        tensor = grpcclient.InferInput("latent_sample", [1, *self._latents], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, *self._latents), np.float32))
        taken: list[float] = []

        def decode() -> None:
            while not over.is_set():
                begun = time.perf_counter()
                self._client.infer("vae_decoder", [tensor], client_timeout=120)
                taken.append(time.perf_counter() - begun)

        thread = threading.Thread(target=decode)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self._results.add("serve", f"served, {self._variant}: vae_decoder beside it", taken)

    def _requests(self, count: int) -> list[str]:
        first, self._number = self._number, self._number + count
        settings = {
            "num_inference_steps": self._options.steps,
            "guidance_scale": self._options.guidance_scale,
            "scheduler": "ddim",  # it calls the UNet as often as it has steps
            "output_format": self._options.output_format,
        }
        return [
            json.dumps({"prompt": f"a red circle, number {number}", "seed": number, **settings})
            for number in range(first, first + count)
        ]

    def _draw(self, request: str) -> None:
        tensor = grpcclient.InferInput("INPUT_0", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[request.encode()]], dtype=object))
        self._client.infer("sd_ensemble", [tensor], client_timeout=120).as_numpy("OUTPUT_0")


def diffusers(repository: Path, options: argparse.Namespace, results: Results) -> None:
    """diffusers' own pipeline, eager and compiled."""
    if options.device != "cuda":
        print("diffusers: only on CUDA")
        return
    script = [CHECKOUT / "benchmarks" / "diffusers_gpu.py", repository, "--steps", options.steps]
    script += ["--guidance-scale", options.guidance_scale]
    script += ["--output-format", options.output_format]
    for line in _lines(script, options.limits["diffusers"], options.diffusers_python):
        results.about["versions"] += f", {line['versions']}" if "versions" in line else ""
        more = {"loading": line["loading"]} if "loading" in line else {}
        what = f"diffusers, {line['way']}, batch {line['batch']}"
        results.add("diffusers", what, line["seconds"], **more)


PARTS: dict[str, Callable[[Path, argparse.Namespace, Results], None]] = {
    "engine": engine,
    "serve": serve,
    "diffusers": diffusers,
}


def conclusions(results: Results, options: argparse.Namespace) -> list[str]:
    """The figures that there are targets for, each with its target; nan: not measured."""
    many = options.clients
    found = []

    def alone(network: str, batch: int) -> float:
        ways = (f"{network}, batch {batch}, {how}, on the device" for how in ("graph", "no graph"))
        return next((value for value in map(results.median, ways) if value == value), float("nan"))

    each = options.rows_an_image
    encoders = [alone(name, 2) for name in ("text_encoder", "text_encoder_2")]
    request = sum(found for found in encoders if found == found)
    request += options.steps * alone("unet", each) + alone("vae_decoder", 1)
    eager, compiled = (
        results.median(f"diffusers, {way}, batch 1") for way in ("eager", "compiled")
    )
    for variant in options.variants:
        one, all_ = (f"served, {variant}, {clients}" for clients in ("1 client", f"{many} clients"))
        rate = results.more(all_, "per_second")
        busy, usual = f"{all_} while others decode: a step", f"{all_}: a step"
        steps = [
            row["seconds"] for name in (busy, usual) for row in results.rows if row["what"] == name
        ]
        p95 = [load.percentile(values, 95) for values in steps if values]
        figures = [
            (
                "a step / the UNet alone, 1 client",
                results.median(f"{one}: a step") / alone("unet", each),
                "<= 1.12",
            ),
            ("a request / the networks alone, 1 client", results.median(one) / request, "<= 1.15"),
            (
                f"a step / the UNet alone, {many} clients",
                results.median(usual) / alone("unet", rows(variant, many, options)),
                "<= 1.04",
            ),
            (
                f"pictures/s at {many} clients / at 1",
                rate / results.more(one, "per_second"),
                ">= 1.55",
            ),
            ("diffusers eager / served, a request", eager / results.median(one), ">= 3"),
            ("diffusers compiled / served, a request", compiled / results.median(one), "> 1"),
            (f"served at {many} clients / diffusers compiled, pictures/s", rate * compiled, "> 1"),
            (
                "p95 of steps while others decode / p95 without",
                p95[0] / p95[1] if len(p95) == 2 else float("nan"),
                "-",
            ),
        ]
        found += [
            f"{variant}: {what}: {value:.3f} (target: {target})" for what, value, target in figures
        ]
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=Path, default=CHECKOUT / "model_repository")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas")
    parser.add_argument(
        "--variants", default="channel;Triton", help=f"some of: {'; '.join(VARIANTS)}"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--diffusers-python",
        default=sys.executable,
        help="one whose packages diffusers works with: the server wants NumPy 1",
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--output-format", choices=OUTPUT_FORMATS, default=OUTPUT_FORMATS[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=6, help="a client, about")
    for name, preset in PRESETS.items():
        shown = ", ".join(f"{key} {value!r}" for key, value in preset.items())
        parser.add_argument(f"--{name}", action=Preset, help=f"sets {shown}")
    parser.add_argument("--limit", type=float, default=240, help="seconds for a part")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--scratch", type=Path, help="where the repository is made")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    options.variants = [name.strip() for name in options.variants.split(";")]
    for known, names in ((PARTS, options.parts), (VARIANTS, options.variants)):
        for name in names:
            if name not in known:
                parser.error(f"{name!r}: allowed: {', '.join(known)}")
    options.rows_an_image = 1 if options.guidance_scale <= 1 else 2
    options.limits = dict.fromkeys(PARTS, options.limit)
    return options


def _lines(
    script: list[Any], limit: float, python: str = sys.executable
) -> Iterator[dict[str, Any]]:
    """The lines of JSON that a Python script prints, as they come; its errors go to ours."""
    command = [python, *map(str, script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            if process.poll() is None:
                process.kill() if sys.exc_info()[0] else process.wait()
            timer.cancel()
    if process.returncode:
        raise RuntimeError(f"{Path(command[1]).name} ended with {process.returncode}")


def _versions() -> str:
    import onnxruntime

    known = machine.versions("numpy", "tritonclient", "nvidia-pytriton")
    return f"{known}, onnxruntime {onnxruntime.__version__}"


@contextmanager
def _timed(what: str) -> Iterator[None]:
    begun = time.monotonic()
    print(f"--- {what}", flush=True)
    try:
        yield
    finally:
        print(f"--- {what}: {time.monotonic() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
