"""The one interface: an `Adapter` turns occurrences into events and sends them to a `Sink`. No I/O here.

Two hard users were sketched on it before it was settled; both run as tests in ``tests/test_shape.py``: a cluster-wide
PingSource (a thousand sources, a sink each, coming and going in one process) and a Kafka partition that is revoked in
the middle of a delivery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from .delivery import Attempt
    from .event import CloudEvent

ConfigT = TypeVar("ConfigT", contravariant=True)


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The moment after which an event is worth no further try. ``at`` is in seconds of ``loop.time()``."""

    at: float


class Fence:
    """What an adapter closes when deliveries it began are no longer its to try again.

    A Kafka partition that is revoked closes its fence: another member reads the same records now, and a late retry
    of ours would arrive behind the new owner's. Closing twice is closing once; a closed fence never opens.
    """

    __slots__ = ("_closed", "_wakers")

    def __init__(self) -> None:
        self._closed = False
        self._wakers: set[Callable[[], None]] = set()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """From now on no delivery behind this fence starts a new try; those waiting for one end at once."""
        self._closed = True
        wakers, self._wakers = self._wakers, set()
        for wake in wakers:
            wake()

    def on_close(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called once, when the fence closes (at once if it is closed). Returns how to take that back.

        Called by the sink for each delivery that waits; adapters have no need of it.
        """
        if self._closed:
            wake()
        else:
            self._wakers.add(wake)
        return lambda: self._wakers.discard(wake)


class Sink(Protocol):
    """Where an adapter's events go. Given by the runtime, one per source; a fake is in `wellhead.testing`."""

    async def send(
        self,
        event: CloudEvent | SdkEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        """Return once the sink, or the dead-letter sink, has accepted the event.

        Raises `DeliveryError` when neither did; by then the event is counted and logged, so that an adapter whose
        occurrence is over may pass on to the next, and one that acknowledges (Kafka, GitLab) must not acknowledge.
        Raises `InvalidEvent` for an event of the SDK's that CloudEvents forbids.

        Retries, overrides, authentication, metrics and logs happen here; callers do none of it. Events sent one after
        another by one task arrive in that order. Cancelling the caller does not cancel the delivery: the runtime owns
        it and settles it within the grace. Past ``deadline``, or once ``fence`` is closed, the try on the wire is the
        last; its outcome counts. ``after`` is `DeliveryError.attempt` of an earlier `send` of the same event: its tries
        and its time count on, where they would begin anew.
        """


class Adapter(Protocol):
    """What listens to one outside system. Started by the runtime, once."""

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Turn occurrences into events until cancelled, or until the source has ended (return).

        Call ``ready()`` once, when nothing that happens from then on would be missed. Being cancelled means: take
        nothing more in, settle what is held within the grace, close, re-raise. An exception that leaves here ends
        the program with exit code 1 after a drain; unreachable services are retried inside, not raised.
        """


class AdapterClass(Protocol[ConfigT]):
    """What the entry point group ``wellhead.adapters`` names (kind → class), so that `main` can start it.

    The class's docstring is its help text: the first line in ``wellhead --help``, the whole in ``wellhead KIND --help``.
    It may also have ``policy``, the `wellhead.delivery.Policy` for what its user leaves unsaid of delivery;
    ``concurrency``, which is called with a configuration and says how many tries it has on the wire at once where its
    user does not (batches, which gather what is sent at once, have 128 all the same); and ``dry_run``, which is called
    with a configuration that has ``dry_run`` set: without a sink, for the exit code.
    """

    @property
    def Config(self) -> type:  # noqa: N802 - a class, held by a class
        """A frozen dataclass whose fields are `wellhead.env.setting`s: every flag and variable the adapter has."""

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types of event it sends by default."""

    def __call__(self, config: ConfigT, /) -> Adapter:
        """The adapter for this configuration. No I/O: bad configuration fails here, unreachable services in `run`."""
