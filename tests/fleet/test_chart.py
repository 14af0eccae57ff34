"""The Helm chart without a cluster: rendered by Helm's engine, valid, true to what it is for."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from tests.dashboard import RELEASE
from tests.fleet.chart import CHART, VALUES, flags, made, pod
from tests.fleet.envoy import CONFIG, DRAIN, ENVOY, ROOT
from tests.fleet.replicas import PINGED
from tests.fleet.stand_ins import AS_SHIPPED
from triptych.gateway import access_log, metrics, web_files

TMP = {"name": "tmp", "emptyDir": {}}
"""The volume that every gateway has."""


@pytest.fixture(scope="module", params=VALUES, ids=lambda path: path.stem)
def found(request):
    return made(request.param)


def test_every_object_is_valid_and_services_find_their_pods(found):
    """Validity is `rendered.py`'s, which has raised for anything else."""
    for (kind, name), one in found.items():
        if kind in ("Service", "PodDisruptionBudget"):
            selector = one["spec"]["selector"]
            labels = found["Deployment", name]["spec"]["template"]["metadata"]["labels"]
            assert selector.get("matchLabels", selector) == labels


def test_ports_have_the_names_that_others_call_them_by(found):
    for (kind, name), one in found.items():
        if kind == "Service":
            (container,) = pod(found, name.removeprefix("pictures-"))["containers"]
            ports = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports


def test_a_gateway_takes_what_all_servers_stream_and_keda_can_ask_for_them_all(found):
    most = int(flags(pod(found, "gateway")["containers"][0])["--max-pictures"])
    scaled = found.get(("ScaledObject", "pictures-server"))
    servers = found["Deployment", "pictures-server"]["spec"].get("replicas")
    if scaled:
        servers = scaled["spec"]["maxReplicaCount"]
        each = int(scaled["spec"]["triggers"][0]["metadata"]["threshold"])
        assert most > each * (servers - 1)
    assert most == AS_SHIPPED[1] * servers


def test_a_number_of_pictures_may_be_given():
    found = made("{ models: { volume: a }, gateway: { maxPictures: 7 } }")
    (container,) = pod(found, "gateway")["containers"]
    assert flags(container)["--max-pictures"] == "7"


