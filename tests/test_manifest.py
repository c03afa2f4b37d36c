"""Knative YAML as values, and what ``wellhead run -f`` would run of it: every problem at once and by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.errors import ConfigError
from wellhead.manifest import documents
from wellhead_adapters.cli.command import adapters
from wellhead_adapters.cli.plan import Plan, World, image_name, plan
from wellhead_adapters.heartbeat.config import HeartbeatConfig
from wellhead_adapters.ping.config import PingConfig

SAMPLES: Final = Path(__file__).parent / "samples"
PING: Final = """
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: tick, namespace: kn}
spec:
  schedule: "*/2 * * * *"
  contentType: application/json
  data: '{"message": "hi"}'
  sink: {ref: {apiVersion: v1, kind: Service, name: display}, uri: /there}
  ceOverrides: {extensions: {Team: lab}}
"""
CONTAINER: Final = """
apiVersion: sources.knative.dev/v1
kind: ContainerSource
metadata: {name: beats, namespace: kn}
spec:
  template:
    spec:
      containers:
        - image: ko://knative.dev/eventing/cmd/heartbeats
          args: [--period=1]
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: HEARTBEAT_MSG, valueFrom: {secretKeyRef: {name: words, key: msg}}}
  sink: {uri: "http://localhost:8080"}
---
apiVersion: v1
kind: Secret
metadata: {name: words, namespace: kn}
data: {msg: aGVsbG8=}
"""
BOUND: Final = """
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {name: bind}
spec:
  subject: {apiVersion: apps/v1, kind: Deployment, selector: {matchLabels: {app: beats}}}
  sink: {uri: "http://localhost:8080"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: beats, labels: {app: beats}}
