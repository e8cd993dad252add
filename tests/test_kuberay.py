"""kuberay/: what the API server would take, what the gate would read, who may reach what.

No cluster is asked.
"""

import copy
import importlib
import re
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serve_app import proxy
from serve_app.haproxy import CERT_ENV, KEY_ENV, PROXY_KEY_ENV
from serve_app.ingress import TABLE
from serve_app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "kuberay" / "rayservice.yaml"
CRD = ROOT.parent / "shared" / "kuberay" / "ray.io_rayservices.yaml"
TEXT = MANIFEST.read_text()
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(TEXT))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

OURS = "applications.0"
MODEL = f"{OURS}.args.models.0"
GATEWAY = f"{OURS}.args.gateway"
DIFFERENCES = {
    "http_options.host": "a pod is called from outside it",
    f"{MODEL}.engine_args.enforce_eager": "CUDA graphs are worth their start on a GPU",
    f"{MODEL}.env": "the CPU build's cache size",
    f"{MODEL}.seats": "a GPU runs more at once",
    f"{MODEL}.num_cpus": "Ray sees no CPU on a GPU pod, so that no gateway goes there",
    f"{MODEL}.num_gpus": "said, so that no build decides it",
    f"{MODEL}.start_timeout_s": "a large model is fetched and compiled at its first start",
    f"{MODEL}.autoscaling.max_replicas": "as many as the group has pods",
    f"{MODEL}.autoscaling.downscale_delay_s": "a start takes minutes, so an idle replica waits",
    f"{GATEWAY}.min_replicas": "one may die",
    f"{GATEWAY}.max_replicas": "as many as the group has pods",
    f"{GATEWAY}.num_cpus": "one gateway a pod",
}
SECRETS = ("SLUICEGATE_ADMIN_KEY", "SLUICEGATE_STORE_URL", PROXY_KEY_ENV)
SECRET_LIKE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|AUTH|CREDENTIAL|_URL$")


def of_kind(kind: str) -> list[dict[str, Any]]:
    """The documents of one kind."""
    return [document for document in DOCUMENTS if document["kind"] == kind]


