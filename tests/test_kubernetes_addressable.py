from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.binding import Addressable, Ref
from wellhead.errors import ConfigError
from wellhead.kubernetes.addressable import address_of, api_version_of, domain_of, is_core_service, service_address

if TYPE_CHECKING:
    from collections.abc import Mapping

BROKER: Final = Ref(apiVersion="eventing.knative.dev/v1", kind="Broker", name="pond", namespace="lake")
URL: Final = "http://broker-ingress.knative-eventing.svc.cluster.local/lake/pond"
NAMED: Final = Ref(kind="Broker", name="pond", address="https")


@pytest.mark.parametrize(
    ("ref", "status", "expected"),
    [
        (BROKER, {"address": {"url": URL}}, Addressable(url=URL)),
        (BROKER, {"address": {"url": URL}, "addresses": []}, Addressable(url=URL)),
        (
            BROKER,
            {"address": {"url": "http://other"}, "addresses": [{"url": URL, "CACerts": "PEM", "audience": "pond"}, {}]},
            Addressable(url=URL, ca_certs="PEM", audience="pond"),
        ),
        (
            NAMED,
            {"addresses": [{"name": "http", "url": "http://a"}, {"name": "https", "url": "https://b"}]},
            Addressable(url="https://b"),
        ),
    ],
)
def test_the_address_stands_in_the_status(ref: Ref, status: Mapping[str, object], expected: Addressable) -> None:
    assert address_of(ref, {"status": status}) == expected


@pytest.mark.parametrize(
    ("ref", "body", "what"),
    [
        (BROKER, {}, "sink.ref Broker lake/pond: has no address"),
        (BROKER, {"status": None}, "sink.ref Broker lake/pond: has no address"),
        (BROKER, {"status": {"address": {}}}, "sink.ref Broker lake/pond: has no URL in its address"),
        (BROKER, {"status": {"addresses": [{"url": ""}]}}, "sink.ref Broker lake/pond: has no URL in its address"),
        (
            BROKER,
            {"status": {"address": {"url": "/path"}}},
            "sink.ref Broker lake/pond: has an address without a host name",
        ),
        (
            BROKER,
            {"status": {"address": {"url": "http://[::"}}},
            "sink.ref Broker lake/pond: has an address without a host name",
        ),
        (
            NAMED,
            {"status": {"addresses": [{"name": "http", "url": "x"}]}},
            "sink.ref Broker pond: has no address named 'https'",
        ),
        (
            BROKER,
            {
                "status": {
                    "conditions": [
                        {"type": "Addressable", "status": "False"},
                        {"type": "Ready", "status": "False", "reason": "NotYet", "message": "frogs are asleep"},
                    ]
                }
            },
            "sink.ref Broker lake/pond: has no address; it is not ready (NotYet: frogs are asleep)",
        ),
        (
            BROKER,
            {"status": {"address": {}, "conditions": [{"type": "Ready", "status": "Unknown"}]}},
            "sink.ref Broker lake/pond: has no URL in its address; it is not ready",
        ),
    ],
)
def test_what_is_not_there_yet_is_said(ref: Ref, body: Mapping[str, object], what: str) -> None:
    with pytest.raises(ConfigError) as error:
        address_of(ref, body)
    assert str(error.value) == what


def test_a_service_of_kubernetes_is_at_its_name_and_one_of_knative_is_not() -> None:
    service = Ref(kind="Service", name="frog", apiVersion="v1")
    assert is_core_service(service)
    assert is_core_service(Ref(kind="Service", name="frog"))
    assert not is_core_service(Ref(kind="Service", name="frog", apiVersion="serving.knative.dev/v1"))
    assert service_address(service, "lake", "cluster.local", secure=False).url == "http://frog.lake.svc.cluster.local"
    assert service_address(service, "lake", "pond.org", secure=True).url == "https://frog.lake.svc.pond.org"


def test_a_kind_that_is_known_needs_no_version_and_another_does() -> None:
    assert api_version_of(Ref(kind="KafkaChannel", name="a")) == "messaging.knative.dev/v1beta1"
    assert api_version_of(Ref(kind="Frog", name="a", apiVersion="pond.org/v1")) == "pond.org/v1"
    with pytest.raises(ConfigError, match=r"sink\.ref Frog a: needs an apiVersion; Frog is none of Service, Broker"):
        api_version_of(Ref(kind="Frog", name="a"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 10.96.0.10\nsearch default.svc.pond.org svc.pond.org pond.org\n", "pond.org"),
        ("search svc.pond.org. x", "pond.org"),
        ("search example.com", "cluster.local"),
        ("", "cluster.local"),
    ],
)
def test_the_clusters_domain_stands_in_the_resolvers_configuration(text: str, expected: str) -> None:
    assert domain_of(text) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "address", "addresses", "url", "name", "conditions", "type"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.just("status"), JSON), st.sampled_from([BROKER, NAMED]))
def test_whatever_an_object_holds_it_has_an_address_or_a_problem(body: Mapping[str, object], ref: Ref) -> None:
    try:
        found = address_of(ref, body).url
    except ConfigError as error:
        found = str(error)
    assert found