def test_a_server_has_shared_memory_and_time_to_finish(found):
    server = pod(found, "server")
    (container,) = server["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in server["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert "--restart=false" in container["command"]
    waits = int(flags(container)["--exit-timeout-secs"])
    assert waits >= int(flags(pod(found, "gateway")["containers"][0])["--timeout"])
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert server["terminationGracePeriodSeconds"] > sleeps + waits


def test_a_rollout_is_not_given_up_before_a_server_can_be_replaced(found):
    """Where its place is free only when the old one has ended. Kubernetes would give it 600 s."""
    spec = pod(found, "server")
    probe = spec["containers"][0]["startupProbe"]
    start = probe["periodSeconds"] * probe["failureThreshold"]
    given = found["Deployment", "pictures-server"]["spec"]["progressDeadlineSeconds"]
    assert given >= spec["terminationGracePeriodSeconds"] + start + 600


def test_a_gateway_that_ends_waits_for_the_longest_picture(found):
    spec = pod(found, "gateway")
    given = flags(spec["containers"][0])
    waits = int(given["--exit-timeout-secs"])
    assert waits >= int(given["--timeout"])
    sleeps = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > sleeps + waits


def test_a_gateway_is_asked_whether_it_lives_by_what_it_does_not_log(found):
    (container,) = pod(found, "gateway")["containers"]
    asked = container["livenessProbe"]["httpGet"]
    assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
    path = asked["path"]
    assert path.startswith(access_log._FILES)
    assert web_files.page_file(path.removeprefix(access_log._FILES)).status_code == 200


def test_an_envoy_that_ends_drains_and_waits_for_the_longest_picture(found):
    spec = pod(found, "envoy")
    (container,) = spec["containers"]
    shell, script, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    files = found["ConfigMap", "pictures-envoy"]["data"]
    assert (shell, files[script.removeprefix("/etc/envoy/")]) == ("bash", DRAIN.read_text())
    gateway = pod(found, "gateway")["containers"][0]["command"]
    assert f"--timeout={seconds}" in gateway
    assert spec["terminationGracePeriodSeconds"] > int(seconds)


def test_envoy_may_ask_servers_whether_they_are_ready(found):
    port = found["NetworkPolicy", "pictures-server"]["spec"]["ingress"][0]["ports"]
    (container,) = pod(found, "server")["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert port == [{"port": ports["grpc"]}, {"port": ports["http"]}]


def test_every_container_has_probes_resources_and_no_privileges(found):
    for name in ("server", "envoy", "gateway"):
        spec = pod(found, name)
        assert spec["securityContext"]["runAsNonRoot"]
        (container,) = spec["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert "memory" in container["resources"]["limits"]
        hangs = container["livenessProbe"]["terminationGracePeriodSeconds"]
        assert hangs <= 30 < spec["terminationGracePeriodSeconds"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_containers_write_only_what_is_mounted(found):
    for name, written in (
        ("server", {"/tmp", "/dev/shm"}),
        ("envoy", set()),
        ("gateway", {"/tmp"}),
    ):
        spec = pod(found, name)
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"]
        mounts = spec["containers"][0]["volumeMounts"]
        writable = {each["mountPath"] for each in mounts if not each.get("readOnly")}
        assert writable - {"/pictures"} == written


def test_envoy_asks_the_servers_by_their_headless_service(found, tmp_path):
    service = found["Service", "pictures-server"]["spec"]
    assert service["clusterIP"] == "None"
    text = found["ConfigMap", "pictures-envoy"]["data"]["envoy.yaml"]
    assert "pictures-server.drawing.svc" in text
    assert yaml.safe_load(text) != yaml.safe_load(CONFIG.read_text())
    (tmp_path / "envoy.yaml").write_text(text)
    assert valid(tmp_path / "envoy.yaml")


def test_gpus_are_asked_for_where_the_values_say_so():
    for path in VALUES:
        limits = pod(made(path), "server")["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == ("gpu" in path.stem)


def test_many_are_scaled_by_images_in_flight_and_never_to_none():
    found = made(CHART / "values-many-gpus.yaml")
    spec = found["ScaledObject", "pictures-server"]["spec"]
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert "triptych_images_in_flight" in trigger["metadata"]["query"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert spec["scaleTargetRef"]["name"] == "pictures-server"
    assert "replicas" not in found["Deployment", "pictures-server"]["spec"]
    board = json.loads(found["ConfigMap", "pictures-dashboard"]["data"]["triptych.json"])
    assert board["panels"]


def test_without_prometheus_there_stay_as_many_as_there_are():
    for least in (1, 3):
        found = made(
            f"{{ models: {{ volume: a }}, autoscaling: {{ enabled: true, min: {least}, max: 9 }}, "
            "monitoring: { enabled: true } }"
        )
        fallback = found["ScaledObject", "pictures-server"]["spec"]["fallback"]
        assert fallback["behavior"] == "currentReplicasIfHigher"
        assert fallback["replicas"] == least


def test_servers_and_gateways_trace_to_the_collector_that_the_values_name():
    found = made("{ models: { volume: a }, tracing: { endpoint: 'http://collector:4318' } }")
    (container,) = pod(found, "server")["containers"]
    endpoint = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}
    assert container["env"] == [endpoint]
    assert "--trace-config=mode=opentelemetry" in container["command"]
    (first,) = pod(found, "gateway")["containers"]
    assert first["env"] == [endpoint]
    (without,) = pod(made(CHART / "values-one-gpu.yaml"), "server")["containers"]
    assert not any("trace" in flag for flag in without["command"])


def test_prometheus_finds_servers_envoy_and_gateways_and_may_ask_them():
    found = made(CHART / "values-many-gpus.yaml")
    monitors = {"server": "ServiceMonitor", "envoy": "ServiceMonitor", "gateway": "PodMonitor"}
    for name, kind in monitors.items():
        spec = found[kind, f"pictures-{name}"]["spec"]
        labels = found["Deployment", f"pictures-{name}"]["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels
        (told,) = spec["podTargetLabels"]
        assert labels[told] == "pictures" and re.sub(r"\W", "_", told) == RELEASE
        (endpoint,) = spec["endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"]
        (container,) = pod(found, name)["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        *_, rule = found["NetworkPolicy", f"pictures-{name}"]["spec"]["ingress"]
        assert rule["ports"] == [{"port": ports[endpoint["port"]]}]
        assert list(rule["from"][0]) == ["namespaceSelector"]
    assert "--metrics-port=8002" in pod(found, "gateway")["containers"][0]["command"]
    ports = found["Service", "pictures-gateway"]["spec"]["ports"]
    assert [port["name"] for port in ports] == ["http"]


def test_alarms_are_those_of_the_docs_and_about_metrics_that_there_are():
    found = made(CHART / "values-many-gpus.yaml")
    (group,) = found["PrometheusRule", "pictures-alarms"]["spec"]["groups"]
    docs = (ROOT / "docs" / "production.md").read_text()
    rows = re.findall(
        r"^\| ([\w ]+), (at once|\d+ minutes?) \| (\w+) \| `(.+?)` \| .+\|$", docs, re.MULTILINE
    )
    least = found["ScaledObject", "pictures-server"]["spec"]["minReplicaCount"]
    told = {name: (*how, query.replace("< N", f"< {least}")) for name, *how, query in rows}
    given = {
        rule["annotations"]["summary"]: (
            f"{rule['for'][:-1]} minute{'s' * (rule['for'] != '1m')}"
            if "for" in rule
            else "at once",
            rule["labels"]["severity"],
            re.sub(r',?namespace="[^"]*",job="[^"]*"', "", rule["expr"]).replace("{}", ""),
        )
        for rule in group["rules"]
    }
    assert given == told and len(told) == 10
    assert {severity for _, severity, _ in told.values()} == {"critical", "warning"}
    assert f"({AS_SHIPPED[1]} * count(" in told["full"][2]
    known = (ROOT / "docs" / "metrics.md").read_text()
    for name in re.findall(r"triptych_\w+", str(given)):
        assert f"`{name.removesuffix('_bucket')}`" in known


def test_alarms_are_about_their_own_release():
    """By the labels that the operator's Prometheus gives to what the monitors find."""
    found = made(CHART / "values-many-gpus.yaml")
    jobs = {"envoy": "pictures-envoy", "gateway": "drawing/pictures-gateway"}
    metric = re.compile(r"\b(?:(envoy)|triptych_(gateway)|triptych|nv)_\w+({.*?})?")
    (group,) = found["PrometheusRule", "pictures-alarms"]["spec"]["groups"]
    for rule in group["rules"]:
        assert rule["labels"].items() > {"namespace": "drawing", "release": "pictures"}.items()
        for envoy, gateway, labels in metric.findall(rule["expr"]):
            job = jobs.get(envoy or gateway, "pictures-server")
            assert labels.endswith(f'namespace="drawing",job="{job}"}}'), rule


def test_alarms_count_the_servers_of_the_values():
    own = "monitoring: { enabled: true, alarms: true }"
    found = made(f"{{ models: {{ volume: a }}, server: {{ replicas: 3 }}, {own} }}")
    assert ' < 3"' in json.dumps(found["PrometheusRule", "pictures-alarms"])


def test_alarms_have_the_bounds_of_the_values():
    own = "monitoring: { enabled: true, alarms: true, waitingSeconds: 5, slowSeconds: 100 }"
    (group,) = made(f"{{ models: {{ volume: a }}, {own} }}")["PrometheusRule", "pictures-alarms"][
        "spec"
    ]["groups"]
    bounds = {rule["alert"]: rule["expr"].rpartition(" > ")[2] for rule in group["rules"]}
    assert (bounds["TriptychWaiting"], bounds["TriptychSlow"]) == ("5", "100")


def test_a_slow_picture_is_one_beyond_a_bound_of_the_histogram():
    schema = json.loads((CHART / "values.schema.json").read_text())
    allowed = schema["properties"]["monitoring"]["properties"]["slowSeconds"]["enum"]
    assert allowed == list(metrics.SECONDS)


def test_the_gateway_believes_the_proxies_that_the_values_name():
    found = made("{ models: { volume: a }, gateway: { trustedProxies: '10.0.3.7,10.0.3.8' } }")
    (container,) = pod(found, "gateway")["containers"]
    assert container["env"] == [{"name": "FORWARDED_ALLOW_IPS", "value": "10.0.3.7,10.0.3.8"}]


def test_the_gateway_gets_its_secrets_and_where_webhooks_may_go():
    own = "{ apiKeySecret: key, webhookHosts: [hooks.example, '[::1]:8080'], webhookSecret: sign }"
    found = made(f"{{ models: {{ volume: a }}, gateway: {own} }}")
    (container,) = pod(found, "gateway")["containers"]
    assert {"--webhook-host=hooks.example", "--webhook-host=[::1]:8080"} < {*container["command"]}
    secrets = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"]}
    assert secrets == {
        "TRIPTYCH_API_KEY": {"name": "key", "key": "TRIPTYCH_API_KEY"},
        "TRIPTYCH_WEBHOOK_SECRET": {"name": "sign", "key": "TRIPTYCH_WEBHOOK_SECRET"},
    }


def test_each_caller_may_have_a_key_of_its_own():
    found = made("{ models: { volume: a }, gateway: { keysSecret: callers } }")
    spec = pod(found, "gateway")
    (container,) = spec["containers"]
    assert "--keys-file=/keys/keys.json" in container["command"]
    keys = {"name": "keys", "mountPath": "/keys", "readOnly": True}
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}, keys]
    assert spec["volumes"] == [TMP, {"name": "keys", "secret": {"secretName": "callers"}}]


def test_gateways_keep_pictures_in_a_volume_where_there_is_one():
    found = made("{ models: { volume: a }, gateway: { picturesVolume: shared } }")
    spec = pod(found, "gateway")
    (container,) = spec["containers"]
    _, mount = container["volumeMounts"]
    assert f"--pictures-folder={mount['mountPath']}" in container["command"]
    claim = {"persistentVolumeClaim": {"claimName": "shared"}}
    assert spec["volumes"] == [TMP, {"name": mount["name"], **claim}]


def test_gateways_keep_pictures_in_object_storage_where_there_is_one():
    own = "{ picturesUrl: 's3://bucket/pictures', picturesSecret: store }"
    found = made(f"{{ models: {{ volume: a }}, gateway: {own} }}")
    (container,) = pod(found, "gateway")["containers"]
    assert "--pictures-folder=s3://bucket/pictures" in container["command"]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


def test_envoy_takes_the_configuration_as_it_is():
    assert valid(CONFIG)


def test_the_serving_runtime_of_kserve_is_a_pod_that_its_service_names(tmp_path):
    """KServe's own schemas are in no package: the pod in the runtime is what can be checked."""
    folder = ROOT / "deploy" / "kserve"
    runtime = yaml.safe_load((folder / "servingruntime.yaml").read_text())
    service = yaml.safe_load((folder / "inferenceservice.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
    assert model["modelFormat"]["name"] in formats
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    predictor, (container,) = service["spec"]["predictor"], runtime["spec"]["containers"]
    waits = int(flags(container)["--exit-timeout-secs"])
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert predictor["timeout"] <= waits
    assert sleeps + waits < predictor["terminationGracePeriodSeconds"]
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {"/tmp", "/dev/shm"} == {each["mountPath"] for each in container["volumeMounts"]}
    metrics = runtime["spec"]["annotations"]
    served = pod(made(CHART / "values-one-gpu.yaml"), "server")["containers"][0]["ports"]
    assert {"name": "metrics", "containerPort": int(metrics["prometheus.io/port"])} in served
    spec = {name: runtime["spec"][name] for name in ("containers", "volumes")}
    alone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(alone))
    command = [ENVOY.with_name("kubernetes-validate"), "--strict", tmp_path / "pod.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_servers_stay_connected_to_an_envoy_that_asks_whether_they_live(found):
    text = found["ConfigMap", "pictures-envoy"]["data"]["envoy.yaml"]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    commands = [compose[name]["command"] for name in ("cpu", "tritonserver", "fastdeploy")]
    commands.append(pod(found, "server")["containers"][0]["command"])
    assert "connection_keepalive" in text
    assert all(PINGED in command for command in commands)


def test_the_compose_file_is_valid():
    command = [ENVOY.with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, ROOT / "docker" / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def valid(path):
    command = [ENVOY, "--mode", "validate", "-c", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout + done.stderr
