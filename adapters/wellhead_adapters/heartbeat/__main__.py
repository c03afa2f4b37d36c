"""``python -m wellhead_adapters.heartbeat``: the program that the image starts."""

from wellhead.startup import end_at_once, importing


def main() -> int:
    """Run the program and return its exit code."""
    end_at_once()
    # Imported only now: it takes a tenth of a second, and a signal must be heard in it.
    with importing():
        from wellhead.runtime import main as run  # noqa: PLC0415
        from wellhead_adapters.heartbeat.adapter import Heartbeat  # noqa: PLC0415

    return run(Heartbeat, "heartbeat")


if __name__ == "__main__":
    raise SystemExit(main())
