from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.binding import (
    Addressable,
    Destination,
    MappedRefs,
    Ref,
    SinkBinding,
    checked_overrides,
    join_uri,
    parse_overrides,
    parse_refs,
    parse_sink,
    public_url,
    resolve,
    socket_path,
    url_problem,
)
from wellhead.errors import ConfigError
from wellhead.event import CloudEvent

SINK: Final = "http://sink:8080/path"
EVENT: Final = CloudEvent(id="1", source="/s", type="t", extensions={"a": 1, "b": "kept"})
BROKER: Final = Ref(kind="Broker", name="default", namespace="ns", apiVersion="eventing.knative.dev/v1")
SECRET: Final = "hunter2"
CA: Final = "-----BEGIN CERTIFICATE-----"


def config_problems(make: Any, *arguments: Any, **named: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **named)
    return [str(problem) for problem in caught.value.problems]


# --- What is an address

GOOD_URLS: Final = (
    "http://h", "https://h/", "http://h:8080/a/b?c=d&e=%20f", "http://127.0.0.1:1", "http://[::1]:80/x", "HTTP://H",
    "http://h/a;b=c,d:e@f", "http+unix://%2Frun%2FSink.sock", "http+unix://%2Frun%2Fs/path?q=1", "http://svc.ns.svc.cluster.local/a_b~c!$'()*+",
)  # fmt: skip
NO_SOCKET: Final = "names no Unix socket: its path stands for the host, as in http+unix://%2Frun%2Fsink.sock/path"
BAD_URLS: Final = (
    ("", "is not a URL: it is empty or holds blanks"),
    (" http://h", "is not a URL: it is empty or holds blanks"),
    ("http://h/a b", "is not a URL: it is empty or holds blanks"),
    ("http://h/\n", "is not a URL: it is empty or holds blanks"),
    ("http://h/\u2003", "is not a URL: it is empty or holds blanks"),
    ("http://h:port", "is not a URL: its host or port cannot be read"),
    ("http://h:65536", "is not a URL: its host or port cannot be read"),
    ("http://[::1", "is not a URL: its host or port cannot be read"),
    ("http://h:0", "has port 0"),
    ("h:8080", "is not an absolute URL: it needs a scheme, as in http://host:port/path"),
    ("localhost", "is not an absolute URL: it needs a scheme, as in http://host:port/path"),
    ("/path", "is not an absolute URL: it needs a scheme, as in http://host:port/path"),
    ("http:h", "is not an absolute URL: it needs a scheme, as in http://host:port/path"),
    ("//h/path", "is not an absolute URL: it needs a scheme, as in http://host:port/path"),
    ("ftp://h", "has the scheme 'ftp'; a sink is reached by http, https or http+unix"),
    ("http+unix://run/sink.sock", NO_SOCKET),
    ("http+unix:///run/sink.sock", NO_SOCKET),
    ("http+unix://%2Frun%2Fs:80/", NO_SOCKET),
    ("http+unix://%2Frun%2F/", NO_SOCKET),
    ("http+unix://%2Frun%00/", NO_SOCKET),
    ("http+unix://%2F" + 107 * "x", "names a Unix socket by more than 107 bytes"),
    (
        "http://u:p@h",
        "carries user info before the host, which would end in logs (SINK_USERNAME and SINK_PASSWORD_FILE take it)",
    ),
    (
        "http://@h",
        "carries user info before the host, which would end in logs (SINK_USERNAME and SINK_PASSWORD_FILE take it)",
    ),
    ("http://", "is not an absolute URL: it names no host"),
    ("http:///path", "is not an absolute URL: it names no host"),
    ("http://:80", "is not an absolute URL: it names no host"),
    ("http://h/#f", "has a fragment (#…), which is never sent"),
    ("http://h/#", "has a fragment (#…), which is never sent"),
    ("http://h/é", "holds characters that a URL percent-encodes"),
    ("http://h/%zz", "holds characters that a URL percent-encodes"),
    ("http://h/<x>", "holds characters that a URL percent-encodes"),
    ("http://h/\x00", "holds characters that a URL percent-encodes"),
)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_sink_is_an_absolute_http_url(url: str) -> None:
    assert url_problem(url) == ""
    assert (SinkBinding(sink=url).sink, parse_sink(f" {url}\n")) == (url, Destination(uri=url))


@pytest.mark.parametrize(("url", "rule"), BAD_URLS)
def test_what_is_no_address_of_a_sink_is_refused_with_the_rule(url: str, rule: str) -> None:
    assert url_problem(url) == rule
    assert config_problems(SinkBinding, sink=url) == [f"sink: {rule}"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:80/path", "http://h:80/path"),
        ("http://h/@team/x", "http://h/@team/x"),
        (f"http://h/path?token={SECRET}", "http://h/path?…"),
        (f"http://u:{SECRET}@h/path", "http://h/path"),
        (f"u:{SECRET}@h/path", "h/path"),
        (f"h/path?{SECRET}", "h/path?…"),
        (f"http://u:{SECRET}@x@h/path", "http://h/path"),
        ("http://h/" + "x" * 300, "http://h/" + "x" * 198),
    ],
)
def test_a_url_is_shown_without_user_info_and_query(url: str, shown: str) -> None:
    assert public_url(url) == shown


