"""The keys of a serving process: configured ways, files, and a restart while the issuer is down."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve, free_port
from tests.cli.test_serve import countersign
from tests.edge.serving import call, reason, request

URL = "https://issuer.test"
POLICY = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules: [{issuer: "%s", jwksUri: "%s"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users, namespace: apps}
spec:
  rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]
"""


class Place:
    """A directory with policies for one issuer, and a place for copies of its keys."""

    def __init__(self, directory: Path, jwks_uri: str) -> None:
        self.directory = directory
        self.copies = directory / "copies"
        self.policies = directory / "policies"
        self.policies.mkdir()
        (self.policies / "p.yaml").write_text(POLICY % (URL, jwks_uri))

    @contextmanager
    def serve(self, *flags: str) -> Iterator[Serve]:
        with Serve(self.directory, self.policies, "--namespace", "apps", *flags) as serve:
            yield serve


def token(issuer: Issuer) -> str:
    return issuer.sign({"sub": "alice", "exp": int(time.time()) + 600})


def decide(serve: Serve, text: str) -> str:
    message = request(headers={"authorization": f"Bearer {text}"})
    return reason(call(serve.address, message.SerializeToString()))


def becomes(serve: Serve, text: str, expected: str) -> bool:
    return wait_until(expected, lambda: decide(serve, text) == expected or None, within=10, child=serve.child)


def ready(serve: Serve) -> bool:
    return wait_until("being ready", lambda: serve.ready() == "ok" or None, within=10, child=serve.child)


def test_a_restart_while_the_issuer_is_down_still_verifies_its_tokens(tmp_path: Path) -> None:
    issuer = Issuer(URL)
    with IssuerServer(issuer) as server:
        place = Place(tmp_path, server.jwks_uri)
        flags = ("--keys-cache-directory", str(place.copies))
        with place.serve(*flags) as serve:
            assert ready(serve)
            assert decide(serve, token(issuer)) == "allow-rule-matched"
            wait_until("copying", lambda: list(place.copies.glob("*.json")) or None, within=10)
    good = token(issuer)
    with place.serve(*flags) as serve:
        assert decide(serve, good) == "allow-rule-matched"
        assert decide(serve, issuer.forge({"sub": "eve", "exp": int(time.time()) + 600})) == "token-bad-signature"
        serve.wait_for_log("cannot connect: Connection refused")
        assert decide(serve, good) == "allow-rule-matched"
        assert "from the copy of" in serve.log
    with place.serve() as serve:  # and without the copies it is as ever
        assert decide(serve, good) == "keys-unavailable"
    (copy,) = place.copies.iterdir()
    copy.write_bytes(copy.read_bytes().replace(b"AQAB", b"AQAC"))
    with place.serve(*flags) as serve:
        assert decide(serve, good) == "keys-unavailable"
        assert "is not used: damaged: its digest is another one" in serve.log


def test_a_copy_that_is_too_old_is_no_key(tmp_path: Path) -> None:
    issuer = Issuer(URL)
    with IssuerServer(issuer) as server:
        place = Place(tmp_path, server.jwks_uri)
        flags = ("--keys-cache-directory", str(place.copies), "--keys-max-stale", "24h")
        with place.serve(*flags):
            wait_until("copying", lambda: list(place.copies.glob("*.json")) or None, within=10)
    (path,) = place.copies.iterdir()
    _age(path, 23 * 3600)
    with place.serve(*flags) as serve:
        assert decide(serve, token(issuer)) == "allow-rule-matched"
    _age(path, 2 * 3600)
    with place.serve(*flags) as serve:
        assert decide(serve, token(issuer)) == "keys-unavailable"
        assert "is not used: too old" in serve.log


def _age(path: Path, seconds: float) -> None:
    """Make a copy as old as if its issuer had been down for longer."""
    import hashlib  # noqa: PLC0415 (here only)

    content = json.loads(path.read_bytes().partition(b"\n")[2])
    content["confirmedAt"] -= seconds
    body = json.dumps(content).encode()
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def test_an_issuer_that_cannot_be_reached_is_known_by_a_file(tmp_path: Path) -> None:
    place = Place(tmp_path, f"https://127.0.0.1:{free_port()}/jwks")
    first, second = Issuer(URL), Issuer(URL)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(first.jwks()))
    config = tmp_path / "countersign.yaml"
    config.write_text(f"issuers: [{{issuer: '{URL}', jwksFile: keys.json}}]\n")
    with place.serve("--config", str(config)) as serve:
        assert ready(serve)
        assert decide(serve, token(first)) == "allow-rule-matched"
        keys.write_text("{")
        serve.wait_for_log("no JSON with one reading")
        assert decide(serve, token(first)) == "allow-rule-matched"  # the last good set
        (tmp_path / "new").write_text(json.dumps(second.jwks()))
        (tmp_path / "new").rename(keys)
        assert becomes(serve, token(second), "allow-rule-matched")
        assert decide(serve, token(first)) == "token-unknown-key"


def test_settings_come_from_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(URL)
    with IssuerServer(issuer) as server:
        place = Place(tmp_path, server.jwks_uri)
        config = tmp_path / "countersign.yaml"
        config.write_text("namespace: apps\nkeys: {blockedAddresses: [127.0.0.0/8]}\n")
        with Serve(tmp_path, place.policies, "--config", str(config)) as serve:
            serve.wait_for_log("the address is blocked by configuration")
            assert decide(serve, token(issuer)) == "keys-unavailable"
        assert server.fetches == 0
        monkeypatch.setenv("COUNTERSIGN_CONFIG", str(config))
        monkeypatch.setenv("COUNTERSIGN_KEYS_BLOCKED_ADDRESS", "10.0.0.0/8")
        with Serve(tmp_path, place.policies) as serve:
            assert ready(serve)
            assert decide(serve, token(issuer)) == "allow-rule-matched"


def test_a_broken_configuration_is_refused_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "countersign.yaml"
    config.write_text("trustDomian: x\n")
    broken = countersign("serve", "--config", str(config))
    missing = countersign("serve", "--config", str(tmp_path / "no.yaml"))

    assert broken.returncode == 2
    assert f"{config}:1:1: error[CS0003]: unknown field `trustDomian`" in broken.stderr
    assert "did you mean `trustDomain`?" in broken.stderr
    assert missing.returncode == 3
    assert "no.yaml" in missing.stderr
    assert "Traceback" not in broken.stderr + missing.stderr


def test_a_directory_that_copies_cannot_be_kept_in_is_refused_at_the_start(tmp_path: Path) -> None:
    place = Place(tmp_path, "https://issuer.test/jwks")
    listen = ("--listen", f"unix:{tmp_path}/a.sock", "--policies", str(place.policies))
    place.copies.mkdir()
    place.copies.chmod(0o777)
    for directory, why in ((place.copies, "others may write"), (tmp_path / "a" / "b", "No such file or directory")):
        result = countersign("serve", *listen, "--keys-cache-directory", str(directory))
        assert result.returncode == 3
        assert f"{directory}: no keys can be copied there: {why}" in result.stderr
        assert "Traceback" not in result.stderr
