"""What GitLab is answered, when, and what reaches the sink; and each attacker's try, which fails."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import pytest
from tests.gitlab_requests import KEY, PUSH, SAMPLES, SIGNING, TOKEN, hook_request, payloads, signed

from wellhead.errors import Loss
from wellhead.http_server import HttpServer, Request, Response
from wellhead.testing import FakeSink, LoopClock
from wellhead_adapters.gitlab.kinds import Scope
from wellhead_adapters.gitlab.projecturl import target
from wellhead_adapters.gitlab.receiver import DELIVERY_SECONDS, LIMITS, Receiver, Telling
from wellhead_adapters.gitlab.secrets import OVERLAP_SECONDS, Secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from wellhead.adapter import Deadline, Fence
    from wellhead.event import CloudEvent

SOURCE: Final = "https://gitlab.example.com/g/p"
CASES: Final = json.loads((SAMPLES / "gitlab_receiver/receiver_cases.json").read_text(encoding="utf-8"))
# Ours, each with its reason: 401 says which of the two is wrong; a name that is not known is passed on, as GitLab
# disables a webhook after some refusals; an empty body is malformed, as upstream says.
OURS: Final = {"unknown event": 202, "empty body": 400, "token absent": 401}

looptime = pytest.mark.looptime


class SlowSink(FakeSink):
    """Takes each event after so many seconds of the loop, or never."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def send(self, event: CloudEvent, /, *, deadline: Deadline | None = None, fence: Fence | None = None) -> None:  # type: ignore[override]  # ours only
        await asyncio.sleep(self.seconds)
        self.events.append(event)


def receiver(sink: FakeSink, secrets: Secrets | None = None, telling: Telling | None = None) -> Receiver:
    return Receiver(sink, secrets or Secrets(token=TOKEN), telling or Telling(source=SOURCE), clock=LoopClock())


async def answer(it: Receiver, request: Request) -> Response:
    found = it(request)
    response = found if isinstance(found, Response) else await found
    assert isinstance(response, Response)
    return response


@looptime
@pytest.mark.parametrize(("file", "name", "kind", "body"), payloads(), ids=[row[0] for row in payloads()])
async def test_every_payload_is_delivered_and_answered_202(file: str, name: str, kind: str, body: bytes) -> None:
    sink = FakeSink()
    assert (await answer(receiver(sink), hook_request(body, name=name))).status == 202
    assert [(event.type, event.data, event.source) for event in sink.events] == [(kind, body, SOURCE)]


@looptime
@pytest.mark.parametrize("row", CASES["reject"], ids=lambda row: row["name"])
async def test_what_upstream_refuses_has_our_answer(row: dict[str, str | None]) -> None:
    request = hook_request(str(row["body"]).encode(), name=row["header"], token=row.get("token", TOKEN))
    assert (await answer(receiver(FakeSink()), request)).status == OURS[str(row["name"])]


@looptime
@pytest.mark.parametrize("name", CASES["accept"])
async def test_what_upstream_accepts_is_accepted(name: str) -> None:
    assert (await answer(receiver(FakeSink()), hook_request(name=name))).status == CASES["status"]["accepted"]


@looptime
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (hook_request(method="GET"), 405),
        (hook_request(method="PUT", token=None), 405),
        (hook_request(name=None), 400),
        (hook_request(name=None, token="wrong"), 401),
        (hook_request(b'{"a":'), 400),
        (hook_request(b"\xff\xfe"), 400),
        (hook_request(b"[" * 100_000), 400),
        (hook_request(b'{"a":' + b"[" * 300_000), 400),
        (hook_request(b"a=1&b=2", more={"Content-Type": "application/x-www-form-urlencoded"}), 400),
        (hook_request(PUSH, more={"Content-Type": "text/plain"}), 202),
        (hook_request(b"[]"), 202),
        (hook_request(key=None), 202),
    ],
)
async def test_the_answer_to_a_request(request_: Request, status: int) -> None:
    sink = FakeSink()
    response = await answer(receiver(sink), request_)
    assert response.status == status
    assert len(sink.events) == (status == 202)
    if status == 405:
        assert (b"allow", b"POST") in response.headers


