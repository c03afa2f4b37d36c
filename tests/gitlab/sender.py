"""Sends hook events: over HTTP, with the time-out and the certificate checks that GitLab has."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Protocol

import aiohttp
from tests.gitlab.deliveries import Answered, Delivery, Failed, Fired, NotSent, Outcome

if TYPE_CHECKING:
    from tests.gitlab.instance import GitLab


class Sender(Protocol):
    async def __call__(self, delivery: Delivery, /) -> Outcome:
        """Make the request and say what came of it; never raises but when cancelled."""


class HttpSender:
    """A connection for each delivery, as Net::HTTP makes it; redirects are answers. ``trust`` is for TLS.

    The time-out is HTTParty's `timeout`: so long for connecting, so long again until the answer begins or goes on, and
    so long for the whole of its body (gems/gitlab-http/lib/gitlab/http_v2/client.rb, `sync_perform_request`).
    """

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust

    async def __call__(self, delivery: Delivery, /) -> Outcome:
        limit = delivery.timeout_seconds
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                post = session.post(
                    delivery.url,
                    data=delivery.body,
                    headers=delivery.headers,
                    allow_redirects=False,
                    ssl=(self._trust or True) if delivery.verify_tls else False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=limit, sock_read=limit),
                )
                async with post as answer, asyncio.timeout(limit):
                    return Answered(answer.status, tuple(answer.headers.items()), await answer.read())
        except TimeoutError:
            return Failed("Net::ReadTimeout")
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            return Failed(f"{type(problem).__name__}: {problem}")


async def perform(gitlab: GitLab, fired: Fired, send: Sender) -> Outcome | NotSent:
    """One job of `WebHookWorker`: attempted if the webhook may still have it, then logged and counted."""
    delivery = gitlab.begin(fired)
    if isinstance(delivery, NotSent):
        return delivery
    began = gitlab.now()
    outcome = await send(delivery)
    gitlab.ended(delivery, outcome, took=(gitlab.now() - began).total_seconds())
    return outcome


async def perform_all(gitlab: GitLab, fired: list[Fired], send: Sender, *, at_once: int = 20) -> None:
    """Jobs as Sidekiq runs them: so many threads (*Configure Sidekiq concurrency*: 20), begun in order, not ended so."""
    threads = asyncio.Semaphore(at_once)

    async def job(one: Fired) -> None:
        async with threads:
            await perform(gitlab, one, send)

    async with asyncio.TaskGroup() as running:
        for one in fired:
            running.create_task(job(one), name=f"sends a hook event to webhook {one.hook.id}")
