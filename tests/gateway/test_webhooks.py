"""Webhooks: the end of a job is told to an address of the caller's, at allowed hosts only."""

import base64
import json
import signal
import ssl
import subprocess
import sys
import time

import pytest
from standardwebhooks import Webhook

from tests.gateway.receiver import Receiver
from tests.gateway.running import Gateway, wait_for
from tests.gateway.test_background import Jobs
from tests.gateway.test_keys import metrics, write
from tests.gateway.test_tls import PAIR
from triptych.gateway import background, webhooks
from triptych.gateway.keys import Keys
from triptych.gateway.webhooks import Webhooks

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def jobs(start, receiver, monkeypatch):
    monkeypatch.setattr(webhooks, "PAUSES", (0, 0.05, 0.05))
    return Jobs(start(webhooks=Webhooks([receiver.host], SECRET)).url)


def ids(lines):
    """The lines of webhooks, without what differs from run to run."""
    told = [line for line in lines if "webhook" in line]
    return [{k: v for k, v in line.items() if k not in ("time", "ms")} for line in told]


def test_the_end_of_a_job_is_told_and_signed(jobs, triton, receiver, lines):
    triton.hold.clear()
    id = jobs.begin(prompt="a Füchslein", webhook=f"http://{receiver.host}/a/secret?b=c")
    assert receiver.came == []
    triton.hold.set()
    wait_for(lambda: receiver.came)
    ((path, headers, body),) = receiver.came
    job = jobs.get(id)
    assert job.pop("result")["data"][0]["b64_json"]
    assert json.loads(body) == job and job["state"] == "done"
    assert (path, headers["content-type"]) == ("/a/secret?b=c", "application/json")
    assert headers["webhook-id"] == id
    Webhook(SECRET).verify(body, headers)
    wait_for(lambda: ids(lines(0)))
    begun = next(line for line in lines(0) if line.get("method") == "POST")
    assert ids(lines(0)) == [
        {
            "webhook": receiver.host,
            "sent": True,
            "status": 204,
            "tries": 1,
            "request_id": begun["request_id"],
        }
    ]


def test_failures_and_cancels_are_told_too(jobs, triton, receiver):
    import grpc

    url = f"http://{receiver.host}/"
    triton.abort = (grpc.StatusCode.INTERNAL, "unet: out of memory")
    failed = jobs.begin(webhook=url)
    wait_for(lambda: len(receiver.came) == 1)
    triton.abort = None
    triton.hold.clear()
    cancelled = jobs.begin(webhook=url)
    for _ in range(2):
        jobs.web.delete(f"/v1/images/generations/{cancelled}")
    wait_for(lambda: len(receiver.came) == 2)
    triton.hold.set()
    jobs.wait(jobs.begin(), "done")
    first, second = (json.loads(body) for _, _, body in receiver.came)
    assert first == jobs.get(failed) and first["state"] == "failed"
    assert "out of memory" in first["error"]["message"]
    assert second == jobs.get(cancelled) and second["state"] == "cancelled"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:PORT/",
        "http://127.0.0.1/",
        "http://127.0.0.1:1/",
        "http://127.1:PORT/",
        "http://127.0.0.1.:PORT/",
        "http://ada@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT@localhost/",
        "http://localhost\\@127.0.0.1:PORT/",
        "http://localhost#@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT\n/",
        "http://127.0.0.1:PORT0/",
        "//127.0.0.1:PORT/",
        "ftp://127.0.0.1:PORT/",
        "127.0.0.1:PORT",
        "http://",
        "",
    ],
)
def test_another_address_is_refused(jobs, triton, receiver, url):
    answer = jobs.post(webhook=url.replace("PORT", receiver.host.partition(":")[2]))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "webhook")
    allowed = f"allowed: http or https, without a user, at {receiver.host}; others by"
    assert error["message"].startswith("webhook: got ") and allowed in error["message"]
    assert triton.requests == receiver.came == []


def test_there_are_none_by_default_and_none_without_a_job(jobs, gateway, receiver):
    url = f"http://{receiver.host}/"
    refused = Jobs(gateway.url).post(webhook=url)
    assert refused.status_code == 400
    said = f"webhook: got '{url}'; allowed: none; others by --webhook-host"
    assert refused.json()["error"]["message"] == said
    for other in (False, "auto", None):
        refused = jobs.post(webhook=url, background=other).json()["error"]
        assert refused["message"].endswith("allowed: none without background true")


def test_one_that_is_not_taken_is_sent_again(jobs, receiver, lines):
    receiver.answers = [500, 404]
    id = jobs.begin(webhook=f"http://{receiver.host}/")
    wait_for(lambda: ids(lines(0)))
    assert len(receiver.came) == 3
    for _, headers, body in receiver.came:
        assert headers["webhook-id"] == id
        Webhook(SECRET).verify(body, headers)
    (line,) = ids(lines(0))
    assert (line["sent"], line["status"], line["tries"]) == (True, 204, 3)


