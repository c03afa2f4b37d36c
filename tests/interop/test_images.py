"""What docker/README.md promises of the images, asked of the images themselves, with no stand-in for anything but the
engine (images.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from http.client import HTTPConnection
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from tests.interop.images import CHECKOUT, Images, ImagesMissing, project_version
from tests.interop.kafka_cluster import PASSWORD, USER, create_topic
from tests.interop.kube import ApiProblem
from tests.interop.test_kubernetes_pods import RECORDED, apply_ours
from tests.interop.test_kubernetes_sinks import allow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.interop.images import Container, Program
    from tests.interop.kafka_cluster import Cluster
    from tests.interop.kube import Kube

TARGETS: Final = ("heartbeat", "ping", "gitlab", "kafka", "apiserver", "display")
STARTED: Final = {
    "heartbeat": "source is ready",
    "ping": "source is ready",
    "gitlab": "source is ready",
    "kafka": "source is ready",
    "apiserver": "source is ready",
    "display": "the event display is open",
}
MODULE: Final = {
    "heartbeat": "wellhead_adapters.heartbeat.adapter",
    "display": "wellhead_adapters.cli.command",
    "gitlab": "wellhead_adapters.gitlab.adapter",
    "ping": "wellhead_adapters.ping.adapter",
    "kafka": "wellhead_adapters.kafka.reading",
    "apiserver": "wellhead_adapters.apiserver.watches",
}
PORT: Final = {
    "heartbeat": "HEALTH_PORT",
    "gitlab": "HEALTH_PORT",
    "ping": "HEALTH_PORT",
    "kafka": "HEALTH_PORT",
    "apiserver": "HEALTH_PORT",
    "display": "PORT",
}  # what moves the port that probes ask

TOPIC: Final = "images"
START_SECONDS: Final = 30.0  # of a busy machine; a quiet one needs a fifth of one
STOP_SECONDS: Final = 30.0
POD: Final = {"POD_NAME": "beat-0", "POD_NAMESPACE": "springs"}
FIELDS: Final = {"metadata.name": POD["POD_NAME"], "metadata.namespace": POD["POD_NAMESPACE"]}
SOURCE: Final = "https://knative.dev/eventing-contrib/cmd/heartbeats/#springs/beat-0"

MANIFESTS: Final = [
    path
    for path in sorted((CHECKOUT / "manifests").glob("*.yaml"))
    # That of gitlab registers with a GitLab that is not here: its image is started as Knative's controller does.
    if "image: wellhead/" in path.read_text() and not path.stem.startswith("gitlab")
]
PYTHON: Final = "/opt/wellhead/bin/python"
INSTALLERS: Final = ("pip", "setuptools", "wheel", "ensurepip", "hatchling")
BUILD_TOOLS: Final = ("cc", "gcc", "c++", "ld", "make", "git", "pip", "pip3", "cargo")
LEFTOVERS: Final = ("src", "etc/pip.conf", "run/secrets", "root/.cache", "root/.config", "tmp/*", "var/tmp/*")


# --- fixtures ---


@pytest.fixture(scope="session")
def images() -> Images:
    """In CI images are built, or the run is red; elsewhere a machine that cannot build them skips, and says why."""
    try:
        return Images.open()
    except ImagesMissing as missing:
        reason = f"NO IMAGE IS TESTED: {missing}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def container(images: Images, target: str) -> Iterator[Container]:
    with images.container(images.build(target)) as made:
        yield made


@pytest.fixture(scope="session")
def display(images: Images) -> Iterator[Program]:
    """An event display, running from its image for as long as the tests do."""
    with images.container(images.build("display")) as made:
        yield started("display", made, {"PORT": "0"})


@pytest.fixture
def environment(
    target: str, container: Container, display: Program, request: pytest.FixtureRequest
) -> Mapping[str, str]:
    """What the target needs to run well."""
    if target == "display":
        return {"PORT": "0"}
    if target == "kafka":
        return {**of_kafka(request.getfixturevalue("kafka")), "K_SINK": sink_of(display), "HEALTH_PORT": "0"}
    if target == "apiserver":
        kube = request.getfixturevalue("kube")
        as_pod = in_a_pod(kube, container, "image", "default")
        allow(kube, "default", "image", {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]})
        return {**as_pod, "RESOURCES": "v1:Pod", "K_SINK": sink_of(display), "HEALTH_PORT": "0"}
    if target == "gitlab":  # as Knative's controller starts it
        own = {"GITLAB_SECRET_TOKEN": "s3cret", "GITLAB_EVENT_SOURCE": "https://gitlab.example.com/group/project"}
        return {"K_SINK": sink_of(display), **own}
    return {"K_SINK": sink_of(display), "HEARTBEAT_PERIOD": "1s", **POD}


# --- from image to image ---


def test_a_heartbeat_from_its_image_is_printed_by_the_display_from_its_image(images: Images, display: Program) -> None:
    with images.container(images.build("heartbeat")) as beating:
        # As a controller starts it: empty variables for what it has not; "<no value>" is what a template makes of none.
        variables = {"K_SINK": sink_of(display), "K_CE_OVERRIDES": "", **POD}
        beating.start("--period=1s", "--label=image", "<no value>", environment=variables)

        lines = display.stdout.wait_for(lambda seen: seen.count('    "label": "image"') >= 2, START_SECONDS)

    label = lines.index('    "label": "image"')
    first = max(at for at, line in enumerate(lines[:label]) if line == "☁️  cloudevents.Event")
    event = [line for line in lines[first : label + 2] if not re.match("  (id|time): ", line)]
    assert event == [
        "☁️  cloudevents.Event",
        "Context Attributes,",
        "  specversion: 1.0",
        "  type: dev.knative.eventing.samples.heartbeat",
        f"  source: {SOURCE}",
        "  datacontenttype: application/json",
        "Extensions,",
        "  beats: true",
        "  heart: yes",
        "  the: 42",
        "Data,",
        "  {",
        '    "id": 1,',
        '    "label": "image"',
        "  }",
    ]


def test_a_record_of_kafka_is_printed_by_the_display(images: Images, display: Program, kafka: Cluster) -> None:
    with images.container(images.build("kafka")) as reading:
        program = started("kafka", reading, {**of_kafka(kafka), "K_SINK": sink_of(display), "HEALTH_PORT": "0"})
        asyncio.run(produce(kafka, b"from a broker to an image"))
        lines = display.stdout.wait_for_line("  from a broker to an image", START_SECONDS)
        program.send_signal(SIGTERM)
        assert program.wait(STOP_SECONDS) == 0, program.printed()
    assert "  type: dev.knative.kafka.event" in lines
    assert f"  source: /apis/v1/namespaces/default/kafkasources/kafka#{TOPIC}" in lines


def test_a_change_of_kubernetes_is_printed_by_the_display_from_the_deployment_of_knatives_controller(
    images: Images, display: Program, kube: Kube
) -> None:
    template = json.loads(RECORDED.read_text())["spec"]["template"]["spec"]
    (declared,) = template["containers"]
    namespace = kube.namespace("images")
    fields = {"metadata.namespace": namespace}
    variables = {
        each["name"]: each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in declared["env"]
    }
    watched = {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list", "watch"]}
    kube.service_account("watcher", namespace)
    allow(kube, namespace, "watcher", watched)
    # What of it is this machine's: where the sink is, and that the namespace it watches is another.
    variables |= {
        "K_SINK": sink_of(display),
        "K_SOURCE_CONFIG": variables["K_SOURCE_CONFIG"].replace('"kn"', '"images"'),
    }
    with images.container(images.build("apiserver")) as watching:
        program = started("apiserver", watching, {**in_a_pod(kube, watching, "watcher", namespace), **variables})
        (port,) = (each["containerPort"] for each in declared["ports"] if each["name"] == "probes")
        for probe in ("readinessProbe", "livenessProbe"):
            assert status_of(port, f"/{declared[probe]['httpGet']['path']}") in range(200, 400), probe
        metadata = {"name": "chosen", "namespace": namespace, "labels": {"app": "lab"}}
        kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        lines = display.stdout.wait_for_line(
            f"subject: /apis/v1/namespaces/{namespace}/configmaps/chosen", START_SECONDS
        )
        program.send_signal(SIGTERM)
        assert program.wait(STOP_SECONDS) == 0, program.printed()
    assert declared["securityContext"]["readOnlyRootFilesystem"]  # as `started` runs it
    assert "  type: dev.knative.apiserver.resource.add" in lines
    assert f"  source: {kube.url}" in lines


def test_a_layer_of_ones_own_configures_what_a_controller_lets_nobody_configure(
    images: Images, display: Program
) -> None:
    ours = images.build("heartbeat")
    with images.layer(f'FROM {ours}\nENV HEARTBEAT_LABEL="from a layer" HEARTBEAT_PERIOD=1s\n') as image:
        assert images.config(image).entrypoint == images.config(ours).entrypoint
        assert images.config(image).user == images.config(ours).user
        with images.container(image) as beating:
            beating.start(environment={"K_SINK": sink_of(display), **POD})
            display.stdout.wait_for_line('"label": "from a layer"', START_SECONDS)


# --- how it runs ---


def test_sigterm_ends_it_with_status_0(target: str, container: Container, environment: Mapping[str, str]) -> None:
    program = started(target, container, environment)
    program.send_signal(SIGTERM)
    assert program.wait(STOP_SECONDS) == 0, program.printed()


def test_it_is_an_ordinary_user_without_rights(
    target: str, container: Container, environment: Mapping[str, str]
) -> None:
    program = started(target, container, environment)
    facts = dict(line.split(":\t", 1) for line in program.status())
    assert facts["NSpid"].split()[-1] == "1"  # no shell, no supervisor: signals reach the program itself
    assert facts["Uid"].split() == ["65532"] * 4
    assert facts["Gid"].split() == ["65532"] * 4
    assert facts["Groups"].split() == []
    assert int(facts["CapEff"], 16) == 0


def test_a_read_only_root_is_enough(target: str, container: Container, environment: Mapping[str, str]) -> None:
    refused = container.start(entrypoint=[PYTHON, "-c", "open('/tmp/written', 'w')"])
    assert refused.wait(START_SECONDS) == 1
    assert "Read-only file system" in refused.stderr.text()  # so the other tests prove it, too

    started(target, container, environment, read_only=True)


def test_it_writes_nothing_where_it_could(target: str, container: Container, environment: Mapping[str, str]) -> None:
    container.root.joinpath("tmp").chmod(0o1777)
    before = container.listing()
    program = started(target, container, environment, read_only=False)
    program.send_signal(SIGTERM)
    program.wait(STOP_SECONDS)
    assert container.listing() == before


def test_no_shell_is_needed(target: str, container: Container, environment: Mapping[str, str]) -> None:
    for shell in ("sh", "bash", "dash"):
        container.root.joinpath("usr/bin", shell).unlink(missing_ok=True)
    started(target, container, environment)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_it_starts_from_the_manifest_and_answers_its_probes(
    images: Images, display: Program, manifest: Path, request: pytest.FixtureRequest
) -> None:
    target, declared = container_in(manifest)
    variables = {each["name"]: value_of(each) for each in declared.get("env", [])}
    (port,) = (each["containerPort"] for each in declared["ports"])
    assert int(variables.get(PORT[target], "8080")) == port  # 8080 is what the image EXPOSEs

    variables |= {PORT[target]: str(free_port()), "K_SINK": sink_of(display)}
    with images.container(images.build(target)) as made:
        assert f"{port}/tcp" in made.config.ports
        if target == "kafka":
            variables |= as_in_a_cluster(request.getfixturevalue("kafka"), made)
        if target == "apiserver":
            kube = request.getfixturevalue("kube")
            apply_ours(kube, kube.namespace(POD["POD_NAMESPACE"]))
            variables |= in_a_pod(kube, made, "apiserver", POD["POD_NAMESPACE"])
        program = made.start(*declared.get("args", []), environment=variables)
        program.stderr.wait_for_line(STARTED[target], START_SECONDS)
        for probe in ("readinessProbe", "livenessProbe"):
            assert status_of(int(variables[PORT[target]]), declared[probe]["httpGet"]["path"]) in range(200, 400), probe


# --- what is in it ---


def test_everything_it_loads_is_compiled(target: str, container: Container) -> None:
    loaded = asked(
        container,
        f"import importlib, sys; importlib.import_module({MODULE[target]!r})\n"
        "answer = {name: getattr(module, '__cached__', None) for name, module in sys.modules.items()"
        " if (getattr(module, '__file__', None) or '').endswith('.py')}",
    )
    assert isinstance(loaded, dict)
    assert any(name.startswith("wellhead.") for name in loaded)
    # Frozen modules need no file.
    assert not [name for name, cached in loaded.items() if cached and not container.root.joinpath(cached[1:]).exists()]


def test_no_time_stamp_can_make_its_bytecode_stale(container: Container) -> None:
    installed = container.root / "opt/wellhead/lib"
    compiled = [*installed.rglob("*.pyc")]
    assert len(compiled) == len([*installed.rglob("*.py")]) > 0
    flags = {path.read_bytes()[4:8] for path in compiled}
    assert flags == {b"\x01\x00\x00\x00"}, "PEP 552: hash-based, not checked against the source"


@pytest.mark.parametrize("places", [{}, {"PYTHONTZPATH": ""}], ids=["as it is", "with a base that has no zones"])
def test_time_zones_are_known(container: Container, places: Mapping[str, str]) -> None:
    code = (
        "from datetime import datetime; from zoneinfo import ZoneInfo\n"
        "answer = datetime(2026, 7, 1, tzinfo=ZoneInfo('Europe/Paris')).isoformat()"
    )
    assert asked(container, code, places) == "2026-07-01T00:00:00+02:00"


def test_certificates_of_public_authorities_are_known(container: Container) -> None:
    known = asked(container, "import ssl; answer = ssl.create_default_context().cert_store_stats()['x509_ca']")
    assert isinstance(known, int)
    assert known > 50


def test_neither_installers_nor_build_tools_are_left(container: Container) -> None:
    found = asked(
        container,
        "import importlib.util, shutil\n"
        f"answer = [name for name in {INSTALLERS} if importlib.util.find_spec(name)]"
        f" + [path for path in map(shutil.which, {BUILD_TOOLS}) if path]",
    )
    assert found == []
    assert not [path for path in container.root.rglob("*.whl") if path.is_file()]


def test_nothing_of_the_machine_that_built_it_is_left(container: Container) -> None:
    left = [path for pattern in LEFTOVERS for path in container.root.glob(pattern)]
    assert left == []
    assert not [name for name in container.config.environment if re.search("PIP|PROXY|TOKEN|SECRET|CERT", name.upper())]
    packages = container.root.glob("opt/wellhead/lib/*/site-packages/*.dist-info")
    assert not [path for path in packages if (path / "direct_url.json").exists()], "pip's note of where it took it from"


def test_the_image_says_what_it_is_and_how_to_start_it(target: str, container: Container) -> None:
    config = container.config
    assert config.user == "65532:65532"  # runAsNonRoot can judge a number only
    assert config.entrypoint[0].startswith("/opt/wellhead/bin/")
    assert config.command == []
    assert config.ports == ({"8080/tcp", "8081/tcp"} if target == "gitlab" else {"8080/tcp"})
    assert config.environment["PYTHONDONTWRITEBYTECODE"] == config.environment["PYTHONUNBUFFERED"] == "1"
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config.labels.items()}
    assert labels["title"] == f"wellhead-{target}"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == project_version()
    assert labels["description"]


# --- helpers ---


def started(target: str, container: Container, environment: Mapping[str, str], *, read_only: bool = True) -> Program:
    """The image's program, once it says that it works."""
    program = container.start(environment=environment, read_only=read_only)
    program.stderr.wait_for_line(STARTED[target], START_SECONDS)
    return program