# Passwords that hold what divides a URL, and URLs that are none.
HIDDEN: Final = (
    f"http://u:{SECRET}/x@h/", f"http://u:x/{SECRET}@h/", f"http://u:{SECRET}?x@h/", f"http://u:x?{SECRET}@h/",
    f"http://u:x#{SECRET}@h/", f"http:/u:{SECRET}@h", f"http:///u:{SECRET}@h", f"http://u:p@h?t=a@{SECRET}",
    f"//u:{SECRET}@h", f"http//u:{SECRET}@h", f"http://u:p@{SECRET}/x@h", f"ftp://u:{SECRET}@h", f"HTTP:u:{SECRET}@h/x",
)  # fmt: skip


@pytest.mark.parametrize("url", HIDDEN)
def test_a_password_is_in_no_message_even_where_it_breaks_the_url(url: str) -> None:
    assert SECRET not in public_url(url)
    with pytest.raises(ValueError, match=r".") as caught:
        parse_sink(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(config_problems(SinkBinding, sink=url))
    with pytest.raises(ValueError, match=r"'name' names an address that ") as refs:
        parse_refs(f"name={url}")
    assert SECRET not in str(refs.value)


@given(before=st.text("ab:/?#@[%", max_size=6), after=st.text("ab:/?#@]%", max_size=6))
def test_no_password_ends_in_a_message_whatever_is_around_it(before: str, after: str) -> None:
    url = f"http://u:{before}{SECRET}{after}@host/"
    if url_problem(url):
        assert SECRET not in public_url(url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http+unix://%2Frun%2FSink.sock/path", "/run/Sink.sock"),
        ("HTTP+UNIX://%2Fa%20b", "/a b"),
        ("http://run/sink.sock", None),
    ],
)
def test_the_socket_of_a_url_keeps_its_case(url: str, path: str | None) -> None:
    assert socket_path(url) == path


# --- kn's forms


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("ksvc:name:ns", Ref(kind="Service", name="name", namespace="ns", apiVersion="serving.knative.dev/v1")),
        ("ksvc:name", Ref(kind="Service", name="name", apiVersion="serving.knative.dev/v1")),
        ("svc:name", Ref(kind="Service", name="name", apiVersion="v1")),
        ("service:name", Ref(kind="Service", name="name", apiVersion="v1")),
        ("broker:default:ns", BROKER),
        ("Broker:default:ns", BROKER),
        ("channel:a.b-c", Ref(kind="Channel", name="a.b-c", apiVersion="messaging.knative.dev/v1")),
    ],
)
def test_a_sink_may_be_given_by_name_as_kn_does(text: str, ref: Ref) -> None:
    assert parse_sink(text) == Destination(ref=ref)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ksvc:", "name"),
        ("svc:Name", "name"),
        ("broker:a:B_", "namespace"),
        ("channel:a:b:c", "namespace"),
        ("svc:-a", "name"),
    ],
)
def test_a_name_that_kubernetes_does_not_have_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"its {what} is no Kubernetes name"):
        parse_sink(text)


@pytest.mark.parametrize("text", ["", "sink", "svc://h", "pod:name", "ref:x:y"])
def test_a_sink_that_is_neither_url_nor_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"(is not a|has the scheme)"):
        parse_sink(text)


# --- Destinations

IN_BOTH: Final = "absolute URI is not allowed when Ref exists"


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({}, "sink: expected at least one, got none: sink.ref, sink.uri"),
        ({"uri": "/relative"}, "sink.uri: is not an absolute URL: it needs a scheme, as in http://host:port/path"),
        ({"uri": SINK, "ref": BROKER}, f"sink.uri: {IN_BOTH}"),
        ({"uri": "mailto:x", "ref": BROKER}, f"sink.uri: {IN_BOTH}"),
        ({"uri": "//[", "ref": BROKER}, "sink.uri: is not a URI-reference"),
    ],
)
def test_a_destination_is_a_url_or_a_ref_with_a_relative_uri(named: dict[str, Any], problem: str) -> None:
    assert config_problems(Destination, **named) == [problem]


def test_certificates_are_in_no_repr() -> None:
    values = (
        Destination(uri=SINK, ca_certs=CA),
        SinkBinding(sink=SINK, ca_certs=CA),
        Addressable(url=SINK, ca_certs=CA),
    )
    assert not any(CA in repr(value) for value in values)