RAY_SERVICES = of_kind("RayService")
SERVICE = RAY_SERVICES[0]["spec"]
CLUSTER = SERVICE["rayClusterConfig"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
RAY_PODS = {
    "head": CLUSTER["headGroupSpec"]["template"],
    **{name: group["template"] for name, group in GROUPS.items()},
}
PODS = {**RAY_PODS, "store": of_kind("StatefulSet")[0]["spec"]["template"]}


def container(pod: str) -> dict[str, Any]:
    """The one container of a pod."""
    (only,) = PODS[pod]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def at(document: dict[str, Any], path: str) -> Any:
    """What stands at a dotted path."""
    node: Any = document
    for step in path.split("."):
        node = node[int(step) if step.isdigit() else step]
    return node


def mappings(node: object) -> Iterator[dict[str, Any]]:
    """Every mapping in a document, however deep."""
    if isinstance(node, dict):
        yield node
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for each in inner:
        yield from mappings(each)


# What the API server would take


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a structural one; a field that would be pruned is an error."""
    told = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "required")
    schema: dict[str, Any] = {key: node[key] for key in told if key in node}
    if node.get("x-kubernetes-int-or-string"):
        schema["type"] = ["integer", "string"]
    if "items" in node:
        schema["items"] = strict(node["items"])
    if node.get("type") == "object":
        schema["properties"] = {k: strict(v) for k, v in node.get("properties", {}).items()}
        others = node.get("additionalProperties", False)
        free = bool(node.get("x-kubernetes-preserve-unknown-fields"))
        schema["additionalProperties"] = strict(others) if isinstance(others, dict) else free
    return schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema of ray.io/v1 RayService."""
    if not CRD.is_file():
        pytest.skip(f"KubeRay's RayService CRD is not at {CRD}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(CRD.read_text(), Loader=loader)  # a safe loader, the fast one if it is there
    (v1,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    found = strict(v1["schema"]["openAPIV3Schema"])
    found["properties"]["metadata"] = {"type": "object"}  # the API server has a schema of its own
    return found


def faults(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Where a document does not fit, and why."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, fault.absolute_path))}: {fault.message}" for fault in found]


@pytest.mark.parametrize("document", RAY_SERVICES, ids=lambda each: str(each["metadata"]["name"]))
def test_ray_service_fits_its_crd(document: dict[str, Any], schema: dict[str, Any]) -> None:
    """A RayService fits KubeRay's schema, which drops a field it does not know in silence."""
    assert document["apiVersion"] == "ray.io/v1"
    assert faults(document, schema) == []


@pytest.mark.parametrize(
    ("where", "field", "value", "told"),
    [
        ("spec", "serveConfigV3", "", "'serveConfigV3' was unexpected"),
        ("spec.rayClusterConfig.autoscalerOptions", "idleTimeoutSecond", 60, "was unexpected"),
        ("spec.rayClusterConfig.headGroupSpec.template.spec", "toleration", [], "was unexpected"),
        ("spec.rayClusterConfig.headGroupSpec.template.metadata", "label", {}, "was unexpected"),
        ("spec.rayClusterConfig.headGroupSpec.rayStartParams", "num-cpus", 0, "not of type"),
        ("spec.rayClusterConfig.autoscalerOptions", "version", "v3", "is not one of"),
        ("spec.rayClusterConfig.workerGroupSpecs.0", "template", None, "not of type"),
        ("spec.rayClusterConfig.workerGroupSpecs.0", "minReplica", 1, "was unexpected"),
        ("spec.rayClusterConfig.autoscalerOptions.resources.limits", "cpu", [], "not of type"),
    ],
)
def test_crd_check_refuses(
    where: str, field: str, value: object, told: str, schema: dict[str, Any]
) -> None:
    """A misspelt field, a wrong type and a wrong word are found wherever they stand."""
    document = copy.deepcopy(RAY_SERVICES[0])
    at(document, where)[field] = value
    (fault,) = faults(document, schema)
    assert fault.startswith(where)
    assert told in fault


def test_crd_check_refuses_a_gap(schema: dict[str, Any]) -> None:
    """A group without its required maxReplicas is refused."""
    document = copy.deepcopy(RAY_SERVICES[0])
    del document["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"]
    assert ["'maxReplicas' is a required" in fault for fault in faults(document, schema)] == [True]


# What the gate would read


def leaves(node: object, path: str = "") -> dict[str, object]:
    """Every value of a config by its dotted path."""
    if isinstance(node, dict) and node:
        steps: Any = node.items()
    elif isinstance(node, list) and node:
        steps = enumerate(node)
    else:
        return {path: node}
    found: dict[str, object] = {}
    for step, value in steps:
        found |= leaves(value, f"{path}.{step}" if path else str(step))
    return found


def differing(one: object, other: object) -> set[str]:
    """The paths at which two configs differ."""
    ours, theirs = leaves(one), leaves(other)
    return {
        path
        for path in ours.keys() | theirs.keys()
        if path not in ours or path not in theirs or ours[path] != theirs[path]
    }


def below(name: str, paths: set[str]) -> set[str]:
    """The paths that are ``name`` or lie below it."""
    return {path for path in paths if f"{path}.".startswith(f"{name}.")}


def unnamed(paths: set[str]) -> set[str]:
    """The paths that DIFFERENCES does not allow."""
    return paths - {path for name in DIFFERENCES for path in below(name, paths)}


def cluster_config() -> dict[str, Any]:
    """What Serve gets on the cluster, parsed anew."""
    config: dict[str, Any] = yaml.safe_load(SERVICE["serveConfigV2"])
    return config


LOCAL_CONFIG = yaml.safe_load((ROOT / "serve_config.yaml").read_text())


def test_config_is_serves_and_ours() -> None:
    """Serve and the gate take the cluster's config."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray's own use of pydantic
        from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415
    (application,) = ServeDeploySchema.model_validate(cluster_config()).applications
    assert Settings.from_args(application.args).models[0].num_gpus == 1


def test_config_differs_only_as_named() -> None:
    """The cluster's config is serve_config.yaml but for DIFFERENCES, and each of those is one."""
    paths = differing(LOCAL_CONFIG, cluster_config())
    assert unnamed(paths) == set()
    assert [name for name in DIFFERENCES if not below(name, paths)] == []


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        (OURS, "route_prefix", "/v1"),
        (f"{OURS}.args.limits", "max_body_bytes", 1),
        (f"{OURS}.args.auth", "trusted_proxies", ["10.0.0.0/8"]),
        (MODEL, "name", "other"),
        (f"{MODEL}.autoscaling", "min_replicas", 2),
        (GATEWAY, "first_byte_timeout_s", 1),
    ],
)
def test_other_difference_is_told(where: str, field: str, value: object) -> None:
    """A changed or added setting that DIFFERENCES does not name is told by its path."""
    config = cluster_config()
    at(config, where)[field] = value
    found = unnamed(differing(LOCAL_CONFIG, config))
    assert found
    assert below(f"{where}.{field}", found) == found


def test_missing_setting_is_told() -> None:
    """A setting that the cluster's config lacks is told by its path."""
    config = cluster_config()
    del config["applications"][0]["args"]["queue"]
    found = unnamed(differing(LOCAL_CONFIG, config))
    assert f"{OURS}.args.queue.classes.0.max_wait_s" in found


def test_pods_hold_the_replicas() -> None:
    """Each group has a pod for every replica that Serve may ask for, and each pod room for one."""
    settings = Settings.from_args(cluster_config()["applications"][0]["args"])
    (model,) = settings.models
    assert GROUPS["gateway"]["minReplicas"] == settings.gateway.min_replicas
    assert GROUPS["gateway"]["maxReplicas"] == settings.gateway.max_replicas
    assert GROUPS["model"]["maxReplicas"] == model.autoscaling.max_replicas
    assert {name: pod_cpus(name) for name in GROUPS} == {
        "gateway": settings.gateway.num_cpus,
        "model": model.num_cpus,
    }
    assert float(GROUPS["model"]["rayStartParams"]["num-gpus"]) == model.num_gpus
    assert SERVICE["serviceUnhealthySecondThreshold"] > model.start_timeout_s
    assert SERVICE["deploymentUnhealthySecondThreshold"] > model.start_timeout_s


def pod_cpus(group: str) -> float:
    """The CPUs that Ray sees on a pod of a group."""
    return float(GROUPS[group]["rayStartParams"]["num-cpus"])


# Secrets


def literal_secrets(documents: list[dict[str, Any]]) -> list[str]:
    """The variables named like a secret whose value stands in the file."""
    return [
        node["name"]
        for node in mappings(documents)
        if "value" in node and SECRET_LIKE.search(str(node.get("name", "")))
    ]


def test_no_secret_has_a_value() -> None:
    """No variable named like a secret has its value in the file, and the config names none."""
    assert literal_secrets(DOCUMENTS) == []
    assert not re.search(r"(?i)://[^/\s$]*:[^/\s$@]+@", TEXT)
    written = [{"env": [{"name": name, "value": "x"}]} for name in SECRETS]
    assert literal_secrets(written) == list(SECRETS)


@pytest.mark.parametrize("pod", RAY_PODS)
def test_every_gate_gets_all_secrets(pod: str) -> None:
    """Each gets the secrets by reference; without the store's URL a node would start its own."""
    env = container(pod)["env"]
    assert len({each["name"] for each in env}) == len(env)
    given = {each["name"]: each["valueFrom"] for each in env if "valueFrom" in each}
    assert given == {
        name: {"secretKeyRef": {"name": "sluicegate", "key": name}} for name in SECRETS
    }


def test_told_command_makes_every_secret() -> None:
    """The command at the top of the file makes each key that something refers to, at random."""
    wanted = {node["secretKeyRef"]["key"] for node in mappings(DOCUMENTS) if "secretKeyRef" in node}
    made = dict(re.findall(r"^# +([A-Z_]+)=(.+)$", TEXT, re.MULTILINE))
    assert made.keys() == wanted
    assert all("openssl rand" in value or "$password" in value for value in made.values())


# The image and its proxy


@pytest.mark.parametrize("pod", RAY_PODS)
def test_every_node_runs_the_fast_proxy(pod: str) -> None:
    """HAProxy runs on every node, through the shim where the image has it."""
    env = {each["name"]: each.get("value") for each in container(pod)["env"]}
    assert env["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert env["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert env["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/opt/sluicegate/.venv/bin/sluicegate-haproxy"
    assert int(env["RAY_SERVE_HAPROXY_MAXCONN"]) * 2.5 < 65_536  # KubeRay's `ulimit -n`


@pytest.mark.parametrize("pod", RAY_PODS)
def test_every_server_keeps_its_door(pod: str) -> None:
    """Serve's own servers get our middleware, and believe no header about where a client is."""
    env = {each["name"]: each.get("value") for each in container(pod)["env"]}
    module, _, name = env["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert getattr(importlib.import_module(module), name) is proxy.middlewares
    assert env["FORWARDED_ALLOW_IPS"] == ""


def test_rays_ports_want_a_token() -> None:
    """Whoever gets past the network policy still may not run code."""
    assert CLUSTER["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("pod", GROUPS)
def test_a_pod_is_ready_by_an_open_path(pod: str) -> None:
    """KubeRay adds its own probe, of a path that our proxies close, only where there is none."""
    probe = container(pod)["readinessProbe"]
    assert probe["httpGet"]["path"] in {each.path for each in TABLE if not each.permission}
    assert {"name": probe["httpGet"]["port"], "containerPort": 8000} in container(pod)["ports"]
    assert "readinessProbe" not in container("head"), "KubeRay's looks at Ray alone there"


def test_the_told_way_to_tls_is_the_shims() -> None:
    """The variables that the file tells are those that the shim reads; Serve gets none."""
    told = re.findall(r"^# +- \{name: (\w+), value: /tls/tls\.\w+\}$", TEXT, re.MULTILINE)
    assert told == [CERT_ENV, KEY_ENV]
    assert not [name for name in cluster_config()["http_options"] if name.startswith("ssl_")]


def test_image_is_the_dockerfiles() -> None:
    """Version, Ray, user and folder of programs are those of the image."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "sluicegate-haproxy" in PYPROJECT["scripts"]
    assert re.search(r"^ENV PATH=/opt/sluicegate/\.venv/bin:", dockerfile, re.MULTILINE)
    assert {container(pod)["image"] for pod in RAY_PODS} == {f"sluicegate:{PYPROJECT['version']}"}
    assert f"ray[serve]=={CLUSTER['rayVersion']}" in PYPROJECT["dependencies"]
    for pod in RAY_PODS.values():
        locked = pod["spec"]["securityContext"]
        assert f"USER {locked['runAsUser']}:{locked['runAsGroup']}\n" in dockerfile
    home = f"--uid {locked['runAsUser']} sluicegate"
    assert home in dockerfile


# Pods


@pytest.mark.parametrize("pod", PODS)
def test_pod_is_bounded_and_locked(pod: str) -> None:
    """A pod asks for what it may use, is not root, gains no rights and says who it is."""
    spec, only = PODS[pod]["spec"], container(pod)
    assert only["resources"]["requests"] == only["resources"]["limits"]
    assert only["resources"]["limits"].keys() >= {"cpu", "memory"}
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert only["securityContext"]["allowPrivilegeEscalation"] is False
    assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["enableServiceLinks"] is False
    assert PODS[pod]["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "sluicegate",
        "app.kubernetes.io/component": pod,
    }


def test_head_carries_no_replica() -> None:
    """Ray places nothing on the head, and clients do not go there."""
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert SERVICE["excludeHeadPodFromServeSvc"] is True


def test_gpu_pods_come_and_go() -> None:
    """GPU pods are Ray's to add and remove, go to tainted nodes, and have memory to share."""
    group = GROUPS["model"]
    spec = group["template"]["spec"]
    assert CLUSTER["enableInTreeAutoscaling"] is True
    assert CLUSTER["autoscalerOptions"]["idleTimeoutSeconds"] >= 60
    assert group["minReplicas"] == 0
    limits = container("model")["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == group["rayStartParams"]["num-gpus"]
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    assert taint | {"operator": "Exists"} in spec["tolerations"]
    places = {mount["mountPath"]: mount["name"] for mount in container("model")["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[places["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert places["/home/sluicegate/.cache"] in volumes


def test_valkey_keeps_what_it_was_told() -> None:
    """Valkey keeps each change on a volume, drops nothing when it is full, asks a password."""
    (stateful,) = of_kind("StatefulSet")
    only = container("store")
    lines = set(only["args"][0].splitlines())
    assert lines >= {
        "dir /data", "appendonly yes", "maxmemory-policy noeviction", "requirepass $VALKEY_PASSWORD"
    }  # fmt: skip
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert only["volumeMounts"] == [{"name": claim["metadata"]["name"], "mountPath": "/data"}]
    assert only.keys() >= {"startupProbe", "readinessProbe", "livenessProbe"}
    (service,) = of_kind("Service")
    assert service["metadata"]["name"] == stateful["spec"]["serviceName"]
    address = CLUSTER["gcsFaultToleranceOptions"]["redisAddress"]
    assert address == f"{service['metadata']['name']}:6379"


# Who may reach what


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector takes a pod; the operator `In` is all that is used here."""
    matches = selector.get("matchLabels", {}).items() <= labels.items()
    return matches and all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", ())
    )


def admits(rule: dict[str, Any], caller: dict[str, str], port: int, *, near: bool) -> bool:
    """Whether an ingress rule lets a caller through; ``near`` is one from our namespace."""
    ports = rule.get("ports")
    if ports is not None and port not in [each["port"] for each in ports]:
        return False
    return "from" not in rule or any(
        (near or "namespaceSelector" in peer) and selects(peer["podSelector"], caller)
        for peer in rule["from"]
    )


def reaches(caller: dict[str, str], pod: str, port: int, *, near: bool = True) -> bool:
    """Whether a caller gets through to a port of one of our pods."""
    labels = PODS[pod]["metadata"]["labels"]
    policies = [each["spec"] for each in of_kind("NetworkPolicy")]
    ours = [policy for policy in policies if selects(policy["podSelector"], labels)]
    assert ours, f"no policy covers {pod}"
    rules = [rule for policy in ours for rule in policy["ingress"]]
    return any(admits(rule, caller, port, near=near) for rule in rules)


STRANGER: dict[str, str] = {"app": "curl"}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}


@pytest.mark.parametrize(
    ("who", "pod", "open_ports", "closed_ports"),
    [
        ("stranger", "gateway", {8000}, {6379, 8265, 8404, 9101, 10001, 30000, 52365}),
        ("stranger", "model", {8000}, {30000, 45000}),
        ("stranger", "head", {8000}, {6379, 8265, 10001}),
        ("stranger", "store", set(), {6379}),
        ("operator", "head", {8000, 8265}, {6379, 10001}),
        ("operator", "store", set(), {6379}),
        ("gateway", "model", {45000}, set()),
        ("model", "head", {6379, 10001}, set()),
        ("head", "store", {6379}, {22}),
        ("gateway", "store", {6379}, set()),
        ("model", "store", {6379}, set()),
        ("store", "head", {8000}, {6379, 8265}),
    ],
)
def test_who_reaches_what(who: str, pod: str, open_ports: set[int], closed_ports: set[int]) -> None:
    """Callers reach the gate, KubeRay the dashboard too, our pods each other and the store."""
    strangers = {"stranger": STRANGER, "operator": OPERATOR}
    caller = strangers.get(who) or PODS[who]["metadata"]["labels"]
    inside = who in PODS
    ports = open_ports | closed_ports
    assert {p for p in ports if reaches(caller, pod, p, near=inside)} == open_ports


def test_a_namesake_elsewhere_is_a_stranger() -> None:
    """A pod of another namespace that wears our labels reaches neither Ray nor the store."""
    labels = PODS["head"]["metadata"]["labels"]
    assert not reaches(labels, "store", 6379, near=False)
    assert not reaches(labels, "head", 10001, near=False)


def test_selectors_find_their_pods() -> None:
    """The Service, the StatefulSet and the disruption budget each select the pods they mean."""
    (service,), (stateful,), (budget,) = map(
        of_kind, ("Service", "StatefulSet", "PodDisruptionBudget")
    )
    for selector, pod in (
        ({"matchLabels": service["spec"]["selector"]}, "store"),
        (stateful["spec"]["selector"], "store"),
        (budget["spec"]["selector"], "gateway"),
    ):
        found = [name for name in PODS if selects(selector, PODS[name]["metadata"]["labels"])]
        assert found == [pod]
    assert budget["spec"]["minAvailable"] < GROUPS["gateway"]["minReplicas"]
