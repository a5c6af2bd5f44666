"""What is wrong with the certificates that a listener asks for, or does not.

Source: measured on Envoy 1.40, ``tests/envoy/test_findings.py``. Envoy wants a certificate if names or hashes of it are
listed, even where none is required; it asks for none, even where one is required, if nothing is there to verify it by.
Under ``ACCEPT_UNTRUSTED`` names and hashes are passed over too, but not by a validator of its own, such as SPIFFE's.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import yaml

from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Finding, Findings, warning
from countersign.proxy.lint.tree import field, is_true, items, text, word

_TRUST: Final = ("VERIFY_TRUST_CHAIN", "ACCEPT_UNTRUSTED")
_LISTED: Final = (
    "verify_certificate_hash", "verify_certificate_spki", "match_typed_subject_alt_names", "match_subject_alt_names",
)  # fmt: skip
_TRUSTED_CA: Final = "validation_context: {trusted_ca: {filename: ...}}"


def check_tls(tls: yaml.Node, secrets: Mapping[str, yaml.Node]) -> Findings:
    """A ``DownstreamTlsContext``; ``secrets`` are the validation contexts of the file, by their names."""
    contexts = list(_validation(field(tls, "common_tls_context"), secrets))
    seen = [each for each in contexts if each is not None]

    def has(*names: str) -> bool:
        return any(field(each, name) is not None for each in seen for name in names)

    validator = has("custom_validator_config")
    untrusted = [field(each, "trust_chain_verification") for each in seen]
    anybody = [node for node in untrusted if node is not None and word(node, _TRUST) == _TRUST[1] and not validator]
    for node in anybody:
        why = "ACCEPT_UNTRUSTED: who makes himself a certificate is whom it names, whatever CA, names or hashes are set"
        yield Finding(EnvoyCode.CERTIFICATE_UNVERIFIED, node, why, "remove `trust_chain_verification`")
    required = field(tls, "require_client_certificate")
    verifiable = has("trusted_ca") or None in contexts
    listed = any(items(field(each, name)) for each in seen for name in _LISTED)
    wanted = validator or (listed and not anybody) or (verifiable and is_true(required))
    if wanted:
        return
    if is_true(required):
        why = "nothing to verify a certificate by: Envoy asks for none, lets everybody in, and nobody has an identity"
        yield warning(EnvoyCode.CERTIFICATE_NOT_REQUIRED, required or tls, why, _TRUSTED_CA)
    else:
        why = "clients without a certificate are let in: they have no identity, and policies must say so"
        yield warning(EnvoyCode.CERTIFICATE_NOT_REQUIRED, required or tls, why, "require_client_certificate: true")


def _validation(common: yaml.Node | None, secrets: Mapping[str, yaml.Node]) -> Iterator[yaml.Node | None]:
    """The contexts that Envoy merges; None for one that is fetched from elsewhere."""
    combined = field(common, "combined_validation_context")
    for node in (field(common, "validation_context"), field(combined, "default_validation_context")):
        if node is not None:
            yield node
    for each in (common, combined):
        fetched = field(each, "validation_context_sds_secret_config")
        if fetched is not None:
            yield secrets.get(text(field(fetched, "name")))
