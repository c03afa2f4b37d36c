"""What a program does before it imports anything that takes time."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def end_at_once() -> None:
    """Until the runtime listens, SIGTERM and SIGINT end the process with exit code 0: nothing was begun, nothing is lost.

    As process 1 of a container a program has no default action for signals, and one sent while it still imports
    would be lost; the pod would wait out its grace period. On a terminal, Ctrl-C would print a traceback.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def open_many_files() -> int | None:
    """Raise the soft limit of open files to the hard one, as Go's programs do; how many it is now, None: no limit.

    Shells, and some container engines, allow 1024 for the sake of programs that use select(); a source of a thousand
    namespaces has a connection for each watch.
    """
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says that there is no limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


@contextmanager
def importing() -> Iterator[None]:
    """Imports within are spared the garbage collector, and what they made is never looked at again.

    Modules, classes and code make tens of thousands of objects that live as long as the process. Looking through them
    over and over is a fifteenth of the CPU time until the first event.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
