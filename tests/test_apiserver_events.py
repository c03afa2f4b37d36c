"""A change as an event: as Knative's adapter sends it, attribute by attribute; and what becomes an event at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.kubernetes.change import Change, Operation, json_bytes
from wellhead.kubernetes.index import Seen
from wellhead.kubernetes.kinds import Gvr, Kind, guess_plural, parse_api_version
from wellhead_adapters.apiserver.events import EVENT_TYPES, Origin, change_event
from wellhead_adapters.apiserver.patch import diff, pointed, pointer, without
from wellhead_adapters.apiserver.subject import Mode, Owner
from wellhead_adapters.apiserver.wanted import UpdateData, Wanted, parse_ignored

SAMPLES: Final = Path(__file__).parent / "samples/apiserver"
ROWS: Final = json.loads((SAMPLES / "events.json").read_text())["rows"]
OWNED: Final = json.loads((SAMPLES / "controller_filter.json").read_text())["rows"]
NOW: Final = datetime(2026, 11, 21, 3, 6, 54, 175082, tzinfo=UTC)
SEGMENT: Final = re.compile(rb"^##### conn (\d+) from .*\n", re.MULTILINE)
OF_THE_TRY: Final = ("ce-id", "ce-time", "ce-specversion")
OVERRIDDEN: Final = {"team": "lab", "kind": "overridden"}  # by the source that resource.raw was recorded from


def change(body: dict[str, Any], operation: Operation = Operation.ADD, **more: Any) -> Change:
    group, version = parse_api_version(body["apiVersion"])
    metadata = body["metadata"]
    kind = Kind(Gvr(group, version, guess_plural(body["kind"])), body["kind"], namespaced=True)
    known = Seen(
        metadata.get("namespace", ""), metadata["name"], metadata.get("uid", "u"), metadata.get("resourceVersion", "1")
    )
    return Change(operation=operation, kind=kind, seen=known, object=body, **more)


def origin(mode: Mode = Mode.RESOURCE, source: str = "unit-test", **more: Any) -> Origin:
    return Origin(source=source, namespace="ns", name="source", mode=mode, **more)


def pod(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "unit", "namespace": "test"}, **fields}


# --- as upstream ---


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['mode']} {row['op']}")
def test_an_event_is_what_upstreams_tests_expect(row: dict[str, Any]) -> None:
    made = change_event(origin(Mode(row["mode"])), change(row["object"], Operation(row["op"])), NOW)
    expected = row["event"]
    assert (made.type, made.source, made.subject) == (expected["type"], expected["source"], expected["subject"])
    assert made.datacontenttype == expected["datacontenttype"]
    assert dict(made.extensions) == expected["extensions"]
    assert json.loads(made.data or b"") == expected["data"]


@dataclass(frozen=True)
class Recorded:
    headers: dict[str, str]
    body: bytes

    @property
    def attributes(self) -> dict[str, str]:
        return {
            name.removeprefix("ce-"): value
            for name, value in self.headers.items()
            if name.startswith("ce-") and name not in OF_THE_TRY
        }


def recorded(name: str) -> list[Recorded]:
    """The POSTs of a recording. A body that came in a packet of its own stands behind a header of the recorder's."""
    pieces = SEGMENT.split((SAMPLES / name).read_bytes())[1:]
    streams: dict[bytes, bytes] = {}
    for connection, piece in zip(pieces[::2], pieces[1::2], strict=True):
        streams[connection] = streams.get(connection, b"") + piece
    return [one for stream in streams.values() for one in _requests(stream)]


def _requests(stream: bytes) -> Iterator[Recorded]:
    while stream.strip():
        head, _, rest = stream.lstrip(b"\n").partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        length = int(headers.get("content-length", 0))
        rest = rest.lstrip(b"\n")
        body, stream = rest[:length], rest[length:]
        if line.startswith("POST"):
            yield Recorded(headers, body)


def as_recorded(request: Recorded, mode: Mode) -> tuple[dict[str, Any], bytes | None, str]:
    """Attributes with overrides, data, and type of what we make of the object that a recorded request tells of."""
    told = request.attributes
    operation = Operation(told["type"].rpartition(".")[2])
    if mode is Mode.RESOURCE:
        body = json.loads(request.body)
    else:
        said = json.loads(request.body)
        names = {name: said[name] for name in ("name", "namespace") if name in said}
        body = {"apiVersion": said["apiVersion"], "kind": said["kind"], "metadata": names, "spec": {"secret": 1}}
    made = change_event(origin(mode, told["source"]), change(body, operation), NOW)
    overrides = OVERRIDDEN if mode is Mode.RESOURCE else {}
    attributes = {"source": made.source, "subject": made.subject, "type": made.type, **made.extensions, **overrides}
    return attributes, made.data, made.datacontenttype or ""


