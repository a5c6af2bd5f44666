"""`countersign version`."""

import argparse
from importlib.metadata import version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(_: argparse.Namespace) -> int:
    """Print the version, and what it speaks."""
    print(f"countersign {version('countersign')} (ext_authz v3 as of Envoy 1.40; security.istio.io/v1, v1beta1)")
    return 0
