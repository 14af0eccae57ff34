"""What the chart's values may be and do, and that the wrong ones are refused."""

from __future__ import annotations

import argparse
import json
import subprocess

import pytest
import yaml

from tests.fleet.chart import CHART, VALUES, flags, made, notes, pod, render
from triptych.commands.gateway import add_arguments

PARTS = ("server", "envoy", "gateway")
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def keys(values, path=""):
    """The paths of all values, those of maps without keys too."""
    for name, value in values.items():
        yield f"{path}/{name}"
        if isinstance(value, dict) and name != "resources":
            yield from keys(value, f"{path}/{name}")


def known(schema, path=""):
    """The paths of all values that a schema knows."""
    for name, value in schema.get("properties", {}).items():
        yield f"{path}/{name}"
        yield from known(value, f"{path}/{name}")


def check_refused(values, says):
    """Values are refused, with these words, also where the models have a place."""
    values = yaml.safe_load(values)
    values.setdefault("models", {}).setdefault("volume", "a")
    done = render(yaml.safe_dump(values))
    assert done.returncode != 0 and says in done.stderr, done.stderr


def test_the_schema_has_every_value_and_no_other():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {*known(SCHEMA)} - {"/global"} == {*keys(values)}


def test_the_schema_lets_no_other_name_pass():
    """Else a slip of the pen is a value that is ignored."""

    def closed(schema):
        return schema.get("additionalProperties") is False and all(
            closed(each) for each in schema["properties"].values() if "properties" in each
        )

    assert closed(SCHEMA) and closed(SCHEMA["definitions"]["resources"])


def test_the_chart_may_be_part_of_another():
    assert made("{ global: { image: a }, models: { volume: a } }")


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_the_values_that_come_with_the_chart_are_taken(path):
    assert made(path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("servr: {}", "'servr' not allowed"),
        ("gateway: { replica: 5 }", "'replica' not allowed"),
        ("gateway: { resources: { request: {} } }", "'request' not allowed"),
        ("server: { replicas: 0 }", "/server/replicas': minimum: got 0, want 1"),
        ("server: { replicas: '2' }", "/server/replicas': got string, want integer"),
        ("server: { gpus: -1 }", "/server/gpus': minimum"),
        ("server: { startSeconds: 3 }", "/server/startSeconds': minimum: got 3, want 5"),
        ("server: { preStopSeconds: 0 }", "/server/preStopSeconds': minimum"),
        ("server: { sharedMemory: 1 GB }", "/server/sharedMemory': '1 GB' does not match"),
        ("server: { image: '' }", "/server/image': minLength"),
        ("server: { nodeSelector: { gpu: true } }", "/nodeSelector/gpu': got boolean, want string"),
        ("envoy: { env: [{ value: a }] }", "/envoy/env/0': missing property 'name'"),
        ("models: { objectStorage: { path: bucket } }", "/objectStorage/path': 'bucket' does not"),
        ("gateway: { timeout: 0 }", "/gateway/timeout': minimum: got 0, want 1"),
        ("gateway: { timeout: 2.5 }", "/gateway/timeout': got number, want integer"),
        ("gateway: { maxPictures: 1001 }", "/gateway/maxPictures': maximum"),
        ("gateway: { trustedProxies: '*' }", "/gateway/trustedProxies': '*' does not match"),
        ("gateway: { publicUrl: pictures.example }", "/gateway/publicUrl': 'pictures.example' do"),
        ("gateway: { extraFlags: [log-prompts] }", "/gateway/extraFlags/0': 'log-prompts' does n"),
        ("gateway: { picturesUrl: bucket }", "/gateway/picturesUrl': 'bucket' does not match"),
        ("gateway: { webhookHosts: [a] }", "/gateway/webhookSecret': minLength: got 0"),
        ("gateway: { service: { type: ExternalName } }", "/gateway/service/type': value must be"),
        (
            "gateway: { service: { externalTrafficPolicy: Local } }",
            "/gateway/service/externalTrafficPolicy': value must be ''",
        ),
        ("ingress: { enabled: true }", "/ingress/host': minLength: got 0"),
        ("autoscaling: { min: 0 }", "/autoscaling/min': minimum: got 0, want 1"),
        ("autoscaling: { prometheus: prometheus:9090 }", "/autoscaling/prometheus': 'prometheus"),
        ("tracing: { endpoint: collector }", "/tracing/endpoint': 'collector' does not match"),
        ("networkPolicy: { clients: [a] }", "/networkPolicy/clients/0': got string, want object"),
    ],
)
def test_the_schema_refuses_what_would_not_work(values, says):
    check_refused(values, says)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("models: { volume: '' }", "models: give one of"),
        ("models: { volume: a, image: b }", "models: give one of"),
        (
            "gateway: { picturesVolume: b, picturesUrl: 's3://c/d' }",
            "gateway: give picturesVolume or picturesUrl",
        ),
        (
            "gateway: { replicas: 2 }",
            "gateway: several replicas need picturesVolume or picturesUrl",
        ),
        (
            "gateway: { apiKeySecret: b, keysSecret: c }",
            "gateway: give apiKeySecret or keysSecret",
        ),
        ("gateway: { service: { type: LoadBalancer } }", "give apiKeySecret or keysSecret"),
        (
            "ingress: { enabled: true, host: pictures.example }",
            "give gateway.apiKeySecret or gateway.keysSecret",
        ),
        ("autoscaling: { enabled: true, min: 5 }", "at least autoscaling.min"),
        ("autoscaling: { enabled: true }", "autoscaling: needs monitoring.enabled"),
        ("monitoring: { alarms: true }", "monitoring.alarms: needs monitoring.enabled"),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_the_reason(values, says):
    check_refused(values, says)


