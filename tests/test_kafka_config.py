"""What a Kafka source can be told: variables of Knative's Go adapter, KafkaSource documents, and what is wrong with them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from wellhead.delivery import Backoff
from wellhead.env import Collector, parse_flags, read, settings
from wellhead.errors import ConfigError
from wellhead.manifest import Document, documents, source_spec
from wellhead_adapters.kafka.adapter import Kafka
from wellhead_adapters.kafka.config import KafkaConfig
from wellhead_adapters.kafka.connection import Mechanism
from wellhead_adapters.kafka.events import Tally
from wellhead_adapters.kafka.keys import KeyType
from wellhead_adapters.kafka.lanes import Ordering
from wellhead_adapters.kafka.manifest import from_manifest
from wellhead_adapters.kafka.metrics import PartitionFacts, ReaderFacts, kafka_metrics
from wellhead_adapters.kafka.starting import Edge

ROOT: Final = Path(__file__).parents[1]
GO: Final = {
    "KAFKA_BOOTSTRAP_SERVERS": "one:9092,two:9093",
    "KAFKA_TOPICS": "orders,refunds",
    "KAFKA_CONSUMER_GROUP": "group",
    "KAFKA_INITIAL_OFFSET": "earliest",
    "KEY_TYPE": "int",
    "NAME": "ks",
    "NAMESPACE": "ns",
    "K_KAFKA_CONFIG": '{"SaramaYamlString":"version: 2.0.0"}',
    "KAFKA_NET_SASL_ENABLE": "false",
    "KAFKA_NET_SASL_USER": "",
    "KAFKA_NET_TLS_ENABLE": "false",
}
SOURCE: Final = """
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: ks, namespace: ns}
spec:
  bootstrapServers: [kafka:9092]
  topics: [t]
  sink: {uri: http://sink/}
"""


def problems_of(environment: dict[str, str], *flags: str) -> dict[str, str]:
    collector = Collector(environment, parse_flags(flags, settings(KafkaConfig)))
    assert collector.read(KafkaConfig) is None
    return {problem.where: problem.what for problem in collector.problems}


def document(text: str = SOURCE, /, **spec: object) -> Document:
    """The first document of ``text``, with these fields of ``spec``, beside the others."""
    first, *others = list(yaml.safe_load_all(text))
    first["spec"] = {name: value for name, value in {**first["spec"], **spec}.items() if value is not None}
    found, wrong = documents(yaml.safe_dump_all([first, *others]), "f")
    assert wrong == []
    return found[0]


def refusals(made: Document) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        from_manifest(made)
    return {problem.where: problem.what for problem in caught.value.problems}


# --- variables ---


def test_the_environment_of_knatives_go_adapter_is_a_configuration() -> None:
    config = read(KafkaConfig, GO)
    assert (config.bootstrap_servers, config.topics) == (("one:9092", "two:9093"), ("orders", "refunds"))
    assert (config.consumer_group, config.initial_offset, config.key_type) == ("group", Edge.EARLIEST, KeyType.INT)
    assert config.source().source("t") == "/apis/v1/namespaces/ns/kafkasources/ks#t"
    assert config.ordering is Ordering.PARTITION


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KEY_TYPE", "garbage"),
        ("KAFKA_INITIAL_OFFSET", "soon"),
        ("KAFKA_TOPICS", "a b"),
        ("KAFKA_TOPICS", ".."),
        ("KAFKA_TOPICS", ","),
        ("KAFKA_ORDERING", "some"),
        ("KAFKA_MAX_IN_FLIGHT", "0"),
        ("KAFKA_BUFFER", "16"),
        ("KAFKA_BUFFER", "lots"),
        ("KAFKA_DRAIN", "0s"),
        ("KAFKA_COMMIT_INTERVAL", "8h30"),
        ("KAFKA_ISOLATION", "serializable"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:many"),
    ],
)
def test_a_value_that_is_wrong_is_named_with_its_variable(variable: str, value: str) -> None:
    assert variable in " ".join(problems_of({**GO, variable: value}))


def test_all_that_is_missing_is_told_at_once() -> None:
    told = " ".join(problems_of({"NAME": "a b"}))
    assert "KAFKA_BOOTSTRAP_SERVERS" in told
    told = " ".join(problems_of({"NAME": "a b", "KAFKA_BOOTSTRAP_SERVERS": "kafka"}))
    for name in ("KAFKA_TOPICS", "KAFKA_TOPICS_PATTERN", "KAFKA_CONSUMER_GROUP", "NAME"):
        assert name in told


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--topics-pattern", "x.*"), "KAFKA_TOPICS_PATTERN"),
        (("--topics-pattern", "("), "topics-pattern"),
        (("--drain", "30s"), "KAFKA_DRAIN"),
        (("--session-timeout", "2m"), "KAFKA_SESSION_TIMEOUT"),
        (("--sasl-mechanism", "PLAIN", "--sasl"), "KAFKA_NET_SASL_USER"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told(flags: tuple[str, ...], named: str) -> None:
    said = {**GO, "KAFKA_NET_SASL_ENABLE": ""}
    assert named in " ".join(problems_of(said, *flags))


def test_a_dry_run_needs_no_group() -> None:
    known = {name: value for name, value in GO.items() if name != "KAFKA_CONSUMER_GROUP"}
    assert read(KafkaConfig, known, parse_flags(["--dry-run"], settings(KafkaConfig))).dry_run


@pytest.mark.parametrize(("text", "octets"), [("65536", 65536), ("64Ki", 65536), ("16Mi", 16 << 20), ("1Gi", 1 << 30)])
def test_a_buffer_is_a_size(text: str, octets: int) -> None:
    assert read(KafkaConfig, {**GO, "KAFKA_BUFFER": text}).buffer == octets


def test_no_secret_is_in_its_repr() -> None:
    config = read(
        KafkaConfig,
        {**GO, "KAFKA_NET_SASL_ENABLE": "true", "KAFKA_NET_SASL_USER": "u", "KAFKA_NET_SASL_PASSWORD": "hunter2"},
    )
    assert "hunter2" not in repr(config)


# --- KafkaSource ---


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_kafkasource_is_a_configuration(version: str) -> None:
    config = from_manifest(document(SOURCE.replace("/v1", f"/{version}")))
    assert (config.bootstrap_servers, config.topics, config.name, config.namespace) == (
        ("kafka:9092",),
        ("t",),
        "ks",
        "ns",
    )
    assert (config.consumer_group, config.initial_offset) == ("knative-kafka-source-ns-ks", Edge.LATEST)


@pytest.mark.parametrize(
    ("said", "annotation", "meant"),
    [
        (None, None, Ordering.PARTITION),
        ("ordered", None, Ordering.PARTITION),
        ("unordered", None, Ordering.UNORDERED),
        (None, "key", Ordering.KEY),
        ("ordered", "key", Ordering.KEY),
    ],
)
def test_its_ordering_is_of_partitions_unless_it_says_another(
    said: str | None, annotation: str | None, meant: Ordering
) -> None:
    text = (
        SOURCE.replace("namespace: ns", f"namespace: ns, annotations: {{wellhead/ordering: {annotation}}}")
        if annotation
        else SOURCE
    )
    assert from_manifest(document(text, ordering=said)).ordering is meant


def test_its_key_type_is_a_label() -> None:
    text = SOURCE.replace("namespace: ns", "namespace: ns, labels: {kafkasources.sources.knative.dev/key-type: float}")
    assert from_manifest(document(text)).key_type is KeyType.FLOAT


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"bootstrapServers": None}, "spec.bootstrapServers"),
        ({"bootstrapServers": "kafka:9092"}, "spec.bootstrapServers"),
        ({"topics": []}, "spec.topics"),
        ({"topics": ["a b"]}, "spec.topics"),
        ({"initialOffset": "soon"}, "spec.initialOffset"),
        ({"ordering": "random"}, "spec.ordering"),
        ({"consumers": -1}, "spec.consumers"),
        ({"consumers": "two"}, "spec.consumers"),
        ({"net": {"sasl": {"enable": True}}}, "spec.net.sasl.user"),
    ],
)
def test_what_is_wrong_with_it_is_told_by_path(spec: dict[str, object], path: str) -> None:
    assert path in refusals(document(**spec))


def test_what_is_wrong_with_labels_and_annotations_is_told_too() -> None:
    text = SOURCE.replace(
        "namespace: ns",
        "namespace: ns, labels: {kafkasources.sources.knative.dev/key-type: long}, annotations: {wellhead/ordering: none}",
    )
    assert refusals(document(text)).keys() == {
        "metadata.labels[kafkasources.sources.knative.dev/key-type]",
        "metadata.annotations[wellhead/ordering]",
    }


def test_a_delivery_that_is_partial_keeps_our_rules_for_the_rest() -> None:
    spec = source_spec(document(delivery={"retry": 3}), own=Kafka.spec_fields, base=Kafka.policy)
    assert spec.policy is not None
    assert (spec.policy.retries, spec.policy.backoff, spec.policy.timeout) == (
        3,
        Backoff.EXPONENTIAL,
        timedelta(minutes=10),
    )


# --- what is published ---


def manifest(name: str) -> list[Document]:
    found, wrong = documents((ROOT / "manifests" / name).read_text(encoding="utf-8"), name)
    assert wrong == []
    return found


def test_every_kafkasource_of_the_manifests_is_a_configuration() -> None:
    published = manifest("kafkasource.yaml")
    configs = {one.name: from_manifest(one, published) for one in published if one.kind == "KafkaSource"}
    assert {name: config.ordering for name, config in configs.items()} == {
        "orders": Ordering.PARTITION,
        "payments": Ordering.KEY,
        "metrics": Ordering.UNORDERED,
    }
    assert (configs["payments"].mechanism, configs["payments"].sasl_password) == (Mechanism.SCRAM_SHA_512, "replace-me")
    assert [configs[name].uses_tls for name in ("orders", "payments", "metrics")] == [False, True, True]


def test_the_deployment_finds_its_secret_and_is_scaled_by_the_lag_of_its_own_group() -> None:
    beside: dict[str, Any] = {one.kind: one.body for one in manifest("kafka-sinkbinding.yaml")}
    pod = beside["Deployment"]["spec"]["template"]["spec"]
    (container,), (volume,), (mount,) = pod["containers"], pod["volumes"], pod["containers"][0]["volumeMounts"]
    assert volume["secret"]["secretName"] == beside["Secret"]["metadata"]["name"]
    environment = {one["name"]: one.get("value", "x") for one in container["env"]}
    config = read(KafkaConfig, environment, parse_flags(container["args"], settings(KafkaConfig)))
    for file in (config.sasl_user_file, config.sasl_password_file, config.tls_ca_cert_file):
        assert file is not None
        assert str(file.parent) == mount["mountPath"]
        assert file.name in beside["Secret"]["stringData"]
    (trigger,) = beside["ScaledObject"]["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == config.consumer_group
    assert (trigger["metadata"]["topic"],) == config.topics
    assert trigger["metadata"]["bootstrapServers"] == ",".join(config.bootstrap_servers)
    credentials = beside["TriggerAuthentication"]["spec"]["secretTargetRef"]
    assert {one["key"] for one in credentials} <= beside["Secret"]["stringData"].keys()


def test_every_metric_and_no_other_is_in_the_readme() -> None:
    place = PartitionFacts(topic="t", partition=0, lag=1, committed_lag=1, in_flight=1, octets=1, paused=True)
    facts = ReaderFacts(
        partitions=[place],
        progress_age=1,
        rebalances=1,
        new_consumers=0,
        resets=0,
        unreadable=0,
        suppressed=0,
        tally=Tally(),
    )
    readme = (ROOT / "adapters/wellhead_adapters/kafka/README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(wellhead_\w+)`", readme, re.MULTILINE) == [metric.name for metric in kafka_metrics(facts)]


def test_as_many_tries_are_on_the_wire_as_records_may_be_on_their_way() -> None:
    variables = {"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "KAFKA_TOPICS": "t", "KAFKA_CONSUMER_GROUP": "g"}
    assert Kafka.concurrency(read(KafkaConfig, {**variables, "KAFKA_MAX_IN_FLIGHT": "1000"})) == 1000


def test_what_is_wrong_with_a_field_is_told_once() -> None:
    variables = {"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "KAFKA_TOPICS": "a b", "KAFKA_CONSUMER_GROUP": "g"}
    with pytest.raises(ConfigError) as wrong:
        read(KafkaConfig, variables)
    assert [problem.where for problem in wrong.value.problems] == ["KAFKA_TOPICS"]
