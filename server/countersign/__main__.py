"""Entry point of `countersign` and of `python -m countersign`."""


def main() -> int:
    """Run the command line; give the exit code."""
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
