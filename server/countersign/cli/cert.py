"""`countersign cert inspect`: what a certificate says, what Envoy will write of it, and whether it makes a peer."""

import argparse
import sys
import time
from typing import Final

from countersign.certificates.chain import links, why_unverified
from countersign.certificates.read import CertificateError
from countersign.cli.certificate_file import read_certificates
from countersign.cli.certificate_report import Report, as_json, as_text, report
from countersign.explanation.conceal import printable

_FINDING: Final = 1
_USAGE: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at, and what it is held against."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    summary = "SPIFFE ID, names, validity, chain, the hash that XFCC will show, and whether it makes a peer"
    inspect = actions.add_parser("inspect", help=summary, description=summary)
    inspect.epilog = "Exit code: 0 it makes a peer, 1 it does not, 2 wrong usage or no certificate, 3 I/O."
    add = inspect.add_argument
    add("file", metavar="FILE|-", help="PEM, leaf first, or DER of one certificate; - is standard input")
    add("--ca", metavar="FILE", action="append", default=[], help="PEM of authorities to verify against; repeatable")
    add("--trust-domain", metavar="TD", default="cluster.local", help="the mesh's (default: %(default)s)")
    add("--trust-domain-alias", metavar="TD", action="append", default=[], help="another name of it; repeatable")
    add("-o", "--output", choices=("text", "json"), default="text", help="the form of the answer")


def run(arguments: argparse.Namespace) -> int:
    """Inspect; give the exit code. Raise OSError if a file cannot be read."""
    try:
        told = _inspect(arguments, time.time())
    except CertificateError as error:
        print(f"countersign cert inspect: {printable(str(error))}", file=sys.stderr)
        return _USAGE
    print(as_json(told) if arguments.output == "json" else as_text(told))
    return 0 if told.accepted else _FINDING


def _inspect(arguments: argparse.Namespace, now: float) -> Report:
    ders = read_certificates(arguments.file)
    try:
        chain = links(ders)
    except CertificateError as error:
        raise CertificateError(f"{arguments.file}: {error}") from error
    unverified = None
    if arguments.ca:
        authorities = [der for file in arguments.ca for der in read_certificates(file)]
        try:
            unverified = why_unverified(ders, authorities, now)
        except CertificateError as error:
            raise CertificateError(f"--ca: {error}") from error
    return report(chain, unverified, (arguments.trust_domain, *arguments.trust_domain_alias), now)
