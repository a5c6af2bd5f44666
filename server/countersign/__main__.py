"""Entry point of `countersign` and of `python -m countersign`."""

from countersign.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