@pytest.mark.parametrize(("ref", "text"), [(BROKER, "Broker ns/default"), (Ref(kind="Service", name="s"), "Service s")])
def test_a_ref_prints_as_people_say_it(ref: Ref, text: str) -> None:
    assert str(ref) == text


# contract/core.md 3.3: seen when Knative's resolver was run.
KNATIVE_JOINS: Final = (
    ("http://svc.ns.svc.cluster.local", "foo", "http://svc.ns.svc.cluster.local/foo"),
    ("http://svc.ns.svc.cluster.local", "/foo", "http://svc.ns.svc.cluster.local/foo"),
    ("http://svc.ns.svc.cluster.local", "?a=b", "http://svc.ns.svc.cluster.local?a=b"),
    ("http://broker-ingress.knative-eventing/ns/name", "foo", "http://broker-ingress.knative-eventing/ns/foo"),
    ("http://broker-ingress.knative-eventing/ns/name", "/foo", "http://broker-ingress.knative-eventing/foo"),
    ("http://h/bar/", "foo", "http://h/bar/foo"),
    ("http://h/bar/", "/foo", "http://h/foo"),
    ("http://h/bar/", "../x", "http://h/x"),
    ("http://svc.ns.svc.cluster.local", "//evil.example/x", "http://evil.example/x"),
    ("http://h/bar/", "//evil.example/x", "http://evil.example/x"),
    ("http://h/bar/", "", "http://h/bar/"),
)
# RFC 3986, 5.4, but for what is absolute.
RFC_BASE: Final = "http://a/b/c/d;p?q"
RFC_JOINS: Final = (
    ("g", "http://a/b/c/g"), ("./g", "http://a/b/c/g"), ("g/", "http://a/b/c/g/"), ("/g", "http://a/g"), ("//g", "http://g"),
    ("?y", "http://a/b/c/d;p?y"), ("g?y", "http://a/b/c/g?y"), ("#s", "http://a/b/c/d;p?q#s"), ("g#s", "http://a/b/c/g#s"),
    ("g?y#s", "http://a/b/c/g?y#s"), (";x", "http://a/b/c/;x"), ("g;x", "http://a/b/c/g;x"), ("g;x?y#s", "http://a/b/c/g;x?y#s"),
    ("", "http://a/b/c/d;p?q"), (".", "http://a/b/c/"), ("./", "http://a/b/c/"), ("..", "http://a/b/"), ("../", "http://a/b/"),
    ("../g", "http://a/b/g"), ("../..", "http://a/"), ("../../", "http://a/"), ("../../g", "http://a/g"),
    ("../../../g", "http://a/g"), ("../../../../g", "http://a/g"), ("/./g", "http://a/g"), ("/../g", "http://a/g"),
    ("g.", "http://a/b/c/g."), (".g", "http://a/b/c/.g"), ("g..", "http://a/b/c/g.."), ("..g", "http://a/b/c/..g"),
    ("./../g", "http://a/b/g"), ("./g/.", "http://a/b/c/g/"), ("g/./h", "http://a/b/c/g/h"), ("g/../h", "http://a/b/c/h"),
    ("g;x=1/./y", "http://a/b/c/g;x=1/y"), ("g;x=1/../y", "http://a/b/c/y"), ("g?y/./x", "http://a/b/c/g?y/./x"),
    ("g?y/../x", "http://a/b/c/g?y/../x"),
)  # fmt: skip
NO_PATH_JOINS: Final = (
    ("http://h?x=y", "foo", "http://h/foo"),
    ("http://h", "../x", "http://h/x"),
    ("http://h:8080", "a/b?c", "http://h:8080/a/b?c"),
)


@pytest.mark.parametrize(
    ("base", "uri", "joined"), [*KNATIVE_JOINS, *((RFC_BASE, *row) for row in RFC_JOINS), *NO_PATH_JOINS]
)
def test_a_relative_uri_is_joined_as_rfc_3986_says(base: str, uri: str, joined: str) -> None:
    assert join_uri(base, uri) == joined


async def test_a_destination_with_a_url_is_its_own_address() -> None:
    destination = Destination(uri=SINK, ca_certs="ca", audience="who")
    assert await resolve(destination, MappedRefs({})) == Addressable(url=SINK, ca_certs="ca", audience="who")


class Known:
    """A resolver that knows one address."""

    def __init__(self, found: Addressable) -> None:
        self._found = found

    async def resolve(self, ref: Ref) -> Addressable:
        assert ref == BROKER
        return self._found


async def test_a_ref_is_resolved_and_its_uri_joined() -> None:
    found = Addressable(url="http://ingress/ns/default", ca_certs="its", audience="its")
    assert await resolve(Destination(ref=BROKER), Known(found)) == found
    assert await resolve(Destination(ref=BROKER, uri="?a=b"), Known(found)) == replace(
        found, url="http://ingress/ns/default?a=b"
    )