def test_it_is_given_up_after_three_tries(jobs, receiver, lines):
    receiver.answers = [500] * 5
    jobs.begin(webhook=f"http://{receiver.host}/")
    wait_for(lambda: ids(lines(0)))
    (line,) = ids(lines(0))
    assert (line["sent"], line["status"], line["tries"]) == (False, 500, 3)
    assert len(receiver.came) == 3


def test_a_redirection_is_not_followed(jobs, receiver, lines):
    with Receiver() as other:
        receiver.answers = [f"http://{other.host}/", f"http://{receiver.host}/elsewhere", 301]
        jobs.begin(webhook=f"http://{receiver.host}/")
        wait_for(lambda: ids(lines(0)))
        assert [path for path, _, _ in receiver.came] == ["/"] * 3
        assert other.came == []
    assert ids(lines(0))[0]["sent"] is False


def test_a_receiver_that_is_away_or_silent_holds_nothing_up(
    jobs, receiver, start, lines, monkeypatch
):
    monkeypatch.setattr(background, "MOST_OF_A_KEY", 2)
    receiver.hold.clear()
    for _ in range(2):
        jobs.wait(jobs.begin(webhook=f"http://{receiver.host}/"), "done")
    assert jobs.post().status_code == 429  # two that are not told of yet
    receiver.hold.set()
    wait_for(lambda: len(ids(lines(0))) == 2)
    jobs.wait(jobs.begin(), "done")

    monkeypatch.setattr(webhooks, "SECONDS", 0.3)
    receiver.hold.clear()
    jobs.begin(webhook=f"http://{receiver.host}/")
    wait_for(lambda: len(ids(lines(0))) == 3)
    silent = ids(lines(0))[2]
    assert (silent["error"], silent["tries"]) == ("no answer in 0.3 s", 3)

    with Receiver() as away:
        pass
    other = Jobs(start(webhooks=Webhooks([away.host], SECRET)).url)
    other.begin(webhook=f"http://{away.host}/")
    wait_for(lambda: len(ids(lines(0))) == 4)
    assert ids(lines(0))[3]["error"].startswith("ConnectError: ")


def test_a_gateway_that_closes_tells_of_its_jobs_and_waits_for_nobody(
    triton, receiver, lines, monkeypatch
):
    monkeypatch.setattr(background, "CLOSING", 2)
    triton.hold.clear()
    with Receiver() as silent:
        silent.hold.clear()
        with Gateway(
            triton.url, webhooks=Webhooks([receiver.host, silent.host], SECRET)
        ) as gateway:
            jobs = Jobs(gateway.url)
            for host in (receiver.host, silent.host):
                jobs.begin(webhook=f"http://{host}/")
            jobs.web.close()
            wait_for(lambda: triton.requests)
            begun = time.monotonic()
        assert time.monotonic() - begun < 10
    assert json.loads(receiver.came[0][2])["state"] == "cancelled"
    said = {line["webhook"]: line["sent"] for line in ids(lines(0))}
    assert said == {receiver.host: True, silent.host: False}


def test_https_with_a_certificate_that_is_trusted(start, triton, lines, monkeypatch):
    monkeypatch.setattr(webhooks, "PAUSES", (0,))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(PAIR)
    with Receiver(tls) as receiver:
        for number, trusted in enumerate((False, True), 1):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(PAIR))
            jobs = Jobs(start(webhooks=Webhooks([receiver.host], SECRET)).url)
            jobs.begin(webhook=f"https://{receiver.host}/")
            wait_for(lambda number=number: len(ids(lines(0))) == number)
            assert len(receiver.came) == int(trusted)
    assert "self-signed certificate" in ids(lines(0))[0]["error"]


def test_they_are_counted(start, receiver, tmp_path, monkeypatch):
    monkeypatch.setattr(webhooks, "PAUSES", (0,))
    receiver.answers = [500]
    keys = Keys(write(tmp_path / "keys.json", {"name": "ada"}))
    url = start(keys=keys, webhooks=Webhooks([receiver.host], SECRET)).url
    for _ in range(3):
        Jobs(url, "ada's").begin(webhook=f"http://{receiver.host}/")
    counter = 'triptych_gateway_webhooks_total{outcome="%s"}'
    wait_for(lambda: metrics(url)[counter % "sent"] == 2)
    assert metrics(url)[counter % "given_up"] == 1


def test_the_command_takes_hosts_and_a_secret(triton, receiver, tmp_path):
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0", "--url", triton.url]
    command += ["--webhook-host", receiver.host]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "secret must be whsec_" in run.stderr
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    command += ["--webhook-secret-file", str(secret)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as gateway:
        try:
            jobs = Jobs(gateway.stdout.readline().split()[-1])
            jobs.begin(webhook=f"http://{receiver.host}/")
            wait_for(lambda: receiver.came)
        finally:
            gateway.send_signal(signal.SIGTERM)
    _, headers, body = receiver.came[0]
    Webhook(SECRET).verify(body, headers)
