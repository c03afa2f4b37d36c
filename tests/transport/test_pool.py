"""Who gets which connection, and when each of them ends: `HttpTransport` over a network in memory, in simulated time."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from tests.faults.network import Name, Network, Wire

from wellhead.delivery import Answered, Outcome, Unanswered
from wellhead.errors import NoAnswer
from wellhead.transport import Post, Target, one_try
from wellhead.transport.connection import Timeouts
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.looptime

ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
CLOSING: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
URL: Final = "http://sink/"


class Peer:
    """The far end of a connection; the test answers through ``wire``."""

    def __init__(self, there: There, wire: Wire) -> None:
        self.there = there
        self.wire = wire
        self.lives = True
        self.octets = b""

    def received(self, octets: bytes) -> None:
        self.octets += octets
        self.there.requests.put_nowait(self)
        if self.there.answers:
            self.wire.send(self.there.answers)

    def lost(self) -> None:
        self.lives = False

    def accept(self) -> None:
        self.wire.send(ACCEPTED)


class There:
    """A network with one name; connections are refused or made as the test wants."""

    def __init__(self) -> None:
        self.network = Network(random.Random(1), latency=0.01)
        self.peers: list[Peer] = []
        self.requests: asyncio.Queue[Peer] = asyncio.Queue()
        self.answers = b""
        """What each request is answered with at once; empty: the test does."""
        self.dials: list[tuple[asyncio.Future[None], float]] = []
        self.on_accept: Callable[[Wire], object] = lambda _: None
        self.by_hand = False
        """Whether connections are made only once the test completes what is in ``dials``."""
        self.name = Name(addresses=["10.0.0.1"], accept={"10.0.0.1": self._accept, "10.0.0.2": self._accept})
        self.network.names["sink"] = self.name

    def _accept(self, wire: Wire) -> Peer:
        self.on_accept(wire)
        self.peers.append(Peer(self, wire))
        return self.peers[-1]

    async def dial(self, protocol: object, host: str, port: int, tls: object, connections: object) -> None:
        if self.by_hand:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.dials.append((waiting, asyncio.get_running_loop().time()))
            await waiting
        await self.network.dial(protocol, host, port, tls, connections)  # type: ignore[arg-type]  # passed on

    def let(self, number: int, error: Exception | None = None) -> None:
        """Complete the dial of this number."""
        waiting = self.dials[number][0]
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)

    async def dialled(self, number: int) -> None:
        await asyncio.sleep(0.1)  # of simulated time, in which everybody comes as far as they can
        assert len(self.dials) >= number

    @property
    def open(self) -> int:
        return len(self.network.wires)


@pytest.fixture
async def there() -> There:
    return There()


class Trying:
    """Tries of a transport as tasks."""

    def __init__(self, transport: HttpTransport) -> None:
        self.transport = transport

    def __call__(self, *, timeout: float | None = 60.0, fresh: bool = False, url: str = URL) -> asyncio.Task[Outcome]:
        post = Post(Target(url), b"ce-id: 1\r\n", b"body", timeout, fresh)
        return asyncio.create_task(one_try(self.transport, post))


def transport(there: There, **settings: object) -> HttpTransport:
    return HttpTransport(connect=there.dial, luck=lambda: 0.5, **settings)  # type: ignore[arg-type]  # of its signature


def now() -> float:
    return asyncio.get_running_loop().time()


def why(outcome: Outcome) -> NoAnswer:
    assert isinstance(outcome, Unanswered), outcome
    return outcome.why


def status(outcome: Outcome) -> int:
    assert isinstance(outcome, Answered), outcome
    return outcome.status


class TestKeepAlive:
    async def test_tries_one_after_another_share_a_connection(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there))
        for _ in range(5):
            assert status(await attempt()) == 202
        assert len(there.peers) == 1
        await attempt.transport.aclose()

    async def test_the_connection_used_last_is_used_first(self, there: There) -> None:
        attempt = Trying(transport(there))
        first, second = attempt(), attempt()
        one, other = await there.requests.get(), await there.requests.get()
        one.accept()
        await first
        other.accept()
        await second
        third = attempt()
        assert await there.requests.get() is other
        other.accept()
        await third
        await attempt.transport.aclose()

    async def test_an_idle_connection_is_closed_after_its_time_and_its_pool_forgotten(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there, idle_seconds=4.0))
        await attempt()
        await asyncio.sleep(3.9)
        assert there.open == 1
        await asyncio.sleep(0.2)
        assert there.open == 0
        assert attempt.transport._pools == {}
        await attempt.transport.aclose()

    async def test_a_connection_is_renewed_at_its_age_though_it_is_never_idle(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there, age_seconds=60.0))
        while now() < 150:
            await attempt()
            await asyncio.sleep(1)
        assert len(there.peers) == 3
        assert there.open == 1
        await attempt.transport.aclose()

    async def test_new_addresses_of_a_name_get_traffic_within_the_age(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there, age_seconds=60.0))
        await asyncio.gather(*(attempt() for _ in range(8)))
        there.name.addresses = ["10.0.0.1", "10.0.0.2"]
        while now() < 75:
            await asyncio.gather(*(attempt() for _ in range(8)))
            await asyncio.sleep(1)
        share = Counter(wire.get_extra_info("peername")[0] for wire in there.network.wires)
        assert share["10.0.0.2"] >= 3
        await attempt.transport.aclose()

    async def test_what_nobody_asked_for_closes_the_connection(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there))
        await attempt()
        there.peers[0].wire.send(ACCEPTED)
        await asyncio.sleep(0.1)
        assert there.open == 0
        await attempt.transport.aclose()

    async def test_a_connection_closed_while_it_rested_is_no_failure(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there))
        await attempt()
        there.peers[0].wire.finish()
        await asyncio.sleep(0.1)
        assert status(await attempt()) == 202
        assert len(there.peers) == 2
        await attempt.transport.aclose()

    async def test_a_connection_that_rested_before_its_first_request_is_stale_when_it_was_closed(
        self, there: There
    ) -> None:
        """Two were connecting, one try was cancelled: its connection rests, and has carried nothing yet."""
        attempt = Trying(transport(there))
        left = attempt()
        await asyncio.sleep(0.001)
        left.cancel()
        await asyncio.sleep(1)
        assert there.open == 1
        there.peers[0].wire.finish()  # on its way when the next request is
        trying = attempt()
        assert why(await trying) is NoAnswer.STALE
        await attempt.transport.aclose()


class TestLimits:
    async def test_no_more_connections_are_open_than_are_allowed(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there, limit=3))
        await asyncio.gather(*(attempt(fresh=number % 2 == 0) for number in range(20)))
        assert there.network.most_open == 3
        await attempt.transport.aclose()

    async def test_who_waits_longest_gets_the_next_connection(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there, limit=1))
        tries = [attempt() for _ in range(6)]
        order: list[int] = []
        for number, one in enumerate(tries):
            one.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]  # no type for a default
        await asyncio.gather(*tries)
        assert order == [0, 1, 2, 3, 4, 5]
        await attempt.transport.aclose()

    async def test_two_urls_of_one_origin_share_its_connections(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there))
        await attempt(url="http://sink/a")
        await attempt(url="http://sink/b?c")
        assert len(there.peers) == 1
        await attempt.transport.aclose()

    async def test_a_fresh_try_finds_room_though_all_connections_rest(self, there: There) -> None:
        there.answers = ACCEPTED
        attempt = Trying(transport(there, limit=1))
        await attempt()
        before = now()
        assert status(await attempt(fresh=True)) == 202
        assert now() - before < 1
        assert (len(there.peers), there.open) == (2, 1)
        await attempt.transport.aclose()

    async def test_a_fresh_try_that_came_while_all_were_busy_waits_for_no_idle_time(self, there: There) -> None:
        attempt = Trying(transport(there, limit=1))
        first = attempt()
        busy = await there.requests.get()
        fresh = attempt(fresh=True)
        await asyncio.sleep(0.1)
        there.answers = ACCEPTED
        busy.accept()
        await first
        before = now()
        assert status(await fresh) == 202
        assert now() - before < 1  # and not the four seconds after which the resting one is closed
        assert there.network.most_open == 1
        await attempt.transport.aclose()


class TestConnecting:
    async def test_a_failure_to_connect_fails_the_try_that_asked_and_no_other(self, there: There) -> None:
        there.by_hand = True
        there.answers = ACCEPTED
        attempt = Trying(transport(there))
        first, second = attempt(), attempt()
        await there.dialled(2)
        there.let(0, ConnectionRefusedError("no"))
        assert why(await first) is NoAnswer.CONNECT
        assert not second.done()
        there.let(1)
        assert status(await second) == 202
        await attempt.transport.aclose()

    async def test_a_try_whose_connection_another_got_has_that_one_s_instead(self, there: There) -> None:
        """The second's connection is there first and goes to the first, which waited longer; then the first's fails."""
        there.by_hand = True
        attempt = Trying(transport(there))
        first, second = attempt(), attempt()
        await there.dialled(2)
        there.let(1)
        carrying = await there.requests.get()
        there.let(0, ConnectionRefusedError("no"))
        assert why(await second) is NoAnswer.CONNECT  # at once, and not when its whole time to connect is over
        assert now() < 1
        carrying.accept()
        assert status(await first) == 202
        await attempt.transport.aclose()

    async def test_a_try_does_not_wait_for_a_connection_that_one_asked_for_who_gave_up(self, there: There) -> None:
        """What was dialled then may be an address where nobody is any more."""
        there.by_hand = True
        attempt = Trying(transport(there))
        gone = attempt()
        await there.dialled(1)
        gone.cancel()
        there.by_hand = False
        there.answers = ACCEPTED
        before = now()
        assert status(await attempt()) == 202
        assert now() - before < 1
        await attempt.transport.aclose()

    async def test_as_many_connections_are_made_as_tries_wait_in_whatever_order_they_come(self, there: There) -> None:
        there.by_hand = True
        attempt = Trying(transport(there))
        tries = [attempt() for _ in range(6)]
        await there.dialled(6)
        for number in (5, 2, 4, 0, 3, 1):
            there.let(number)
        for _ in tries:
            (await there.requests.get()).accept()
        await asyncio.gather(*tries)
        assert (len(there.dials), len(there.peers)) == (6, 6)
        await attempt.transport.aclose()

    async def test_names_are_resolved_anew_for_each_connection(self, there: There) -> None:
        there.answers = CLOSING
        attempt = Trying(transport(there))
        await attempt()
        there.name.addresses = ["10.0.0.2"]
        await attempt()
        assert [peer.wire.get_extra_info("peername")[0] for peer in there.peers] == ["10.0.0.1", "10.0.0.2"]
        await attempt.transport.aclose()

    async def test_two_addresses_behind_one_name_get_their_share(self, there: There) -> None:
        there.answers = ACCEPTED
        there.name.addresses = ["10.0.0.1", "10.0.0.2"]
        attempt = Trying(transport(there))
        for number in range(1, 7):
            tries = [attempt() for _ in range(number)]
            await asyncio.gather(*tries)
        share = Counter(wire.get_extra_info("peername")[0] for wire in there.network.wires)
        assert share == {"10.0.0.1": 3, "10.0.0.2": 3}
        await attempt.transport.aclose()

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (ConnectionRefusedError("no"), NoAnswer.CONNECT),
            (ssl.SSLCertVerificationError("expired"), NoAnswer.TLS),
            (ssl.SSLError("alert"), NoAnswer.TLS),
            (UnicodeError("label too long"), NoAnswer.CONNECT),
            (OSError(), NoAnswer.CONNECT),
        ],
        ids=repr,
    )
    async def test_what_goes_wrong_with_a_dial_has_its_name(
        self, there: There, error: Exception, expected: NoAnswer
    ) -> None:
        there.by_hand = True
        attempt = Trying(transport(there))
        trying = attempt()
        await there.dialled(1)
        there.let(0, error)
        failure = await trying
        assert why(failure) is expected
        assert str(failure).partition(": ")[2]  # it says something, whatever the error says
        await attempt.transport.aclose()


class TestTimeouts:
    async def test_connecting_has_its_time(self, there: There) -> None:
        there.name.dead = {"10.0.0.1"}
        attempt = Trying(transport(there, timeouts=Timeouts(connect=7.0)))
        assert why(await attempt(timeout=None)) is NoAnswer.CONNECT
        assert now() == pytest.approx(7.0, abs=0.1)
        await attempt.transport.aclose()

    async def test_waiting_for_a_free_connection_counts_as_connecting(self, there: There) -> None:
        attempt = Trying(transport(there, limit=1, timeouts=Timeouts(connect=7.0)))
        busy = attempt(timeout=None)
        await there.requests.get()
        assert why(await attempt(timeout=None)) is NoAnswer.CONNECT
        busy.cancel()
        await attempt.transport.aclose()

    async def test_the_request_has_its_time_to_leave(self, there: There) -> None:
        attempt = Trying(transport(there, timeouts=Timeouts(write=5.0, first_byte=100.0)))
        post = Post(Target(URL), b"", b"x" * 200_000, None)
        trying = asyncio.create_task(one_try(attempt.transport, post))
        there.on_accept = lambda wire: setattr(wire, "reading", False)
        assert why(await trying) is NoAnswer.TIMEOUT
        assert now() == pytest.approx(5.0, abs=0.1)
        await attempt.transport.aclose()

    async def test_the_first_byte_has_its_time_and_the_second_another(self, there: There) -> None:
        attempt = Trying(transport(there, timeouts=Timeouts(first_byte=5.0)))
        assert why(await attempt(timeout=None)) is NoAnswer.TIMEOUT
        there.peers.clear()
        trying = attempt(timeout=20)
        peer = [await there.requests.get(), await there.requests.get()][1]
        peer.wire.send(b"H")
        await asyncio.sleep(10)
        assert not trying.done()
        assert why(await trying) is NoAnswer.TIMEOUT
        await attempt.transport.aclose()

    async def test_the_whole_has_its_time(self, there: There) -> None:
        attempt = Trying(transport(there))
        assert why(await attempt(timeout=3)) is NoAnswer.TIMEOUT
        assert now() == pytest.approx(3.0, abs=0.01)
        await attempt.transport.aclose()

    @pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n\r\n", b"\r\n"], ids=["length", "until the end"])
    async def test_a_body_that_comes_byte_by_byte_has_one_second_from_its_head(
        self, there: There, framing: bytes
    ) -> None:
        attempt = Trying(transport(there))
        trying = attempt(timeout=None)
        peer = await there.requests.get()
        peer.wire.send(b"HTTP/1.1 202 X\r\n" + framing)
        before = now()

        async def drip() -> None:
            while peer.lives:
                await asyncio.sleep(0.5)
                peer.wire.send(b"x")

        dripping = asyncio.create_task(drip())
        assert status(await trying) == 202
        assert now() - before == pytest.approx(1.0, abs=0.1)
        await dripping
        await attempt.transport.aclose()

    async def test_many_tries_are_each_ended_at_their_own_time(self, there: There) -> None:
        attempt = Trying(transport(there))
        ended: list[float] = []
        tries = [attempt(timeout=seconds) for seconds in (5.0, 1.0, 3.0, 2.0, 4.0)]
        for one in tries:
            one.add_done_callback(lambda _: ended.append(now()))
        await asyncio.gather(*tries)
        assert ended == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0], abs=0.01)
        await attempt.transport.aclose()


class TestCancelling:
    @pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05, 0.1])
    async def test_a_cancelled_try_leaves_no_dirty_connection_behind(self, there: There, after: float) -> None:
        attempt = Trying(transport(there))
        trying = attempt()
        await asyncio.sleep(after)
        trying.cancel()
        await asyncio.sleep(1)
        asked = [peer for peer in there.peers if peer.octets]
        assert all(not peer.lives for peer in asked)
        there.answers = ACCEPTED
        assert status(await attempt()) == 202
        assert all(peer.octets.count(b"POST") == 1 for peer in there.peers if peer.octets)
        await attempt.transport.aclose()

    async def test_a_cancelled_try_makes_room_for_who_waits(self, there: There) -> None:
        attempt = Trying(transport(there, limit=1))
        first = attempt()
        await there.requests.get()
        second = attempt()
        await asyncio.sleep(0)
        there.answers = ACCEPTED
        first.cancel()
        assert status(await second) == 202
        assert there.network.most_open == 1
        await attempt.transport.aclose()

    async def test_cancelling_who_waits_is_felt_by_nobody_else(self, there: There) -> None:
        attempt = Trying(transport(there, limit=1))
        first, second, third = attempt(), attempt(), attempt()
        peer = await there.requests.get()
        second.cancel()
        peer.accept()
        assert status(await first) == 202
        (await there.requests.get()).accept()
        assert status(await third) == 202
        assert peer.octets.count(b"POST") == 2
        await attempt.transport.aclose()

    async def test_those_that_gave_up_waiting_are_not_kept(self, there: There) -> None:
        """A sink that is silent for hours, and events that are worth a second each."""
        attempt = Trying(transport(there, limit=1))
        busy = attempt(timeout=None)
        await there.requests.get()
        for _ in range(500):
            assert why(await attempt(timeout=0.01)) is NoAnswer.CONNECT
        (pool,) = attempt.transport._pools.values()
        assert len(pool._waiting) < 100
        assert len(attempt.transport.tries) == 1
        busy.cancel()
        await attempt.transport.aclose()


class TestClosing:
    async def test_everything_in_flight_ends_and_nothing_is_left(self, there: There) -> None:
        attempt = Trying(transport(there, limit=3))
        there.answers = ACCEPTED
        await attempt()
        there.answers = b""
        tries = [attempt() for _ in range(2)]
        await there.requests.get()
        for _ in tries:
            await there.requests.get()
        there.by_hand = True
        tries += [attempt(), attempt(), attempt(fresh=True)]
        await there.dialled(1)
        before = asyncio.all_tasks()
        await attempt.transport.aclose()
        assert {type(outcome) for outcome in await asyncio.gather(*tries)} == {Unanswered}
        assert there.open == 0
        assert (attempt.transport.tries, attempt.transport._pools) == ([], {})
        assert not {task for task in asyncio.all_tasks() - before if not task.done()}
        await attempt.transport.aclose()

    async def test_who_tries_again_from_within_its_outcome_is_told_that_all_is_closed(self, there: There) -> None:
        attempt = Trying(transport(there))
        outcomes: list[Outcome] = []
        post = Post(Target(URL), b"", b"", 5.0)

        def again(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) < 3:
                attempt.transport.begin(post, again)

        attempt.transport.begin(post, again)
        await there.requests.get()
        await attempt.transport.aclose()
        await asyncio.sleep(1)
        assert [why(outcome) for outcome in outcomes] == [NoAnswer.RESET, NoAnswer.CONNECT, NoAnswer.CONNECT]
        assert attempt.transport.tries == []
