"""Say what this machine has to serve with, what will be used, what is missing and how to get it."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import runpy
import shutil
import socket
import subprocess
import urllib.request
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from triptych import names
from triptych.ipc import shared_memory
from triptych.server import Unfit, embedded, installed, places, preflight, python

EXAMPLES = """\
example:
  triptych doctor --model-repository model_repository

exit codes:
  0 the server can start here, 1 something that it needs is missing, 2 an argument is wrong
"""

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
GATEWAY_PORT = 7860

OK, NOTE, MISSING = "ok", "note", "missing"


class Finding(NamedTuple):
    """`state`: OK; NOTE, the server can start; or MISSING, it cannot. `fix` says how it would."""

    state: str
    subject: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model-repository", default=str(REPOSITORY), metavar="FOLDER", help="(%(default)s)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print what is found; the exit code."""
    findings = examine(options.model_repository, options.host)
    for one in findings:
        print(f"{one.state:8} {one.subject:18} {one.text}")
        if one.fix:
            print(f"{'':8} {'':18} -> {one.fix}")
    missing = [one.subject for one in findings if one.state == MISSING]
    if missing:
        print(f"\nThe server cannot start: {', '.join(missing)}")
        return 1
    taken = [one for one in findings if one.subject in _PORTS and one.state == NOTE]
    print("\nThe server can start, on other ports." if taken else "\nThe server can start.")
    return 0


def examine(repository: str, host: str) -> list[Finding]:
    """Everything that matters for a server of `repository` that listens on `host`."""
    server = _server()
    findings = [server, _python()]
    if server.subject == _EMBEDDED:
        findings += [_stub(), _libpython()]
    if server.subject == "fastdeployserver":
        findings.append(Finding(OK, "networks run by", "FastDeploy's own backend"))
        findings += [_fastdeploy(), _paddle()]
    else:
        findings += [_onnxruntime(), *_providers()]
    findings += [_gpu(), _cores(), _shared_memory(repository), _temporary_folder()]
    findings += [_repository(repository, server.subject), *_ports(host)]
    findings += [_package("tritonclient", "client"), _package("fastapi", "gateway")]
    return findings


_EMBEDDED = "Triton (embedded)"
_PORTS = {f"port ({name})": name for name in preflight.PORTS}


def _server() -> Finding:
    """The one that the launcher would take."""
    for name in ("fastdeployserver", "tritonserver"):
        found = installed.find(name)
        if found:
            return Finding(OK, name, f"{found}: it will be used")
    if embedded.folder() is None:
        text = "no fastdeployserver or tritonserver on PATH, and no nvidia-pytriton"
        return Finding(MISSING, "Triton", text, embedded.INSTALL)
    version = metadata.version("nvidia-pytriton")
    text = f"{embedded.VERSION} in nvidia-pytriton {version}: it will be used"
    return Finding(OK, _EMBEDDED, f"{text}, on loopback (docs/security.md)")


def _python() -> Finding:
    kind, version = platform.libc_ver()
    text = f"{platform.python_version()}, {kind or 'no glibc'} {version}".strip()
    try:
        python.check()
    except Unfit as reason:
        return Finding(NOTE, "Python", text, f"`make setup` needs another: {reason}")
    return Finding(OK, "Python", text)


def _stub() -> Finding:
    numpy = metadata.version("numpy")
    try:
        embedded.check(embedded.folder())
    except Unfit as reason:
        return Finding(MISSING, "Python in Triton", f"NumPy {numpy}", str(reason))
    return Finding(OK, "Python in Triton", f"a stub for {python.name()}, NumPy {numpy}")


def _libpython() -> Finding:
    try:
        library = python.shared_library()
    except Unfit as reason:
        what, _, fix = str(reason).partition(": ")
        return Finding(MISSING, "libpython", what, fix)
    return Finding(OK, "libpython", str(library or "found by the system's loader"))


def _onnxruntime() -> Finding:
    if util.find_spec("onnxruntime") is None:
        return Finding(MISSING, "ONNX Runtime", "not installed", embedded.INSTALL)
    import onnxruntime

    return Finding(OK, "ONNX Runtime", f"{onnxruntime.__version__}: it runs the networks")


def _providers() -> list[Finding]:
    """What ONNX Runtime runs them on."""
    if util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    from triptych.fastdeploy import providers

    reasons = providers.unusable(onnxruntime.get_available_providers())
    found = []
    for provider, subject in ((providers.TENSORRT, "TensorRT"), (providers.CUDA, "CUDA")):
        if provider in reasons:
            fix = "with a GPU: make web GPU=1" if "built without" in reasons[provider] else ""
            found.append(Finding(NOTE, subject, reasons[provider], fix))
        else:
            found.append(Finding(OK, subject, "usable"))
    used = next((one.subject for one in found if one.state == OK), "the CPU")
    found.append(Finding(OK, "networks run on", f"{used}, where config.pbtxt asks for no other"))
    return found


