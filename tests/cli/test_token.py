"""`countersign token` by the real command: what a token says, whether it is true, and tokens for development."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.mesh.issuer import Issuer, IssuerServer

ISSUER: Final = Issuer("https://issuer.test")
NOW: Final = int(time.time())
CLAIMS: Final[dict[str, Any]] = {"sub": "alice", "aud": "shop", "iat": NOW - 60, "exp": NOW + 7200}
GOOD: Final = ISSUER.sign(CLAIMS, algorithm="ES256")
RULES: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules:
  - {issuer: "https://issuer.test", jwksUri: "https://issuer.test/keys", audiences: [shop]}
  - {issuer: "https://issuer.test", jwks: 'KEYS', audiences: [other], fromHeaders: [{name: x-token}], fromCookies: [t]}
""".replace("KEYS", json.dumps(ISSUER.jwks()))


def token(*arguments: str, given: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "countersign", "token", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def told(text: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = token("inspect", "-o", "json", *arguments, given=text)
    assert result.stderr == ""
    signature = text.rpartition(".")[2]
    assert len(signature) < 9 or signature not in result.stdout
    found: dict[str, Any] = json.loads(result.stdout)
    assert (found["verdict"] == "REFUSED") is (result.returncode == 1)
    return result.returncode, found


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(ISSUER.jwks()))
    return str(file)


@pytest.fixture
def policies(tmp_path: Path) -> str:
    file = tmp_path / "policies.yaml"
    file.write_text(RULES)
    return str(file)


def test_without_keys_nothing_is_checked_and_it_says_so() -> None:
    code, found = told(GOOD)

    assert code == 0
    assert found["verdict"] == "NOT CHECKED"
    assert "anybody can write such claims" in found["why"]
    assert found["header"]["alg"] == "ES256"
    assert found["claims"] == {"iss": "https://issuer.test", **CLAIMS}
    assert found["checks"] == []
    assert {each["claim"]: each["meaning"] for each in found["times"]} == {"iat": "issued", "exp": "expires"}
    assert found["times"][0]["relative"].endswith(" ago")
    assert found["times"][1]["relative"].startswith("in 1 hour ")


@pytest.mark.parametrize("spelling", ["%s\n", "  %s  ", "Bearer %s", "bearer %s\n"])
def test_the_token_may_come_as_people_copy_it(jwks: str, spelling: str) -> None:
    result = token("inspect", "--jwks", jwks, given=spelling % GOOD)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"VERIFIED: by key `{ISSUER.kid('ES256')}`\n")
    assert "issuer and audience were held against nothing" in result.stdout


def test_a_token_in_the_command_is_read_with_a_warning(jwks: str) -> None:
    result = token("inspect", GOOD, "--jwks", jwks)

    assert result.returncode == 0
    assert "kept by the shell's history" in result.stderr
    assert GOOD not in result.stdout + result.stderr


def test_each_rule_says_whether_it_takes_the_token_and_where_it_looks(policies: str, jwks: str) -> None:
    code, found = told(GOOD, "--policies", policies, "--jwks", jwks)
    first, second = found["checks"]

    assert (code, found["verdict"]) == (0, "VERIFIED")
    assert f"{policies}:6" in found["why"]
    assert (first["verdict"], first["key"], len(first["thumbprint"])) == ("VERIFIED", ISSUER.kid("ES256"), 64)
    assert first["locations"] == ["header authorization after `Bearer `", "query parameter access_token"]
    assert (second["verdict"], second["reason"]) == ("REFUSED", "token-wrong-audience")
    assert second["locations"] == ["header x-token", "cookie t"]
    assert second["rule"] == "RequestAuthentication[apps/users]"


def test_keys_that_were_not_given_leave_a_rule_unchecked(policies: str) -> None:
    _, found = told(GOOD, "--policies", policies)
    assert found["verdict"] == "NOT CHECKED"
    assert found["why"] == "the keys of https://issuer.test/keys were not given; everything else fits"

    _, inline = told(ISSUER.sign({**CLAIMS, "aud": "other"}, algorithm="ES256"), "--policies", policies)
    assert (inline["verdict"], inline["checks"][0]["reason"]) == ("VERIFIED", "token-wrong-audience")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "token-malformed: Jwt is not in the form"),
        ("a.b.c", "token-malformed: Jwt header is an invalid Base64url"),
        (ISSUER.unsigned(CLAIMS), "token-malformed: Jwt is not in the form"),
        (ISSUER.confuse(CLAIMS), "token-algorithm-refused: "),
        (ISSUER.forge(CLAIMS), "token-bad-signature: Jwt verification fails"),
        (ISSUER.sign({**CLAIMS, "exp": NOW - 3600}), "token-expired: Jwt is expired"),
        (ISSUER.sign({"sub": "alice"}), "token-without-expiry: Jwt never expires"),
        (Issuer("https://issuer.test").sign(CLAIMS), "token-unknown-key: "),
    ],
)
def test_a_refusal_is_that_of_a_request(jwks: str, text: str, why: str) -> None:
    code, found = told(text or " ", "--jwks", jwks)

    assert (code, found["verdict"]) == (1, "REFUSED")
    assert found["why"].startswith(why)


