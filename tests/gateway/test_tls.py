"""The gateway over https, and what it says of files that are no certificate and key."""

import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.gateway.running import wait_for

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
PAIR = FIXTURES / "localhost.pem"  # for tests alone: a certificate of localhost, and its key
RENEWED = FIXTURES / "localhost_renewed.pem"
COMMAND = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0"]


def test_it_serves_https_and_nothing_else(triton):
    options = ["--url", triton.url, "--tls-cert", str(PAIR), "--tls-key", str(PAIR)]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as command:
        try:
            url = command.stdout.readline().split()[-1]
            assert url.startswith("https://127.0.0.1:")
            trusted = ssl.create_default_context(cafile=str(PAIR))
            assert httpx.get(f"{url}healthz", verify=trusted).json() == {"status": "ok"}
            with pytest.raises(httpx.ConnectError, match="self-signed certificate"):
                httpx.get(f"{url}healthz")
            with pytest.raises(httpx.HTTPError):
                httpx.get(url.replace("https", "http"))
        finally:
            command.send_signal(signal.SIGTERM)
    assert command.returncode == 0


def test_a_renewed_certificate_is_taken_while_it_serves(triton, tmp_path):
    pair = tmp_path / "tls.pem"
    shutil.copy(PAIR, pair)
    options = ["--url", triton.url, "--tls-cert", str(pair), "--tls-key", str(pair)]
    errors = tmp_path / "errors"
    with errors.open("w") as log, subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=log, text=True
    ) as command:
        try:
            url = command.stdout.readline().split()[-1]
            assert answers(url, PAIR)
            replace(pair, b"neither")
            wait_for(lambda: "the certificate stays as it was" in errors.read_text())
            assert answers(url, PAIR)
            replace(pair, RENEWED.read_bytes())
            wait_for(lambda: answers(url, RENEWED))
            assert not answers(url, PAIR)
        finally:
            command.send_signal(signal.SIGTERM)
    assert errors.read_text().count("the certificate stays as it was") == 1


def replace(file, content):
    """As whoever renews a certificate does: nobody reads half of it."""
    new = file.with_name("new")
    new.write_bytes(content)
    new.replace(file)


def answers(url, trusted):
    """Whether the certificate that it serves is the one in that file."""
    try:
        verify = ssl.create_default_context(cafile=str(trusted))
        return httpx.get(f"{url}healthz", verify=verify).status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        (PAIR, None, "--tls-cert and --tls-key go together"),
        (None, PAIR, "--tls-cert and --tls-key go together"),
        (PAIR, FIXTURES / "none", "No such file"),
        (Path(__file__), PAIR, "--tls-cert"),
        (PAIR, FIXTURES / "localhost_passphrase.pem", "has a passphrase"),
    ],
)
def test_files_that_do_not_do_are_one_line(cert, key, said):
    named = {"--tls-cert": cert, "--tls-key": key}
    options = [text for flag, file in named.items() if file for text in (flag, str(file))]
    run = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and said in run.stderr
    assert len(run.stderr.splitlines()) == 1
