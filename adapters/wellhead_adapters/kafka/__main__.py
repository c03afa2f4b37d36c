"""``python -m wellhead_adapters.kafka``: the program that the image starts."""

from wellhead.startup import end_at_once, importing


def main() -> int:
    """Run the program and return its exit code."""
    end_at_once()
    # Imported only now: it takes a quarter of a second, and a signal must be heard in it.
    with importing():
        from wellhead.runtime import main as run  # noqa: PLC0415
        from wellhead_adapters.kafka.adapter import Kafka  # noqa: PLC0415

    return run(Kafka, "kafka")


if __name__ == "__main__":
    raise SystemExit(main())
