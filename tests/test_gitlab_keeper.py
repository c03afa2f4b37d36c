"""One webhook whatever happens, and nothing lost that GitLab tried: our registrar and receiver in a simulated world."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from tests.gitlab.faults import LOST_AFTER, LOST_BEFORE, answered, html, late, too_many_requests
from tests.gitlab.replies import message
from tests.gitlab.settings import Settings
from tests.gitlab_world import ACCESS, HOOK_URL, INTERVAL, World

from wellhead_adapters.gitlab.kinds import FLAGS
from wellhead_adapters.gitlab.missed import MOST_TRIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.gitlab.faults import Fault
    from tests.gitlab.hooks import Hook
    from tests.gitlab_world import Replica

MINUTE: Final = INTERVAL.total_seconds()
GONE: Final = answered(message(404, "404 Not found"))
HISTORIES: Final = int(os.environ.get("WELLHEAD_GITLAB_HISTORIES", "15"))
"""1,000 is the soak."""

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def world(folder: Path, settings: Settings | None = None, **config: object) -> AsyncIterator[World]:
    it = World(folder, settings, **config)
    try:
        yield it
    finally:
        await it.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """A day of the simulated clock at most."""
    for _ in range(24 * 60):
        if condition():
            return
        await asyncio.sleep(MINUTE)


def is_right(it: World, hook: Hook) -> bool:
    flags = {flag: hook.values.get(flag) for flag in FLAGS if flag in hook.values}
    return (
        {flag for flag, on in flags.items() if on} == {"push_events", "note_events"}
        and hook.values["enable_ssl_verification"] is True
        and hook.token == it.secret
        and it.gitlab.executable(hook)
    )


async def test_at_the_start_one_webhook_is_made_with_every_flag_said(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.start().registrar.looked()
        (hook,) = it.webhooks
        assert is_right(it, hook)
        await it.push()
        assert len(it.sink.events) == 1


async def test_one_of_ours_that_is_there_is_taken_over(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.gitlab.create_hook(it.project, {"url": HOOK_URL, "token": "other", "issues_events": True})
        other = it.gitlab.create_hook(it.project, {"url": "http://else.where/"})
        await it.start().registrar.looked()
        (hook,) = it.webhooks
        assert is_right(it, hook)
        assert it.gitlab.hooks[other.id].values["push_events"] is True


async def test_two_replicas_that_start_at_once_end_with_one(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replicas = [it.start(), it.start()]
        for replica in replicas:
            await replica.registrar.looked()
        await asyncio.sleep(MINUTE)
        (hook,) = it.webhooks
        assert is_right(it, hook)


@pytest.mark.parametrize(
    "change", [{"push_events": False}, {"issues_events": True}, {"enable_ssl_verification": False}]
)
async def test_what_hands_changed_is_put_right_within_an_interval(tmp_path: Path, change: dict[str, object]) -> None:
    async with world(tmp_path) as it:
        await it.start().registrar.looked()
        await asyncio.sleep(MINUTE)
        it.gitlab.update_hook(it.webhooks[0], change)
        await asyncio.sleep(MINUTE + 1)
        assert is_right(it, it.webhooks[0])


async def test_a_secret_that_hands_changed_is_put_right_and_what_it_cost_asked_back(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.start().registrar.looked()
        it.gitlab.update_hook(it.webhooks[0], {"token": "by hand"})
        (key,) = await it.push()
        assert it.sink.events == []
        await asyncio.sleep(2 * MINUTE)
        assert is_right(it, it.webhooks[0])
        assert it.sink.ids == [key]


async def test_a_secret_is_rotated_without_refusing_anything(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        keys: list[str] = []
        it.rotate("second")
        for _ in range(12):
            keys += await it.push()
            await asyncio.sleep(10)
        assert it.webhooks[0].token == "second"
        assert it.sink.ids == keys
        assert replica.receiver.tally.answers == {202: 12}
        it.gitlab.update_hook(it.webhooks[0], {"token": "first"})
        await it.push()
        assert replica.receiver.tally.answers[401] == 1, "the old one is over"


@pytest.mark.parametrize(
    "fault",
    [
        LOST_BEFORE,
        LOST_AFTER,
        late(60),
        answered(html(502, "Bad Gateway")),
        answered(html(200, "Sign in")),
        answered(message(401, "401 Unauthorized")),
        answered(message(403, "403 Forbidden")),
        answered(message(404, "404 Project Not Found")),
        answered(message(422, "Invalid url given")),
        answered(too_many_requests()),
        answered(too_many_requests(())),
    ],
    ids=lambda fault: str(fault.reply.status if fault.reply else fault)[:40],
)
async def test_an_api_in_trouble_is_told_and_tried_again(
    tmp_path: Path, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with world(tmp_path) as it:
        replica = it.start()
        replica.line.faults.then(*[fault] * 3)
        await replica.registrar.looked()
        assert "GitLab's API is of no use now" in caplog.text
        assert "glpat" not in caplog.text
        await asyncio.sleep(9 * MINUTE)
        (hook,) = it.webhooks
        assert is_right(it, hook)
        assert "GitLab's API answers again" in caplog.text


async def test_a_project_that_was_renamed_keeps_its_webhook(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.start().registrar.looked()
        it.gitlab.namespaces.rename(it.project, "acme/hammer")
        it.gitlab.update_hook(it.webhooks[0], {"push_events": False})
        await asyncio.sleep(MINUTE + 1)
        assert is_right(it, it.webhooks[0])


async def test_a_gitlab_under_a_path_is_found(tmp_path: Path) -> None:
    settings = Settings(external_url="http://example.com/tools/gitlab")
    async with world(tmp_path, settings) as it:
        await it.start().registrar.looked()
        assert is_right(it, it.webhooks[0])


async def test_groups_and_whole_instances_have_their_webhooks_too(tmp_path: Path) -> None:
    base = "http://gitlab.example.com"
    events = ("push_events", "member_events", "repository_update_events")
    async with world(tmp_path, group_urls=(f"{base}/groups/acme",), system_url=base, event_types=events) as it:
        it.gitlab.add_token(it.gitlab.add_user("root", admin=True), ACCESS)
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(2 * MINUTE)
        (group,) = it.gitlab.hooks_of(it.gitlab.namespaces.group("acme"))
        (system,) = it.gitlab.hooks_of(None)
        assert (group.values["member_events"], group.values["issues_events"]) == (True, False)
        assert (system.values["repository_update_events"], system.values["tag_push_events"]) == (True, False)
        assert {group.token, system.token} == {it.secret}
        assert [keeper.facts.up for keeper in replica.registrar.keepers] == [True, True, True]
        await replica.stop(clean_up=True)
        assert it.gitlab.hooks == {}


async def test_signing_tokens_are_registered_and_verified(tmp_path: Path) -> None:
    token = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    async with world(tmp_path, signing_tokens=(token,)) as it:
        await it.start().registrar.looked()
        keys = await it.push()
        assert it.webhooks[0].signing_token == token
        assert it.sink.ids == keys


async def test_a_disabled_webhook_is_enabled_and_the_gap_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(MINUTE)
        it.disable(it.webhooks[0])
        assert await it.push() == []
        await asyncio.sleep(2 * MINUTE)
        assert is_right(it, it.webhooks[0])
        facts = replica.registrar.keepers[0].facts
        assert facts.gaps == 1
        assert "GitLab told nothing in this time" in caplog.text
        assert it.sink.events == [], "the sample of the test is no occurrence"
        assert replica.receiver.tally.tests == 1


async def test_where_every_kind_is_asked_for_a_webhook_disabled_for_good_is_made_anew(tmp_path: Path) -> None:
    async with world(tmp_path, event_types=FLAGS) as it:
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(MINUTE)
        before = it.webhooks[0].id
        it.disable(it.webhooks[0])
        await asyncio.sleep(2 * MINUTE)
        (hook,) = it.webhooks
        assert hook.id != before
        assert it.gitlab.executable(hook)
        assert it.sink.events == []
        assert replica.registrar.keepers[0].facts.gaps == 1


async def test_one_that_was_removed_is_made_again_and_the_gap_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(MINUTE)
        it.gitlab.delete_hook(it.webhooks[0])
        await asyncio.sleep(MINUTE + 1)
        assert is_right(it, it.webhooks[0])
        assert 0 < replica.registrar.keepers[0].facts.gap_seconds <= MINUTE + 15


async def test_an_old_gitlab_without_a_log_is_kept_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, Settings(version=(16, 11))) as it:
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(3 * MINUTE)
        assert is_right(it, it.webhooks[0])
        assert replica.registrar.keepers[0].facts.failures == 0


# --- cleaning up ---


async def test_the_webhook_is_removed_at_the_end_where_that_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        await replica.stop(clean_up=True)
        assert it.webhooks == []


async def test_cleaning_up_leaves_what_a_newer_process_has_written(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        old = it.start()
        await old.registrar.looked()
        await asyncio.sleep(5)
        new = it.start()
        await new.registrar.looked()
        await old.stop(clean_up=True)
        assert len(it.webhooks) == 1


async def test_a_webhook_that_failed_a_moment_ago_is_removed_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(5)
        it.unreachable = True
        await it.push()  # GitLab writes it down with the webhook
        await replica.stop(clean_up=True)
        assert it.webhooks == []


async def test_a_webhook_that_cannot_be_removed_is_said_to_be_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        it.webhooks[0].updated_at = it.clock.now() + timedelta(minutes=5)  # by a clock that is ahead of ours
        await replica.stop(clean_up=True)
        assert len(it.webhooks) == 1
        assert "the webhook could not be removed and is left" in caplog.text
        assert "webhooks were removed" not in caplog.text


async def test_one_that_is_removed_while_its_log_is_read_does_not_end_asking_back(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        replica.line.faults.whenever(lambda call: GONE if "/events" in call.target else None)
        await asyncio.sleep(2 * MINUTE)
        replica.line.faults.clear()
        it.gitlab.delete_hook(it.webhooks[0])
        await asyncio.sleep(2 * MINUTE)
        it.unreachable = True
        (key,) = await it.push()
        it.unreachable = False
        await asyncio.sleep(2 * MINUTE)
        assert it.sink.ids == [key]


async def test_cleaning_up_what_is_gone_already_or_not_ours_to_see_neither_fails_nor_hangs(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        it.gitlab.delete_hook(it.webhooks[0])
        assert await replica.registrar.clean_up(None)
        del it.gitlab.tokens["glpat-maintainer"]
        assert not await replica.registrar.clean_up(None)
        replica.line.faults.whenever(lambda _: late(3600))
        assert not await replica.registrar.clean_up(None)


# --- histories ---


async def live(it: World, chance: random.Random) -> None:
    """A dozen things that happen, one after another, some of them at once."""
    for number in range(chance.randint(4, 12)):
        running = [replica for replica in it.replicas if replica.runs]
        if chance.random() < 0.2 and len(running) < 3:
            started = it.start()
            if chance.random() < 0.5:
                started.crash = (chance.randint(1, 8), chance.random() < 0.5)
        elif chance.random() < 0.5 and running:
            await happens_to_us(chance.choice(running), chance)
        elif it.webhooks:
            happens_in_gitlab(it, chance, chance.choice(it.webhooks))
        if chance.random() < 0.1:
            it.rotate(f"secret {number}")
        await asyncio.sleep(chance.choice((0, 0.005, 0.03, 1, 20, 90)))


async def happens_to_us(replica: Replica, chance: random.Random) -> None:
    match chance.choice(("crash", "crash", "stop", "clean up", "trouble")):
        case "crash":
            replica.crash = (replica.calls + chance.randint(1, 5), chance.random() < 0.5)
        case "trouble":
            replica.line.faults.then(*chance.choices((LOST_BEFORE, LOST_AFTER, late(20), None), k=3))
        case what:
            await replica.stop(clean_up=what == "clean up")


def happens_in_gitlab(it: World, chance: random.Random, hook: Hook) -> None:
    match chance.choice(("delete", "second", "edit", "secret", "disable")):
        case "delete":
            it.gitlab.delete_hook(hook)
        case "second":
            it.gitlab.create_hook(it.project, {"url": HOOK_URL})
        case "edit":
            it.gitlab.update_hook(hook, {chance.choice(("push_events", "issues_events")): chance.random() < 0.5})
        case "secret":
            it.gitlab.update_hook(hook, {"token": "by hand"})
        case "disable":
            it.disable(hook)


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_every_history_ends_with_one_right_webhook_and_after_cleaning_up_with_none(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    async with world(tmp_path) as it:
        other = it.gitlab.create_hook(it.project, {"url": "http://else.where/"})
        await live(it, chance)
        for replica in it.replicas:
            replica.crash = None
            replica.line.faults.clear()
        last = it.start()  # a pod that crashed is started again
        await last.registrar.looked()
        await it.push()  # a secret that hands changed shows at the first hook event
        await asyncio.sleep(MINUTE + 60)
        (hook,) = it.webhooks
        assert is_right(it, hook)
        assert other.id in it.gitlab.hooks
        for replica in tuple(it.replicas):
            await replica.stop(clean_up=replica is last)
        assert await last.registrar.clean_up(None)
        assert it.webhooks == []


# --- no loss ---


async def test_all_that_gitlab_tried_while_the_sink_was_down_is_there_afterwards_each_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        await asyncio.sleep(MINUTE)
        it.sink.up = False
        fired = 0
        for _ in range(100 if HISTORIES >= 1000 else 30):  # ten minutes, or three
            await it.push(5)
            fired += 5
            await asyncio.sleep(6)
        it.sink.up = True
        tried = {entry.idempotency_key for entry in it.gitlab.log if entry.trigger == "push_hooks"}
        await until(lambda: set(it.sink.ids) == tried)
        await asyncio.sleep(5 * MINUTE)
        assert set(it.sink.ids) == tried
        assert len(it.sink.ids) == len(tried), "each once"
        assert 0 < len(tried) < fired, "GitLab disabled the webhook on the way"
        facts = replica.registrar.keepers[0].facts
        assert facts.gaps > 0
        assert facts.last_gap is not None
        assert facts.gap_seconds > 0
        assert "GitLab told nothing in this time" in caplog.text
        assert is_right(it, it.webhooks[0])


async def test_a_gitlab_that_disables_nothing_has_all_asked_back(tmp_path: Path) -> None:
    settings = Settings(auto_disabling=False)
    async with world(tmp_path, settings) as it:
        await it.start().registrar.looked()
        it.sink.up = False
        keys: list[str] = []
        for _ in range(100 if HISTORIES >= 1000 else 12):
            keys += await it.push(5)
            await asyncio.sleep(6)
        it.sink.up = True
        await until(lambda: set(it.sink.ids) == set(keys))
        assert sorted(it.sink.ids) == sorted(keys)


async def test_what_was_tried_while_no_pod_ran_is_asked_back_by_the_next(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        await replica.stop()
        keys = await it.push(3)
        await it.start().registrar.looked()
        await asyncio.sleep(2 * MINUTE)
        assert sorted(it.sink.ids) == sorted(keys)


@pytest.mark.parametrize("minutes", [0, 3])
async def test_what_an_older_gitlab_tried_without_a_key_is_asked_back_once(tmp_path: Path, minutes: int) -> None:
    async with world(tmp_path, Settings(version=(17, 3))) as it:
        await it.start().registrar.looked()
        it.sink.up = False
        await it.push(2)
        it.gitlab.settings = Settings()  # it is upgraded, and what is resent has a key
        await asyncio.sleep(minutes * MINUTE)
        it.sink.up = True
        await until(lambda: len(it.sink.ids) >= 2)
        await asyncio.sleep(10 * MINUTE)
        assert len(it.sink.ids) == 2
        assert it.replicas[0].registrar.keepers[0].facts.recovered == 2


async def test_one_that_no_sink_takes_holds_up_no_other_disables_nothing_and_is_given_up(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        replica = it.start()
        await replica.registrar.looked()
        it.sink.up = False
        (poison,) = await it.push()
        it.sink.never = {poison}
        (before,) = await it.push()
        it.sink.up = True
        await until(lambda: before in it.sink.ids)
        it.sink.up = False
        (later,) = await it.push()
        it.sink.up = True
        await asyncio.sleep(5 * MINUTE)
        assert it.sink.ids == [before, later]
        facts = replica.registrar.keepers[0].facts
        await until(lambda: facts.given_up == 1)
        assert facts.given_up == 1
        assert facts.gaps == 0, "of its tries it was not that GitLab disabled the webhook"
        tries = [entry for entry in it.gitlab.log if entry.idempotency_key == poison]
        assert len(tries) == MOST_TRIES


async def test_a_disabled_webhook_is_not_asked_to_resend(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path, event_types=FLAGS) as it:  # there is no sample: GitLab enables it when its time is over
        replica = it.start()
        await replica.registrar.looked()
        it.sink.up = False
        keys = await it.push(6)
        it.sink.up = True
        assert not it.gitlab.executable(it.webhooks[0])
        await until(lambda: len(it.sink.ids) == len(keys))
        assert sorted(it.sink.ids) == sorted(keys)
        assert replica.registrar.keepers[0].facts.failures == 0
        assert "GitLab's API is of no use now" not in caplog.text


@pytest.mark.parametrize("seed", range((HISTORIES + 2) // 3))
async def test_whatever_gitlab_did_not_try_was_in_a_time_that_was_told_as_a_gap(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    async with world(tmp_path) as it:
        await it.start().registrar.looked()
        untold: list[datetime] = []
        for _ in range(chance.randint(3, 8)):
            match chance.choice(("sink", "pod", "way", "nothing")):
                case "sink":
                    it.sink.up = False
                case "pod":
                    for replica in tuple(it.replicas):
                        await replica.stop()
                case "way":
                    it.unreachable = True
            pause = chance.choice((1, 10, 40, 200))
            for _ in range(chance.randint(1, 40)):
                if not await it.push():
                    untold.append(it.clock.now())
                await asyncio.sleep(chance.uniform(0, pause))
            it.sink.up, it.unreachable = True, False
            if not it.replicas:
                await it.start().registrar.looked()
            await asyncio.sleep(chance.choice((0, 30, 600)))
        await asyncio.sleep(10 * MINUTE)
        gaps = [
            (datetime.fromisoformat(record.since), datetime.fromisoformat(record.until))  # type: ignore[attr-defined]  # extra of the line
            for record in caplog.records
            if record.message.startswith("GitLab told nothing in this time")
        ]
        assert [at for at in untold if not any(since <= at <= until for since, until in gaps)] == []
        tried = {entry.idempotency_key for entry in it.gitlab.log if entry.trigger == "push_hooks"}
        await until(lambda: set(it.sink.ids) == tried)
        assert set(it.sink.ids) == tried


async def test_one_that_gitlabs_log_does_not_hold_is_not_asked_back_but_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, Settings(log_bytes=10)) as it:
        replica = it.start()
        await replica.registrar.looked()
        it.unreachable = True
        (key,) = await it.push()
        it.unreachable = False
        await asyncio.sleep(10 * MINUTE)
        assert it.sink.events == [], "what GitLab would send is not what it told"
        assert replica.registrar.keepers[0].facts.given_up == 1
        told = [record for record in caplog.records if "too large for GitLab's log" in record.message]
        assert [record.key for record in told] == [key]  # type: ignore[attr-defined]  # extra of the line
