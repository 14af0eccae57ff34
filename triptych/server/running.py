"""A server started from Python: by the tests, the benchmarks and `make run`."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from triptych.server import Unfit, runs_on, supervise


class RunningServer:
    """A `fastdeployserver` of its own on free ports of loopback; a context manager.

    `http`, `grpc` and `metrics` are "host:port"; `grpc_port` is a free one too where it is 0.
    Its output goes to the file `log`.
    """

    def __init__(
        self,
        repository: Path,
        log: Path,
        *flags: str,
        python: str = sys.executable,
        grpc_port: int = 0,
    ) -> None:
        self.log = log
        self.process: subprocess.Popen | None = None
        http, grpc, metrics = free_ports(3)
        ports = http, grpc_port or grpc, metrics
        self.http, self.grpc, self.metrics = (f"127.0.0.1:{port}" for port in ports)
        ports = zip(("http", "grpc", "metrics"), (self.http, self.grpc, self.metrics))
        self._command = [
            *(python, "-m", "triptych.launcher", f"--model-repository={repository}"),
            *(f"--{name}-port={address.split(':')[1]}" for name, address in ports),
            *flags,
        ]

    def __enter__(self) -> RunningServer:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, and do not wait for it."""
        with self.log.open("wb") as log, supervise.signals_held():
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=supervise.end_with_parent,
            )

    def wait_ready(self, seconds: float = 120) -> None:
        """Return when `is_ready`; Unfit, with the log's end, if that does not come."""
        if not self.comes_ready(seconds):
            self.stop()
            raise Unfit(f"the server was not ready after {seconds:.0f} s: {self._end()}")

    def comes_ready(self, seconds: float) -> bool:
        """Whether it `is_ready` within so many seconds; Unfit, with the log's end, if it ends."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if self.process.poll() is not None:
                raise Unfit(f"the server ended with code {self.process.returncode}: {self._end()}")
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def is_ready(self) -> bool:
        """Whether all models are ready, and the metrics, whose port Triton opens last."""
        urls = f"http://{self.http}/v2/health/ready", f"http://{self.metrics}/metrics"
        try:
            for url in urls:
                with urllib.request.urlopen(url, timeout=5) as reply:
                    if reply.status != 200:
                        return False
        except OSError:
            return False
        return True

    def engines(self) -> str:
        """What the log says of what runs the networks, in one line."""
        lines = self.log.read_text(errors="replace").splitlines()
        return runs_on.summary(filter(None, map(runs_on.find, lines)))

    def stop(self) -> int:
        """End the server in its orderly way; its exit code, 0 if it was never started."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def _end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return f"{self.log}:\n" + "\n".join(lines[-20:])


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
