"""What an ApiServerSource can be told: by Knative's controller, by a manifest, by a person; and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from wellhead.env import Collector, parse_flags, settings
from wellhead.errors import ConfigError
from wellhead.event import CloudEvent
from wellhead.kubernetes.change import Operation
from wellhead.kubernetes.kinds import Gvr
from wellhead.manifest import Document, documents
from wellhead_adapters.apiserver.config import ApiServerConfig, Initial, from_manifest
from wellhead_adapters.apiserver.subject import Mode, Owner, Resource, Subject, parse_source_config

DEPLOYMENT: Final = json.loads((Path(__file__).parent / "samples/crs/apiserversource_deployment.json").read_text())
PODS: Final = Resource(Gvr("", "v1", "pods"))
GOLDEN: Final = (
    '{"namespaces":["source-namespace"],"allNamespaces":false,'
    '"resources":[{"gvr":{"Group":"","Version":"v1","Resource":"namespaces"}},'
    '{"gvr":{"Group":"batch","Version":"v1","Resource":"jobs"}},'
    '{"gvr":{"Group":"","Version":"v1","Resource":"pods"},"selector":"test-key1=test-value1"}],'
    '"owner":{"apiVersion":"custom/v1","kind":"Parent"},"mode":"Resource","failFast":true}'
)


def config(*arguments: str, **env: str) -> ApiServerConfig:
    collector = Collector(env, parse_flags(arguments, settings(ApiServerConfig)))
    read = collector.read(ApiServerConfig)
    collector.check()
    assert read is not None
    return read


def problems(*arguments: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(*arguments, **env)
    return list(map(str, caught.value.problems))


def document(spec: dict[str, Any], **metadata: Any) -> Document:
    text = json.dumps(
        {
            "apiVersion": "sources.knative.dev/v1",
            "kind": "ApiServerSource",
            "metadata": {"name": "as1", "namespace": "kn", **metadata},
            "spec": spec,
        }
    )
    (found,), wrong = documents(text, "file.yaml")
    assert not wrong
    return found


# --- what Knative's controller says ---


def test_the_environment_of_the_deployment_that_knatives_controller_makes_is_read() -> None:
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    env = {one["name"]: one.get("value", "kn") for one in container["env"]}
    read = config(**env)
    assert read.subject == Subject(
        resources=(Resource(Gvr("", "v1", "configmaps"), "app=lab"), PODS),
        namespaces=("kn",),
        mode=Mode.RESOURCE,
        filters=[{"prefix": {"type": "dev.knative.apiserver"}}],
    )
    assert (read.namespace, read.name) == ("kn", "as1")
    assert read.passes.passes(CloudEvent(id="1", source="s", type="dev.knative.apiserver.ref.add"))
    assert not read.passes.passes(CloudEvent(id="1", source="s", type="other"))


def test_what_upstreams_own_tests_expect_is_read() -> None:
    read = parse_source_config(GOLDEN)
    assert read.owner == Owner("custom/v1", "Parent")
    assert [resource.gvr.resource for resource in read.resources] == ["namespaces", "jobs", "pods"]
    assert read.resources[2].selector == "test-key1=test-value1"
    assert read.fail_fast
    assert read.mode is Mode.RESOURCE


@pytest.mark.parametrize(
    ("given", "namespaces"),
    [
        ('"namespaces":["a","b","a"],"allNamespaces":false', ("a", "b")),
        ('"namespaces":["a"],"allNamespaces":true', ()),
        ('"namespaces":[""]', ()),
        ('"Namespaces":["a"],"ALLNAMESPACES":false', ("a",)),
        ('"namespaces":["a"],"disableCache":true', ("a",)),
    ],
)
def test_namespaces_are_those_that_upstream_would_watch(given: str, namespaces: tuple[str, ...]) -> None:
    assert parse_source_config(f'{{{given},"resources":[{{"GVR":{{"version":"v1","RESOURCE":"pods"}}}}]}}') == Subject(
        resources=(PODS,), namespaces=namespaces, mode=Mode.RESOURCE
    )


@pytest.mark.parametrize(
    ("mode", "read"), [("Reference", Mode.REFERENCE), ("reference", Mode.RESOURCE), ("", Mode.RESOURCE)]
)
def test_anything_but_reference_is_resource_as_upstream(mode: str, read: Mode) -> None:
    text = f'{{"namespaces":["a"],"resources":[{{"gvr":{{"Version":"v1","Resource":"pods"}}}}],"mode":"{mode}"}}'
    assert parse_source_config(text).mode is read


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{", ["K_SOURCE_CONFIG: '{' is not JSON"]),
        ("[]", ["is not a JSON object"]),
        ("{}", ["resources: names no resource to watch", "namespaces: names none, and allNamespaces is not true"]),
        (
            ('{"namespaces":["A","b"],"owner":{"apiVersion":"a/b/c"},'
             '"resources":[{"gvr":{}},{"gvr":{"Version":"v1","Resource":"pods"},"selector":"=a"}]}'),
            [
                "resources[0].gvr.Version: is missing", "resources[0].gvr.Resource: is missing",
                "resources[1].selector: '=a' has '=a'", "namespaces: 'A' is no namespace's name",
                "owner.apiVersion: 'a/b/c' is not group/version",
            ],
        ),
        (
            '{"namespaces":["a"],"resources":[{"gvr":{"Version":"v1","Resource":"pods"}}],"owner":"Pod"}',
            ["owner: is not an object"],
        ),
        (
            '{"namespaces":["a"],"resources":[{"gvr":{"Version":"v1","Resource":"pods"}}],"filters":[{"exact":{"Type":"x"}},{"x":1}]}',
            ["K_SOURCE_CONFIG: filters[0]", "K_SOURCE_CONFIG: filters[1]"],
        ),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_the_source_config_is_told(given: str, told: list[str]) -> None:
    said = [one for one in problems(K_SOURCE_CONFIG=given) if "say what to watch" not in one]
    assert len(said) == len(told)
    for one, expected in zip(said, told, strict=True):
        assert expected in one


def test_what_the_source_config_says_is_not_said_beside_it() -> None:
    said = problems("--namespaces=a", "--resource=v1:Pod", K_SOURCE_CONFIG=GOLDEN, OWNER=":Pod")
    assert [one.partition(",")[0] for one in said] == ["resource", "namespaces", "owner"]


# --- what a person says ---


def test_a_person_says_what_to_watch() -> None:
    read = config(
        "--resource=v1:Pod:app=web", "--resource=lab.example/v1:Gateway", "--namespaces", "a, b", "--owner=:ReplicaSet",
        "--data=Resource", "--initial=add", "--operations=add,delete", "--ignore-changes=status,/spec/replicas",
        '--filters=[{"exact":{"type":"x"}}]', "--copy=app=label:app.io/name", "--copy=node=/spec/nodeName",
    )  # fmt: skip
    assert read.subject == Subject(
        resources=(Resource(Gvr("", "v1", "pods"), "app=web"), Resource(Gvr("lab.example", "v1", "gatewaies"))),
        namespaces=("a", "b"),
        owner=Owner("", "ReplicaSet"),
        mode=Mode.RESOURCE,
    )
    assert read.initial is Initial.ADD
    assert read.wanted.operations == {Operation.ADD, Operation.DELETE}
    assert read.wanted.ignored == (("status",), ("spec", "replicas"))
    assert read.copies == (("app", ("metadata", "labels", "app.io/name")), ("node", ("spec", "nodeName")))


def test_fields_and_a_server_are_taken_as_they_are() -> None:
    read = config("--resource=v1:Pod", "--field-selector=status.phase!=Running", "--server=http://localhost:8001/")
    assert (read.field_selector, read.server) == ("status.phase!=Running", "http://localhost:8001")
    assert config("--resource=v1:Pod", "--owner=apps/v1:").subject.owner == Owner("apps/v1", "")


def test_many_sources_of_one_image_have_a_state_each() -> None:
    env = {"APISERVER_STATE_CONFIG_MAP": "wellhead-{name}", "RESOURCES": "v1:Pod"}
    assert config(**env, NAME="pods", NAMESPACE="ns").state_object == ("ns", "wellhead-pods")
    assert config(RESOURCES="v1:Pod").state_object is None


def test_where_it_watches_is_its_own_namespace_unless_it_is_told_otherwise() -> None:
    assert config("--resource=v1:Pod", NAMESPACE="mine").subject.namespaces == ("mine",)
    assert config("--resource=v1:Pod", "--namespaces=*", NAMESPACE="mine").subject.namespaces == ()
    chosen = config("--resource=v1:Pod", "--namespace-selector=team in (a,b)").subject
    assert chosen.namespaces == ()
    assert chosen.namespace_selector is not None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "K_SOURCE_CONFIG or --resource: say what to watch"),
        (("--resource=v1:Pod", "--namespaces=a", "--namespace-selector=b"), "one of them"),
        (("--resource=Pod",), "--resource: 'Pod' is not apiVersion:Kind"),
        (("--resource=a/b/c:Pod",), "has the apiVersion 'a/b/c'"),
        (("--resource=v1:Pod:=a",), "no requirement"),
        (("--resource=v1:Pod", "--namespaces=A"), "no namespace's name"),
        (("--resource=v1:Pod", "--copy=kind=label:a"), "says itself"),
        (("--resource=v1:Pod", "--copy=x=spec"), "JSON Pointer"),
        (("--resource=v1:Pod", "--state-config-map=No_Name"), "no name of an object"),
        (("--resource=v1:Pod", "--state-config-map=a", "--state-file=/tmp/a"), "one of them"),
        (("--resource=v1:Pod", "--server=localhost:8001"), "--server: "),
        (("--resource=v1:Pod", '--filters=[{"cesql":"("}]'), "--filters: filters[0]"),
    ],
)
def test_what_is_wrong_is_told(arguments: tuple[str, ...], told: str) -> None:
    (said,) = [one for one in problems(*arguments) if told in one]
    assert told in said


# --- what a manifest says ---


def test_a_manifest_says_the_same_as_what_knatives_controller_makes_of_it() -> None:
    read = from_manifest(
        document(
            {
                "serviceAccountName": "watcher",
                "mode": "Resource",
                "resources": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "selector": {"matchLabels": {"app": "lab"}}},
                    {"apiVersion": "v1", "kind": "Pod"},
                ],
                "filters": [{"prefix": {"type": "dev.knative.apiserver"}}],
            }
        )
    )
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    given = next(one["value"] for one in container["env"] if one["name"] == "K_SOURCE_CONFIG")
    assert read.subject == parse_source_config(given)
    assert (read.namespace, read.name) == ("kn", "as1")


@pytest.mark.parametrize(
    ("selector", "namespaces", "is_followed"),
    [(None, ("kn",), False), ({}, (), False), ({"matchLabels": {"a": "b"}}, (), True)],
)
def test_a_namespace_selector_is_nothing_everything_or_followed(
    selector: dict[str, Any] | None,
    namespaces: tuple[str, ...],
    is_followed: bool,  # noqa: FBT001
) -> None:
    spec: dict[str, Any] = {"resources": [{"apiVersion": "v1", "kind": "Pod"}]}
    read = from_manifest(document(spec if selector is None else {**spec, "namespaceSelector": selector})).subject
    assert read.namespaces == namespaces
    assert (read.namespace_selector is not None) is is_followed


def test_the_annotation_that_skips_the_permissions_check_makes_it_fail_fast() -> None:
    annotations = {"features.knative.dev/apiserversource-skip-permissions-check": "true"}
    spec = {"resources": [{"apiVersion": "v1", "kind": "Pod"}]}
    assert from_manifest(document(spec, annotations=annotations)).subject.fail_fast
    assert not from_manifest(document(spec)).subject.fail_fast


def test_all_that_is_wrong_with_a_manifest_is_told_by_path() -> None:
    with pytest.raises(ConfigError) as caught:
        from_manifest(
            document(
                {
                    "mode": "reference",
                    "resources": [{"kind": "Pod", "apiversion": "v1"}, 3, {"apiVersion": "a/b/c", "kind": "X"},
                                  {"apiVersion": "v1", "kind": "Pod", "selector": {"matchLabels": {"=": ""}}}],
                    "owner": {"kind": "X"},
                    "namespaceSelector": [],
                    "filters": {},
                }
            )
        )  # fmt: skip
    assert [problem.where for problem in caught.value.problems] == [
        "spec.resources[0].apiversion", "spec.resources[0].apiVersion", "spec.resources[1]",
        "spec.resources[2].apiVersion", "spec.resources[3].selector.matchLabels.=", "spec.owner.apiVersion",
        "spec.namespaceSelector", "spec.mode", "spec.filters",
    ]  # fmt: skip


def test_a_manifest_without_resources_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"spec\.resources: missing field"):
        from_manifest(document({}))