async def test_the_destinations_own_certificates_and_audience_replace_those_of_the_ref() -> None:
    found = Addressable(url=SINK, ca_certs="its", audience="its")
    own = await resolve(Destination(ref=BROKER, ca_certs="own", audience="own"), Known(found))
    assert (own.ca_certs, own.audience) == ("own", "own")


async def test_a_ref_that_resolves_to_no_address_of_a_sink_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"^sink.ref Broker ns/default: resolves to an address that is no sink: has a fragment"
    ):
        await resolve(Destination(ref=BROKER, uri="#x"), Known(Addressable(url=SINK)))


@pytest.mark.parametrize(
    "said", ["default", "Broker:default", "broker:default", "Broker:default:ns", "default:ns", "DEFAULT"]
)
async def test_a_ref_is_found_by_name_with_kind_or_namespace_or_without(said: str) -> None:
    refs = MappedRefs({"other": "http://other", said: SINK})
    assert await refs.resolve(BROKER) == Addressable(url=SINK)


@pytest.mark.parametrize("general", ["default", "Broker:default"])
async def test_the_most_exact_name_counts(general: str) -> None:
    refs = MappedRefs({general: "http://general", "Broker:default:ns": SINK})
    assert await refs.resolve(BROKER) == Addressable(url=SINK)


@pytest.mark.parametrize("said", ["Service:default", "Broker:default:other", "default:other", "defaul", "ns"])
async def test_a_ref_of_another_kind_namespace_or_name_is_not_taken(said: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^sink.ref Broker ns/default: no API server to ask here; .*--ref default=http"
    ):
        await MappedRefs({said: SINK}).resolve(BROKER)


@pytest.mark.parametrize(
    ("text", "refs"),
    [
        ("", {}),
        ("a=http://h", {"a": "http://h"}),
        ("a=http://h?x=y\nBroker:b:ns=https://i", {"a": "http://h?x=y", "Broker:b:ns": "https://i"}),
        (" a=http://h  b=http://i ", {"a": "http://h", "b": "http://i"}),
    ],
)
def test_refs_are_names_and_urls_one_a_line_or_separated_by_blanks(text: str, refs: dict[str, str]) -> None:
    assert parse_refs(text) == refs


@pytest.mark.parametrize(
    ("text", "rule"),
    [("a", "is not NAME=URL"), ("=http://h", "is not NAME=URL"), ("a=h", "'a' names an address that ")],
)
def test_refs_that_are_not_are_refused(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse_refs(text)


# --- Overrides


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("{}", {}),
        ("null", {}),
        ('{"extensions":null}', {}),
        ('{"extensions":{}}', {}),
        ('{"extensions":{"foo":"bar"}}', {"foo": "bar"}),
        ('{"extensions":{"Foo":"é","1":""}}', {"foo": "é", "1": ""}),
    ],
)
def test_overrides_are_what_knatives_controllers_write(text: str, overrides: dict[str, str]) -> None:
    assert parse_overrides(text) == overrides


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object such as"),
        ("1", "is not a JSON object"),
    ],
    ids=lambda text: text[:8],
)
def test_overrides_that_are_no_json_object_are_refused(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse_overrides(text)


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ([], ["extensions: is not an object of names and values"]),
        ({"a": 1}, ["extensions.a: is not a string"]),
        ({"type": "x"}, ["extensions.type: is an attribute of CloudEvents itself; an override sets extensions only"]),
        ({"Data": "x"}, ["extensions.Data: is an attribute of CloudEvents itself; an override sets extensions only"]),
        ({"a-b": "x"}, ["extensions.'a-b': an extension's name consists of a-z and 0-9 only"]),
        ({"a": "\n"}, ["extensions.'a': '\\n' holds a control character or half a surrogate pair"]),
        (
            {"id": "x", "b": None, "c_": "x"},
            [
                "extensions.id: is an attribute of CloudEvents itself; an override sets extensions only",
                "extensions.b: is not a string",
                "extensions.'c_': an extension's name consists of a-z and 0-9 only",
            ],
        ),
    ],
)
def test_overrides_that_would_make_every_event_invalid_are_refused_each_by_name(
    extensions: object, expected: list[str]
) -> None:
    assert config_problems(checked_overrides, extensions) == expected


def test_overrides_are_set_on_every_event_and_win() -> None:
    binding = SinkBinding(sink=SINK, overrides={"a": "mine", "c": "new"})
    assert dict(binding.apply(EVENT).extensions) == {"a": "mine", "b": "kept", "c": "new"}
    assert dict(EVENT.extensions) == {"a": 1, "b": "kept"}


def test_without_overrides_an_event_is_sent_as_it_is() -> None:
    assert SinkBinding(sink=SINK).apply(EVENT) is EVENT
