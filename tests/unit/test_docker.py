"""The images and the compose file, as far as they can be judged without a container engine."""

import argparse
import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from http_fake import serving

from triptych.commands.gateway import add_arguments

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVERS = ("cpu", "tritonserver", "fastdeploy")
IMAGES = [ROOT / "docker" / f"{name}.Dockerfile" for name in SERVERS]
MODELS = ROOT / "docker" / "models.Dockerfile"


def instructions(path):
    """(instruction, rest) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", path.read_text(), flags=re.M))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line]


def values(path, name):
    return [rest for instruction, rest in instructions(path) if instruction == name]


def ignored(name):
    """Whether .dockerignore keeps `name` out of the build: its last rule that fits decides."""
    out = False
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        if rule and not rule.startswith("#") and fnmatch(name, rule.lstrip("!")):
            out = not rule.startswith("!")
    return out


def test_there_is_an_image_for_every_server():
    assert {*(ROOT / "docker").glob("*.Dockerfile")} == {*IMAGES, MODELS}


def test_the_image_of_models_is_what_the_chart_copies_and_nothing_is_kept_out():
    """The folder that is built is the repository's own, so that .dockerignore does not reach it."""
    assert instructions(MODELS)[1:] == [("COPY", "--chown=1000:1000 . /models"), ("USER", "1000")]
    (built,) = re.findall("^# docker build .*", MODELS.read_text(), re.M)
    *_, name, folder = built.split()
    assert (ROOT / folder / "sd_ensemble").is_dir() and not (
        ROOT / folder / ".dockerignore"
    ).exists()
    chart = ROOT / "deploy" / "helm" / "triptych"
    values = yaml.safe_load((chart / "values-one-gpu.yaml").read_text())
    assert values["models"]["image"] == f"{name}:latest"
    assert "cp -R /models/. /copy/" in (chart / "templates" / "server.yaml").read_text()


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_an_image_copies_what_is_there_and_no_weights(image):
    for copied in values(image, "COPY"):
        *sources, _ = copied.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not ignored(source.split("/")[0]), source
            assert not source.startswith(("model_repository", "."))


@pytest.mark.parametrize("name", ["model_repository", ".venv", ".git", "checkpoints", "demo"])
def test_weights_and_environments_stay_out_of_the_build(name):
    assert ignored(name)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_an_image_runs_without_root_and_serves_the_mounted_models(image):
    order = [instruction for instruction, _ in instructions(image)]
    assert values(image, "USER") == ["1000"]
    assert "RUN" not in order[order.index("USER") :]
    command, *flags = json.loads(values(image, "ENTRYPOINT")[0])
    assert command == "fastdeployserver"
    assert "--model-repository=/models" in flags


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("status", [200, 400])
def test_the_health_check_tells_a_ready_server(image, status):
    """The command itself, at another port, against Triton's two answers."""
    with serving({"/v2/health/ready": status}) as address:
        _, _, command = values(image, "HEALTHCHECK")[0].partition("CMD ")
        _, *arguments = json.loads(command)
        port = address.rpartition(":")[2]
        arguments = [a.replace(":8000/", f":{port}/") for a in arguments]
        done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    assert (done.returncode == 0) == (status == 200)


def test_the_cpu_image_installs_what_make_setup_installs():
    installs = [
        re.sub(r" --(no-cache-dir|quiet|disable-pip-version-check)\b", "", command).strip()
        for text in (
            " && ".join(values(ROOT / "docker" / "cpu.Dockerfile", "RUN")),
            (ROOT / "scripts" / "setup.sh")
            .read_text()
            .replace('"$venv/bin/python"', "python")
            .replace('"$lock"', "requirements/lock.txt")
            .replace(" |\n    scripts/pip_progress.sh", " && scripts/pip_progress.sh")
            .replace("\n", " && "),
        )
        for command in re.findall(r"pip (install .*?)(?: &&|$)", text)
    ]
    assert len(installs) == 4
    assert installs[:2] == installs[2:]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_of_the_compose_file_has_memory_models_and_a_name(name):
    server = COMPOSE["services"][name]
    assert server["shm_size"] == "1gb"
    assert server["volumes"] == ["${MODELS:-../model_repository}:/models"]
    assert (ROOT / "docker" / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert "ports" not in server, "several servers have one machine's ports"
    assert server["networks"]["default"]["aliases"] == ["servers"]
    assert ("resources" in server["deploy"]) == (name != "cpu")


def test_what_ends_waits_for_the_longest_picture():
    services = COMPOSE["services"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    longest = parser.get_default("timeout")
    for name in (*SERVERS, "gateway"):
        words = services[name].get("command", services[name].get("entrypoint"))
        (waits,) = [word.split("=")[1] for word in words if "--exit-timeout-secs" in word]
        grace = services[name]["stop_grace_period"]
        assert longest <= int(waits) < int(grace.removesuffix("s")), name


def test_two_servers_stand_behind_envoy_and_the_gateway_before_it():
    services = COMPOSE["services"]
    assert services["cpu"]["deploy"]["replicas"] == "${REPLICAS:-2}"
    for name in ("envoy", "gateway", "prometheus", "grafana"):
        assert set(services[name]["profiles"]) == set(SERVERS)
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    (mount,) = services["envoy"]["volumes"]
    files = ROOT / "docker" / mount.split(":")[0]
    (before_its_end,) = services["envoy"]["pre_stop"]
    for command in (services["envoy"]["command"], before_its_end["command"]):
        (file,) = [word for word in command if word.startswith("/etc/envoy/")]
        assert (files / file.removeprefix("/etc/envoy/")).is_file()
    config = yaml.safe_load((files / "envoy.yaml").read_text())
    listening = [
        each["address"]["socket_address"] for each in config["static_resources"]["listeners"]
    ]
    assert [each["port_value"] for each in listening] == [8001, 8002]
    servers = config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"]
    (endpoint,) = servers[0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": "servers", "port_value": 8001}
    assert endpoint["endpoint"]["health_check_config"] == {"port_value": 8000}
    assert "--url=envoy:8001" in services["gateway"]["entrypoint"]


def test_prometheus_and_grafana_find_what_they_need():
    mounts = [
        volume.split(":")[0]
        for service in ("prometheus", "grafana")
        for volume in COMPOSE["services"][service]["volumes"]
    ]
    for mount in mounts:
        assert mount in COMPOSE["volumes"] or (ROOT / "docker" / mount).is_file(), mount
    scrape = yaml.safe_load((ROOT / "docker" / "prometheus.yaml").read_text())
    (servers,) = scrape["scrape_configs"][0]["dns_sd_configs"]
    assert (servers["names"], servers["port"]) == (["servers"], 8002)
    others = [each["static_configs"][0]["targets"] for each in scrape["scrape_configs"][1:]]
    assert others == [["envoy:8002"], ["gateway:8002"]]
    assert "--metrics-port=8002" in COMPOSE["services"]["gateway"]["entrypoint"]
    source = yaml.safe_load((ROOT / "docker" / "grafana" / "datasource.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    board = yaml.safe_load((ROOT / "docker" / "grafana" / "dashboards.yaml").read_text())
    folder = board["providers"][0]["options"]["path"]
    assert any(f":{folder}/" in mount for mount in COMPOSE["services"]["grafana"]["volumes"])
    for service in ("prometheus", "grafana"):
        assert "healthcheck" in COMPOSE["services"][service]
