"""`countersign VERB`: finds the verb's module, and turns what it raises into one line and an exit code.

Exit codes: 0 fine, 1 a finding or a denial, 2 usage, 3 I/O.
"""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Final, NoReturn

from countersign.edge.collector import paused

USAGE: Final = 2
_IO: Final = 3

VERBS: Final = {
    "serve": "answer Envoy's checks",
    "token": "look into a token, or make one for development",
    "cert": "look at a certificate: whose it is, and whether it makes a peer",
    "analyze": "find mistakes in policies: what does not load, and what does not do what it seems to",
    "check": "which policies apply to a workload",
    "explain": "why a request is allowed or denied",
    "envoy-config": "what Envoy is to be told, or what is dangerous in what it was told (--check)",
    "jwks": "the keys of an issuer: each usable, or why not",
    "log": "whether a log of decisions is what was written",
    "demo": "a local mesh on the real Envoy, and what Countersign decides in it",
    "health": "ask a serving process whether it is ready",
    "version": "print the version",
}


class _Parser(argparse.ArgumentParser):
    known: tuple[str, ...] = ()  # the flags of the verb, where this is the parser of all verbs

    def error(self, message: str) -> NoReturn:
        """One clear line instead of the usage block."""
        flag = message.removeprefix("unrecognized arguments: ").partition(" ")[0].partition("=")[0]
        for near in get_close_matches(flag, self.known, n=1) if flag.startswith("--") else ():
            message = f"{message}; did you mean {near}?"
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; give the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((word for word in words if not word.startswith("-")), "")
    parser = _Parser(prog="countersign", description="Istio's security policies in front of any Envoy.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for name, summary in VERBS.items():
        subparser = verbs.add_parser(name, help=summary, description=summary)
        if name == verb:  # only the verb that runs is imported
            with paused():
                module = import_module(_module(name))
            module.add_arguments(subparser)
            parser.known = tuple(subparser._option_string_actions)  # noqa: SLF001 (argparse tells them no other way)
    parsed = parser.parse_args(words)
    try:
        return int(import_module(_module(parsed.verb)).run(parsed))
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        print(f"countersign {parsed.verb}: {what}", file=sys.stderr)
        return _IO
    except KeyboardInterrupt:
        return 130


def _module(verb: str) -> str:
    return f"countersign.cli.{verb.replace('-', '_')}"
