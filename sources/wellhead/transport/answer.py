"""Bytes of one connection to HTTP answers. Pure: it reads and writes no socket. httptools (llhttp) parses, strictly."""

from __future__ import annotations

from typing import Final

import httptools

from wellhead.delivery import Answered

from . import BODY_KEPT

HEAD_BYTES: Final = 64 * 1024
"""The most that the head of an answer may have, interim answers (1xx) before it included."""
_ANSWER_BYTES: Final = 1024 * 1024
"""The most that is read of one answer: its body may be little, and chunk extensions and trailers without end."""
_RETRY_AFTER: Final = b"retry-after"
_SWITCHING: Final = 101


class BadAnswer(Exception):
    """What came is no HTTP answer, or a head beyond `HEAD_BYTES`."""


class Memo:
    """The octets of the last answer that came whole, and what they say.

    Sinks answer an accepted event with the same octets until their clock's next second, and an answer that begins and
    ends with a read means the same whatever was before it: one look at these is a tenth of the price of parsing.
    """

    __slots__ = ("answer", "octets")

    def __init__(self) -> None:
        self.octets = b""
        self.answer = Answered(0)


class AnswerReader:
    """Reads the answers of one connection, one after another. Feed it what arrives while an answer is awaited."""

    __slots__ = (
        "_body",
        "_complete",
        "_memo",
        "_parser",
        "_read",
        "_retry_after",
        "_status",
        "begun",
        "head_came",
        "reusable",
    )

    begun: bool
    """Whether a byte of the answer came."""
    head_came: bool
    """Whether its head did, which is what counts: the body takes nothing back."""
    _complete: bool
    _status: int
    _retry_after: str | None
    _body: bytearray
    _read: int

    def __init__(self, memo: Memo) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._memo = memo
        self.reusable = True
        """Whether another request may be sent on this connection, once the answer is whole."""
        self._begin()

    def feed(self, data: bytes) -> Answered | None:
        """Take in what arrived; the answer, once it is whole, or as much of it as is kept. Raises `BadAnswer`.

        What comes beyond the end of the answer was not asked for: the connection is not `reusable` then.
        """
        if not self.begun and data == self._memo.octets:
            return self._memo.answer
        at_start = not self.begun
        self.begun = True
        room = HEAD_BYTES - self._read
        self._read += len(data)
        if self.head_came or len(data) <= room:
            self._parse(data)
        else:
            self._parse(data[:room])
            if not self.head_came:
                raise BadAnswer(f"its head has more than {HEAD_BYTES} bytes")
            self._parse(data[room:])
        if not self._complete:
            if len(self._body) < BODY_KEPT and self._read < _ANSWER_BYTES:
                return None
            self.reusable = False
            return self.so_far()
        answer = self.so_far()
        if at_start and self.reusable and answer.status < 300:
            self._memo.octets, self._memo.answer = data, answer
        self._begin()
        return answer

    def so_far(self) -> Answered:
        """The answer with as much of its body as came; only once `head_came`. It takes the connection with it."""
        return Answered(self._status, self._retry_after, bytes(self._body[:BODY_KEPT]))

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._status, self.reusable, self._complete = self._parser.get_status_code(), False, True
        except httptools.HttpParserError as error:
            self.reusable = False
            if not self._complete:
                raise BadAnswer(str(error)[:200]) from None

    def _begin(self) -> None:
        self.begun = False
        self.head_came = False
        self._complete = False
        self._status = 0
        self._retry_after = None
        self._body = bytearray()
        self._read = 0

    # httptools calls these.

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one request
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == len(_RETRY_AFTER) and name.lower() == _RETRY_AFTER and not self._complete:
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self._status = self._parser.get_status_code()
        self.head_came = self._status >= 200 or self._status == _SWITCHING

    def on_body(self, body: bytes) -> None:
        if not self._complete and len(self._body) < BODY_KEPT:
            self._body += body

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self.head_came:
            self._complete = True
            self.reusable = self.reusable and self._parser.should_keep_alive()
        else:  # an interim answer
            self._retry_after = None