@looptime
@pytest.mark.parametrize(
    ("loss", "status"),
    [(Loss.REFUSED, 422), (Loss.POISON, 422), (Loss.EXPIRED, 503), (Loss.STOPPED, 503), (Loss.EXHAUSTED, 503)],
)
async def test_an_event_that_no_sink_took_is_not_answered_2xx(loss: Loss, status: int) -> None:
    sink = FakeSink()
    sink.lose(loss)
    it = receiver(sink)
    assert (await answer(it, hook_request())).status == status
    assert (await answer(it, hook_request())).status == 202, "it is remembered only once accepted"
    assert len(sink.events) == 1


@looptime
async def test_a_slow_sink_is_answered_503_before_gitlab_gives_up_and_the_late_delivery_is_known() -> None:
    sink = SlowSink(9)
    it = receiver(sink)
    loop = asyncio.get_running_loop()
    assert (await answer(it, hook_request())).status == 503
    assert loop.time() == DELIVERY_SECONDS
    await asyncio.sleep(2)
    assert (await answer(it, hook_request())).status == 202
    assert len(sink.events) == 1
    assert it.tally.duplicates == 1


@looptime
async def test_the_same_delivery_asked_twice_at_once_is_sent_once() -> None:
    sink = SlowSink(3)
    it = receiver(sink)
    first, second = await asyncio.gather(answer(it, hook_request()), answer(it, hook_request()))
    assert (first.status, second.status) == (202, 202)
    assert len(sink.events) == 1


@looptime
async def test_who_hangs_up_does_not_stop_the_delivery() -> None:
    sink = SlowSink(3)
    it = receiver(sink)
    asking = asyncio.create_task(answer(it, hook_request()), name="a request")
    await asyncio.sleep(1)
    asking.cancel()
    await it.drain()
    assert len(sink.events) == 1
    assert (await answer(it, hook_request())).status == 202
    assert len(sink.events) == 1


@looptime
async def test_gitlabs_own_tests_of_kinds_that_nobody_asked_for_are_answered_and_not_sent() -> None:
    sink = FakeSink()
    it = receiver(sink, telling=Telling(source=SOURCE, test_headers=frozenset(["Emoji Hook"])))
    assert (await answer(it, hook_request(name="Emoji Hook"))).status == 202
    assert sink.events == []
    assert (await answer(it, hook_request(name="Emoji Hook", token="wrong"))).status == 401


@looptime
async def test_of_several_projects_each_has_its_own_source() -> None:
    sink = FakeSink()
    urls = (("https://gitlab.example.com/g/p.git", Scope.PROJECT), ("https://gitlab.example.com/other", Scope.GROUP))
    it = receiver(sink, telling=Telling(targets=[target(url, scope) for url, scope in urls]))
    for number, path in enumerate(("g/p", "other/sub/x", "unknown/x")):
        body = json.dumps({"project": {"path_with_namespace": path}}).encode()
        assert (await answer(it, hook_request(body, key=str(number)))).status == 202
    assert [event.source for event in sink.events] == [urls[0][0], urls[1][0], urls[0][0]]


# --- over HTTP: limits ---


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HttpServer(receiver(FakeSink()), limits=LIMITS)
    _, bound = await server.start("127.0.0.1", 0)
    yield bound
    await server.stop(1)


