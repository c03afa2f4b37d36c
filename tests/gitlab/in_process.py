"""The instance under python-gitlab without a socket: a transport adapter of requests, for thousands of histories.

client = gitlab.Gitlab(instance.settings.external_url, private_token="…")
client.session.mount("http://", InProcess(instance))
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from tests.gitlab.api import Api
from tests.gitlab.deliveries import Answered, Delivery, NotSent
from tests.gitlab.faults import Fault, Faults
from tests.gitlab.replies import Call, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.gitlab.deliveries import Outcome
    from tests.gitlab.instance import GitLab
    from tests.gitlab.routes import Send


def accepting(delivery: Delivery) -> Outcome:
    return Answered(202)


class InProcess(BaseAdapter):
    """Answers requests at once, in the calling thread; one thread at a time. ``send`` is for test requests and resending."""

    def __init__(self, gitlab: GitLab, send: Callable[[Delivery], Outcome] = accepting) -> None:
        super().__init__()
        self.gitlab = gitlab
        self.faults = Faults()
        self._send = send
        self._api = Api(gitlab)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - requests calls it so
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        call = _call(request)
        fault = self.faults.of(call) or Fault(effect=True)
        reply = self._true_reply(call) if fault.effect else fault.reply
        patience = timeout[1] if isinstance(timeout, tuple) else timeout
        if patience is not None and fault.delay_seconds >= patience:
            raise requests.ReadTimeout(f"nothing within {patience} s", request=request)
        if fault.reset or reply is None:
            raise requests.ConnectionError("Connection reset by peer", request=request)
        return _response(request, fault.reply or reply)

    def close(self) -> None:
        """Nothing is open."""

    def _true_reply(self, call: Call) -> Reply:
        answer = self._api.answer(call)
        return answer if isinstance(answer, Reply) else answer.then(self._perform(answer))

    def _perform(self, asked: Send) -> Outcome | NotSent:
        delivery = self.gitlab.begin(asked.fired)
        if isinstance(delivery, NotSent):
            return delivery
        outcome = self._send(delivery)
        self.gitlab.ended(delivery, outcome, took=0)
        return outcome


def _call(request: requests.PreparedRequest) -> Call:
    parts = urlsplit(request.url or "")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    body = request.body or b""
    return Call(
        request.method or "GET",
        target,
        tuple((str(name), str(value)) for name, value in request.headers.items()),
        body.encode() if isinstance(body, str) else bytes(body),
    )


def _response(request: requests.PreparedRequest, reply: Reply) -> requests.Response:
    response = requests.Response()
    response.status_code = reply.status
    response.headers = CaseInsensitiveDict(reply.headers)
    response.raw = io.BytesIO(reply.body)
    response.url = request.url or ""
    response.request = request
    return response