def sink_of(display: Program) -> str:
    """The address of a running display, on a port that it chose."""
    line = next(line for line in display.stderr.text().splitlines() if STARTED["display"] in line)
    return str(json.loads(line)["url"])


def container_in(manifest: Path) -> tuple[str, dict[str, Any]]:
    """The one container of a manifest, and the target its image is built from."""
    documents: list[dict[str, Any]] = [*yaml.safe_load_all(manifest.read_text())]
    (found,) = (
        each
        for it in documents
        if "template" in it.get("spec", {})
        for each in it["spec"]["template"]["spec"]["containers"]
    )
    return found["image"].removeprefix("wellhead/").removesuffix(f":{project_version()}"), found


def of_kafka(kafka: Cluster) -> dict[str, str]:
    """What the Kafka adapter has to be told to read `TOPIC`, which is there afterwards."""
    asyncio.run(create_topic(kafka.bootstrap, TOPIC))
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "KAFKA_TOPICS": TOPIC, "KAFKA_CONSUMER_GROUP": "images"}


def as_in_a_cluster(kafka: Cluster, container: Container) -> dict[str, str]:
    """The broker and the files of the Secret that the manifest for Kafka names, and its topic."""
    asyncio.run(create_topic(kafka.bootstrap, "orders"))
    mounted = container.root / "etc/kafka"
    mounted.mkdir()
    files = {"username": USER, "password": PASSWORD, "ca.crt": kafka.certificates.ca.read_text()}
    for name, text in files.items():
        (mounted / name).write_text(text)
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka.servers("SASL_TLS")}


def in_a_pod(kube: Kube, container: Container, account: str, namespace: str) -> dict[str, str]:
    """What a kubelet tells a pod of the API server, and the files of its ServiceAccount, which is made if need be."""
    with contextlib.suppress(ApiProblem):  # it is there
        kube.service_account(account, namespace)
    kube.pod_folder(container.root / "run/secrets/kubernetes.io/serviceaccount", account, namespace)
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(kube.port)}


async def produce(kafka: Cluster, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(TOPIC, value)


def value_of(variable: dict[str, Any]) -> str:
    """What a kubelet makes of it."""
    return str(variable["value"]) if "value" in variable else FIELDS[variable["valueFrom"]["fieldRef"]["fieldPath"]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def status_of(port: int, path: str) -> int:
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def asked(container: Container, code: str, environment: Mapping[str, str] | None = None) -> object:
    """What Python in the container computes as `answer`."""
    code += "\nimport json; print(json.dumps(answer))"
    program = container.start(entrypoint=[PYTHON, "-c", code], environment=environment)
    assert program.wait(START_SECONDS) == 0, program.printed()
    answer: object = json.loads(program.stdout.text())
    return answer
