"""What `envoy-config --check` finds is true: with the setting the real Envoy lets the attack by, without it not.

Each configuration that is found is run beside its twin that is not. `batch` is a workload of the mesh that no policy
allows anything; sleep is allowed everything but /admin, and whatever has the header `x-role: guest`.
"""

import contextlib
import datetime as dt
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.core.identity import PeerRules, PeerSource
from countersign.core.jwt_rule import RemoteKeys
from countersign.core.posture import Posture
from countersign.mesh.certificates import SLEEP, Authority
from countersign.mesh.issuer import Issuer
from countersign.policy.problems import Severity
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh
from countersign.tokens.keys import KeySet

from tests.edge.serving import TIMEOUT, snapshot
from tests.envoy.sidecar import CONFIGURATION, Change, Seen, changed, config_dump, sidecars

pytestmark = pytest.mark.envoy

C: Final = EnvoyCode
ISSUER: Final = Issuer("https://idp.example")
KEYS: Final[dict[Any, KeySet]] = {RemoteKeys("https://idp.example/jwks"): KeySet.parse(json.dumps(ISSUER.jwks()))}
POLICIES: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules:
  - issuer: https://idp.example
    jwksUri: https://idp.example/jwks
    outputClaimToHeaders: [{header: x-team, claim: team}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied, namespace: apps}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin]}}]
  - when: [{key: "request.headers[x-role]", values: [guest]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: sleep, namespace: apps}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/apps/sa/sleep]}}]
  - when: [{key: "request.headers[x-key]", values: ["open!"]}]