async def exchange(port: int, head: bytes, body: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    writer.write(body)
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return line


def post(length: int) -> bytes:
    return (
        f"POST /any/path HTTP/1.1\r\nHost: x\r\nX-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: {TOKEN}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


async def test_a_body_of_25_mib_is_delivered_and_one_of_26_is_too_large(port: int) -> None:
    body = b'{"a":"' + b"x" * ((25 << 20) - 8) + b'"}'
    assert len(body) == 25 << 20
    assert b" 202 " in await exchange(port, post(len(body)), body)
    assert b" 413 " in await exchange(port, post(26 << 20))


def test_slow_clients_are_cut_while_gitlab_itself_would_still_wait() -> None:
    assert LIMITS.header_seconds <= 10
    assert LIMITS.request_seconds <= 10


# --- attackers: what each tries, and how it fails ---


@looptime
async def test_attacker_with_the_receivers_url_knows_no_token_and_is_told_nothing_of_it() -> None:
    sink = FakeSink()
    it = receiver(sink, Secrets(token=TOKEN, signing=(SIGNING,)))
    tries = [
        hook_request(token=None),
        hook_request(token=""),
        hook_request(token="x" * 10_000),
        hook_request(token=TOKEN[:-1]),
        hook_request(
            token=None, more={"webhook-signature": "v1,AAAA", "webhook-id": KEY, "webhook-timestamp": "1767225600"}
        ),
    ]
    for request in tries:
        response = await answer(it, request)
        assert response.status == 401
        assert TOKEN.encode() not in response.body
    assert sink.events == []


@looptime
async def test_attacker_with_a_project_of_his_own_on_the_same_gitlab_has_another_token() -> None:
    """His webhook comes from the same GitLab, with all its headers, and a project that may be named like ours."""
    sink = FakeSink()
    it = receiver(sink, Secrets(token=TOKEN, signing=(SIGNING,)))
    his = "whsec_" + "A" * 44
    assert (await answer(it, hook_request(token="his own"))).status == 401
    assert (await answer(it, hook_request(token="his own", more=signed(PUSH, 1767225600, token=his)))).status == 401
    assert sink.events == []


@looptime
async def test_attacker_with_an_old_recorded_request_is_too_late_or_adds_nothing() -> None:
    now = LoopClock().now().timestamp()
    sink = FakeSink()
    it = receiver(sink, Secrets(signing=(SIGNING,)))
    recorded = hook_request(token=None, more=signed(PUSH, now))
    assert (await answer(it, recorded)).status == 202
    assert (await answer(it, recorded)).status == 202
    # Another key beside the signed one does not make it another delivery.
    assert (await answer(it, hook_request(token=None, key="another", more=signed(PUSH, now)))).status == 202
    assert len(sink.events) == 1
    await asyncio.sleep(301)
    fresh = receiver(sink, Secrets(signing=(SIGNING,)))  # restarted: it remembers nothing
    assert (await answer(fresh, recorded)).status == 401
    assert len(sink.events) == 1


@looptime
async def test_attacker_on_the_network_cannot_change_what_is_signed() -> None:
    now = LoopClock().now().timestamp()
    sink = FakeSink()
    it = receiver(sink, Secrets(signing=(SIGNING,)))
    headers = signed(PUSH, now)
    for changed in (
        hook_request(PUSH.replace(b"main", b"evil"), token=None, more=headers),
        hook_request(token=None, more={**headers, "webhook-id": "another"}),
        hook_request(token=None, more={**headers, "webhook-timestamp": str(int(now) + 1)}),
        hook_request(token=None, more={name: value for name, value in headers.items() if name != "webhook-signature"}),
    ):
        assert (await answer(it, changed)).status == 401
    assert sink.events == []


# --- secrets ---


@looptime
async def test_a_secret_that_changes_is_taken_at_once_and_the_old_one_until_gitlab_has_the_new(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old\n", encoding="utf-8")
    secrets = Secrets(token_file=path)
    it = receiver(FakeSink(), secrets)
    version = secrets.version
    path.write_text("new\n", encoding="utf-8")
    assert (await answer(it, hook_request(token="new", key="1"))).status == 202
    assert (await answer(it, hook_request(token="old", key="2"))).status == 202
    assert secrets.version != version
    secrets.confirmed(0)
    secrets.confirmed(OVERLAP_SECONDS)
    assert (await answer(it, hook_request(token="old", key="3"))).status == 401


def test_where_webhooks_are_not_ours_only_what_the_file_holds_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("leaked\n", encoding="utf-8")
    secrets = Secrets(token_file=path, overlap=False)
    path.write_text("new\n", encoding="utf-8")
    assert secrets.look()
    assert secrets.accepted.tokens == ("new",)


def test_a_file_may_hold_several_secrets_and_the_first_is_registered(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("present\nformer\n", encoding="utf-8")
    secrets = Secrets(token_file=path, signing=(SIGNING,))
    assert secrets.wanted == {"token": "present", "signing_token": SIGNING}
    assert secrets.accepted.tokens == ("present", "former")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xff"])
def test_a_file_that_is_broken_leaves_what_it_held(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"s3cret")
    secrets = Secrets(token_file=path)
    path.write_bytes(content)
    assert not secrets.look()
    assert secrets.accepted.tokens == ("s3cret",)
    assert "s3cret" not in repr(secrets.accepted)