def test_each_part_takes_what_a_pod_is_placed_and_pulled_by():
    own = {
        "env": [{"name": "A", "value": "b"}],
        "podAnnotations": {"a.b/c": "d"},
        "priorityClassName": "high",
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
    }
    values = {"models": {"volume": "a"}, "imagePullSecrets": [{"name": "registry"}]}
    values.update(dict.fromkeys(PARTS, own))
    values["server"] = {**own, "runtimeClassName": "nvidia"}
    found = made(yaml.safe_dump(values))
    for part in PARTS:
        template = found["Deployment", f"pictures-{part}"]["spec"]["template"]
        spec = template["spec"]
        assert template["metadata"]["annotations"].items() >= own["podAnnotations"].items()
        assert own["env"] == spec["containers"][0]["env"]
        assert spec["imagePullSecrets"] == values["imagePullSecrets"]
        for field in ("priorityClassName", "nodeSelector", "tolerations", "affinity"):
            assert spec[field] == own[field], (part, field)
    assert pod(found, "server")["runtimeClassName"] == "nvidia"
    envoy = found["Deployment", "pictures-envoy"]["spec"]["template"]["metadata"]["annotations"]
    assert "checksum/config" in envoy


@pytest.mark.parametrize(("models", "asked"), [("image: a, size: 7Gi", "7Gi"), ("volume: a", None)])
def test_a_server_asks_for_the_disk_that_its_copy_of_the_models_takes(models, asked):
    found = made(f"{{ models: {{ {models} }}, server: {{ gpus: 2 }} }}")
    (container,) = pod(found, "server")["containers"]
    assert container["resources"]["requests"].get("ephemeral-storage") == asked
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2


def test_a_request_of_ones_own_for_the_disk_stays():
    own = "{ requests: { ephemeral-storage: 30Gi }, limits: {} }"
    found = made(f"{{ models: {{ image: a }}, server: {{ resources: {own} }} }}")
    (container,) = pod(found, "server")["containers"]
    assert container["resources"]["requests"]["ephemeral-storage"] == "30Gi"


def test_the_gateway_serves_https_and_is_asked_by_it():
    found = made("{ models: { volume: a }, gateway: { tlsSecret: certificate } }")
    spec = pod(found, "gateway")
    (container,) = spec["containers"]
    (_, mount), (_, volume) = container["volumeMounts"], spec["volumes"]
    assert volume == {"name": mount["name"], "secret": {"secretName": "certificate"}}
    given = flags(container)
    assert given["--tls-cert"] == f"{mount['mountPath']}/tls.crt"
    assert given["--tls-key"] == f"{mount['mountPath']}/tls.key"
    asked = [probe for name, probe in container.items() if name.endswith("Probe")]
    schemes = [probe["httpGet"]["scheme"] for probe in asked if "httpGet" in probe]
    assert schemes == ["HTTPS"]
    (port,) = found["Service", "pictures-gateway"]["spec"]["ports"]
    assert port["appProtocol"] == "https"