RECORDED: Final = [
    pytest.param(mode, request, id=f"{mode.value} {request.headers['ce-type']} {request.headers['ce-name']}")
    for mode, name in ((Mode.REFERENCE, "reference.raw"), (Mode.RESOURCE, "resource.raw"))
    for request in recorded(name)
]


def test_there_are_recordings_of_both_modes() -> None:
    assert len(RECORDED) >= 14


@pytest.mark.parametrize(("mode", "request_"), RECORDED)
def test_what_upstream_sent_is_what_we_make_attribute_by_attribute(mode: Mode, request_: Recorded) -> None:
    attributes, data, content_type = as_recorded(request_, mode)
    assert attributes == request_.attributes
    assert content_type == request_.headers["content-type"]
    assert json.loads(data or b"") == json.loads(request_.body)
    if mode is Mode.REFERENCE:
        assert data == request_.body


def test_an_object_without_a_namespace_has_the_form_of_upstream() -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    made = change_event(origin(Mode.REFERENCE), change(node), NOW)
    assert made.subject == "/apis/v1/namespaces//nodes/n1"
    assert made.extensions["namespace"] == ""
    assert made.data == b'{"kind":"Node","name":"n1","apiVersion":"v1"}'


def test_a_version_with_a_dot_and_no_group_has_the_form_of_upstream() -> None:
    made = change_event(origin(), change({"apiVersion": "v1.2", "kind": "Pod", "metadata": {"name": "a"}}), NOW)
    assert made.subject == "/apis/v1.2/versionUnknown/namespaces//pods/a"


def test_the_subject_keeps_the_plural_as_it_is_guessed() -> None:
    kind = Kind(Gvr("lab.example", "v1", "gateways"), "Gateway", namespaced=True)
    made = change_event(
        origin(), Change(operation=Operation.ADD, kind=kind, seen=Seen("ns", "g", "u", "1"), object={}), NOW
    )
    assert made.subject == "/apis/lab.example/v1/namespaces/ns/gatewaies/g"


def test_an_object_that_came_alone_is_passed_on_byte_for_byte() -> None:
    raw = b'{"kind":"Pod", "apiVersion":"v1"}'
    assert change_event(origin(), change(pod(), raw=raw), NOW).data == raw


# --- ids ---


def test_an_id_says_which_source_which_version_and_what_happened() -> None:
    def made(operation: Operation = Operation.ADD, source: str = "source", **metadata: str) -> str:
        body = pod(metadata={"name": "unit", "namespace": "test", "uid": "u", "resourceVersion": "1", **metadata})
        of = Origin(source="s", namespace="ns", name=source, mode=Mode.REFERENCE)
        return change_event(of, change(body, operation), NOW).id

    assert made() == made()
    assert len({made(), made(Operation.UPDATE), made(source="other"), made(uid="v"), made(resourceVersion="2")}) == 5


def test_every_pair_of_mode_and_operation_has_its_type() -> None:
    assert len(set(EVENT_TYPES.values())) == len(Mode) * len(Operation)


# --- copies ---


def test_labels_annotations_and_fields_are_copied_to_extensions_where_they_fit() -> None:
    body = pod(spec={"nodeName": "n1", "x": [1, True]}, status=None)
    body["metadata"] |= {"labels": {"app.io/name": "web"}, "annotations": {"a": "line\nline"}}
    ways = {"app": ("metadata", "labels", "app.io/name"), "note": ("metadata", "annotations", "a"),
            "node": ("spec", "nodeName"), "x": ("spec", "x"), "none": ("spec", "y")}  # fmt: skip
    extensions = change_event(origin(copies=tuple(ways.items())), change(body), NOW).extensions
    assert {name: extensions.get(name) for name in ways} == {
        "app": "web", "note": None, "node": "n1", "x": "[1,true]", "none": None,
    }  # fmt: skip


# --- what is wanted ---


@pytest.mark.parametrize("row", OWNED, ids=lambda row: f"{row['op']} {row.get('why', 'passes')}")
def test_only_objects_of_the_wanted_controller_pass(row: dict[str, Any]) -> None:
    wanted = Wanted(owner=Owner(row["owner"]["apiVersion"], row["owner"]["kind"]))
    assert wanted.wants(change(row["object"], Operation(row["op"]))) is row["sent"]


