"""What is in manifests/: loads, is as locked up as it says, and starts our programs as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import yaml

from wellhead import __version__
from wellhead.env import Collector, known_names, parse_flags, settings
from wellhead.manifest import documents as yaml_documents
from wellhead.settings import KNATIVE_IGNORED, DeliverySettings, ProcessSettings, SinkSettings
from wellhead_adapters.apiserver.config import ApiServerConfig, from_manifest
from wellhead_adapters.cli.display import DisplaySettings
from wellhead_adapters.gitlab.config import GitlabConfig
from wellhead_adapters.heartbeat.config import HeartbeatConfig
from wellhead_adapters.kafka.config import KafkaConfig
from wellhead_adapters.ping.config import PingConfig

if TYPE_CHECKING:
    from wellhead_adapters.apiserver.subject import Resource

ROOT: Final = Path(__file__).parents[1]
FILES: Final = sorted((ROOT / "manifests").rglob("*.y*ml"))
COMMON: Final = (SinkSettings, DeliverySettings, ProcessSettings)
CONFIGS: Final = {
    "heartbeat": (HeartbeatConfig, *COMMON),
    "display": (DisplaySettings, ProcessSettings),
    "ping": (PingConfig, *COMMON),
    "gitlab": (GitlabConfig, *COMMON),
    "kafka": (KafkaConfig, *COMMON),
    "apiserver": (ApiServerConfig, *COMMON),
}
IMAGE: Final = re.compile(r"wellhead/([a-z]+):(.+)")
WORKLOADS: Final = ("Deployment", "ContainerSource", "Service")  # the last: Knative's
PROBED: Final = {
    "heartbeat": ("/readyz", "/healthz"),
    "display": ("/healthz", "/healthz"),
    "ping": ("/readyz", "/healthz"),
    "gitlab": ("/readyz", "/healthz"),
    "kafka": ("/readyz", "/healthz"),
    "apiserver": ("/readyz", "/healthz"),
}
INJECTED: Final = {"K_SINK": "http://event-display.ns.svc.cluster.local", "K_CE_OVERRIDES": ""}  # by a SinkBinding

WITHOUT_SPEC: Final = ("ConfigMap", "ServiceAccount", "Role", "RoleBinding")
SOURCES: Final = (
    "PingSource",
    "KafkaSource",
    "ApiServerSource",
    "GitLabSource",
)  # read as `wellhead run -f` does, by the tests of their adapters
TALKS_TO_THE_API_SERVER: Final = ("apiserver",)

Document: TypeAlias = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def is_workload(document: Document) -> bool:
    is_plain_service = document["kind"] == "Service" and document["apiVersion"] == "v1"
    return document["kind"] in WORKLOADS and not is_plain_service


def named(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


ALL: Final = [(path, document) for path in FILES for document in documents(path)]
PODS: Final = [
    pytest.param(document["spec"]["template"]["spec"], id=f"{path.stem}: {named(document)}")
    for path, document in ALL
    if is_workload(document)
]


def test_the_files_that_are_promised_are_there_and_in_the_readme() -> None:
    kinds = {(document["apiVersion"], document["kind"]) for _, document in ALL}
    assert kinds >= {
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("serving.knative.dev/v1", "Service"),
        ("sources.knative.dev/v1", "ContainerSource"),
        ("sources.knative.dev/v1", "SinkBinding"),
    }
    readme = (ROOT / "manifests/README.md").read_text(encoding="utf-8")
    assert [path.name for path in FILES if f"[`{path.name}`]({path.name})" not in readme] == []


@pytest.mark.parametrize(
    ("path", "document"), ALL, ids=lambda value: value.stem if isinstance(value, Path) else named(value)
)
def test_every_document_says_what_it_is(path: Path, document: Document) -> None:
    assert {"apiVersion", "kind", "metadata"} <= document.keys()
    assert ({"spec", "stringData"} & document.keys() != set()) is (document["kind"] not in WITHOUT_SPEC)
    assert document["metadata"]["name"]
    assert "namespace" not in document["metadata"], "all of a file goes where --namespace says"
    beside = ("Service", "SinkBinding", "Secret", "ScaledObject", "TriggerAuthentication", "Trigger", "Ingress")
    known = (*beside, *SOURCES, *WITHOUT_SPEC)
    unknown_kind = not is_workload(document) and document["kind"] not in known
    assert not unknown_kind, "say here how this kind is tested"


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_passes_the_restricted_standard_and_writes_nowhere(pod: Document) -> None:
    talks = any(program(container) in TALKS_TO_THE_API_SERVER for container in pod["containers"])
    assert pod["automountServiceAccountToken"] is talks, "a token only for who talks to the API server"
    for container in pod["containers"]:
        security = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert security["runAsNonRoot"] is True
        assert isinstance(security["runAsUser"], int)
        assert security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not security.get("privileged")
    assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert all(volume.keys() == {"name", "secret"} for volume in pod.get("volumes", ())), "secrets are only read"


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_says_what_it_needs(pod: Document) -> None:
    for container in pod["containers"]:
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("pod", PODS)
def test_a_pods_grace_is_longer_than_the_programs(pod: Document) -> None:
    assert pod.get("terminationGracePeriodSeconds", 30) > ProcessSettings().grace.total_seconds()


@pytest.mark.parametrize("pod", PODS)
def test_its_image_is_a_target_of_the_dockerfile_and_of_this_version(pod: Document) -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    targets = re.findall(r"^FROM program AS ([a-z]+)$", dockerfile, re.MULTILINE)
    assert set(targets) == CONFIGS.keys()
    for container in pod["containers"]:
        match = IMAGE.fullmatch(container["image"])
        assert match is not None
        assert match[1] in targets
        assert match[2] == __version__
        assert "command" not in container, "the image's entry point is right"


@pytest.mark.parametrize("pod", PODS)
def test_every_variable_is_one_that_its_program_knows(pod: Document) -> None:
    for container in pod["containers"]:
        known = {*known_names(CONFIGS[program(container)]), *KNATIVE_IGNORED}
        assert {variable["name"] for variable in container.get("env", [])} <= known


@pytest.mark.parametrize("pod", PODS)
def test_its_arguments_and_environment_are_a_configuration_without_a_problem(pod: Document) -> None:
    for container in pod["containers"]:
        collector = read(container)
        assert (collector.problems, collector.warnings) == ([], [])


@pytest.mark.parametrize("pod", PODS)
def test_its_probes_ask_where_its_program_answers(pod: Document) -> None:
    for container in pod["containers"]:
        ports = {port["containerPort"] for port in container["ports"]}
        environment = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
        listens = 8080 if program(container) == "display" else int(environment["HEALTH_PORT"] or 0)
        # Where a program has intake of its own, beside the probes.
        assert ports == ({listens} if program(container) != "gitlab" else {listens, int(environment["PORT"] or 0)})
        readiness, liveness = (container[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe"))
        assert (readiness["path"], liveness["path"]) == PROBED[program(container)]
        assert {readiness.get("port"), liveness.get("port")} <= {
            None,
            *(port.get("name") for port in container["ports"]),
        }


@pytest.mark.parametrize(
    ("path", "document"), ALL, ids=lambda value: value.stem if isinstance(value, Path) else named(value)
)
def test_selectors_choose_the_pods_they_stand_beside(path: Path, document: Document) -> None:
    beside = {named(other): other for other in documents(path)}
    if document["kind"] == "Deployment":
        labels = document["spec"]["template"]["metadata"]["labels"]
        assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()
    elif document["kind"] == "SinkBinding":
        assert f"Deployment {document['spec']['subject']['name']}" in beside
    elif document["kind"] == "ScaledObject":
        assert f"Deployment {document['spec']['scaleTargetRef']['name']}" in beside
    elif document["kind"] == "Ingress":
        (path_,) = document["spec"]["rules"][0]["http"]["paths"]
        backend = path_["backend"]["service"]
        ports = beside[f"Service {backend['name']}"]["spec"]["ports"]
        assert backend["port"]["name"] in [port["name"] for port in ports]
    elif document["kind"] == "Service" and document["apiVersion"] == "v1":
        (deployment,) = (other for other in beside.values() if other["kind"] == "Deployment")
        assert document["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    # A PingSource and a GitLabSource show what kinds of sink there are; they are read as `wellhead run -f` does elsewhere.
    if "sink" in document.get("spec", {}) and document["kind"] not in ("PingSource", "GitLabSource"):
        assert document["spec"]["sink"]["ref"] == {"apiVersion": "v1", "kind": "Service", "name": "event-display"}


def test_a_role_beside_a_source_grants_what_it_watches_and_no_more() -> None:
    for name in ("apiserver.yaml", "apiserversource.yaml"):
        beside = documents(ROOT / "manifests" / name)
        (role,) = (one for one in beside if one["kind"] == "Role")
        (binding,) = (one for one in beside if one["kind"] == "RoleBinding")
        (account,) = (one for one in beside if one["kind"] == "ServiceAccount")
        rules = [rule for rule in role["rules"] if "resourceNames" not in rule]
        granted = {(group, of) for rule in rules for group in rule["apiGroups"] for of in rule["resources"]}
        assert granted == {(resource.gvr.group, resource.gvr.resource) for resource in watched(beside)}
        assert all(set(rule["verbs"]) <= {"get", "list", "watch"} >= {"list", "watch"} for rule in rules)
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert [one["name"] for one in binding["subjects"]] == [account["metadata"]["name"]]
        assert account["metadata"]["name"] in str(beside[-1])


def test_where_a_state_is_kept_in_a_config_map_it_is_there_and_its_role_names_it() -> None:
    beside = documents(ROOT / "manifests/apiserver.yaml")
    (container,) = beside[-1]["spec"]["template"]["spec"]["containers"]
    config = read(container).read(ApiServerConfig)
    assert config is not None
    (kept,) = (one["metadata"]["name"] for one in beside if one["kind"] == "ConfigMap")
    (rule,) = (rule for one in beside if one["kind"] == "Role" for rule in one["rules"] if "resourceNames" in rule)
    assert config.state_config_map == kept
    assert rule == {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [kept], "verbs": ["get", "patch"]}


def watched(beside: list[Document]) -> tuple[Resource, ...]:
    """What the source among the documents watches."""
    last = beside[-1]
    if last["kind"] == "ApiServerSource":
        (source,), problems = yaml_documents(yaml.safe_dump(last), "manifest")
        assert not problems
        return from_manifest(source).subject.resources
    (container,) = last["spec"]["template"]["spec"]["containers"]
    config = read(container).read(ApiServerConfig)
    assert config is not None
    return config.subject.resources


def program(container: Document) -> str:
    match = IMAGE.fullmatch(container["image"])
    assert match is not None
    return match[1]


def read(container: Document) -> Collector:
    """The configuration of a container as the program itself reads it; what comes of a fieldRef is some name."""
    configs = CONFIGS[program(container)]
    given = {variable["name"]: variable.get("value", "some-name") for variable in container.get("env", [])}
    flags = parse_flags(container.get("args", []), [known for config in configs for known in settings(config)])
    assert flags.rest == ()
    collector = Collector({**INJECTED, **given}, flags, environment_wins=True)
    for config in configs:
        collector.read(config)
    return collector
