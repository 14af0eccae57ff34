"""What `fastdeployserver` does: find a Triton, start it, and start it again if it died."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from triptych.ipc import shared_memory
from triptych.ipc.activity import VARIABLE, Stages
from triptych.server import Unfit, embedded, flags, installed, places, preflight, restricted
from triptych.server.supervise import Ended, Supervisor

BACKENDS = Path(__file__).resolve().parents[2] / "backends"
EVERYWHERE = "0.0.0.0"
DELAYS = (0, 0, 1, 3, 7, 15, 30)
"""Seconds before a server that died is started again, the next each time that it had no work."""


def run(arguments: list[str]) -> int:
    """Run the first Triton that this machine has until it ends, again if it died; its exit code.

    Raises Unfit if it cannot start here.
    """
    host = flags.value(arguments, "--host")
    restart = flags.boolean(arguments, "--restart", True)
    restrict = flags.boolean(arguments, "--restrict", True)
    for own in ("--host", "--restart", "--restrict"):
        arguments = flags.without(arguments, own)
    preflight.check_repository(arguments)
    fastdeploy = installed.find("fastdeployserver")
    if fastdeploy:
        if host not in (None, EVERYWHERE):
            raise Unfit(
                f"--host={host}: FastDeploy's server listens on every address and has no flag to"
                " change that: leave --host out, and keep others away by a firewall or by the"
                " container's published ports"
            )
        preflight.check_ports_differ(arguments)
        places.check_repositories(arguments)
        os.environ["PYTHONUTF8"] = "1"  # heeded by this Triton's Python, not by later ones'
        os.execv(fastdeploy, [str(fastdeploy), *arguments])
    if not any(BACKENDS.glob("*/model.py")):
        raise Unfit(f"no backends at {BACKENDS}: run from a checkout, or pip install -e it")
    supervisor = Supervisor(_exit_timeout(arguments))
    in_vain = 0
    while True:
        ended, worked = _run_once(supervisor, arguments, host, restrict)
        if not (restart and ended.fault):
            return ended.code
        in_vain = 0 if worked else min(in_vain + 1, len(DELAYS) - 1)
        print("fastdeployserver: starting it again", file=sys.stderr, flush=True)
        if not supervisor.pause(DELAYS[in_vain]):
            return 0


def _run_once(
    supervisor: Supervisor, arguments: list[str], host: str | None, restrict: bool
) -> tuple[Ended, bool]:
    """How a server ended, and whether it had had any work."""
    preflight.check_shared_memory(arguments)
    temporary = places.temporary_folder()
    shared_memory.remove_dead(temporary)
    run = shared_memory.Run(temporary)
    try:
        arguments = places.with_plain_repositories(arguments, run.folder)
        tritonserver = installed.find("tritonserver")
        if tritonserver:
            command, env = _tritonserver(tritonserver, arguments, host, restrict, run)
        else:
            command, env = _embedded(arguments, host, restrict, run)
        installed.check_flags(command, env)
        stages = Stages(run.folder / "activity")
        env[VARIABLE] = str(stages.folder)
        env[shared_memory.PREFIX_VARIABLE] = run.prefix
        return supervisor.run(command, env, run.lock, stages), stages.worked
    finally:
        run.remove()


def _exit_timeout(arguments: list[str]) -> float:
    text = flags.value(arguments, "--exit-timeout-secs", "30")
    if not text.isdecimal():
        raise Unfit(f"--exit-timeout-secs={text}: allowed: a whole number")
    return float(text)


def _tritonserver(
    server: Path, arguments: list[str], host: str | None, restrict: bool, run: shared_memory.Run
) -> tuple[list[str], dict[str, str]]:
    if host:
        arguments = flags.with_defaults(arguments, http_address=host, grpc_address=host)
    if restrict:
        known = [flag for flag in restricted.FLAGS if installed.knows(server, flag)]
        arguments = restricted.with_restrictions(arguments, known)
    preflight.check_ports(arguments, EVERYWHERE)
    target = run.folder / "backends"
    target.mkdir()
    theirs = installed.backends(server)
    for folder in (theirs, BACKENDS):
        for backend in folder.iterdir():
            link = target / backend.name
            if not link.exists():
                link.symlink_to(backend)
    arguments = flags.with_defaults(arguments, backend_directory=str(target))
    if installed.keeps_names_apart(server):
        arguments = _with_names(arguments, run)
    return [str(server), *arguments], dict(os.environ)


def _embedded(
    arguments: list[str], host: str | None, restrict: bool, run: shared_memory.Run
) -> tuple[list[str], dict[str, str]]:
    triton = embedded.folder()
    if triton is None:
        raise Unfit(
            "no Triton: neither fastdeployserver nor tritonserver is on PATH, and nvidia-pytriton"
            f" is not installed: {embedded.INSTALL}"
        )
    embedded.check(triton)
    env = embedded.environment(triton, run.folder)
    address = host or "127.0.0.1"
    if host and host not in ("127.0.0.1", "localhost"):
        print(
            f"fastdeployserver: warning: listening on {host} with Triton {embedded.VERSION}, which"
            f" is open to {embedded.OPEN_HOLES}; for a network use NVIDIA's current image",
            file=sys.stderr,
        )
    arguments = flags.with_defaults(
        arguments, http_address=address, grpc_address=address, metrics_address=address
    )
    if restrict:
        arguments = restricted.with_restrictions(arguments, restricted.FLAGS)
    embedded.deepen_stacks()
    preflight.check_ports(arguments, address)
    arguments = flags.with_defaults(arguments, cache_directory=str(triton / "caches"))
    target = run.folder / "backends"
    embedded.link_backends(triton, BACKENDS, target)
    server = triton / "bin" / "tritonserver"
    arguments = flags.with_defaults(arguments, backend_directory=str(target))
    return [str(server), *_with_names(arguments, run)], env


def _with_names(arguments: list[str], run: shared_memory.Run) -> list[str]:
    """With names for shared memory by which it is known as the run's."""
    return [*arguments, f"--backend-config=python,shm-region-prefix-name={run.prefix}"]