def test_of_an_object_that_a_list_misses_the_delete_passes_whoever_owned_it() -> None:
    wanted = Wanted(owner=Owner("apps/v1", "ReplicaSet"))
    assert wanted.wants(change(pod(), Operation.DELETE, found=True))
    assert not wanted.wants(change(pod(), Operation.ADD, found=True))


@pytest.mark.parametrize(
    ("pattern", "passes"), [("", True), ("un*", True), ("unit", True), ("uni", False), ("*x", False)]
)
def test_only_objects_of_the_wanted_names_pass(pattern: str, passes: bool) -> None:  # noqa: FBT001
    assert Wanted(name_pattern=pattern).wants(change(pod())) is passes


def test_only_the_wanted_operations_pass() -> None:
    wanted = Wanted(operations=frozenset((Operation.DELETE,)))
    assert [operation for operation in Operation if wanted.wants(change(pod(), operation))] == [Operation.DELETE]


def test_a_digest_is_the_same_as_long_as_nothing_that_counts_changed() -> None:
    wanted = Wanted(mode=Mode.RESOURCE, ignored=parse_ignored("status, leases, /metadata/annotations/seen~1at"))
    base = pod(spec={"a": 1, "renewTime": "1"}, status={"b": 1})
    same = pod(spec={"a": 1, "renewTime": "2"})
    same["metadata"] |= {"resourceVersion": "9", "managedFields": [1], "annotations": {"seen/at": "x"}}
    base["metadata"]["annotations"] = {}
    assert wanted.digest(base) == wanted.digest(same)
    assert wanted.digest(base) != wanted.digest(pod(spec={"a": 2}))


def test_managed_fields_can_be_left_out_and_the_object_is_not_touched() -> None:
    body = pod()
    body["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    data = Wanted(mode=Mode.RESOURCE, drop_managed_fields=True).data(change(body, raw=json_bytes(body)))
    assert json.loads(data or b"") == pod()
    assert "managedFields" in body["metadata"]


def test_an_update_can_tell_what_was_before_and_the_patch_between() -> None:
    old, new = pod(spec={"a": 1, "b": 1}), pod(spec={"a": 2, "c": 1})
    told = change(new, Operation.UPDATE, old=json_bytes(old))
    with_old = Wanted(mode=Mode.RESOURCE, update_data=UpdateData.OLD)
    with_patch = Wanted(mode=Mode.RESOURCE, update_data=UpdateData.PATCH)
    assert json.loads(with_old.data(told) or b"") == {"object": new, "old": old}
    assert json.loads(with_patch.data(told) or b"")["patch"] == [
        {"op": "remove", "path": "/spec/b"},
        {"op": "replace", "path": "/spec/a", "value": 2},
        {"op": "add", "path": "/spec/c", "value": 1},
    ]
    assert with_patch.data(change(new)) is None  # an add is the object
    assert json.loads(with_patch.data(change(new, Operation.UPDATE)) or b"") == {
        "object": new
    }  # the first after a restart


# --- pointers and patches ---

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inside, max_size=3),
    max_leaves=10,
)


def patched(value: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902, as far as `diff` uses it."""
    value = json.loads(json.dumps(value))
    for step in patch:
        if step["path"] == "":
            value = step["value"]
            continue
        *way, last = (part.replace("~1", "/").replace("~0", "~") for part in step["path"][1:].split("/"))
        at = value
        for key in way:
            at = at[key]
        if step["op"] == "remove":
            del at[last]
        else:
            assert (last in at) == (step["op"] == "replace")
            at[last] = step["value"]
    return value


@given(JSON, JSON)
def test_a_patch_makes_the_new_of_the_old(old: Any, new: Any) -> None:
    patch = diff(old, new)
    assert json.dumps(patched(old, patch), sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (patch == []) == (json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True))


def test_a_pointer_leads_to_a_value_through_objects_and_lists() -> None:
    value = {"a/b": [{"~": 1}], "c": None}
    assert pointed(value, pointer("/a~1b/0/~0")) == 1
    assert [pointed(value, pointer(text)) for text in ("/a~1b/1", "/a~1b/x", "/c/d", "/e")] == [None] * 4
    for text in ("", "a", "/"):
        with pytest.raises(ValueError, match="JSON Pointer"):
            pointer(text)


@given(JSON)
def test_less_what_is_not_there_is_the_same(value: Any) -> None:
    assert without(value, (("x", "y"), ("z",))) == value
