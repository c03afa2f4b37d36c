"""GitLab's API, as much of it as the registrar needs: python-gitlab in threads, with time-outs. It decides nothing.

python-gitlab is synchronous, waits for ever by default, and sleeps through rate limits by itself: each call is made in a
thread of its own that no exit waits for, and a rate limit is told to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast
from urllib.parse import urljoin, urlsplit

import gitlab
import requests

from wellhead.watched_file import content

from .hook_api import Where
from .kinds import Scope
from .trouble import ApiError, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from .config import GitlabConfig
    from .projecturl import Place, Target

T = TypeVar("T")
_PAGE: Final = 100
_LOG_PAGE: Final = 20  # the most that GitLab gives of its log of hook events
_ELSEWHERE: Final = (401, 403, 404, 405)  # what something that is no GitLab may say at the root of a host
MOST_CALLS: Final = 32
"""At a time: one that hangs keeps its thread until the network gives up."""


class Aside(Protocol):
    """Makes a call that blocks without blocking the event loop."""

    async def __call__(self, call: Callable[[], T], /) -> T: ...


class InThread:
    """Each call in a thread of its own, that nothing waits for: a program ends although an answer never comes."""

    def __init__(self) -> None:
        self._running = 0

    async def __call__(self, call: Callable[[], T], /) -> T:
        if self._running >= MOST_CALLS:
            raise ApiError(f"{self._running} earlier calls were not answered yet")
        self._running += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: Exception | None) -> None:
            self._running -= 1
            if future.done():  # nobody waits any more
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast("T", value))

        def run() -> None:
            value: T | None = None
            problem: Exception | None = None
            try:
                value = call()
            except Exception as error:  # noqa: BLE001 - handed on to whoever asked
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: the program has ended meanwhile
                loop.call_soon_threadsafe(settle, value, problem)

        threading.Thread(target=run, name="a call of GitLab's API", daemon=True).start()
        return await future


class PythonGitlab:
    """`HookApi` by python-gitlab. ``client`` is opened for each call: one that hangs keeps nothing that the next needs."""

    def __init__(
        self, client: Callable[[str], gitlab.Gitlab], *, aside: Aside | None = None, seconds: float = 10.0
    ) -> None:
        self._client = client
        self._aside = aside or InThread()
        self._seconds = seconds

    async def locate(self, target: Target) -> Where:
        """See `HookApi.locate`. Of several places that a URL may mean, the first that is there."""
        problem: ApiError | None = None
        for place in target.candidates:
            try:
                return Where(place.base, await self._located(target.scope, place))
            except ApiError as error:
                problem = problem or error  # the likeliest place's
                if error.status not in _ELSEWHERE:
                    raise
        raise problem or ApiError("names nothing that can be looked for")

    async def _located(self, scope: Scope, place: Place) -> str:
        if scope is Scope.SYSTEM:
            return ""
        kind = "projects" if scope is Scope.PROJECT else "groups"
        path = f"/{kind}/{place.encoded}"
        found = await self._call(place.base, partial(_get, path=path))
        if not isinstance(found, Mapping) or type(found.get("id")) is not int:
            raise ApiError("what answers there is no GitLab", status=404)
        return f"/{kind}/{found['id']}"

    async def webhooks(self, where: Where) -> list[object]:
        def work(client: gitlab.Gitlab) -> list[object]:
            found = client.http_list(f"{where.path}/hooks", get_all=True, per_page=_PAGE)
            return list(found)

        return await self._call(where.base, work)

    async def create(self, where: Where, body: Mapping[str, object]) -> object:
        return await self._call(
            where.base, lambda client: client.http_post(f"{where.path}/hooks", post_data=dict(body))
        )

    async def update(self, where: Where, number: int, body: Mapping[str, object]) -> object:
        return await self._call(
            where.base, lambda client: client.http_put(f"{where.path}/hooks/{number}", post_data=dict(body))
        )

    async def remove(self, where: Where, number: int, *, unless_changed_since: datetime | None = None) -> bool:
        headers = {}
        if unless_changed_since is not None:
            headers["If-Unmodified-Since"] = format_datetime(unless_changed_since, usegmt=True)

        def work(client: gitlab.Gitlab) -> None:
            client.http_delete(f"{where.path}/hooks/{number}", extra_headers=headers)

        try:
            await self._call(where.base, work)
        except ApiError as error:
            if error.status not in (404, 412):
                raise
            return error.status == 404
        return True

    async def log(self, where: Where, number: int, page: int) -> list[object]:
        def work(client: gitlab.Gitlab) -> list[object]:
            path = f"{where.path}/hooks/{number}/events"
            return list(client.http_list(path, page=page, per_page=_LOG_PAGE, get_all=False))

        return await self._call(where.base, work)

    async def resend(self, where: Where, number: int, entry: int) -> str:
        path = f"{where.path}/hooks/{number}/events/{entry}/resend"
        said = await self._call(where.base, lambda client: client.http_post(path))
        return str(said.get("response_status") or "") if isinstance(said, Mapping) else ""

    async def test(self, where: Where, number: int, trigger: str) -> None:
        path = f"{where.path}/hooks/{number}/test/{trigger}" if where.path else f"/hooks/{number}"
        await self._call(where.base, lambda client: client.http_post(path))

    async def _call(self, base: str, work: Callable[[gitlab.Gitlab], T]) -> T:
        headers: dict[str, str] = {}

        def call() -> T:
            client = self._client(base)
            client.session.hooks["response"].append(partial(_look_at, base, headers))
            try:
                return work(client)
            finally:
                client.session.close()

        try:
            # The client's own time-out is of each wait for the network; an answer that drips has all of them.
            async with asyncio.timeout(3 * self._seconds):
                return await self._aside(call)
        except TimeoutError:
            raise ApiError("did not answer in time") from None
        except gitlab.GitlabError as error:
            raise _translated(error, headers) from None
        except requests.RequestException as error:
            raise ApiError(_reason(error)) from None
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            # What python-gitlab makes of answers that are no JSON, or not what was asked for.
            raise ApiError("answered something that is not GitLab's API") from error


def open_client(
    base: str, token: str, *, verify: bool = True, ca_file: Path | None = None, seconds: float = 10.0
) -> gitlab.Gitlab:
    """A client that waits neither for ever nor by itself: a rate limit is the registrar's to wait for."""
    client = gitlab.Gitlab(
        base,
        private_token=token or None,
        ssl_verify=str(ca_file) if ca_file is not None else verify,
        timeout=seconds,
        keep_base_url=True,
        user_agent="wellhead",
    )
    # The one way that all its calls go. It offers no setting for what it does about a rate limit: to sleep.
    client.http_request = partial(client.http_request, obey_rate_limit=False, retry_transient_errors=False)  # type: ignore[method-assign]  # see above
    return client