"""
PACKAGE: Final = "type.googleapis.com/envoy.extensions.filters.http"
FILTER: Final = "                  - name: envoy.filters.http.ext_authz\n"
ROUTER: Final = "                  - name: envoy.filters.http.router\n"
SCRIPT: Final = "function envoy_on_request(h) h:headers():replace(':path', h:headers():get('x-to') or '/') end"
CACHE: Final = {"@type": "type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig"}
ROUTE: Final = "route: {cluster: application, timeout: 5s}"
CACHEABLE: Final = (
    ROUTE,
    f"{ROUTE}\n{' ' * 26}response_headers_to_add: [{{header: {{key: cache-control, value: 'public, max-age=60'}}}}]",
)
# A route that is only taken with a header that Countersign writes from a token.
TEAM_ROUTE: Final = (
    "                        - match: {prefix: /}\n",
    (
        "                        - match: {prefix: /, headers: [{name: x-team, string_match: {exact: red}}]}\n"
        f"                          {ROUTE}\n"
        "                          request_headers_to_add: [{header: {key: x-route, value: red}}]\n"
        "                        - match: {prefix: /}\n"
    ),
)


def _filter(name: str, kind: str, fields: Mapping[str, object]) -> str:
    typed = json.dumps({"@type": f"{PACKAGE}.{kind}", **fields})
    return f"                  - {{name: {name}, typed_config: {typed}}}\n"


def written_by_filter(fields: Mapping[str, object]) -> str:
    """A filter that writes headers."""
    return _filter("early", "header_mutation.v3.HeaderMutation", fields)


LUA: Final = _filter("lua", "lua.v3.Lua", {"default_source_code": {"inline_string": SCRIPT}})
MEMORY: Final = _filter("cache", "cache.v3.CacheConfig", {"typed_config": CACHE})
NOT_CLEARED: Final = "clear_route_cache: false"
NORMAL: Final = "normalize_path: true"
UPGRADE: Final = f"{NORMAL}\n{' ' * 16}upgrade_configs: [{{upgrade_type: websocket%s}}]"
ALONE: Final = (
    f", filters: {json.dumps([{'name': 'router', 'typed_config': {'@type': f'{PACKAGE}.router.v3.Router'}}])}"
)
WRITTEN: Final = {"header": {"key": "x-role", "value": "%REQ(x-to)%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
MUTATIONS: Final = {"mutations": {"request_mutations": [{"append": WRITTEN}]}}
WRITER: Final = {"@type": f"{PACKAGE}.header_mutation.v3.HeaderMutation", **MUTATIONS}
CODEC: Final = {"@type": f"{PACKAGE}.upstream_codec.v3.UpstreamCodec"}
UPSTREAM: Final = json.dumps([{"name": "late", "typed_config": WRITER}, {"name": "codec", "typed_config": CODEC}])
BARE: Final = f'{ROUTER}                    typed_config:\n                      "@type": {PACKAGE}.router.v3.Router\n'
DISABLED: Final = "filter_enabled: {default_value: {numerator: 0}}\n" + " " * 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """``found`` is the change that is found, ``mended`` that of its twin, which answers ``right``."""

    code: EnvoyCode
    found: tuple[Change, ...]
    mended: tuple[Change, ...] = ()
    caller: str = "batch"
    path: str = "/free"
    headers: tuple[tuple[str, str], ...] = ()
    right: int = 403
    reason: str = "no-allow-rule-matched"  # that Countersign gives beside the twin
    mesh: Mesh = Mesh(namespace="apps")  # noqa: RUF009 (frozen)
    severity: Severity = Severity.ERROR
    application: str = "/free"  # the path that the application sees


AS_ENVOY: Final = Mesh(namespace="apps", posture=Posture.ISTIO)
BY_HEADER: Final = Mesh(namespace="apps", peer=PeerRules(source=PeerSource.XFCC))
GUEST: Final = (("x-role", "guest"),)
ATTACKS: Final = [
    Attack(
        code=C.SWITCHED_OFF,
        found=(("check_settings:\n", "disabled: true\n"), ("context_extensions: {workload.namespace: apps}", "")),
    ),
    Attack(code=C.SHADOW_ONLY, found=((NOT_CLEARED, "shadow_mode: true"),)),
    Attack(code=C.ASKED_SOMETIMES, found=((NOT_CLEARED, "filter_enabled: {default_value: {numerator: 0}}"),)),
    Attack(
        code=C.CHANGED_AFTERWARDS,
        found=((ROUTER, LUA + ROUTER),),
        mended=((FILTER, LUA + FILTER),),
        caller="sleep",
        reason="deny-rule-matched",
        headers=(("x-to", "/admin"),),
        application="/admin",
    ),
    Attack(
        code=C.CHANGED_AFTERWARDS,
        found=((BARE, f"{BARE}{' ' * 22}upstream_http_filters: {UPSTREAM}\n"),),
        caller="sleep",
        mended=((FILTER, written_by_filter(MUTATIONS) + FILTER),),
        headers=(("x-to", "guest"),),
        reason="deny-rule-matched",
    ),
    Attack(
        code=C.UPGRADE_UNASKED,
        found=((NORMAL, UPGRADE % ALONE),),
        mended=((NORMAL, UPGRADE % ""),),
        headers=(("connection", "upgrade"), ("upgrade", "websocket")),
        application="",  # the 200 is the application's; its body does not come through, for it has not upgraded
    ),
    Attack(
        code=C.ASKED_SOMETIMES,
        found=(
            (NOT_CLEARED, f"{DISABLED}deny_at_disable: {{default_value: true, runtime_key: deny}}"),
            (
                "static_resources:\n",
                "layered_runtime: {layers: [{name: a, static_layer: {deny: false}}]}\nstatic_resources:\n",
            ),
        ),
        mended=((NOT_CLEARED, f"{DISABLED}deny_at_disable: {{default_value: true}}"),),
        right=503,
        reason="",
    ),
    Attack(
        code=C.HEADERS_WITHHELD,
        found=((NOT_CLEARED, "disallowed_headers: {patterns: [{exact: x-role}]}"),),
        caller="sleep",
        reason="deny-rule-matched",
        headers=GUEST,
    ),
    Attack(
        code=C.HEADER_FORWARDED,
        found=(("details: APPEND_FORWARD", "details: ALWAYS_FORWARD_ONLY"),),
        caller="",
        headers=(("x-forwarded-client-cert", f"URI={SLEEP.spiffe_id}"),),
        mesh=BY_HEADER,
    ),
    *(
        Attack(
            code=code,
            found=((f"{name}: true", f"{name}: false"),),
            caller="sleep",
            reason="deny-rule-matched",
            path=path,
            mesh=AS_ENVOY,
            application=path,
        )
        for code, name, path in (
            (C.PATH_AS_SENT, "normalize_path", "/a/../admin"),
            (C.SLASHES_AS_SENT, "merge_slashes", "//admin"),
        )
    ),
    Attack(
        code=C.ESCAPED_SLASHES,
        found=(("action: REJECT_REQUEST\n                common", "action: KEEP_UNCHANGED\n                common"),),
        caller="sleep",
        path="/a%2f..%2fadmin",
        right=400,
        reason="",
        mesh=AS_ENVOY,
        application="/a%2f..%2fadmin",
    ),
    Attack(
        code=C.ESCAPED_SLASHES,
        found=(("action: REJECT_REQUEST\n                common", "action: KEEP_UNCHANGED\n                common"),),
        mended=(
            ("action: REJECT_REQUEST\n                common", "action: UNESCAPE_AND_FORWARD\n                common"),
        ),
        caller="sleep",
        reason="deny-rule-matched",
        path="/a%2f..%2fadmin",
        mesh=AS_ENVOY,
        application="/a%2f..%2fadmin",
    ),
    Attack(
        code=C.UNDERSCORES,
        found=(("underscores_action: REJECT_REQUEST", "underscores_action: ALLOW"),),
        caller="sleep",
        headers=(("x_role", "guest"),),
        right=400,
        reason="",
        severity=Severity.WARNING,
    ),
    Attack(
        code=C.HEADERS_JOINED,
        found=(("encode_raw_headers: true", "encode_raw_headers: false"),),
        headers=(("x-key", "open\xff"),),
        severity=Severity.WARNING,
    ),
]


def _findings(text: str, mesh: Mesh) -> list[tuple[str, str]]:
    expected = Expected(peer=mesh.peer.source, xfcc_mode=mesh.peer.xfcc_mode, posture=mesh.posture)
    return [(str(each.code), str(each.severity)) for each in look(text.encode(), "envoy.yaml", expected).problems]


def _both(directory: Path, attack: Attack) -> tuple[Seen, Seen]:
    texts = [changed(*attack.found), changed(*attack.mended)]
    assert [_findings(text, attack.mesh) for text in texts] == [[(attack.code, attack.severity)], []]
    with sidecars(directory, texts, snapshot(POLICIES, KEYS, attack.mesh)) as (found, mended):
        seen = [each.ask(attack.caller, attack.path, *attack.headers) for each in (found, mended)]
        return seen[0], seen[1]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.code.name)
def test_what_is_found_lets_the_attack_by_and_its_twin_does_not(tmp_path: Path, attack: Attack) -> None:
    wrong, right = _both(tmp_path, attack)

    assert (wrong.status, right.status) == (200, attack.right)
    assert right.reason == attack.reason
    assert wrong.echo.get("path", "") == attack.application


def test_without_an_answer_a_filter_that_fails_open_lets_everybody_by(tmp_path: Path) -> None:
    opened, hidden = ("mode_allow: false", "mode_allow: true"), ("status_on_error: {code: ServiceUnavailable}", "")
    texts = [changed(opened), changed(hidden), changed()]
    assert [_findings(text, AS_ENVOY) for text in texts] == [
        [(C.FAILS_OPEN, "error")],
        [(C.STATUS_ON_ERROR, "warning")],
        [],
    ]

    with sidecars(tmp_path, texts, None) as envoys:
        assert [envoy.ask("batch", "/admin").status for envoy in envoys] == [200, 403, 503]
    with sidecars(tmp_path, texts, snapshot(POLICIES, KEYS, AS_ENVOY)) as envoys:
        assert [envoy.get("batch", "/admin") for envoy in envoys] == [(403, "deny-rule-matched")] * 3


def test_a_cache_before_the_check_answers_whoever_asks(tmp_path: Path) -> None:
    texts = [changed(CACHEABLE, (FILTER, MEMORY + FILTER)), changed(CACHEABLE, (ROUTER, MEMORY + ROUTER))]
    assert [_findings(text, AS_ENVOY) for text in texts] == [[(C.ANSWERED_BEFORE, "error")], []]

    with sidecars(tmp_path, texts, snapshot(POLICIES, KEYS, AS_ENVOY)) as (before, after):
        assert before.get("batch", "/free") == (200, "")  # the attack: not even for what it lacked was anybody asked
        assert after.get("sleep", "/free") == (200, "allow-rule-matched")
        assert after.get("batch", "/free") == (403, "no-allow-rule-matched")


def test_what_countersign_writes_is_passed_over_where_the_filter_forbids_it(tmp_path: Path) -> None:
    texts = [changed((NOT_CLEARED, "decoder_header_mutation_rules: {disallow_all: true}")), changed()]
    assert [_findings(text, AS_ENVOY) for text in texts] == [[(C.MUTATIONS_REFUSED, "error")], []]

    token = ISSUER.sign({"sub": "sleep", "exp": time.time() + 600, "team": "blue"})
    headers = (("authorization", f"Bearer {token}"), ("x-team", "red"))
    with sidecars(tmp_path, texts, snapshot(POLICIES, KEYS, AS_ENVOY)) as envoys:
        seen = [envoy.ask("sleep", "/free", *headers) for envoy in envoys]

    assert [each.status for each in seen] == [200, 200]
    teams = [[value for name, value in each.echo["headers"] if name == "x-team"] for each in seen]
    assert teams == [["red"], ["blue"]]


def test_a_cleared_route_is_chosen_by_what_the_check_has_written(tmp_path: Path) -> None:
    texts = [changed(TEAM_ROUTE, (NOT_CLEARED, "clear_route_cache: true")), changed(TEAM_ROUTE)]
    assert [_findings(text, AS_ENVOY) for text in texts] == [[(C.ROUTE_CLEARED, "error")], []]

    token = ISSUER.sign({"sub": "sleep", "exp": time.time() + 600, "team": "red"})
    with sidecars(tmp_path, texts, snapshot(POLICIES, KEYS, AS_ENVOY)) as envoys:
        seen = [envoy.ask("sleep", "/free", ("authorization", f"Bearer {token}")) for envoy in envoys]

    assert [each.reason for each in seen] == ["allow-rule-matched"] * 2
    assert [["x-route", "red"] in each.echo["headers"] for each in seen] == [True, False]


# --- who has no certificate, or one that he made himself --------------------------------------------------------------

CA: Final = "trusted_ca: {filename: /run/mesh/certs/httpbin/ca.crt}"
ANYBODY: Final = "trust_chain_verification: ACCEPT_UNTRUSTED"
NAMES: Final = 'match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://cluster.local/"}}]'
HASH: Final = f'verify_certificate_hash: ["{"00" * 32}"]'
FETCHED: Final = "validation_context_sds_secret_config: {name: %s}"
VALIDATOR: Final = (
    'custom_validator_config: {name: envoy.tls.cert_validator.spiffe, typed_config: {"@type": '
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, "
    "trust_domains: [{name: cluster.local, trust_bundle: {filename: /run/mesh/certs/httpbin/ca.crt}}]}}"
)
SECRETS: Final = (
    f"static_resources:\n  secrets:\n  - {{name: ca, validation_context: {{{CA}}}}}\n"
    f"  - {{name: empty, validation_context: {{}}}}\n  - {{name: anybody, validation_context: {{{CA}, {ANYBODY}}}}}\n"
)
REFUSED, NOBODY, AS_SLEEP = "refused", "nobody", "sleep"
FORGERY, OPTIONAL = [(C.CERTIFICATE_UNVERIFIED, "error")], [(C.CERTIFICATE_NOT_REQUIRED, "warning")]


def _validation(*fields: str) -> str:
    return f"validation_context: {{{', '.join(fields)}}}"


def _combined(name: str, *fields: str) -> str:
    return f"combined_validation_context: {{default_{_validation(*fields)}, {FETCHED % name}}}"


# What is set, whether a certificate is required, what is found; and who sleep, somebody who has signed a certificate
# for sleep himself, and somebody without a certificate are taken for.
CERTIFICATES: Final = [
    (_validation(CA), True, [], AS_SLEEP, REFUSED, REFUSED),
    (_validation(CA), False, OPTIONAL, AS_SLEEP, REFUSED, NOBODY),
    (_validation(CA, NAMES), False, [], AS_SLEEP, REFUSED, REFUSED),
    (_validation(HASH), True, [], REFUSED, REFUSED, REFUSED),
    (_validation(HASH), False, [], REFUSED, REFUSED, REFUSED),
    (_validation(VALIDATOR), False, [], AS_SLEEP, REFUSED, REFUSED),
    (_validation(VALIDATOR, ANYBODY), True, [], AS_SLEEP, REFUSED, REFUSED),
    (FETCHED % "ca", True, [], AS_SLEEP, REFUSED, REFUSED),
    (_combined("ca", NAMES), True, [], AS_SLEEP, REFUSED, REFUSED),
    ("", True, OPTIONAL, NOBODY, NOBODY, NOBODY),
    ("", False, OPTIONAL, NOBODY, NOBODY, NOBODY),
    (_validation(), True, OPTIONAL, NOBODY, NOBODY, NOBODY),
    (_validation("system_root_certs: {}"), True, OPTIONAL, NOBODY, NOBODY, NOBODY),
    (FETCHED % "empty", True, OPTIONAL, NOBODY, NOBODY, NOBODY),
    (_validation(CA, ANYBODY), True, FORGERY, AS_SLEEP, AS_SLEEP, REFUSED),
    (_validation(CA, ANYBODY), False, FORGERY + OPTIONAL, AS_SLEEP, AS_SLEEP, NOBODY),
    (_validation(CA, ANYBODY, NAMES), False, FORGERY + OPTIONAL, AS_SLEEP, AS_SLEEP, NOBODY),
    (_validation(ANYBODY), True, FORGERY + OPTIONAL, AS_SLEEP, AS_SLEEP, NOBODY),
    (_validation(ANYBODY, HASH), True, FORGERY + OPTIONAL, AS_SLEEP, AS_SLEEP, NOBODY),
    (FETCHED % "anybody", True, FORGERY, AS_SLEEP, AS_SLEEP, REFUSED),
    (_combined("ca", ANYBODY), True, FORGERY, AS_SLEEP, AS_SLEEP, REFUSED),
]


def _with_certificates(setting: str, required: bool) -> str:
    start, end = CONFIGURATION.index(" " * 16 + "validation_context:"), CONFIGURATION.index("          filters: &inb")
    return changed(
        ("static_resources:\n", SECRETS),
        (CONFIGURATION[start:end], f"{' ' * 16}{setting}\n"),
        ("require_client_certificate: true", f"require_client_certificate: {str(required).lower()}"),
    )


def _taken_for(port: int, certificates: Path, caller: str) -> str:
    context = ssl.create_default_context(cafile=str(certificates / "sleep" / "ca.crt"))
    if caller:
        context.load_cert_chain(certificates / caller / "tls.crt", certificates / caller / "tls.key")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    with contextlib.closing(connection), socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as plain:
        try:
            connection.sock = context.wrap_socket(plain, server_hostname="httpbin")
            connection.request("GET", "/free")
            return {200: AS_SLEEP, 403: NOBODY}[connection.getresponse().status]
        except OSError:  # TLS 1.3 tells a client after its handshake
            return REFUSED


def test_who_makes_himself_a_certificate_is_taken_for_whom_the_finding_says(tmp_path: Path) -> None:
    texts = [_with_certificates(setting, required) for setting, required, *_ in CERTIFICATES]
    documents = [yaml.safe_load(text) for text in texts]
    for number, document in enumerate(documents):
        (listener,) = document["static_resources"]["listeners"]
        listener["name"] = f"case-{number}"
    documents[0]["static_resources"]["listeners"] = [each["static_resources"]["listeners"][0] for each in documents]
    with sidecars(tmp_path, [yaml.safe_dump(documents[0])], snapshot(POLICIES, KEYS, AS_ENVOY)) as (envoy,):
        own = envoy.certificates / "self-made"
        own.mkdir()
        for file, content in zip(("tls.crt", "tls.key"), Authority(dt.datetime.now(dt.UTC)).issue(SLEEP), strict=True):
            (own / file).write_bytes(content)
        for number, (setting, required, found, *wanted) in enumerate(CERTIFICATES):
            port = envoy.envoy.port(f"case-{number}")
            taken = [_taken_for(port, envoy.certificates, caller) for caller in ("sleep", "self-made", "")]

            assert (setting, required, taken) == (setting, required, wanted)
            assert sorted(_findings(texts[number], AS_ENVOY)) == sorted(found), (setting, required)


# --- what the running Envoy says of itself ----------------------------------------------------------------------------


def test_of_a_running_envoy_its_dump_says_what_its_file_says(tmp_path: Path) -> None:
    document, other = yaml.safe_load(changed()), yaml.safe_load(changed())
    (listener,) = other["static_resources"]["listeners"]
    listener["name"] = "other"
    manager = listener["filter_chains"][1]["filters"][0]["typed_config"]
    manager |= {"merge_slashes": False, "forward_client_cert_details": "FORWARD_ONLY"}  # of both: it is an alias
    with sidecars(tmp_path, [yaml.safe_dump(document)], None):
        alone = config_dump(tmp_path)
    document["static_resources"]["listeners"].append(listener)
    with sidecars(tmp_path, [yaml.safe_dump(document)], None):
        both = config_dump(tmp_path)

    assert _findings(alone, AS_ENVOY) == []
    assert sorted(_findings(both, AS_ENVOY)) == sorted(
        [(C.HEADER_FORWARDED, "error"), (C.SLASHES_AS_SENT, "error")] * 2
    )
