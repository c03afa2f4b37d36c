"""Where the command ``wellhead`` starts (also ``python -m wellhead_adapters.cli``)."""

from wellhead.startup import end_at_once, importing


def main() -> int:
    """Run the command line and return its exit code."""
    end_at_once()
    with importing():
        from .command import main as command  # noqa: PLC0415 - takes a tenth of a second, and a signal must be heard in it

    return command()


if __name__ == "__main__":
    raise SystemExit(main())