def _get(client: gitlab.Gitlab, path: str) -> object:
    return client.http_get(path)


def _look_at(base: str, headers: dict[str, str], response: requests.Response, *_: object, **__: object) -> None:
    """Keep the headers, and follow no redirect to elsewhere: requests would show the token there."""
    headers.clear()
    headers.update({name.lower(): value for name, value in response.headers.items()})
    if response.is_redirect:
        there = urlsplit(urljoin(response.url, response.headers["location"]))
        here = urlsplit(base)
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            response.close()
            raise requests.RequestException(
                f"sends us on to {there.scheme}://{there.hostname}; say that address instead"
            )


def _translated(error: gitlab.GitlabError, headers: Mapping[str, str]) -> ApiError:
    status = error.response_code
    said = error.error_message if isinstance(error.error_message, str) else str(error.error_message)
    return ApiError(said[:200] or "refused it", status=status, retry_after=retry_after(headers))


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "cannot be reached"
    if isinstance(error, requests.exceptions.Timeout):
        return "did not answer in time"
    return str(error)[:200] or type(error).__name__


def api_of(config: GitlabConfig) -> PythonGitlab:
    """The API as a configuration says it is reached."""

    def token() -> str:
        file = config.access_token_file
        if file is None:
            return config.access_token
        try:
            return content(file).decode("utf-8").strip()
        except ValueError as error:
            raise ApiError(f"the access token's file {file} {error}") from None

    seconds = config.api_timeout.total_seconds()

    def client(base: str) -> gitlab.Gitlab:
        return open_client(base, token(), verify=config.api_ssl_verify, ca_file=config.api_ca_file, seconds=seconds)

    return PythonGitlab(client, seconds=seconds)
