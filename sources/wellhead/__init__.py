"""Wellhead: what every event source needs, whatever it listens to. Knows no adapter.

Import names from their modules (``from wellhead.event import CloudEvent``): importing the package alone loads
nothing, so that each program pays only for what it uses.
"""

__version__ = "0.1.0"
