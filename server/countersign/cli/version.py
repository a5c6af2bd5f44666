"""`countersign version`."""

import argparse

from countersign.edge.build import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(_: argparse.Namespace) -> int:
    """Print the version, what it speaks, and whether its request path is compiled."""
    runs = build()
    spoken = "ext_authz v3 as of Envoy 1.40; security.istio.io/v1, v1beta1"
    print(f"countersign {runs['version']} ({spoken}; {runs['code']})")
    return 0