spec: {template: {spec: {containers: [{image: "mine:1", env: [{name: POD_NAME, value: a}, {name: POD_NAMESPACE}]}]}}}
"""


def planned(text: str, **images: str) -> Plan:
    found, problems = documents(text, "file.yaml")
    assert problems == []
    return plan(found, World(adapters=adapters(), images=images))


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        planned(text)
    return [str(problem) for problem in raised.value.problems]


def test_a_ping_source_is_read_as_knative_reads_it() -> None:
    (source,) = planned(PING).sources.values()
    assert (source.key, source.adapter, source.namespace) == ("PingSource kn/tick", "ping", "kn")
    assert isinstance(source.config, PingConfig)
    assert source.config.ping.source == "/apis/v1/namespaces/kn/pingsources/tick"
    assert source.config.ping.data == b'{"message": "hi"}'
    assert source.spec.overrides == {"team": "lab"}
    assert source.spec.sink is not None
    assert str(source.spec.sink.ref) == "Service kn/display"  # the source's own namespace
    assert source.spec.sink.uri == "/there"


def test_a_container_source_runs_where_its_image_is_one_of_ours_and_gets_what_the_pod_would() -> None:
    plan_ = planned(CONTAINER)
    (source,) = plan_.sources.values()
    assert isinstance(source.config, HeartbeatConfig)
    assert (source.config.pod_name, source.config.pod_namespace, source.config.msg) == ("beats", "kn", "hello")


def test_a_sink_binding_runs_the_workload_it_binds_and_an_image_can_be_told() -> None:
    (source,) = planned(BOUND, mine="heartbeat").sources.values()
    assert (source.key, source.adapter) == ("SinkBinding default/bind", "heartbeat")


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("ko://knative.dev/eventing/cmd/heartbeats", "heartbeats"),
        ("gcr.io/knative-nightly/knative.dev/eventing/cmd/heartbeats:v1@sha256:0", "heartbeats"),
        ("localhost:5000/heartbeats", "heartbeats"),
        ("heartbeats", "heartbeats"),
    ],
)
def test_an_image_is_known_by_its_last_name(image: str, name: str) -> None:
    assert image_name(image) == name


def test_two_plans_of_the_same_text_are_equal_so_that_a_reload_disturbs_nothing() -> None:
    assert planned(PING + "---" + CONTAINER).sources == planned(PING + "---" + CONTAINER).sources


WRONG: Final = {
    "an unknown field is named with the nearest right one": (
        PING.replace("schedule:", "schedul:"),
        "spec.schedul: unknown field; did you mean schedule?",
    ),
    "a schedule that is wrong": (PING.replace("*/2", "61"), "spec.schedule: "),
    "@every, as Knative's webhook": (PING.replace("*/2 * * * *", "@every 1m"), "unsupported descriptor @every"),
    "an unknown zone": (
        PING.replace("  data:", "  timezone: Nowhere\n  data:"),
        "spec.timezone: provided bad location",
    ),
    "data that is no JSON": (PING.replace('{"message": "hi"}', "{"), "spec.data: "),
    "a number for text": (PING.replace('"*/2 * * * *"', "2"), "spec.schedule: 2 is not a string"),
    "no sink": (PING.replace("  sink:", "  sunk:"), "expected at least one, got none: spec.sink.ref, spec.sink.uri"),
    "a ref without a kind": (PING.replace("kind: Service,", ""), "spec.sink.ref.kind: missing field"),
    "an override of an attribute": (PING.replace("Team: lab", "type: x"), "spec.ceOverrides.extensions.type: "),
    "a kind nobody runs": (PING.replace("kind: PingSource", "kind: PongSource"), "nothing here runs a PongSource"),
    "two of one name": (f"{PING}---{PING}", "there is another of this kind, namespace and name"),
    "an image that is none of ours": (BOUND, "'mine:1' is none of ours; say which is: --image mine=heartbeat"),
    "a secret that is not there": (
        CONTAINER.replace("name: words, key", "name: word, key"),
        "HEARTBEAT_MSG is not to be had",
    ),
    "a flag of the container": (CONTAINER.replace("--period=1", "--period=never"), "containers[0]: --period: 'never'"),
    "a subject that is not there": (BOUND.replace("app: beats}}}", "app: x}}}"), "no Deployment of these documents"),
    "a delivery": (PING.replace("  data:", "  delivery: {retry: -1, timeout: x}\n  data:"), "spec.delivery.retry: "),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_by_path(text: str, said: str) -> None:
    told = problems(text)
    assert any(said in line for line in told), told
    assert all(line.startswith("file.yaml, document ") for line in told)


def test_everything_wrong_is_said_at_once() -> None:
    wrong = PING.replace("*/2", "61").replace("Team: lab", "type: x").replace("  data:", "  timezone: X\n  dat:")
    assert len(problems(wrong)) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("", "holds no document"),
        ("---\n---\n", "holds no document"),
        ("a: &x [*x]", "inside what it stands for"),
        ("a: *x", "is not YAML"),
        ("\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '1'] * 10)}]" for n in range(9)), "more than"),
        ("a: 1\na: 2", "given twice"),
        ("[" * 100 + "]" * 100, "deeper"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("\0", "is not YAML"),
    ],
)
def test_a_file_that_is_no_yaml_of_ours_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        documents(text, "file.yaml")


def test_an_alias_stands_for_what_it_names() -> None:
    more = "name: tick, labels: &labels {app: tick}, annotations: {<<: *labels, more: x}"
    text = PING.replace("name: tick", more, 1)
    (document,), wrong = documents(text, "file.yaml")
    assert wrong == []
    assert document.body["metadata"]["labels"] == {"app": "tick"}  # type: ignore[index]
    assert document.body["metadata"]["annotations"] == {"app": "tick", "more": "x"}  # type: ignore[index]


def test_a_document_that_is_no_object_of_kubernetes_does_not_hide_what_is_wrong_with_the_others() -> None:
    found, wrong = documents(f"{PING}---\nkind: PingSource\n---\n- 1\n", "file.yaml")
    assert [document.name for document in found] == ["tick"]
    assert len(wrong) == 3


def test_a_list_is_opened() -> None:
    items = {
        "kind": "List",
        "apiVersion": "v1",
        "items": [{"kind": "A", "apiVersion": "v1", "metadata": {"name": "x"}}],
    }
    found, _ = documents(json.dumps(items), "file.yaml")
    assert [document.kind for document in found] == ["A"]


@given(st.text(max_size=200))
def test_whatever_a_file_holds_only_a_config_error_comes_of_it(text: str) -> None:
    try:
        found, _ = documents(text, "file.yaml")
        plan(found, World(adapters=adapters()))
    except ConfigError:
        return


# The row with a size limit is a ConfigMap's of Knative's cluster: test_ping_events.py holds it against `body`.
VERDICTS: Final = [
    row
    for row in json.loads((SAMPLES / "pingsource" / "validation.json").read_text())["rows"]
    if "data_max_size" not in row
]


@pytest.mark.parametrize("row", VERDICTS, ids=str)
def test_a_ping_source_is_accepted_or_refused_as_by_knatives_webhook(row: dict[str, object]) -> None:
    spec = dict(row["spec"])  # type: ignore[call-overload]  # JSON
    if spec.pop("_sink", "") != "none":
        spec["sink"] = {"uri": "http://sink"}
    body = {"apiVersion": "sources.knative.dev/v1", "kind": "PingSource", "metadata": {"name": "p"}, "spec": spec}
    if row["ok"]:
        assert len(planned(json.dumps(body)).sources) == 1
    else:
        told = problems(json.dumps(body))
        assert any(
            str(row["field"]) in line and str(row.get("message", "")).partition(":")[0] in line for line in told
        ), told


def test_the_ping_sources_and_container_sources_we_publish_are_run_as_they_stand() -> None:
    manifests = Path(__file__).parents[1] / "manifests"
    found = [planned((manifests / name).read_text()) for name in ("pingsource.yaml", "heartbeat-containersource.yaml")]
    assert [len(plan_.sources) for plan_ in found] == [4, 1]