def _fastdeploy() -> Finding:
    """What FastDeploy's package says of itself; it is read, as to import it loads its libraries."""
    spec = util.find_spec("fastdeploy")
    folders = (spec.submodule_search_locations if spec else None) or ()
    for path in (Path(folder) / "code_version.py" for folder in folders):
        if path.is_file():
            about = runpy.run_path(str(path))
            text = f"{_installed('fastdeploy-gpu-python', 'fastdeploy-python') or about['version']}"
            return Finding(OK, "FastDeploy", f"{text}, built {_built(about)}")
    text = "no Python package fastdeploy: with what its server was built cannot be told"
    return Finding(NOTE, "FastDeploy", text, "fastdeploy-gpu-python is part of FastDeploy's image")


def _built(about: dict[str, object]) -> str:
    """`with_gpu = 'ON'` and `enable_trt_backend = 'OFF'` as words."""
    parts = {
        name.replace("enable_", "").replace("_backend", "").replace("with_", ""): value
        for name, value in about.items()
        if value in ("ON", "OFF")
    }
    return ", ".join(
        f"with{'' if value == 'ON' else 'out'} {name}" for name, value in parts.items()
    )


def _paddle() -> Finding:
    found = _installed("paddlepaddle-gpu", "paddlepaddle")
    if found:
        return Finding(OK, "Paddle", f"{found}: takes TensorRT's outputs to the host (DLPack)")
    text = "not installed: unet on TensorRT leaves its output in GPU memory on this Triton"
    return Finding(NOTE, "Paddle", text, "pip install -r requirements/paddle-gpu.txt")


def _installed(*distributions: str) -> str:
    """Name and version of the first that is installed; empty if none is."""
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return ""


def _gpu() -> Finding:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return Finding(NOTE, "GPU", "none: nvidia-smi is not there or finds none")
    return Finding(OK, "GPU", "; ".join(shown.stdout.strip().splitlines()))


def _cores() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return Finding(OK, "processor", f"{cores} cores, {memory:.0f} GiB of memory")


def _shared_memory(repository: str) -> Finding:
    free = f"{shutil.disk_usage(shared_memory.FOLDER).free // 2**20} MiB free"
    try:
        preflight.check_shared_memory([f"--model-repository={repository}"])
    except Unfit as reason:
        return Finding(MISSING, "/dev/shm", free, str(reason).partition(": ")[2])
    return Finding(OK, "/dev/shm", free)


def _temporary_folder() -> Finding:
    try:
        return Finding(OK, "temporary files", f"in {places.temporary_folder()}")
    except Unfit as reason:
        what, _, fix = str(reason).partition(": ")
        return Finding(MISSING, "temporary files", what, fix)


def _repository(repository: str, server: str) -> Finding:
    named = [f"--model-repository={repository}"]
    try:
        preflight.check_repository(named)
        if server == "fastdeployserver":
            places.check_repositories(named)
    except Unfit as reason:
        fix = "run it from a checkout, or export one: bash env_bash.sh"
        return Finding(MISSING, "models", str(reason), fix)
    served = preflight.served(repository)
    models = names.models(served)
    needed = [stage for stage in names.STAGES if stage not in names.OPTIONAL]
    wanted = [names.Names(model).stage(stage) for model in models for stage in needed]
    lacking = [name for name in wanted if name not in served]
    bare = [name for name in served if _lacks_network(Path(repository, name))]
    if lacking or bare:
        problem = f"no {', '.join(lacking)}" if lacking else f"no network in {', '.join(bare)}"
        text = f"{repository}: {problem}"
        fix = "bash env_bash.sh MODEL, with --name for another than sd_ensemble"
        return Finding(MISSING, "models", text, fix)
    known = {name for model in models for name in names.Names(model).all}
    others = [name for name in served if name not in known]
    return Finding(OK, "models", f"{repository}: {', '.join([*models, *others])}")


def _lacks_network(model: Path) -> bool:
    if '"fastdeploy"' not in (model / "config.pbtxt").read_text():
        return False
    return not any(any(model.glob(f"*/model.{kind}")) for kind in ("onnx", "pdmodel"))


def _ports(host: str) -> list[Finding]:
    found = []
    for subject, name in _PORTS.items():
        port = preflight.PORTS[name]
        rest = [f"--allow-{other}=false" for other in preflight.PORTS if other != name]
        try:
            preflight.check_ports(rest, host)
        except Unfit as reason:
            if name == "http" and _is_triton(host, port):
                text = f"{port}: a Triton listens there already"
                found.append(Finding(NOTE, subject, text))
            else:
                what, _, fix = str(reason).partition(": ")
                found.append(Finding(NOTE, subject, what, fix))
        else:
            found.append(Finding(OK, subject, f"{port} is free"))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", GATEWAY_PORT))
        except OSError:
            text = f"{GATEWAY_PORT} is in use"
            found.append(Finding(NOTE, "port (gateway)", text, "triptych gateway --port N"))
        else:
            found.append(Finding(OK, "port (gateway)", f"{GATEWAY_PORT} is free"))
    return found


def _is_triton(host: str, port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/v2", timeout=3) as reply:
            return b'"triton"' in reply.read(4096)
    except OSError:
        return False


def _package(name: str, extra: str) -> Finding:
    if util.find_spec(name) is None:
        return Finding(NOTE, extra, f"{name} is not installed", f"pip install 'triptych[{extra}]'")
    return Finding(OK, extra, f"{name} {metadata.version(name)}")
