"""`countersign token`: look into a token, or make one for development."""

import argparse

from countersign.cli import token_inspect, token_mint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two actions."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for name, module in (("inspect", token_inspect), ("mint", token_mint)):
        action = actions.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.add_arguments(action)


def run(arguments: argparse.Namespace) -> int:
    """Act; give the exit code."""
    return token_inspect.run(arguments) if arguments.action == "inspect" else token_mint.run(arguments)