def test_another_moment_and_another_posture(jwks: str) -> None:
    assert told(GOOD, "--jwks", jwks, "--time", str(NOW + 8000))[1]["why"] == "token-expired: Jwt is expired"
    endless = ISSUER.sign({"sub": "alice"})
    assert told(endless, "--jwks", jwks)[0] == 1
    assert told(endless, "--jwks", jwks, "--posture", "istio")[1]["verdict"] == "VERIFIED"


def test_keys_by_url() -> None:
    with IssuerServer(ISSUER) as server:
        assert told(GOOD, "--jwks", server.jwks_uri)[1]["verdict"] == "VERIFIED"
        server.status = 500
        result = token("inspect", "--jwks", server.jwks_uri, given=GOOD)
    assert result.returncode == 3
    assert "status 500" in result.stderr


def test_a_bound_token_says_what_else_it_depends_on(tmp_path: Path, jwks: str, policies: str) -> None:
    bound = ISSUER.sign({**CLAIMS, "cnf": {"x5t#S256": "x"}})
    assert "only over that connection" in "".join(told(bound, "--jwks", jwks)[1]["notes"])
    file = tmp_path / "bound.yaml"
    annotation = 'annotations: {countersign.io/token-binding: "sub == peer.service_account"}'
    file.write_text(RULES.replace("namespace: apps}", f"namespace: apps, {annotation}}}"))
    result = token("inspect", "--policies", str(file), "--jwks", jwks, given=GOOD)
    assert result.returncode == 0, result.stderr
    assert "who presents this one" in result.stdout
    assert "who presents this one" not in token("inspect", "--policies", policies, "--jwks", jwks, given=GOOD).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--jwks", "/no/such/file"], 3, "--jwks /no/such/file: No such file"),
        (["--jwks", "ftp://x/keys"], 3, "--jwks ftp://x/keys: "),
        (["--policies", "/no/such/file"], 3, "the policies cannot be used"),
        (["--time", "soon"], 2, "`soon` is neither"),
        (["--jwks", "{tmp}/broken.json"], 2, "no key set: "),
        (["--policies", "{tmp}/broken.yaml"], 2, "the policies cannot be used"),
    ],
)
def test_what_cannot_be_used_is_named_in_a_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "broken.yaml").write_text("kind: [")
    result = token("inspect", *(each.replace("{tmp}", str(tmp_path)) for each in arguments), given=GOOD)

    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_claims_cannot_command_a_terminal() -> None:
    result = token("inspect", given=ISSUER.sign({**CLAIMS, "x\x1b[2J": "\x1b]0;owned\x07\u202e"}))

    assert result.returncode == 0
    assert all(character.isprintable() or character == "\n" for character in result.stdout)
    assert "owned" in result.stdout


# --- mint -------------------------------------------------------------------------------------------------------------


def test_a_minted_token_is_verified_by_the_key_set_beside_its_key(tmp_path: Path) -> None:
    arguments = (
        "--keys",
        "k",
        "--sub",
        "alice",
        "--aud",
        "a",
        "--aud",
        "b",
        "--claim",
        'groups=["x"]',
        "--claim",
        "n=a b",
    )
    first = token("mint", *arguments, cwd=tmp_path)
    again = token("mint", *arguments, cwd=tmp_path)
    _, found = told(first.stdout, "--jwks", str(tmp_path / "k" / "jwks.json"))

    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout.count(".") == 2
    assert len(first.stdout.splitlines()) == 1
    assert found["verdict"] == "VERIFIED"
    claims = found["claims"]
    assert claims.pop("exp") - claims.pop("iat") == 3600
    assert claims == {
        "iss": "https://issuer.development.example",
        "sub": "alice",
        "aud": ["a", "b"],
        "groups": ["x"],
        "n": "a b",
    }
    assert "FOR DEVELOPMENT ONLY" in first.stderr
    assert "made a key pair in k" in first.stderr
    assert "made a key pair" not in again.stderr
    assert "FOR DEVELOPMENT ONLY" in again.stderr


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_all_about_a_minted_token_as_json(tmp_path: Path, algorithm: str) -> None:
    result = token("mint", "--alg", algorithm, "--expires-in=-2h", "-o", "json", cwd=tmp_path)
    about = json.loads(result.stdout)

    assert about["header"]["alg"] == algorithm
    assert about["claims"]["exp"] - about["claims"]["iat"] == -7200
    assert about["jwks"] == "dev-keys/jwks.json"
    assert told(about["token"], "--jwks", str(tmp_path / about["jwks"]))[1]["why"] == "token-expired: Jwt is expired"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--claim", "x"], 2, "`x` wants NAME=VALUE"),
        (["--expires-in", "soon"], 2, "`soon` is no span of time"),
        (["--claim", 'exp="x"'], 2, "nobody would take such a token: Jwt payload [exp]"),
        (["--claim", f"x={'y' * 9000}"], 2, "nobody would take such a token: Jwt is longer than"),
        (["--sub", "\udcff"], 2, "nobody would take such a token"),
        (["--keys", "theirs"], 1, "was not made by `countersign token mint`"),
        (["--keys", "/proc/nowhere/keys"], 3, ""),
    ],
)
def test_what_cannot_be_minted_is_named_in_a_line(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    theirs = tmp_path / "theirs" / "signing-key.json"
    theirs.parent.mkdir()
    theirs.write_text('{"kty":"EC","d":"secret"}')
    theirs.chmod(0o600)
    result = token("mint", *arguments, cwd=tmp_path)

    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "secret" not in result.stderr
    assert result.stdout == ""
