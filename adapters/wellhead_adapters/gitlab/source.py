"""What one source is made of: its secrets, its receiver, its registrar. Nothing is started here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .keeper import Keeper
from .kinds import Scope, flags_of, header_of, sample_triggers
from .receiver import Memory, Receiver, Telling
from .registrar import Registrar
from .secrets import Secrets
from .webhooks import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.adapter import Sink
    from wellhead.clock import Clock

    from .config import GitlabConfig
    from .hook_api import HookApi
    from .projecturl import Target


def secrets_of(config: GitlabConfig) -> Secrets:
    """What a webhook shows us, as the settings say."""
    return Secrets(
        token=config.secret_token,
        signing=config.signing_tokens,
        token_file=config.secret_token_file,
        signing_file=config.signing_token_file,
        open_to_all=config.allow_anyone,
        overlap=config.registers,
    )


def receiver_of(
    config: GitlabConfig,
    sink: Sink,
    secrets: Secrets,
    *,
    clock: Clock,
    on_trouble: Callable[[], None],
    memory: Memory | None = None,
) -> Receiver:
    """What answers GitLab; with the ``memory`` of one in whose place it stands."""
    triggers = sample_triggers(config.event_types) if config.registers else ()
    telling = Telling(
        source=config.event_source,
        targets=config.targets,
        mapped=config.mapped,
        extra_attributes=config.extra_attributes,
        test_headers=frozenset(map(header_of, triggers)),
    )
    return Receiver(sink, secrets, telling, clock=clock, on_trouble=on_trouble, memory=memory)


def registrar_of(config: GitlabConfig, secrets: Secrets, api: HookApi, *, clock: Clock, owner: str) -> Registrar:
    """The registrar of all targets of a configuration."""

    def wanted(target: Target) -> Wanted:
        return Wanted(
            url=config.hook_url,
            flags=flags_of(target.scope, config.event_types),
            ssl_verify=config.hook_ssl_verify,
            branch_filter=None if target.scope is Scope.SYSTEM else config.branch_filter,
            secrets=frozenset(secrets.wanted),
            version=secrets.version,
            owner=owner,
        )

    def keeper(target: Target) -> Keeper:
        return Keeper(
            target,
            api,
            lambda: wanted(target),
            secrets,
            clock=clock,
            interval=config.interval,
            triggers=sample_triggers(config.event_types),
            resend=config.resend,
        )

    return Registrar([keeper(target) for target in config.targets], secrets)
