"""``python -m wellhead_adapters.gitlab``: the program that the image starts."""

from wellhead.startup import end_at_once


def main() -> int:
    """Run the program and return its exit code."""
    end_at_once()
    # Imported only now: it takes a quarter of a second, and a signal must be heard in it.
    from wellhead.runtime import main as run  # noqa: PLC0415
    from wellhead_adapters.gitlab.adapter import Gitlab  # noqa: PLC0415

    return run(Gitlab, "gitlab")


if __name__ == "__main__":
    raise SystemExit(main())
