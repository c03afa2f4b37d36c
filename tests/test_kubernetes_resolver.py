"""A sink by reference: asked for at the API server, followed when it moves, with tokens for its audience."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
import trustme

from wellhead.address import Address
from wellhead.binding import Destination, Ref, SinkBinding
from wellhead.clock import SystemClock
from wellhead.credentials import Credentials
from wellhead.delivery import Policy
from wellhead.errors import ConfigError
from wellhead.event import CloudEvent
from wellhead.kubernetes.errors import ApiError
from wellhead.kubernetes.resolver import LOOK_SECONDS, ApiResolver, follow, resolved
from wellhead.kubernetes.tokens import LIFE_SECONDS
from wellhead.sink import HttpSink
from wellhead.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

BROKER: Final = Ref(apiVersion="eventing.knative.dev/v1", kind="Broker", name="pond", namespace="lake")
PATH: Final = "/apis/eventing.knative.dev/v1/namespaces/lake/brokers/pond"
TOKENS: Final = "/api/v1/namespaces/lake/serviceaccounts/frog/token"
DESTINATION: Final = Destination(ref=BROKER)
CA: Final = trustme.CA().cert_pem.bytes().decode()
EVENT: Final = CloudEvent(id="1", source="/pond", type="frog")
KINDS: Final = {
    "/apis/eventing.knative.dev/v1": ("brokers", "Broker"),
    "/apis/serving.knative.dev/v1": ("services", "Service"),
    "/api/v1": ("services", "Service"),
}


def address(url: str, **more: str) -> Mapping[str, object]:
    return {"status": {"address": {"url": url, **more}}}


class FakeApi:
    """Objects by path; an error is raised. Tells when it was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Mapping[str, object] | ApiError] = {}
        self.posts: list[tuple[str, Mapping[str, object]]] = []
        self.refusal: ApiError | None = None
        self.life: float = LIFE_SECONDS

    async def get(self, path: str) -> Mapping[str, object]:
        if path in KINDS:
            name, kind = KINDS[path]
            return {"resources": [{"name": name, "kind": kind, "namespaced": True}]}
        found = self.objects.get(path, ApiError(404, "NotFound", "not there"))
        if isinstance(found, ApiError):
            raise found
        return found

    async def post(self, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
        if self.refusal is not None:
            raise self.refusal
        self.posts.append((path, body))
        now = asyncio.get_running_loop().time()
        payload = json.dumps({"iat": now, "exp": now + self.life, "jti": len(self.posts)}).encode()
        return {"status": {"token": f"a.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c"}}


class Wall:
    def now(self) -> datetime:
        return datetime.fromtimestamp(asyncio.get_running_loop().time(), UTC)


class Lab:
    """A sink whose address is followed, over a fake transport and a fake API server."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.transport = FakeTransport()
        binding = SinkBinding(sink="http://pond.lake.broker.invalid")
        self.address = Address(binding, self.transport, credentials=Credentials(clock=Wall()))
        self.sink = HttpSink(binding, self.address, clock=SystemClock(), policy=Policy())

    @asynccontextmanager
    async def following(self, *, account: str = "", ca_certs: str = "") -> AsyncIterator[None]:
        task = asyncio.create_task(
            follow(
                self.address,
                DESTINATION,
                self.api,
                namespace="lake",
                account=account,
                ca_certs=ca_certs,
                wall=asyncio.get_running_loop().time,
            )
        )
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def send(self) -> None:
        await self.sink.send(EVENT)

    def url(self) -> str:
        return self.transport.posts[-1].target.url

    def authorization(self) -> str:
        return dict(self.transport.posts[-1].target.headers).get(b"authorization", b"").decode()


@pytest.mark.parametrize(
    ("ref", "path", "body", "url"),
    [
        (BROKER, PATH, address("http://broker/lake/pond"), "http://broker/lake/pond"),
        (
            Ref(apiVersion="serving.knative.dev/v1", kind="Service", name="frog"),
            "/apis/serving.knative.dev/v1/namespaces/own/services/frog",
            address("http://frog.own.example.com"),
            "http://frog.own.example.com",
        ),
        (
            Ref(apiVersion="v1", kind="Service", name="frog"),
            "/api/v1/namespaces/own/services/frog",
            {},
            "http://frog.own.svc.pond.org",
        ),
    ],
)
async def test_a_ref_is_looked_up_in_its_namespace_or_our_own(
    ref: Ref, path: str, body: Mapping[str, object], url: str
) -> None:
    api = FakeApi()
    api.objects[path] = body
    found = await resolved(api, Destination(ref=ref), namespace="own", domain="pond.org")
    assert found.url == url


async def test_a_service_is_reached_by_https_where_certificates_are_given_for_it() -> None:
    api = FakeApi()
    api.objects["/api/v1/namespaces/own/services/frog"] = {}
    destination = Destination(ref=Ref(apiVersion="v1", kind="Service", name="frog"), ca_certs=CA, uri="/a?b=c")
    found = await resolved(api, destination, namespace="own", domain="cluster.local")
    assert (found.url, found.ca_certs) == ("https://frog.own.svc.cluster.local/a?b=c", CA)


@pytest.mark.parametrize(
    ("ref", "answer", "what"),
    [
        (BROKER, ApiError(404, "NotFound", ""), "sink.ref Broker lake/pond: is not there (namespace lake)"),
        (
            BROKER,
            ApiError(403, "Forbidden", "brokers is forbidden"),
            "sink.ref Broker lake/pond: cannot be looked up: 403 Forbidden: brokers is forbidden",
        ),
        (BROKER, {}, "sink.ref Broker lake/pond: has no address"),
        (
            Ref(apiVersion="eventing.knative.dev/v1", kind="Trigger", name="a"),
            {},
            "sink.ref Trigger a: is of a kind that the API server does not serve: Trigger of eventing.knative.dev/v1",
        ),
        (
            Ref(apiVersion="a/b/c", kind="Trigger", name="a"),
            {},
            "sink.ref Trigger a: apiVersion 'a/b/c' is not group/version, as apps/v1 or v1",
        ),
    ],
)
async def test_why_a_ref_does_not_resolve_is_said(ref: Ref, answer: Mapping[str, object] | ApiError, what: str) -> None:
    api = FakeApi()
    api.objects[PATH] = answer
    with pytest.raises(ConfigError) as error:
        await ApiResolver(api, namespace="own").resolve(ref)
    assert str(error.value) == what


@pytest.mark.looptime
async def test_what_is_sent_before_the_sink_is_there_arrives_when_it_is(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab()
    async with lab.following():
        sending = asyncio.create_task(lab.send())
        await asyncio.sleep(30)
        assert lab.transport.posts == []
        assert lab.address.up is False
        assert "is not there (namespace lake)" in lab.address.down_reason
        lab.api.objects[PATH] = address("http://broker/lake/pond")
        await sending
        assert lab.url() == "http://broker/lake/pond"
    assert [record.message for record in caplog.records if "resolved" in record.message] == ["sink is not resolved"]


@pytest.mark.looptime
async def test_a_sink_that_moves_is_followed_and_one_that_is_gone_is_not_left() -> None:
    lab = Lab()
    lab.api.objects[PATH] = address("http://first/")
    async with lab.following():
        await lab.send()
        lab.api.objects[PATH] = address("https://second/", CACerts=CA)
        await asyncio.sleep(LOOK_SECONDS)
        await lab.send()
        assert (lab.url(), lab.transport.posts[-1].target.tls is None) == ("https://second/", False)
        del lab.api.objects[PATH]
        await asyncio.sleep(2 * LOOK_SECONDS)
        await lab.send()
        assert lab.url() == "https://second/"


@pytest.mark.looptime
async def test_an_event_on_its_way_goes_on_to_where_the_sink_is_now() -> None:
    lab = Lab()
    lab.api.objects[PATH] = address("http://first/")
    lab.transport.always(lambda post: Answer(503 if "first" in post.target.url else 202))
    async with lab.following():
        sending = asyncio.create_task(lab.send())
        await lab.transport.came(3)
        lab.api.objects[PATH] = address("http://second/")
        await sending
        assert lab.url() == "http://second/"


@pytest.mark.looptime
async def test_troubles_are_told_once_each_and_so_is_their_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lab = Lab()
    async with lab.following():
        await asyncio.sleep(60)
        lab.api.objects[PATH] = ApiError(403, "Forbidden", "no")
        await asyncio.sleep(60)
        lab.api.objects[PATH] = address("http://first/")
        await asyncio.sleep(60)
    assert [(record.message, vars(record).get("problem", "")[-21:]) for record in caplog.records] == [
        ("sink is not resolved", "there (namespace lake)"[-21:]),
        ("sink is not resolved", "up: 403 Forbidden: no"),
        ("sink is resolved again", ""),
    ]


class TestTokens:
    @pytest.mark.looptime
    async def test_a_sink_with_an_audience_is_shown_a_token_of_the_service_account(self) -> None:
        lab = Lab()
        lab.api.objects[PATH] = address("http://first/", audience="pond")
        async with lab.following(account="frog"):
            await lab.send()
        assert lab.authorization().startswith("Bearer a.")
        ((path, body),) = lab.api.posts
        assert path == TOKENS
        assert body["spec"] == {"audiences": ["pond"], "expirationSeconds": LIFE_SECONDS}

    @pytest.mark.looptime
    @pytest.mark.parametrize(("account", "audience"), [("", "pond"), ("frog", "")])
    async def test_without_audience_or_account_there_is_none(self, account: str, audience: str) -> None:
        lab = Lab()
        lab.api.objects[PATH] = address("http://first/", audience=audience)
        async with lab.following(account=account):
            await lab.send()
        assert lab.authorization() == ""
        assert lab.api.posts == []

    @pytest.mark.looptime
    @pytest.mark.parametrize(("life", "renewed_after"), [(3600.0, 3300.0), (600.0, 300.0), (100.0, 50.0)])
    async def test_it_is_renewed_before_it_expires(self, life: float, renewed_after: float) -> None:
        lab = Lab()
        lab.api.life = life
        lab.api.objects[PATH] = address("http://first/", audience="pond")
        async with lab.following(account="frog"):
            await asyncio.sleep(renewed_after - 1)
            assert len(lab.api.posts) == 1
            await asyncio.sleep(2)
            assert len(lab.api.posts) == 2

    @pytest.mark.looptime
    async def test_without_a_token_nothing_is_sent_and_a_later_refusal_leaves_the_last_in_use(self) -> None:
        lab = Lab()
        lab.api.objects[PATH] = address("http://first/", audience="pond")
        lab.api.refusal = ApiError(403, "Forbidden", "no tokens for frogs")
        async with lab.following(account="frog"):
            sending = asyncio.create_task(lab.send())
            await asyncio.sleep(5)
            assert lab.transport.posts == []
            assert "ServiceAccount lake/frog: gets no token for audience 'pond': 403" in lab.address.down_reason
            lab.api.refusal = None
            await sending
            before = lab.authorization()
            lab.api.refusal = ApiError(403, "Forbidden", "no tokens for frogs")
            await asyncio.sleep(LIFE_SECONDS)
            lab.api.objects[PATH] = address("http://second/", audience="pond")
            await asyncio.sleep(LOOK_SECONDS)
            await lab.send()
            assert (lab.url(), lab.authorization()) == ("http://second/", before)

    @pytest.mark.looptime
    async def test_one_that_the_sink_does_not_like_is_replaced_though_not_all_the_time(self) -> None:
        lab = Lab()
        lab.api.objects[PATH] = address("http://first/", audience="pond")
        lab.transport.always(Answer(401))
        async with lab.following(account="frog"):
            await asyncio.sleep(1)
            sending = asyncio.create_task(lab.send())
            await asyncio.sleep(300)
            assert 3 <= len(lab.api.posts) <= 31
            lab.transport.always(Answer(202))
            await sending
        assert len({post.target.headers for post in lab.transport.posts}) > 1

    @pytest.mark.looptime
    async def test_a_new_audience_gets_a_new_token(self) -> None:
        lab = Lab()
        lab.api.objects[PATH] = address("http://first/", audience="pond")
        async with lab.following(account="frog"):
            await lab.send()
            lab.api.objects[PATH] = address("http://first/", audience="lake")
            await asyncio.sleep(LOOK_SECONDS)
            await lab.send()
        assert [body["spec"] for _, body in lab.api.posts] == [
            {"audiences": [audience], "expirationSeconds": LIFE_SECONDS} for audience in ("pond", "lake")
        ]
