"""What the author of an adapter imports to test it: a recording sink over real HTTP, a clock, a runner, the ten laws.

    from wellhead.testing import AdapterLaws, Driver, RecordingSink, running

Nothing here is imported by a program at run time.
"""

from .clock import LoopClock
from .fake import FakeSink
from .laws import AdapterLaws, Driver
from .recorder import Answer, Behaviour, Garbage, HalfAnswer, Hang, Received, RecordingSink, Reset
from .runner import Running, running
from .transport import FakeTransport

__all__ = [
    "AdapterLaws",
    "Answer",
    "Behaviour",
    "Driver",
    "FakeSink",
    "FakeTransport",
    "Garbage",
    "HalfAnswer",
    "Hang",
    "LoopClock",
    "Received",
    "RecordingSink",
    "Reset",
    "Running",
    "running",
]