def test_the_gateway_stands_behind_a_load_balancer_and_an_ingress():
    found = made("""
models: { volume: a }
gateway:
  apiKeySecret: key
  publicUrl: https://pictures.example
  service: { type: LoadBalancer, port: 443, annotations: { a: b }, externalTrafficPolicy: Local }
ingress:
  enabled: true
  className: nginx
  host: pictures.example
  tlsSecret: certificate
  annotations: { c: d }
""")
    service = found["Service", "pictures-gateway"]
    assert service["metadata"]["annotations"] == {"a": "b"}
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert flags(pod(found, "gateway")["containers"][0])["--public-url"] == (
        "https://pictures.example"
    )
    ingress = found["Ingress", "pictures-gateway"]
    assert ingress["metadata"]["annotations"] == {"c": "d"}
    assert ingress["spec"]["ingressClassName"] == "nginx"
    tls = {"hosts": ["pictures.example"], "secretName": "certificate"}
    assert ingress["spec"]["tls"] == [tls]
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == "pictures.example"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]


def test_the_gateway_takes_flags_of_ones_own_and_has_all_that_the_chart_gives():
    """Each as the command itself reads them."""
    found = made("""
models: { volume: a }
gateway:
  keysSecret: keys
  tlsSecret: certificate
  picturesVolume: pictures
  publicUrl: https://pictures.example/art
  webhookHosts: [hooks.example]
  webhookSecret: sign
  extraFlags: [--model-alias=dall-e-3, "--cors-origin=https://app.example", --log-prompts]
""")
    (container,) = pod(found, "gateway")["containers"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(container["command"][2:])
    assert options.model_alias == [("dall-e-3", None)]
    assert options.cors_origin == ["https://app.example"]
    assert options.public_url == "https://pictures.example/art/"
    assert options.log_prompts and options.webhook_host == ["hooks.example"]


def test_others_may_ask_envoy_and_the_gateway_may_be_closed_to_all_but_some():
    shop = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    nginx = {"podSelector": {"matchLabels": {"app": "nginx"}}, "namespaceSelector": {}}
    peers = {"clients": [shop], "callers": [nginx]}
    found = made(yaml.safe_dump({"models": {"volume": "a"}, "networkPolicy": peers}))
    envoy, _ = found["NetworkPolicy", "pictures-envoy"]["spec"]["ingress"]
    gateway, *others = envoy["from"]
    assert list(gateway) == ["podSelector"] and others == [shop]
    server, _ = found["NetworkPolicy", "pictures-server"]["spec"]["ingress"]
    assert len(server["from"]) == 1
    callers, _ = found["NetworkPolicy", "pictures-gateway"]["spec"]["ingress"]
    assert callers == {"from": [nginx], "ports": [{"port": 7860}]}
    open_to_all = made("models: { volume: a }")["NetworkPolicy", "pictures-gateway"]["spec"]
    assert "from" not in open_to_all["ingress"][0]


@pytest.mark.parametrize(
    ("gateway", "says", "not_says"),
    [
        ("{}", ["http://localhost:7860/", "create secret generic triptych-key"], ["Bearer"]),
        (
            "{ apiKeySecret: key, tlsSecret: certificate, service: { port: 443 } }",
            ["7860:443", "get secret key -o", "Bearer $KEY", "curl --insecure https://"],
            ["No key"],
        ),
        ("{ keysSecret: callers }", ["the Secret callers", "Bearer $KEY"], ["No key"]),
    ],
)
def test_the_notes_lead_to_a_first_picture(gateway, says, not_says):
    text = notes(f"{{ models: {{ volume: a }}, gateway: {gateway} }}")
    for each in ("rollout status deployment/pictures-server", "-n drawing port-forward", *says):
        assert each in text, text
    assert not any(each in text for each in not_says)
    commands = [line for line in text.splitlines() if line.startswith("  ")]
    done = subprocess.run(["bash", "-n"], input="\n".join(commands), text=True, check=False)
    assert done.returncode == 0
