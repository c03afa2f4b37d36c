"""Everything that a sink can do wrong with a request, each by its name: a table, drawn from by the simulated world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.simulated_sink import Conversation

    Fault: TypeAlias = "Callable[[Conversation], None]"

RETRIED: Final = (404, 408, 409, 425, 429, 500, 501, 502, 503, 504, 511, 599, 700, 999)
HELD: Final = (300, 301, 302, 304, 307, 308, 401, 403, 405, 407, 415)
REFUSED: Final = (400, 402, 406, 410, 411, 412, 413, 414, 416, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451)
ACCEPTED: Final = (200, 201, 202, 203, 204, 205, 206, 226, 299)
GOOD_WAITS: Final = ("0", "1", "7", " 3 ", "90", "Thu, 01 Jan 2026 00:01:00 GMT", "Thursday, 01-Jan-26 00:02:00 GMT")
BAD_WAITS: Final = (
    "",
    "soon",
    "-1",
    "1.5",
    "1e3",
    "9" * 400,
    "٣",
    "Thu, 99 Foo 2026 99:99:99 GMT",
    "Fri, 31 Dec 9999 23:59:59 -9999",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "1, 2",
    "\xff",
)


@dataclass(slots=True)
class Faults:
    """By name: those that wait for the whole request, and those that do not."""

    whole: dict[str, Fault] = field(default_factory=dict)
    early: dict[str, Fault] = field(default_factory=dict)

    def fault(self, name: str) -> Callable[[Fault], Fault]:
        def add(fault: Fault) -> Fault:
            self.whole[name] = fault
            return fault

        return add

    def hasty(self, name: str) -> Callable[[Fault], Fault]:
        def add(fault: Fault) -> Fault:
            self.early[name] = fault
            return fault

        return add

    @property
    def names(self) -> list[str]:
        return [*self.whole, *self.early]


FAULTS: Final = Faults()


def plain(status: int, body: bytes = b"", *, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def said(it: Conversation, status: int) -> bytes:
    """An answer of this status that may be whole."""
    body = b"" if status in (204, 304) else it.echo()
    return plain(status, body) if body else b"HTTP/1.1 %d X\r\n\r\n" % status


# Answers, all of them well-formed.


@FAULTS.fault("status: retried")
def retried(it: Conversation) -> None:
    status = it.die.choice(RETRIED)
    it.answer(status, said(it, status))


@FAULTS.fault("status: held")
def held(it: Conversation) -> None:
    status = it.die.choice(HELD)
    it.answer(status, said(it, status))


@FAULTS.fault("status: refused")
def refused(it: Conversation) -> None:
    status = it.die.choice(REFUSED)
    it.answer(status, said(it, status))


@FAULTS.fault("status: accepted otherwise")
def accepted_otherwise(it: Conversation) -> None:
    status = it.die.choice(ACCEPTED)
    it.answer(status, said(it, status))


@FAULTS.fault("Retry-After: good")
def wait_well(it: Conversation) -> None:
    status, wait = it.die.choice((429, 503)), it.die.choice(GOOD_WAITS)
    it.answer(status, plain(status, b"later", headers=b"Retry-After: %b\r\n" % wait.encode()))


@FAULTS.fault("Retry-After: bad")
def wait_badly(it: Conversation) -> None:
    status, wait = it.die.choice((429, 503)), it.die.choice(BAD_WAITS)
    it.answer(status, plain(status, b"later", headers=b"retry-AFTER: %b\r\n" % wait.encode()))


@FAULTS.fault("chunked with trailers")
def chunked(it: Conversation) -> None:
    status = it.die.choice((200, 503))
    head = b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status
    it.answer(status, head + b"5;a=b\r\nhello\r\n0\r\nRetry-After: 3\r\n\r\n")


@FAULTS.fault("interim answers first")
def interim(it: Conversation) -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * it.die.randint(1, 40)
    it.answer(202, before + plain(202))


@FAULTS.fault("switching protocols")
def switching(it: Conversation) -> None:
    it.answer(101, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0")


@FAULTS.fault("answers HTTP/1.0")
def old(it: Conversation) -> None:
    it.answer(202, b"HTTP/1.0 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    it.wire.finish()


@FAULTS.fault("answers Connection: close")
def closing(it: Conversation) -> None:
    status = it.die.choice((202, 503))
    it.answer(status, plain(status, headers=b"Connection: close\r\n"))
    it.wire.finish()


@FAULTS.fault("body until the end")
def close_delimited(it: Conversation) -> None:
    it.answer(200, b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    if it.die.random() < 0.5:
        it.wire.finish()


@FAULTS.fault("huge body")
def huge_body(it: Conversation) -> None:
    status = it.die.choice((200, 500))
    it.answer(status, plain(status, b"x" * it.die.choice((65_535, 65_536, 65_537, 300_000))))


# Slowness and silence.


@FAULTS.fault("slow, byte by byte")
def slow(it: Conversation) -> None:
    status, gap = it.die.choice((202, 503)), it.die.choice((0.01, 0.2, 0.9, 5.0))
    octets = plain(status, b"slowly")
    it.answer(status, b"")

    def drip(position: int) -> None:
        it.wire.send(octets[position : position + 1])
        if position + 1 < len(octets):
            it.later(gap, lambda: drip(position + 1))

    drip(0)


@FAULTS.fault("late")
def late(it: Conversation) -> None:
    it.perhaps_take()
    it.later(it.die.choice((1.0, 5.0, 29.0, 31.0, 45.0)), it.accepting)


@FAULTS.fault("silence")
def silence(it: Conversation) -> None:
    it.perhaps_take()
    it.ignore_all()


@FAULTS.hasty("stops reading")
def deaf(it: Conversation) -> None:
    it.ignore_all()
    it.wire.reading = False


@FAULTS.fault("silence in the body")
def silent_body(it: Conversation) -> None:
    it.answer(202, b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\nhal")


# Connections that break.


@FAULTS.hasty("reset before the request is read")
def reset_first(it: Conversation) -> None:
    it.ignore_all()
    it.wire.reset()


@FAULTS.fault("reset before the head")
def reset_before(it: Conversation) -> None:
    it.perhaps_take()
    it.ignore_all()
    it.wire.reset()


@FAULTS.fault("reset in the head")
def reset_in_head(it: Conversation) -> None:
    it.perhaps_take()
    it.ignore_all()
    it.wire.send(b"HTTP/1.1 202 Acc")
    it.wire.reset()


@FAULTS.fault("reset after the head")
def reset_after_head(it: Conversation) -> None:
    status = it.die.choice((202, 503, 400))
    it.answer(status, b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status)
    it.ignore_all()
    it.wire.reset()


@FAULTS.fault("reset in the body")
def reset_in_body(it: Conversation) -> None:
    it.answer(202, b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    it.ignore_all()
    it.wire.reset()


@FAULTS.fault("half close before the answer")
def half_close(it: Conversation) -> None:
    it.perhaps_take()
    it.ignore_all()
    it.wire.finish()


@FAULTS.fault("half close in the body")
def half_close_in_body(it: Conversation) -> None:
    it.answer(202, b"HTTP/1.1 202 X\r\nContent-Length: 9\r\n\r\nhal")
    it.ignore_all()
    it.wire.finish()


@FAULTS.fault("answer, then reset")
def answer_then_reset(it: Conversation) -> None:
    it.accepting()
    it.wire.reset()


@FAULTS.fault("kept connection closed under us")
def stale(it: Conversation) -> None:
    it.accepting()
    it.later(it.die.choice((0.0, 0.001, 0.5, 2.0, 3.999)), it.wire.finish)


@FAULTS.fault("TLS alert after the handshake")
def alert(it: Conversation) -> None:
    it.ignore_all()
    it.wire.alert()


# What is no HTTP.


@FAULTS.fault("garbage")
def garbage(it: Conversation) -> None:
    it.perhaps_take()
    it.wire.send(
        it.die.choice((b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 40, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/3 200\r\n\r\n"))
    )


@FAULTS.fault("wrong framing of the head")
def wrong_head(it: Conversation) -> None:
    it.perhaps_take()
    it.wire.send(
        b"HTTP/1.1 202 X\r\n"
        + it.die.choice(
            (
                b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                b"Content-Length: -1\r\n\r\n",
                b"Content-Length: 99999999999999999999999\r\n\r\n",
                b"no colon\r\n\r\n",
                b"a b: c\r\n\r\n",
                b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
                b"X: \0\r\nContent-Length: 0\r\n\r\n",
            )
        )
    )


@FAULTS.fault("wrong framing of the body")
def wrong_body(it: Conversation) -> None:
    it.answer(202, b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n" + it.die.choice((b"zz\r\n", b"3\r\nhello")))


@FAULTS.fault("more than was asked for")
def twice(it: Conversation) -> None:
    # In one piece: of what comes later nobody could tell that it is not the answer to the next request.
    more = it.die.choice((plain(202), plain(202)[:20], plain(503), b"x", b"\r\n"))
    it.answer(202, plain(202) + more, whole=True)
    it.later(0.05, lambda: it.wire.send(plain(202)[20:]) if more == plain(202)[:20] else None)


@FAULTS.fault("an answer that nobody asked for")
def unasked(it: Conversation) -> None:
    it.accepting()
    answered = it.request

    def give_up() -> None:  # as servers do that waited long enough for the next request; they read none after that
        if it.request is not answered:
            return
        it.wire.send(plain(408, headers=b"Connection: close\r\n"))
        it.ignore_all()

    it.later(it.die.random(), give_up)


@FAULTS.fault("huge head")
def huge_head(it: Conversation) -> None:
    it.perhaps_take()
    lines = it.die.choice((b"X: " + b"x" * 70_000 + b"\r\n", b"X: x\r\n" * 20_000, b"X" * 70_000))
    it.wire.send(b"HTTP/1.1 202 X\r\n" + lines + b"Content-Length: 0\r\n\r\n")


@FAULTS.fault("endless interim answers")
def endless(it: Conversation) -> None:
    it.perhaps_take()

    def more() -> None:
        it.wire.send(b"HTTP/1.1 102 Processing\r\nX: %b\r\n\r\n" % (b"x" * 5_000))
        it.later(0.5, more)

    more()


@FAULTS.hasty("an answer before the request was read")
def early(it: Conversation) -> None:
    it.ignore_all()
    it.wire.send(plain(503, headers=b"Connection: close\r\n"))
    it.wire.finish()
